"""The OPC UA driver against asyncua's own servers and hostile peers."""

import asyncio
import contextlib
import math
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import asyncua.ua
import pytest
import pytest_asyncio
from asyncua.common.utils import ServiceError

from gateway.drivers import Follower
from gateway.drivers.opcua import Access, Following, OpcuaDriver, OpcuaPoint
from gateway.drivers.opcua_cert import make_own
from gateway.drivers.opcua_session import Link
from gateway.drivers.opcua_trust import TrustList, own_identity
from gateway.drivers.opcua_values import Node
from gateway.drivers.opcua_wire import ALLOWED, MOST_CHUNK
from gateway.errors import ConfigError, DeviceError
from gateway.model import Change, Kind, Quality
from tests.opcua_servers import (
    CLOSE,
    ENDPOINTS,
    OPEN,
    SERVER_URI,
    URI,
    Pair,
    Plant,
    Setup,
    Users,
    free_port,
    hostile,
    make_pair,
    plant,
    recording,
)

ua: Any = asyncua.ua  # its types say more than its values do

pytestmark = pytest.mark.asyncio(loop_scope="module")

V = ua.VariantType
VALUES = {
    "power": (1.5, V.Double),
    "energy": (123_456_789_012_345_678, V.UInt64),
    "volts": (230.5, V.Float),
    "count": (7, V.Int16),
    "state": ("running", V.String),
    "on": (True, V.Boolean),
    "nan": (math.nan, V.Double),
    "list": ([1.0, 2.0], V.Double),
    "when": (datetime(2026, 1, 1, tzinfo=UTC), V.DateTime),
    "level": (50.0, V.Double),
}
QUICK = Following(sampling_s=0.05, publishing_s=0.05, keep_alive_s=0.5, retry_s=0.3, least_wait_s=0.1, most_wait_s=0.4)


def point(name: str, **more: Any) -> OpcuaPoint:
    return OpcuaPoint(name=name, node=f"nsu={URI};s={name}", **more)


def driver(url: str, *points: OpcuaPoint, following: Following = QUICK, **more: Any) -> OpcuaDriver:
    access: dict[str, Any] = {"security": "None", "mode": "None", "timeout_s": 2.0} | more
    return OpcuaDriver(name="plc", points=points, access=Access(url=url, **access), following=following)


class Ear:
    """Hears what a driver tells, while it follows."""

    def __init__(self, follower: OpcuaDriver) -> None:
        self.heard: list[Change] = []
        self._driver = follower

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._driver.follow(self.heard.extend))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        await self._driver.close()

    def of(self, name: str) -> list[Change]:
        """Return what was told of a column."""
        column = [each.name for each in self._driver.schema.columns].index(name)
        return [change for change in self.heard if change.column == column]

    async def until(self, true: Callable[[], Any], within_s: float = 10.0) -> None:
        """Wait until something is true."""
        async with asyncio.timeout(within_s):
            while not true():
                if self._task.done():
                    self._task.result()
                await asyncio.sleep(0.02)

    async def last(self, name: str, value: Any, within_s: float = 10.0) -> Change:
        """Wait until a column's last value is this one; return its change."""
        await self.until(lambda: self.of(name) and self.of(name)[-1].value == value, within_s)
        return self.of(name)[-1]


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def open_plant() -> AsyncIterator[Plant]:
    async with plant(Setup(values=VALUES)) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def made() -> AsyncIterator[list[OpcuaDriver]]:
    """Give a list of drivers, and close them."""
    found: list[OpcuaDriver] = []
    yield found
    for each in found:
        await each.close()


# --- polls ---


async def test_a_poll_reads_every_type_into_its_store(open_plant: Plant, made: list[OpcuaDriver]) -> None:
    plc = driver(
        open_plant.url,
        point("power", unit="kW"),
        point("energy", store="u64"),
        point("volts", store="f32"),
        point("count", store="i64", scale=Decimal(2), offset=Decimal(1)),
        point("state", store="s32"),
        point("on", store="bool"),
    )
    made.append(plc)
    before_ns = time.time_ns()
    row, samples = await plc.poll(samples=False)
    assert row.values == (1.5, 123_456_789_012_345_678, 230.5, 15, "running", True)
    assert row.qualities is None
    assert row.status == ""
    assert not samples
    assert before_ns <= row.source_time_ns <= time.time_ns()
    assert isinstance(plc, Follower)


async def test_counters_are_exact_and_carry_their_bytes(open_plant: Plant, made: list[OpcuaDriver]) -> None:
    """A float64 cannot hold this register; a sample must."""
    plc = driver(
        open_plant.url,
        point("energy", kind=Kind.COUNTER, unit="Wh", scale=Decimal("0.1")),
        point("volts", kind=Kind.COUNTER),
        point("missing", kind=Kind.COUNTER),
        point("power"),
    )
    made.append(plc)
    _, (energy, volts, missing) = await plc.poll(samples=True)
    assert energy.value == Decimal("12345678901234567.8")
    assert energy.raw == b"\x09" + (123_456_789_012_345_678).to_bytes(8, "little")
    assert volts.value == Decimal("230.5")
    assert (missing.value, missing.quality, missing.raw) == (None, Quality.BAD, b"")
    assert missing.status == "missing: BadNodeIdUnknown (0x80340000)"


async def test_what_does_not_fit_is_bad_and_never_a_wrong_number(open_plant: Plant, made: list[OpcuaDriver]) -> None:
    plc = driver(
        open_plant.url,
        point("nan"),
        point("list"),
        point("when"),
        point("power", store="i64"),
        point("state", store="s3"),
        point("on", store="f64"),
        point("count", store="i64", scale=Decimal("0.5")),
        OpcuaPoint(name="far", node="nsu=urn:none;s=x"),
        point("volts"),
    )
    made.append(plc)
    row = (await plc.poll(samples=False)).row
    assert row.values == (None,) * 8 + (230.5,)
    assert row.qualities == (Quality.BAD,) * 8 + (Quality.GOOD,)
    assert row.status.split("; ") == [
        "nan: is nan",
        "list: holds an array of Double, want a number",
        "when: holds DateTime, want a number",
        "power: holds Double, want an integer for i64",
        "state: holds a text of 7 bytes, want 3 at most",
        "on: holds Boolean, want a number",
        "count: is 7, which is no whole number once scaled, want store f64",
        "far: no namespace urn:none at the server",
    ]


async def test_status_codes_are_kept_and_become_qualities(open_plant: Plant, made: list[OpcuaDriver]) -> None:
    for name, code in (("level", 0x40900000), ("volts", 0x80050000), ("count", 0x00300000)):
        kind = VALUES[name][1]
        await open_plant.write(name, VALUES[name][0], kind, StatusCode=ua.StatusCode(ua.UInt32(code)))
    plc = driver(open_plant.url, point("level"), point("volts"), point("count"), point("power"))
    made.append(plc)
    row = (await plc.poll(samples=False)).row
    async with Ear(plc) as ear:
        await ear.until(lambda: len(ear.heard) == 4)
    for name in ("level", "volts", "count"):
        await open_plant.write(name, *VALUES[name])
    assert row.values == (50.0, None, 7.0, 1.5)
    assert row.qualities == (Quality.UNCERTAIN, Quality.BAD, Quality.GOOD, Quality.GOOD)
    assert row.status == (
        "level: UncertainLastUsableValue (0x40900000); volts: BadCommunicationError (0x80050000); "
        "count: GoodClamped (0x00300000)"
    )
    told = {change.column: change for change in ear.heard}
    assert (told[0].value, told[0].quality) == (50.0, Quality.UNCERTAIN)
    assert (told[1].value, told[1].quality) == (None, Quality.BAD)
    assert told[1].status == "volts: BadCommunicationError (0x80050000)"
    assert told[2].status == "count: GoodClamped (0x00300000)"
    assert told[3].status == ""


async def test_a_thousand_nodes_are_read_in_chunks(open_plant: Plant, made: list[OpcuaDriver]) -> None:
    plc = driver(open_plant.url, *[OpcuaPoint(name=f"p{i}", node=f"nsu={URI};s=power") for i in range(1200)])
    made.append(plc)
    row = (await plc.poll(samples=False)).row
    assert row.values == (1.5,) * 1200


async def test_nobody_there_is_a_device_error() -> None:
    plc = driver(f"opc.tcp://127.0.0.1:{free_port()}/", point("power"))
    with pytest.raises(DeviceError, match=r"plc: opc\.tcp.*nobody listens there"):
        await plc.poll(samples=False)


# --- following ---


async def test_changes_come_with_the_servers_own_times(open_plant: Plant) -> None:
    async with Ear(driver(open_plant.url, point("power"), point("state", store="s32"))) as ear:
        await ear.last("power", 1.5)
        await open_plant.write("power", 2.5, SourceTimestamp=datetime(2026, 3, 1, 12, 0, 0, 250_000, tzinfo=UTC))
        change = await ear.last("power", 2.5)
        await open_plant.write("power", 1.5)
        assert change.source_time_ns == int(datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()) * 10**9 + 250_000_000
        assert (change.quality, change.status) == (Quality.GOOD, "")
        assert ear.of("state")[0].value == "running"


async def test_a_deadband_is_the_servers_own_and_in_the_points_unit(open_plant: Plant) -> None:
    """In kilo: 0.5 of ours is 500 of the server's."""
    following = Following(sampling_s=0.05, publishing_s=0.05, queue=50)
    plc = driver(
        open_plant.url, point("level", scale=Decimal("0.001"), absolute=0.5), point("power"), following=following
    )
    async with Ear(plc) as ear:
        await ear.last("level", 0.05)
        for value in (100.0, 400.0, 700.0):
            await open_plant.write("level", value)
        await open_plant.write("level", 2000.0)
        await ear.last("level", 2.0)
        await open_plant.write("level", 50.0)
        assert [change.value for change in ear.of("level")][:2] == [0.05, 2.0]


async def test_one_bad_node_stops_no_other_and_is_back_when_it_is_there(open_plant: Plant) -> None:
    plc = driver(open_plant.url, point("late"), point("power"), OpcuaPoint(name="far", node="nsu=urn:none;s=x"))
    async with Ear(plc) as ear:
        await ear.last("power", 1.5)
        assert [(c.quality, c.status) for c in ear.of("late")] == [(Quality.BAD, "late: BadNodeIdUnknown (0x80340000)")]
        assert ear.of("far")[0].status == "far: no namespace urn:none at the server"
        await asyncio.sleep(0.7)
        assert len(ear.of("late")) == len(ear.of("far")) == 1, "told once, not at each retry"
        await open_plant.server.nodes.objects.add_variable(ua.NodeId("late", open_plant.index), "late", 9.0, V.Double)
        await ear.last("late", 9.0)
        assert plc.connects == 1


class NoFilters:
    """A subscription service that knows no deadbands, or no subscriptions at all."""

    def __init__(self, inner: Any, *, without: str) -> None:
        self._inner, self._without = inner, without

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    async def create_subscription(self, *arguments: Any, **more: Any) -> Any:
        """Refuse, or do as the real one."""
        if self._without == "subscriptions":
            raise ServiceError(ua.StatusCodes.BadServiceUnsupported)
        return await self._inner.create_subscription(*arguments, **more)

    async def create_monitored_items(self, params: Any) -> Any:
        """Refuse those with a filter, or do as the real one."""
        if self._without == "filters" and any(item.RequestedParameters.Filter for item in params.ItemsToCreate):
            bad = ua.MonitoredItemCreateResult()
            bad.StatusCode = ua.StatusCode(ua.UInt32(0x80440000))
            kept = [item for item in params.ItemsToCreate if not item.RequestedParameters.Filter]
            all_items, params.ItemsToCreate = params.ItemsToCreate, kept
            good = iter(await self._inner.create_monitored_items(params))
            return [bad if item.RequestedParameters.Filter else next(good) for item in all_items]
        return await self._inner.create_monitored_items(params)


@contextlib.contextmanager
def lacking(server: Plant, what: str) -> Any:
    """Have a server's sessions made without filters, or without subscriptions."""
    iserver: Any = server.server.iserver
    inner = iserver.subscription_service
    iserver.subscription_service = NoFilters(inner, without=what)
    try:
        yield
    finally:
        iserver.subscription_service = inner


async def test_a_server_without_deadbands_tells_all_and_says_so(open_plant: Plant) -> None:
    with lacking(open_plant, "filters"):
        async with Ear(driver(open_plant.url, point("level", percent=10.0), point("power"))) as ear:
            await ear.last("level", 50.0)
            await open_plant.write("level", 50.1)
            await ear.last("level", 50.1)
            await open_plant.write("level", 50.0)
            first, second = ear.of("level")[:2]
            assert first.quality is Quality.GOOD
            assert first.status == "level: no deadband: BadMonitoredItemFilterUnsupported (0x80440000)"
            assert second.status == ""


async def test_a_server_without_subscriptions_is_left_to_polls(open_plant: Plant, made: list[OpcuaDriver]) -> None:
    with lacking(open_plant, "subscriptions"):
        plc = driver(open_plant.url, point("power"))
        made.append(plc)
        heard: list[Change] = []
        with pytest.raises(DeviceError, match=r"BadServiceUnsupported.*no subscriptions"):
            async with asyncio.timeout(5):
                await plc.follow(heard.extend)
        assert (await plc.poll(samples=False)).row.values == (1.5,)


async def test_a_lost_subscription_is_made_anew(open_plant: Plant) -> None:
    plc = driver(open_plant.url, point("power"))
    async with Ear(plc) as ear:
        await ear.last("power", 1.5)
        service = open_plant.server.iserver.subscription_service
        await service.delete_subscriptions(list(service.subscriptions))
        await ear.until(lambda: len(ear.of("power")) >= 3, 20)
        assert [change.quality for change in ear.of("power")] == [Quality.GOOD, Quality.BAD, Quality.GOOD]


@pytest.mark.slow
async def test_a_tag_of_1_hz_makes_no_reconnection_in_10_s(open_plant: Plant) -> None:
    """False reconnects while data flows: any notification is a sign of life."""
    plc = driver(open_plant.url, point("power"), following=Following(keep_alive_s=3.0))
    async with Ear(plc) as ear:
        await ear.last("power", 1.5)
        for i in range(10):
            await open_plant.write("power", 10.0 + i)
            if i % 3 == 0:
                await plc.poll(samples=True)
            await asyncio.sleep(1)
        await ear.last("power", 19.0)
        await open_plant.write("power", 1.5)
        assert plc.connects == 1
        assert all(change.quality is Quality.GOOD for change in ear.heard)


async def test_a_restart_with_other_namespace_numbers_and_a_node_less_brings_the_rest_back() -> None:
    """Namespaces are known by URI: by the old index, this would read another node's value."""
    setup = Setup(
        port=free_port(), values={"a": (1.0, V.Double), "b": (2.0, V.Double)}, others=["urn:first", "urn:second"]
    )
    following = Following(
        sampling_s=0.05, publishing_s=0.05, keep_alive_s=0.5, retry_s=1.0, least_wait_s=0.1, most_wait_s=0.4
    )
    plc = OpcuaDriver(
        name="plc",
        points=[point("a"), point("b")],
        access=Access(url=f"opc.tcp://127.0.0.1:{setup.port}/plc", security="None", mode="None"),
        following=following,
    )
    async with Ear(plc) as ear:
        async with plant(setup) as first:
            await ear.last("a", 1.0, 15)
            index = first.index
            assert (await plc.poll(samples=False)).row.values == (1.0, 2.0)
        await ear.until(lambda: ear.of("a")[-1].quality is Quality.BAD)
        await asyncio.sleep(0.5)
        told = [change.quality for change in ear.of("a")]
        assert told == [Quality.GOOD, Quality.BAD] * (len(told) // 2), "told BAD once for each loss"
        assert ear.of("a")[-1].status
        again = Setup(port=setup.port, values={"a": (5.0, V.Double)}, others=["urn:second"])
        async with plant(again) as second:
            assert second.index != index
            other = await second.server.register_namespace("urn:late")
            assert other == index
            await second.server.nodes.objects.add_variable(ua.NodeId("a", index), "a", 666.0, V.Double)
            await ear.last("a", 5.0, 30)
            assert ear.of("b")[-1].status == "b: BadNodeIdUnknown (0x80340000)"
            row = (await plc.poll(samples=False)).row
            assert row.values == (5.0, None)
    assert 666.0 not in [change.value for change in ear.heard]


async def test_a_cancellation_that_a_library_swallows_ends_the_driver_all_the_same(open_plant: Plant) -> None:
    """asyncio.wait_for of Python 3.11 may keep a cancellation to itself (gh-86296): then nobody would hear of it."""
    plc = driver(f"opc.tcp://127.0.0.1:{open_plant.port}/plc", point("power"))
    link = plc._followed._link
    real, seen = link.session, []

    async def swallowing() -> Any:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            seen.append("swallowed")
        return await real()

    link.session = swallowing  # type: ignore[method-assign]  # the fault itself: a seam for it would serve nothing else
    task = asyncio.create_task(plc.follow(lambda _: None))
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 10)
    await plc.close()
    assert seen == ["swallowed"]


async def test_a_silent_server_is_noticed_and_left(open_plant: Plant) -> None:
    """The cable is pulled: nothing closes, nothing comes."""
    async with recording(open_plant.port) as (port, _, pause):
        plc = driver(f"opc.tcp://127.0.0.1:{port}/plc", point("power"), timeout_s=0.5)
        async with Ear(plc) as ear:
            await ear.last("power", 1.5)
            pause.clear()
            await ear.until(lambda: ear.of("power")[-1].quality is Quality.BAD)
            with pytest.raises(DeviceError):
                await plc.poll(samples=False)
            pause.set()
            await ear.last("power", 1.5, 15)


# --- read-only ---

_READ_ONLY = {int(getattr(ua.ObjectIds, f"{kind.__name__}_Encoding_DefaultBinary")) for kind in ALLOWED}
_WRITES = ("Write", "Call", "HistoryUpdate", "AddNodes", "DeleteNodes", "AddReferences", "DeleteReferences")


async def test_only_requests_that_read_leave(open_plant: Plant) -> None:
    async with recording(open_plant.port) as (port, seen, _):
        plc = driver(f"opc.tcp://127.0.0.1:{port}/plc", point("power"), point("none"))
        async with Ear(plc) as ear:
            await ear.last("power", 1.5)
            await plc.poll(samples=True)
            await asyncio.sleep(0.5)
    assert set(seen) <= _READ_ONLY
    assert {631, 787, 751, 826} <= set(seen), "read, subscribe, create items, publish"
    written = {int(getattr(ua.ObjectIds, f"{name}Request_Encoding_DefaultBinary")) for name in _WRITES}
    assert not written & _READ_ONLY


async def test_no_write_can_leave_even_if_something_asks_for_it(open_plant: Plant) -> None:
    link = Link(Access(url=open_plant.url, security="None", mode="None"), [Node(point("power"))])
    session = await link.session()
    for request in (ua.WriteRequest(), ua.CallRequest(), ua.HistoryUpdateRequest(), ua.AddNodesRequest()):
        with pytest.raises(RuntimeError, match=r"none of the requests that may leave"):
            session.wire.ask(request)
    with pytest.raises(RuntimeError, match=r"WriteRequest"):
        await session._client.uaclient.write(ua.WriteParameters())
    await link.close()


async def test_the_drivers_source_names_no_service_that_changes_anything() -> None:
    folder = Path(__file__).parent.parent / "gateway/drivers"
    for path in folder.glob("opcua*.py"):
        text = path.read_text(encoding="utf-8")
        for word in [f"{name}Request" for name in _WRITES] + [
            "write_value",
            "write_attribute",
            "call_method",
            ".call(",
        ]:
            assert word not in text, f"{path.name}: {word}"


# --- security ---

POLICIES = ["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss"]
OFFERED = [
    ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
    ua.SecurityPolicyType.Aes128Sha256RsaOaep_SignAndEncrypt,
    ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
    ua.SecurityPolicyType.Basic256Sha256_Sign,
]


class Keys:
    """The files of a gateway and of a server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = make_pair(folder / "server", "server", SERVER_URI)
        self.own = Pair(folder / "own/own.der", folder / "own/own.key.pem")
        make_own(self.own.cert, self.own.key, gateway="test", hosts=["127.0.0.1"])
        self.user = make_pair(folder / "user", "user", "urn:user")
        self.trust(self.server)

    def trust(self, *pairs: Pair) -> None:
        """Trust these servers and no other."""
        trusted = self.folder / "trusted"
        trusted.mkdir(exist_ok=True)
        for path in trusted.iterdir():
            path.unlink()
        for pair in pairs:
            (trusted / pair.cert.name).write_bytes(pair.der)

    def access(self, url: str, **more: Any) -> Access:
        """Return how a gateway with these keys comes in."""
        trust = TrustList(trusted=self.folder / "trusted", rejected=self.folder / "rejected")
        return Access(
            url=url, trust=trust, own=own_identity(self.own.cert, self.own.key), **({"timeout_s": 2.0} | more)
        )

    def driver(self, url: str, **more: Any) -> OpcuaDriver:
        """Return a driver with these keys."""
        return OpcuaDriver(name="plc", points=[point("power")], access=self.access(url, **more), following=QUICK)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    return Keys(tmp_path_factory.mktemp("keys"))


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def safe_plant(keys: Keys) -> AsyncIterator[Plant]:
    setup = Setup(
        values={"power": (1.5, V.Double)},
        security=OFFERED,
        cert=keys.server.cert,
        key=keys.server.key,
        users=Users(keys.user.der),
        tokens=[ua.UserNameIdentityToken, ua.X509IdentityToken],
    )
    async with plant(setup) as made:
        yield made


LOGIN: dict[str, Any] = {"user": "reader", "password": "secret"}


@pytest.mark.parametrize("policy", POLICIES)
async def test_each_policy_signs_and_encrypts_by_default(keys: Keys, safe_plant: Plant, policy: str) -> None:
    plc = keys.driver(safe_plant.url, security=policy, **LOGIN)
    async with Ear(plc) as ear:
        assert (await plc.poll(samples=False)).row.values == (1.5,)
        await ear.last("power", 1.5)
        session = plc._link._session
        assert session is not None
        assert session.wire._connection.security_policy.Mode == ua.MessageSecurityMode.SignAndEncrypt
        assert session.wire._connection.security_policy.URI.endswith(policy)
    assert plc.warnings == ()


async def test_signing_alone_is_possible_and_encrypts_the_password(keys: Keys, safe_plant: Plant) -> None:
    plc = keys.driver(safe_plant.url, mode="Sign", **LOGIN)
    assert (await plc.poll(samples=False)).row.values == (1.5,)
    await plc.close()


async def test_a_channel_is_renewed_while_changes_come(keys: Keys, safe_plant: Plant) -> None:
    plc = keys.driver(safe_plant.url, **LOGIN)
    async with Ear(plc) as ear:
        await ear.last("power", 1.5)
        session = plc._link._session
        assert session is not None
        for value in (2.5, 3.5, 1.5):
            session._renew_at = 0.0
            await plc.poll(samples=False)
            await safe_plant.write("power", value)
            await ear.last("power", value)
        assert plc.connects == 1


async def test_a_user_may_have_a_certificate(keys: Keys, safe_plant: Plant) -> None:
    plc = keys.driver(safe_plant.url, user_cert=keys.user.cert, user_key=keys.user.key)
    assert (await plc.poll(samples=False)).row.values == (1.5,)
    await plc.close()


@pytest.mark.parametrize("login", [{"user": "reader", "password": "guess"}, {}], ids=["wrong", "none"])
async def test_a_wrong_or_missing_password_is_refused_and_says_what_to_check(
    keys: Keys, safe_plant: Plant, login: dict[str, str]
) -> None:
    plc = keys.driver(safe_plant.url, **login)
    with pytest.raises(DeviceError, match=r"Bad\w+ \(0x\w+\): .*check.*opcua.user") as caught:
        await plc.poll(samples=False)
    assert "guess" not in str(caught.value)


async def test_an_untrusted_server_gets_no_secret_and_the_fix_is_named(keys: Keys, safe_plant: Plant) -> None:
    """Its certificate is kept for a person to look at; of us it has seen the question for its endpoints alone."""
    keys.trust()
    try:
        async with recording(safe_plant.port) as (port, seen, _):
            plc = keys.driver(f"opc.tcp://127.0.0.1:{port}/plc", **LOGIN)
            with pytest.raises(DeviceError, match=r"not trusted.*wattseal opcua trust"):
                await plc.poll(samples=False)
            heard: list[Change] = []
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await plc.follow(heard.extend)
        assert not heard
        assert set(seen) == {OPEN, ENDPOINTS, CLOSE}
        assert [path.read_bytes() for path in (keys.folder / "rejected").iterdir()] == [keys.server.der]
    finally:
        keys.trust(keys.server)


async def test_an_impostor_with_a_trusted_certificate_but_not_its_key_gets_no_session(
    keys: Keys, safe_plant: Plant
) -> None:
    """The endpoints come unsecured, so anyone can show anyone's certificate there."""
    victim = make_pair(keys.folder / "victim", "victim", SERVER_URI)
    keys.trust(victim)
    iserver: Any = safe_plant.server.iserver
    shown = [(endpoint, endpoint.ServerCertificate) for endpoint in iserver.endpoints]
    for endpoint, _ in shown:
        endpoint.ServerCertificate = victim.der
    try:
        async with recording(safe_plant.port) as (port, seen, _):
            plc = keys.driver(f"opc.tcp://127.0.0.1:{port}/plc", timeout_s=0.3, **LOGIN)
            with pytest.raises(DeviceError):
                await plc.poll(samples=False)
        assert seen == [OPEN, ENDPOINTS, CLOSE, OPEN], "and no session is asked for"
    finally:
        keys.trust(keys.server)
        for endpoint, certificate in shown:
            endpoint.ServerCertificate = certificate


async def test_a_policy_that_is_not_offered_names_those_that_are(keys: Keys, safe_plant: Plant) -> None:
    plc = keys.driver(safe_plant.url, security="Aes256_Sha256_RsaPss", mode="Sign", **LOGIN)
    with pytest.raises(DeviceError, match=r"offers .*Basic256Sha256 Sign.*set opcua.security"):
        await plc.poll(samples=False)
    none = driver(safe_plant.url, point("power"))
    with pytest.raises(DeviceError):
        await none.poll(samples=False)


async def test_a_password_never_goes_to_a_server_that_is_not_checked(open_plant: Plant) -> None:
    plc = driver(open_plant.url, point("power"), **LOGIN)
    with pytest.raises(DeviceError, match=r"secret|password"):
        await plc.poll(samples=False)


async def test_no_security_is_a_choice_that_is_warned_of(open_plant: Plant) -> None:
    assert driver(open_plant.url, point("power")).warnings[0].startswith("device plc: opcua.security is None")
    for security, mode in (("None", "SignAndEncrypt"), ("Basic256Sha256", "None")):
        with pytest.raises(ConfigError, match=r"want both None, or neither"):
            Access(url=open_plant.url, security=security, mode=mode)


# --- hostile peers ---

ACK = b"ACKF" + struct.pack("<I5I", 28, 0, 65536, 65536, 0, 0)
HOSTILE: dict[str, tuple[bytes, ...]] = {
    "garbage": (b"\xde\xad\xbe\xef" * 64,),
    "http": (b"HTTP/1.1 400 Bad Request\r\n\r\n",),
    "oversize": (b"ACKF\xff\xff\xff\x7f",),
    "undersize": (b"ACKF\x00\x00\x00\x00",),
    "truncated": (ACK[:11],),
    "silence": (),
    "late garbage": (ACK, b"\x00" * 4096),
    "oversize reply": (ACK, b"OPNF" + struct.pack("<I", MOST_CHUNK + 1)),
    "short reply": (ACK, b"OPNF" + struct.pack("<II", 12, 1)),
    "random reply": (ACK, b"OPNF" + struct.pack("<I", 200) + bytes(range(192))),
    "small buffers": (b"ACKF" + struct.pack("<I5I", 28, 0, 0, 0, 0, 0),),
    "error": (b"ERRF" + struct.pack("<IIi", 16, 0x80830000, -1),),
    "endless chunks": (ACK, (b"MSGC" + struct.pack("<IIIII", 24, 0, 0, 1, 1)) * 10_000),
}


@pytest.mark.parametrize("answers", HOSTILE.values(), ids=HOSTILE.keys())
async def test_a_hostile_peer_is_a_device_error_in_bounded_time(answers: Sequence[bytes]) -> None:
    async with hostile(*answers) as url:
        plc = driver(url, point("power"), timeout_s=0.1)
        started = time.monotonic()
        with pytest.raises(DeviceError):
            await plc.poll(samples=False)
        assert time.monotonic() - started < 2.0
        heard: list[Change] = []
        with pytest.raises(TimeoutError):  # it goes on trying, for ever
            async with asyncio.timeout(0.3):
                await plc.follow(heard.extend)
        assert not heard
        await plc.close()
