"""Each stage of the hot path by itself, in a process of its own: `python -m hil.bench.stages STAGE JSON`."""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import structlog
import uvloop
from pymodbus.client import AsyncModbusTcpClient

from gateway.app.collector import Collector
from gateway.app.counts import CollectCounts
from gateway.app.fleet import Fleet
from gateway.app.forwarding import CHUNK_BYTES
from gateway.app.ledger import Ledger
from gateway.app.ledgercounts import LedgerCounts
from gateway.app.load import template_text
from gateway.app.outbox import Outbox
from gateway.app.sealer import Sealer
from gateway.codec.bodies import schema_body
from gateway.codec.frames import pack_log
from gateway.codec.planner import Limits, plan
from gateway.codec.registers import Decoder, store_of
from gateway.config import parse_gateway, parse_ledger
from gateway.drivers.modbus_bus import Bus
from gateway.drivers.modbus_pdu import Request
from gateway.model import Column, Row, Schema, WireType
from gateway.north.pki import make_dev_ca
from gateway.store.files import RealFiles
from gateway.store.segments import Log
from gateway.tlog.note import Signer, Verifier
from hil.bench.cases import CASES, Case
from hil.bench.site import gateway_toml
from hil.bench.usage import Spent, Watch

_ROUNDS: Final = 1000
_MOST_LEAVES: Final = 2000
_WARM_UP_S: Final = 0.3


Units = Sequence[tuple[int, int]]
"""Port and unit id of each meter."""


async def _for_a_while(asks: Sequence[Callable[[], Awaitable[object]]], seconds: float, points: int) -> Spent:
    """Ask all at once, each again and again; count the points of the answers."""
    answers = 0
    for ask in asks:
        await ask()

    async def keep_asking(ask: Callable[[], Awaitable[object]]) -> None:
        nonlocal answers
        while time.perf_counter() < end:
            await ask()
            answers += 1

    watch, end = Watch(), time.perf_counter() + seconds
    with watch:
        async with asyncio.TaskGroup() as tasks:
            for ask in asks:
                tasks.create_task(keep_asking(ask))
    return watch.spent(answers * points)


async def poll(case: Case, units: Units, seconds: float) -> Mapping[str, Spent]:
    """Read blocks, and nothing else: the driver's bus."""
    block = plan(case.points, Limits())[0]
    if case.pipeline > 1:
        shared = {port: Bus(f"tcp://127.0.0.1:{port}", pipeline=case.pipeline) for port, _ in units}
        buses = [shared[port] for port, _ in units]
    else:
        buses = [Bus(f"tcp://127.0.0.1:{port}") for port, _ in units]
    asks = [
        partial(bus.read, Request(unit_id=unit_id, function=block.function, address=block.address, count=block.count))
        for bus, (_, unit_id) in zip(buses, units, strict=True)
    ]
    spent = await _for_a_while(asks, seconds, len(case.points))
    for bus in buses:
        await bus.close()
    return {"poll": spent}


async def collect(case: Case, units: Units, seconds: float) -> Mapping[str, Spent]:
    """Collect rows as the process does, into a queue that nobody empties but drops what is old."""
    with TemporaryDirectory(prefix="wattseal-bench-") as name:
        text = gateway_toml(case, units, broker_port=1)
        config = parse_gateway(text, name="gateway.toml", folder=Path(name), template_text=template_text)
    outbox, counts = Outbox(most_bytes=1 << 20), CollectCounts()
    collector = Collector(config, outbox, counts, structlog.get_logger())
    async with asyncio.TaskGroup() as tasks:
        fleet = Fleet(collector, config, tasks)
        fleet.start()
        await asyncio.sleep(_WARM_UP_S)
        watch, readings = Watch(), counts.readings
        with watch:
            await asyncio.sleep(seconds)
        spent = watch.spent(counts.readings - readings)
        await fleet.close()
    return {"collect": spent}


async def plain(case: Case, units: Units, seconds: float) -> Mapping[str, Spent]:
    """Read and convert with pymodbus alone, as its documentation does."""
    block = plan(case.points, Limits())[0]
    kind = getattr(AsyncModbusTcpClient.DATATYPE, {"f32": "FLOAT32", "u16": "UINT16"}[case.points[0].type])
    clients = [AsyncModbusTcpClient("127.0.0.1", port=port) for port, _ in units]
    for client in clients:
        await client.connect()

    async def ask(client: AsyncModbusTcpClient, unit_id: int) -> None:
        answer = await client.read_holding_registers(block.address, count=block.count, device_id=unit_id)
        client.convert_from_registers(answer.registers, kind)

    asks = [partial(ask, client, unit_id) for client, (_, unit_id) in zip(clients, units, strict=True)]
    spent = await _for_a_while(asks, seconds, len(case.points))
    for client in clients:
        client.close()
    return {"plain": spent}


async def decode(case: Case, _: Units, seconds: float) -> Mapping[str, Spent]:
    """Turn replies into values."""
    blocks = plan(case.points, Limits())
    decoder = Decoder(case.points, blocks)
    replies = [_image(case)[: block.size] for block in blocks]
    rounds, watch, end = 0, Watch(), time.perf_counter() + seconds
    with watch:
        while time.perf_counter() < end:
            for _round in range(_ROUNDS):
                decoder.decode(replies)
            rounds += 1
    return {"decode": watch.spent(rounds * _ROUNDS * len(case.points))}


async def seal_and_ledger(case: Case, _: Units, seconds: float) -> Mapping[str, Spent]:
    """Seal batches, each with an fsync of its own, as they come at this rate; then let a ledger take them."""
    with TemporaryDirectory(prefix="wattseal-bench-") as name:
        folder = Path(name)
        make_dev_ca(folder / "pki", gateways=["gw1"], ledger="bench", hosts=["127.0.0.1"])
        sealer = Sealer(
            Log.open(RealFiles(folder / "log"), origin="wattseal/gw1"),
            signer=Signer.from_text((folder / "pki/gw1.epoch.key").read_text().strip()),
            witness=Verifier.from_vkey((folder / "pki/bench.vkey").read_text().strip()),
        )
        sealer.welcome(b"benchmrk")
        bodies, points = _bodies(case)
        watch, end, leaves = Watch(), time.perf_counter() + seconds, 0
        with watch:
            for sequence, (kind, body) in enumerate(itertools.chain(bodies, itertools.cycle(bodies[-1:])), 1):
                sealer.put(sequence, kind, body)
                sealer.commit()
                leaves += kind == "readings"
                if time.perf_counter() > end or leaves == _MOST_LEAVES:
                    break
            sealer.sign()
        return {"seal": watch.spent(leaves * points), "ledger": _ledger(folder, sealer, len(case.points))}


def _ledger(folder: Path, sealer: Sealer, points: int) -> Spent:
    """Let a ledger take all that was sealed, in messages as forward makes them, each with a commit of its own."""
    text = (
        '[ledger]\nname="bench"\nkey="pki/bench.sign.key"\nfactors="factors.toml"\n[gateways.gw1]\nkey="pki/gw1.vkey"\n'
        '[broker]\nbroker="127.0.0.1:1"\nca="pki/ca.pem"\ncert="pki/bench.pem"\nkey="pki/bench.key"\n'
    )
    (folder / "factors.toml").write_text("factor = []\n")
    config = parse_ledger(text, name="ledger.toml", folder=folder)
    ledger = Ledger(config, counts=LedgerCounts(), log=structlog.get_logger())
    watch, first = Watch(), 0
    while first < sealer.signed:
        message = sealer.chunk(first, CHUNK_BYTES)
        payload = pack_log(message)
        first += len(message.leaves)
        with watch:
            ledger.take("gw1", payload)
            ledger.commit()
    if ledger.counts.size != sealer.signed:
        raise RuntimeError(f"the ledger took {ledger.counts.size} of {sealer.signed} leaves")
    return watch.spent(ledger.counts.rows * points)


def _bodies(case: Case) -> tuple[list[tuple[str, bytes]], int]:
    """Return a schema's body and a full one of rows, and how many points the latter holds."""
    columns = tuple(Column(name=point.name, unit=point.unit, store=store_of(point)) for point in case.points)
    schema = Schema(device="m0", columns=columns)
    image = _image(case)
    blocks = plan(case.points, Limits())
    values, _ = Decoder(case.points, blocks).decode([image[: block.size] for block in blocks])
    outbox, rows = Outbox(most_bytes=1 << 20), 0
    while not (messages := outbox.unsent(0)):
        outbox.add(Row(schema=schema, source_time_ns=time.time_ns(), values=values))
        rows += 1
    body: bytes = messages[0][3]
    return [("schema", schema_body(schema)), ("readings", body)], (rows - 1) * len(case.points)


def _image(case: Case) -> bytes:
    """Return the registers of a meter."""
    floats = case.points[0].type is WireType.F32
    block = plan(case.points, Limits())[0]
    return (b"\x47\x11\x20\x00" if floats else b"\x47\x11") * block.count


STAGES: Final = {"poll": poll, "collect": collect, "plain": plain, "decode": decode, "seal": seal_and_ledger}


def main() -> None:
    """Run the stage that the command line names, and print what it took."""
    about = json.loads(sys.argv[2])
    stage = STAGES[sys.argv[1]](CASES[about["case"]], [(port, unit) for port, unit in about["units"]], about["seconds"])
    print(json.dumps({name: asdict(spent) for name, spent in uvloop.run(stage).items()}))


if __name__ == "__main__":
    main()
