"""The pipeline in one process and in plant time."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, cast

import structlog

from gateway.app.contexts import contexts_of
from gateway.app.devices.modbus import limits_of
from gateway.app.intervals import LineIntervals
from gateway.app.ledger import Ledger
from gateway.app.ledgercounts import LedgerCounts
from gateway.app.load import template_text
from gateway.app.sealer import Sealer
from gateway.clock import WallClock
from gateway.codec.bodies import interval_body, line_body, readings_body, schema_body
from gateway.codec.frames import pack_log
from gateway.config import GatewayConfig, ModbusTemplate, parse_gateway, parse_ledger, points_of
from gateway.drivers.modbus import Bus, ModbusDriver
from gateway.drivers.modbus_pdu import RefusedError, Request, SilentError
from gateway.model import ClockState, Row, Sample
from gateway.store.files import RealFiles
from gateway.store.segments import Log
from gateway.tlog.note import Signer
from hil.plant.devices import Device

GATEWAY, LEDGER, ZONE = "gw1", "ledger", "DEMO"
NS = 1_000_000_000
MINUTE_NS = 60 * NS
_CHUNK_BYTES = 512 * 1024


class PlantTime:
    """A clock that goes where it is put."""

    def __init__(self, t_ns: int) -> None:
        self.t_ns = self.began_ns = t_ns

    def __call__(self) -> int:
        """Return UTC in ns."""
        return self.t_ns

    def seconds(self) -> float:
        """Return the seconds since the start: the plant's clock."""
        return (self.t_ns - self.began_ns) / NS

    def wall_clock(self) -> WallClock:
        """Return a clock for those who seal: synchronised."""
        return WallClock(wall=self, steady=self, state=lambda: (ClockState.SYNCHRONISED, 0))


class World(Protocol):
    """What has devices and runs in plant time. now: the plant second, with everything done that was due."""

    devices: dict[int, Device]

    def now(self) -> float:
        """Return the plant second."""
        ...


class PlantBus:
    """In a Modbus bus's place: the plant's devices, asked in this process. Its bytes are the plant's own."""

    is_rtu = False
    connects = 1

    def __init__(self, plant: World) -> None:
        self._plant = plant

    async def read(self, request: Request, fences: Sequence[Request] = ()) -> bytes:  # noqa: ARG002
        """Return what the device answers now. Raises SilentError, RefusedError."""
        now_s, device = self._plant.now(), self._plant.devices[request.unit_id]
        if not device.alive:
            raise SilentError("no reply in time")
        if request.function not in device.functions:
            raise RefusedError(0x01)
        try:
            return device.read(request.function, request.address, request.count, now_s)
        except LookupError:
            raise RefusedError(0x02) from None

    def join(self) -> None:
        """Take one more device."""

    async def leave(self) -> None:
        """Let one go."""


_GATEWAY_TOML = """\
[gateway]
id = "{gateway}"
site = "works"

[seal]
key = "seal.key"
witness = "witness.vkey"

[forward]
broker = "127.0.0.1:1"
ca = "ca"
cert = "cert"
key = "key"

[interval]
period_s = 60
{devices}"""

_LEDGER_TOML = """\
[ledger]
name = "{ledger}"
state = "state"
key = "ledger.key"
factors = "factors.toml"
plan = "carbon.toml"

[broker]
broker = "127.0.0.1:1"
ca = "ca"
cert = "cert"
key = "key"

[gateways.{gateway}]
key = "gw1.vkey"
"""


class Rig:
    """A plant, a gateway and a ledger at one clock. Close it.

    folder: for logs and database. files: beside the configuration, as factors.toml. devices: of gateway.toml, with its
    lines. fast: devices whose readings are sealed, polled every `fast_s` seconds.
    """

    def __init__(
        self,
        folder: Path,
        *,
        plant: World,
        time: PlantTime,
        files: Mapping[str, str],
        devices: str,
        fast: Sequence[str] = ("compressor",),
        fast_s: int = 3,
    ) -> None:
        self.folder, self.plant, self.time = folder, plant, time
        self._fast, self._fast_s = fast, fast_s
        folder.mkdir(parents=True, exist_ok=True)
        signer, ledger_signer = Signer.generate(f"wattseal/{GATEWAY}"), Signer.generate(f"wattseal-ledger/{LEDGER}")
        (folder / "state").mkdir(exist_ok=True)
        for name, text in {
            "ledger.key": ledger_signer.to_text(),
            "gw1.vkey": signer.verifier.vkey,
            **files,
        }.items():
            (folder / name).write_text(f"{text}\n", encoding="utf-8")
            (folder / name).chmod(0o600)
        self.config = self._gateway_config(devices)
        log = Log.open(RealFiles(folder / "gateway"), origin=self.config.origin)
        self.sealer = Sealer(log, signer=signer, witness=ledger_signer.cosigner().verifier, clock=time.wall_clock())
        self._log = log
        text = _LEDGER_TOML.format(gateway=GATEWAY, ledger=LEDGER)
        (folder / "ledger.toml").write_text(text, encoding="utf-8")
        quiet = structlog.wrap_logger(
            structlog.ReturnLogger(), wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL)
        )
        self.ledger = Ledger(
            parse_ledger(text, name="ledger.toml", folder=folder),
            counts=LedgerCounts(),
            log=cast("Any", quiet),
            clock=time.wall_clock(),
        )
        self._sequence, self._sent = 0, 0
        self.sealer.welcome(secrets.token_bytes(8))
        self._drivers = self._open_drivers()
        self._lines = [LineIntervals(line) for line in self.config.lines.values()]
        known = [line.context for line in self._lines if line.line.context]
        self._contexts = {name: contexts_of(driver.schema, known) for name, driver in self._drivers.items()}
        for driver in self._drivers.values():
            self._put("schema", schema_body(driver.schema))
        for line in self.config.lines.values():
            self._put("schema", line_body(line))
        self._rows: list[Row] = []

    def _gateway_config(self, devices: str) -> GatewayConfig:
        text = _GATEWAY_TOML.format(gateway=GATEWAY, devices=devices)
        return parse_gateway(text, name="gateway.toml", folder=self.folder, template_text=template_text)

    def _open_drivers(self) -> dict[str, ModbusDriver]:
        bus = cast("Bus", PlantBus(self.plant))
        opened = {}
        for name, section in self.config.devices.items():
            template = self.config.templates[section.template]
            assert isinstance(template, ModbusTemplate)
            opened[name] = ModbusDriver(
                name=name,
                points=points_of(template),
                bus=bus,
                unit_id=section.unit_id,
                limits=limits_of(template),
                clock=self.time,
            )
        return opened

    # ---- one minute

    async def minute(self) -> None:
        """Let a minute of plant time pass, and seal its end."""
        boundary_ns = self.time.t_ns // MINUTE_NS * MINUTE_NS + MINUTE_NS
        while self.time.t_ns + self._fast_s * NS < boundary_ns:
            self.time.t_ns += self._fast_s * NS
            for name in self._fast:
                await self._poll(name, None)
        self.time.t_ns = boundary_ns
        for name in self._drivers:
            await self._poll(name, boundary_ns)
        if self._rows:
            self._put("readings", readings_body(self._rows))
            self._rows = []

    async def _poll(self, name: str, boundary_ns: int | None) -> None:
        row, samples = await self._drivers[name].poll(samples=boundary_ns is not None)
        if name in self._fast:
            self._rows.append(row)
        self._note(name, row)
        if boundary_ns is not None:
            self._sampled(boundary_ns, [sample._replace(point=f"{name}.{sample.point}") for sample in samples])

    def _note(self, name: str, row: Row) -> None:
        """Keep what a line's context needs of a row."""
        if (context := self._contexts[name]) is not None:
            context.row(row, self.time.t_ns)

    def _sampled(self, boundary_ns: int, samples: Sequence[Sample]) -> None:
        for line in self._lines:
            for interval in line.take(boundary_ns, samples):
                self._put("interval", interval_body(interval))

    def _put(self, kind: str, body: bytes) -> None:
        self._sequence += 1
        self.sealer.put(self._sequence, kind, body)

    def hand_over(self) -> None:
        """Sign what was sealed, give it to the ledger, and let that compute, close and alert."""
        self.sealer.commit()
        self.sealer.sign()
        while self._sent < self.sealer.signed:
            message = self.sealer.chunk(self._sent, _CHUNK_BYTES)
            self.ledger.take(GATEWAY, pack_log(message))
            self._sent += len(message.leaves)
        for receipt in self.ledger.commit().values():
            self.sealer.receive(receipt)
        self.ledger.look()

    def close(self) -> None:
        """Close the logs."""
        self.ledger.close()
        self._log.close()
