"""The airlock: no process has a socket in both zones, and what crosses, crosses through the seal."""

import asyncio
from pathlib import Path
from socket import AF_INET, AF_UNIX

import pytest

from gateway.app.demo import GATEWAY, LEDGER, write_site
from gateway.app.supervisor import wattseal
from gateway.north.pki import make_dev_ca
from tests.system.books import check_values, read_books
from tests.system.meters import serving_meters
from tests.system.site import Part, Site, Zones, eventually, running_zones
from tests.system.zones import (
    NotPermittedError,
    attempt,
    entry,
    interfaces_of,
    listening,
    namespaces,
    network_of,
    sockets_of,
    wire,
)

OT, DMZ = "10.77.1.0/24", "10.77.2.0/24"
PLANT, COLLECT, BROKER, FORWARD = "10.77.1.1", "10.77.1.2", "10.77.2.1", "10.77.2.2"
UNREACHABLE = {"ENETUNREACH", "EHOSTUNREACH"}


async def test_readings_cross_from_zone_to_zone_and_no_packet_does(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Five namespaces: plant - collect, seal with nothing at all, forward - broker and ledger."""
    try:
        with namespaces("plant", "collect", "seal", "forward", "broker") as names:
            wire(names["plant"], names["collect"], name="ot", addresses=(f"{PLANT}/24", f"{COLLECT}/24"))
            wire(names["broker"], names["forward"], name="dmz", addresses=(f"{BROKER}/24", f"{FORWARD}/24"))
            await _cross(tmp_path, names, capfd)
    except NotPermittedError as e:
        pytest.skip(f"network namespaces need root: {e}")


async def _cross(folder: Path, names: dict[str, str], capfd: pytest.CaptureFixture[str]) -> None:
    command = {name: ("ip", "netns", "exec", full) for name, full in names.items()}
    zones = Zones(plant_host=PLANT, broker_host=BROKER, within={**command, "ledger": command["broker"]})
    with (
        listening(entry(names["collect"]), "ot", OT) as south,
        listening(entry(names["forward"]), "dmz", DMZ) as north,
    ):
        async with running_zones(folder, zones) as site:
            await site.flows()
            _check_reach(site, _plant_port(folder))
            await asyncio.sleep(3.0)
            metrics = await site.settle()
    for ear in (south, north):
        assert ear.packets > 50, "the wire was silent, or we are deaf"
        assert not ear.foreign
    books = read_books(folder)
    check_values(books)
    good = sum(placed.is_good for rows in books.rows().values() for placed in rows)
    assert good > 50
    assert metrics["wattseal_seal_isolated"] == 1
    with capfd.disabled():
        print(  # noqa: T201
            f"\nairlock: {good} readings reached the ledger; {south.packets} packets in the OT zone and "
            f"{north.packets} in the DMZ, none of the other's"
        )


def _plant_port(folder: Path) -> int:
    text = (folder / "gateway.toml").read_text(encoding="utf-8")
    return int(text.partition(f"tcp://{PLANT}:")[2].partition('"')[0])


def _check_reach(site: Site, plant_port: int) -> None:
    """Fail unless each process reaches its own zone and nothing else."""
    collect, seal, forward = (network_of(site.parts[name].pid) for name in ("collect", "seal", "forward"))
    assert attempt(collect, PLANT, plant_port) == "connected"
    assert attempt(collect, BROKER, 8883) in UNREACHABLE
    assert attempt(forward, BROKER, 8883) == "connected"
    assert attempt(forward, PLANT, plant_port) in UNREACHABLE
    assert attempt(seal, PLANT, plant_port) in UNREACHABLE
    assert attempt(seal, BROKER, 8883) in UNREACHABLE
    assert interfaces_of(site.parts["collect"].pid) == ["lo", "ot"]
    assert interfaces_of(site.parts["forward"].pid) == ["lo", "dmz"]
    assert interfaces_of(site.parts["seal"].pid) == ["lo"]
    assert sockets_of(site.parts["seal"].pid).keys() == {AF_UNIX}
    assert sockets_of(site.parts["collect"].pid).keys() == {AF_UNIX, AF_INET}
    assert sockets_of(site.parts["forward"].pid).keys() == {AF_UNIX, AF_INET}


async def test_the_seal_gives_up_the_network_that_it_is_started_in(tmp_path: Path) -> None:
    """Started in ours, it soon has an empty one, and holds no socket but unix ones."""
    make_dev_ca(tmp_path / "pki", gateways=[GATEWAY], ledger=LEDGER, hosts=["127.0.0.1"])
    async with serving_meters(1, ports=1) as meters:
        write_site(tmp_path, broker="127.0.0.1:8883", devices=meters.devices(period_s=1.0))
    with (tmp_path / "processes.log").open("ab") as log:
        seal = Part("seal", wattseal("seal", str(tmp_path / "gateway.toml")), errors=log)
        seal.start()
        try:
            await _ready(tmp_path / "gateway" / "run" / "outlet.sock")
            if "seal.network" in (tmp_path / "processes.log").read_text():
                pytest.skip("this kernel lets nobody here make a network namespace")
            assert network_of(seal.pid).readlink() != Path("/proc/self/ns/net").readlink()
            assert interfaces_of(seal.pid) == ["lo"]
            assert sockets_of(seal.pid).keys() == {AF_UNIX}
        finally:
            await seal.stop()
    seal.check()


async def _ready(socket: Path) -> None:
    async def is_there() -> bool:
        return socket.exists()

    await eventually(is_there, within_s=20, what=f"{socket.name} is there")
