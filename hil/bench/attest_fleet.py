"""The case `attest-fleet`: a fleet that greets at once, attested by one verifier process through a real broker.

The devices are in software, and share some connections to the broker: what is measured is the verifier, not them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import structlog
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.app.broker import running_broker
from gateway.app.metrics import read_metrics
from gateway.errors import GatewayError
from gateway.north.mqtt import Link, challenge_topic, evidence_topic
from gateway.north.pki import make_dev_ca
from gateway.north.tls import Endpoint
from gateway.tlog.note import Signer, Verifier
from hil.bench.fleet import LEDGER, VERIFIER, Fleet
from hil.bench.usage import Usage, Watch, usage_of
from hil.plant.soft_tpm import MODEL, SoftAuthority, SoftDevice
from provisioning.verifier.desk import Clocks, Desk
from provisioning.verifier.store import Store
from provisioning.verifier.trust import TrustFiles

PERIOD_S: Final = 300
_QUICK_S: Final = 2.0
_WITHIN_S: Final = 300.0
_READY_S: Final = 30.0
_CONNECTIONS: Final = 200
_LEAST_EACH: Final = 10
_ALONE: Final = 1000

_TOML = """\
[verifier]
name = "{verifier}"
key = "pki/{verifier}.sign.key"
device_ca = "device-ca.pem"
reference = "reference.toml"
ledger = "wattseal-ledger/{ledger}"
period_s = {period_s}

[broker]
broker = "127.0.0.1:{port}"
ca = "pki/ca.pem"
cert = "pki/{verifier}.pem"
key = "pki/{verifier}.key"
"""


@dataclass(frozen=True, kw_only=True)
class FleetCase:
    """A fleet of so many gateways; fewer when it only shall run at all. about: what it is, for people."""

    name: str
    about: str
    gateways: int
    quick: int


FLEETS: Final = {
    case.name: case
    for case in (
        FleetCase(
            name="attest-fleet",
            about="10,000 gateways greet at once and are attested by one verifier, through Mosquitto",
            gateways=10_000,
            quick=300,
        ),
    )
}


async def measure_fleet(case: FleetCase, *, seconds: float) -> dict[str, Any]:
    """Return a case's figures. seconds: a fleet takes as long as it takes; below 2, a small one stands for it.

    Raises GatewayError when a gateway is not found good.
    """
    count = case.gateways if seconds >= _QUICK_S else case.quick
    with TemporaryDirectory(prefix="wattseal-bench-") as name:
        folder = Path(name)
        names = [f"gw{number}" for number in range(count)]
        shares = _shares(names)
        make_dev_ca(folder / "pki", gateways=[*shares], ledger=LEDGER, verifier=VERIFIER, hosts=["127.0.0.1"])
        fleet = _made(folder, names)
        alone = _alone(folder, fleet, names[:_ALONE])
        found = await _through_the_broker(folder, fleet, shares)
    return {"about": case.about, "gateways": count, "connections": len(shares), **found, "alone": alone}


def _shares(names: list[str]) -> dict[str, list[str]]:
    """Return which gateways share which connection, by its user."""
    count = max(1, min(_CONNECTIONS, len(names) // _LEAST_EACH))
    return {f"fleet{number}": names[number::count] for number in range(count)}


def _made(folder: Path, names: list[str]) -> Fleet:
    """Write the verifier's files; return the devices that they name."""
    authority = SoftAuthority()
    devices = {name: SoftDevice(f"WS-{name}", authority=authority, gateway=name) for name in names}
    pcrs = "".join(f'{index} = ["{value.hex()}"]\n' for index, value in devices[names[0]].pcrs.items())
    release = f'[[release]]\nname = "bench"\nmodel = "{MODEL}"\nfrom = 2020-01-01T00:00:00Z\n[release.pcrs]\n{pcrs}'
    (folder / "reference.toml").write_text(release)
    (folder / "device-ca.pem").write_bytes(authority.root.public_bytes(Encoding.PEM))
    keys = {name: Signer.generate(f"wattseal/{name}").verifier.vkey for name in names}
    vkey = (folder / "pki" / f"{VERIFIER}.vkey").read_text().strip()
    return Fleet(devices=devices, keys=keys, verifier=Verifier.from_vkey(vkey))


def _write_config(folder: Path, names: list[str], *, port: int) -> None:
    head = _TOML.format(verifier=VERIFIER, ledger=LEDGER, period_s=PERIOD_S, port=port)
    devices = "".join(f'\n[gateways.{name}]\ndevice = "WS-{name}"\n' for name in names)
    (folder / "verifier.toml").write_text(head + devices)


def _alone(folder: Path, fleet: Fleet, names: list[str]) -> dict[str, float]:
    """Return what a verifier's desk takes without a broker: challenge, verify, appraise, write, sign.

    Each gateway is asked twice, and the second time counts: by then its certificates are known.
    """
    hand, told = [0.0], 0
    log: Any = structlog.wrap_logger(None, wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    signer = Signer.from_text((folder / "pki" / f"{VERIFIER}.sign.key").read_text())
    _write_config(folder, names, port=8883)
    with closing(Store(folder / "alone.db")) as store:
        clocks = Clocks(steady_s=lambda: hand[0], chance=lambda: 0.0)
        desk = Desk(TrustFiles(folder / "verifier.toml", log), store, signer, log=log, clocks=clocks)
        for _ in range(2):
            hand[0] += PERIOD_S + 1
            watch = Watch()
            while asked := _timed(watch, desk.challenges):
                answers = [(gateway, fleet.answer(gateway, note)) for gateway, note in asked]
                with watch:
                    for gateway, answer in answers:
                        desk.take(gateway, answer)
                    told += len(desk.settle())
    if told != 2 * len(names) or desk.counts.refused:
        raise GatewayError(f"bench: got {told} results of {len(names)} gateways asked twice")
    rate = len(names) / watch.cpu_s
    return {"gateways_per_cpu_s": round(rate, 1), "cpu_ms_per_gateway": round(1e3 / rate, 3)}


def _timed(watch: Watch, ask: Callable[[], list[tuple[str, bytes]]]) -> list[tuple[str, bytes]]:
    with watch:
        return ask()


async def _through_the_broker(folder: Path, fleet: Fleet, shares: Mapping[str, list[str]]) -> dict[str, Any]:
    """Let all gateways greet at once; return what it took until the ledger had a result of each."""
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(
            running_broker(folder / "broker", pki=folder / "pki", ledger=LEDGER, verifier=VERIFIER)
        )
        await _admit(folder / "broker" / "mosquitto.acl", broker.pid, [*shares])
        opened = [stack.enter_async_context(_link(folder, name, broker.port)) for name in (LEDGER, *shares)]
        ledger, *links = await asyncio.gather(*opened)
        await asyncio.gather(*(_listen(link, share) for link, share in zip(links, shares.values(), strict=True)))
        tasks = [asyncio.create_task(fleet.attest(link), name="bench.fleet") for link in links]
        tasks.append(asyncio.create_task(fleet.hear(ledger), name="bench.ledger"))
        try:
            await asyncio.sleep(0.5)
            _write_config(folder, [*fleet.devices], port=broker.port)
            pid = await stack.enter_async_context(_running_verifier(folder))
            before, began = usage_of(pid), time.monotonic()
            await asyncio.gather(*(_greet(link, share) for link, share in zip(links, shares.values(), strict=True)))
            tasks.append(asyncio.create_task(_done(fleet), name="bench.done"))
            await asyncio.wait(tasks, timeout=_WITHIN_S, return_when=asyncio.FIRST_COMPLETED)
            seconds, after = time.monotonic() - began, usage_of(pid)
            metrics = await read_metrics(folder / "verifier" / "run" / "verifier.metrics.sock")
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    return _found(fleet, seconds, before, after, metrics)


async def _listen(link: Link, gateways: list[str]) -> None:
    for gateway in gateways:
        await link.subscribe(challenge_topic(gateway))


async def _greet(link: Link, gateways: list[str]) -> None:
    for gateway in gateways:
        await link.publish(evidence_topic(gateway), b"")


async def _done(fleet: Fleet) -> None:
    await fleet.done.wait()


def _found(fleet: Fleet, seconds: float, before: Usage, after: Usage, metrics: Mapping[str, float]) -> dict[str, Any]:
    count = len(fleet.devices)
    good = sum(status == "affirming" for status in fleet.statuses.values())
    if good != count:
        raise GatewayError(f"bench: {good} of {count} gateways were found good in {seconds:.0f} s: {dict(metrics)}")
    cpu_ms = (after.cpu_s - before.cpu_s) / count * 1e3
    return {
        "seconds": round(seconds, 2),
        "gateways_per_s": round(count / seconds, 1),
        "period_s": PERIOD_S,
        "cores_at_period": round(cpu_ms / 1e3 * count / PERIOD_S, 4),
        "verifier": {"cpu_ms_per_gateway": round(cpu_ms, 3), "rss_mb": round(after.rss_mb, 1)},
        **{name: metrics[f"wattseal_verifier_{name}_total"] for name in ("missed", "refused", "dropped")},
    }


async def _admit(acl: Path, broker_pid: int, users: list[str]) -> None:
    """Let each of these speak for any gateway: some clients in the place of thousands."""
    topics = "topic read wattseal/v1/+/challenge\ntopic write wattseal/v1/+/evidence\n"
    acl.write_text(acl.read_text() + "".join(f"\nuser {user}\n{topics}" for user in users))
    os.kill(broker_pid, signal.SIGHUP)
    await asyncio.sleep(0.2)


def _link(folder: Path, name: str, port: int) -> Link:
    pki = folder / "pki"
    place = Endpoint(host="127.0.0.1", port=port, ca=pki / "ca.pem", cert=pki / f"{name}.pem", key=pki / f"{name}.key")
    return Link(place, client_id=name, queued=16_384)


@asynccontextmanager
async def _running_verifier(folder: Path) -> AsyncIterator[int]:
    """Run `provision verifier` as a process; give its pid once it is connected."""
    said = folder / "verifier.log"
    with said.open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "provisioning.cli", "verifier", "run", str(folder / "verifier.toml")),
            stdin=asyncio.subprocess.DEVNULL,
            stderr=log,
        )
    try:
        async with asyncio.timeout(_READY_S):
            while b"verifier.connected" not in said.read_bytes():
                if process.returncode is not None:
                    raise GatewayError(f"bench: the verifier ended: {said.read_text()[-2000:]}")
                await asyncio.sleep(0.05)
        yield process.pid
    finally:
        with suppress(ProcessLookupError):
            process.terminate()
        await process.wait()
