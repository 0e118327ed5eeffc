"""What the tests of the seal and of the ledger share: bodies as collect makes them, a sealer that can be restarted."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from gateway.app.sealer import Sealer
from gateway.clock import WallClock
from gateway.codec.bodies import event_body, interval_body, line_body, readings_body, schema_body
from gateway.codec.frames import LeafHash, LogMessage, pack_log
from gateway.codec.leaves import Leaf, parse
from gateway.model import ClockState, Column, Interval, LineColumn, LineSchema, Quality, Role, Row, Sample, Schema
from gateway.store.files import Files, RealFiles
from gateway.store.segments import Log
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.merkle import CompactRange, leaf_hash
from gateway.tlog.note import Signer

ORIGIN = "wattseal/gw1"
SIGNER = Signer.generate(ORIGIN)
WITNESS = Signer.generate("wattseal-ledger/ledger")
BOOT, OTHER_BOOT = b"1st boot", b"2nd boot"
T0_S = 1_772_000_040
NS = 1_000_000_000

METER = Schema(device="m1", columns=(Column(name="power", unit="W", store="f32"),))
LINE = LineSchema(
    name="filling",
    site="works",
    zone="DEMO",
    period_s=60,
    columns=(
        LineColumn(point="m1.energy", unit="kWh", role=Role.ENERGY, rated_power_w=1_000_000),
        LineColumn(point="plc.good", unit="", role=Role.COUNT_GOOD),
    ),
)
WIDER = LineSchema(
    name="filling",
    site="works",
    zone="DEMO",
    period_s=60,
    columns=(*LINE.columns, LineColumn(point="m2.energy", unit="kWh", role=Role.ENERGY)),
)
OTHER_LINE = LineSchema(name="packing", site="works", zone="DEMO", period_s=60, columns=LINE.columns)

SCHEMA = ("schema", schema_body(METER))
LINES = [("schema", line_body(line)) for line in (LINE, OTHER_LINE)]

Body = tuple[str, bytes]


def readings(number: int, *, rows: int = 1) -> Body:
    """Return a batch of readings."""
    made = [Row(schema=METER, source_time_ns=(T0_S + number) * NS, values=(float(number),)) for _ in range(rows)]
    return "readings", readings_body(made)


def event(number: int) -> Body:
    """Return an event of collect's."""
    return "event", event_body("device.up", (T0_S + number) * NS, {"number": number})


def interval(number: int, line: LineSchema = LINE, *, shown: Decimal | None = None, bad: bool = False) -> Body:
    """Return the interval of minute number: each counter shows the number, or what is given; or nothing, if bad."""
    value = Decimal(number) if shown is None else shown
    samples = tuple(
        Sample(
            point=column.point,
            source_time_ns=(T0_S + 60 * number) * NS,
            raw=b"" if bad else b"\0\1",
            value=None if bad else value,
            quality=Quality.BAD if bad else Quality.GOOD,
        )
        for column in line.columns
    )
    return "interval", interval_body(Interval(schema_id=line.id, t_ns=(T0_S + 60 * number) * NS, samples=samples))


@dataclass
class Hands:
    """A wall clock and a steady one, moved by hand."""

    wall_ns: int = T0_S * NS
    steady_ns: int = 10**12
    state: ClockState = ClockState.SYNCHRONISED

    def clock(self, floor_ns: int = 0) -> WallClock:
        """Return a clock with these hands."""
        return WallClock(
            floor_ns=floor_ns, wall=lambda: self.wall_ns, steady=lambda: self.steady_ns, state=lambda: (self.state, 0)
        )

    def pass_s(self, seconds: float) -> None:
        """Let time pass on both."""
        self.wall_ns += int(seconds * NS)
        self.steady_ns += int(seconds * NS)


@dataclass
class Box:
    """One gateway's seal, without sockets: a Sealer over a real Log, and what it takes to restart it.

    files: opens the folder of the log. options: the Sealer's. sequence: of the newest batch handed over.
    """

    files: Callable[[], Files]
    height: int = 8
    signer: Signer = SIGNER
    options: dict[str, Any] = field(default_factory=dict)
    sequence: int = 0
    log: Log = field(init=False)
    sealer: Sealer = field(init=False)

    def __post_init__(self) -> None:
        self.start()

    @classmethod
    def at(cls, folder: Path, *, signer: Signer = SIGNER, height: int = 8, **options: Any) -> "Box":
        """Return one whose log is in a folder."""
        return cls(files=lambda: RealFiles(folder), signer=signer, height=height, options=options)

    def start(self) -> None:
        """Open the log and a sealer on it."""
        self.log = Log.open(self.files(), origin=self.signer.name, height=self.height)
        try:
            self.sealer = Sealer(self.log, signer=self.signer, witness=WITNESS.cosigner().verifier, **self.options)
        except BaseException:
            self.log.close()
            raise

    def restart(self, *, sign: bool = False, boot: bytes | None = BOOT) -> int:
        """Close and start again, as after a kill; return the welcome for this boot."""
        if sign:
            self.sealer.sign()
        self.log.close()
        self.start()
        return 0 if boot is None else self.sealer.welcome(boot)

    def put(self, *bodies: Body, commit: bool = True) -> None:
        """Hand over batches, each with the next sequence number."""
        for kind, body in bodies:
            self.sequence += 1
            self.sealer.put(self.sequence, kind, body)
        if commit:
            self.sealer.commit()

    def leaves(self) -> list[Leaf | None]:
        """Return all durable leaves, None for a dropped body."""
        return [None if body is None else parse(body) for body in bodies_of(self.log)]

    def kinds(self) -> list[str]:
        """Return the kinds of all durable leaves, "" for a dropped body."""
        return ["" if leaf is None else leaf.kind for leaf in self.leaves()]

    def events(self, what: str) -> list[dict[str, Any]]:
        """Return what the events of this name are about."""
        found = [leaf.body for leaf in self.leaves() if leaf is not None and leaf.kind == "event"]
        return [body["about"] for body in found if body["what"] == what]

    def sources(self) -> list[tuple[bytes, int]]:
        """Return who handed in the leaves that somebody did."""
        return [leaf.src for leaf in self.leaves() if leaf is not None and leaf.src is not None]

    def checkpoint(self) -> Checkpoint:
        """Return the newest checkpoint on disk; its signature must hold."""
        assert self.log.checkpoint is not None
        return checkpoints.verify(self.log.checkpoint, origin=self.signer.name, verifier=self.signer.verifier)

    def receipt(self, size: int | None = None, *, signer: Signer = WITNESS) -> bytes:
        """Return the ledger's cosignature on the log's first leaves, by default on all that are signed."""
        size = self.log.signed if size is None else size
        made = Checkpoint(origin=self.signer.name, size=size, root=self.log.root(size))
        return checkpoints.cosign(made, signer.cosigner(), time_s=T0_S)

    def chunks(self, most_bytes: int = 1 << 18, first: int = 0) -> Iterator[LogMessage]:
        """Yield what forward would send."""
        while first < self.sealer.signed:
            message = self.sealer.chunk(first, most_bytes)
            yield message
            first += len(message.leaves)

    def payloads(self, most_bytes: int = 1 << 18, first: int = 0) -> list[bytes]:
        """Return the same as the bytes that go over the broker."""
        return [pack_log(message) for message in self.chunks(most_bytes, first)]


def bodies_of(log: Log) -> list[bytes | None]:
    """Return the bodies of all durable leaves."""
    bodies: list[bytes | None] = []
    while len(bodies) < log.durable:
        bodies += log.read(len(bodies), 1 << 20, log.durable)
    return bodies


def root_of(leaves: tuple[bytes | LeafHash, ...]) -> bytes:
    """Return the root of a log of these leaves, computed from them alone."""
    edge = CompactRange()
    edge.extend(bytes(leaf) if isinstance(leaf, LeafHash) else leaf_hash(leaf) for leaf in leaves)
    return edge.root()
