"""What a site has left on disk, read without its processes: the seal's log, and the ledger's copy of it."""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.app.demo import GATEWAY, LEDGER
from gateway.codec.checks import rows_of, to_schema
from gateway.codec.leaves import Leaf, parse
from gateway.model import LineSchema, Quality, Row, Schema
from gateway.store.files import RealFiles
from gateway.store.segments import Log
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.merkle import leaf_hash
from gateway.tlog.note import Verifier
from tests.system.pulse import Pulse
from tests.system.recorder import Recorder

ORIGIN = f"wattseal/{GATEWAY}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """One row of readings, and which start of collect read it."""

    boot: bytes
    row: Row

    @property
    def t_s(self) -> float:
        """When the device answered, UTC."""
        return self.row.source_time_ns / 1e9

    @property
    def is_good(self) -> bool:
        """Whether any of its values may be used."""
        return self.row.qualities is None or Quality.GOOD in self.row.qualities


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """The leaves that the seal and the ledger hold alike. packed: their bytes."""

    packed: Sequence[bytes]
    leaves: Sequence[Leaf]

    def events(self, what: str, **about: object) -> list[dict[str, Any]]:
        """Return the bodies of these events."""
        bodies = [leaf.body for leaf in self.leaves if leaf.kind == "event" and leaf.body["what"] == what]
        return [body for body in bodies if all(body["about"].get(key) == value for key, value in about.items())]

    def rows(self) -> dict[str, list[Placed]]:
        """Return all rows by device, in the log's order. Fails where a schema does not stand before what names it."""
        schemas: dict[bytes, Schema] = {}
        found: dict[str, list[Placed]] = defaultdict(list)
        for leaf in self.leaves:
            if leaf.kind == "schema" and isinstance(schema := to_schema(leaf.body), Schema):
                schemas[schema.id] = schema
            elif leaf.kind == "readings":
                assert leaf.src is not None
                for row in rows_of(leaf.body, schemas):
                    found[row.schema.device].append(Placed(boot=leaf.src[0], row=row))
        return found

    def boots(self) -> dict[bytes, list[Leaf]]:
        """Return what each start of collect handed in."""
        found: dict[bytes, list[Leaf]] = {}
        for leaf in self.leaves:
            if leaf.src is not None:
                found.setdefault(leaf.src[0], []).append(leaf)
        return found


def read_books(folder: Path) -> Books:
    """Return what the seal and the ledger hold, once it is shown to be the same, whole and signed by both."""
    seal = Log.open(RealFiles(folder / "gateway" / "log"), origin=ORIGIN)
    copy = Log.open(RealFiles(folder / "ledger" / "gateways" / GATEWAY), origin=ORIGIN)
    own = Log.open(RealFiles(folder / "ledger" / "own"), origin=f"wattseal-ledger/{LEDGER}")
    try:
        for log in (seal, copy, own):
            for _ in log.audit():
                pass
        _check_notes(folder, seal, copy, own)
        assert seal.durable == copy.durable == seal.signed == seal.receipted == copy.signed
        size = seal.durable
        assert seal.root(size) == copy.root(size)
        packed, held = bodies_of(seal), bodies_of(copy)
        assert len(packed) == len(held) == size
        for index, (ours, theirs) in enumerate(zip(packed, held, strict=True)):
            assert ours == theirs, f"leaf {index} differs"
            assert leaf_hash(ours) == seal.leaf_hash(index) == copy.leaf_hash(index), f"leaf {index}: hash"
        refused = [leaf.body for leaf in map(parse, bodies_of(own)) if _is_refusal(leaf)]
        assert not refused, "the ledger refused what an honest gateway sent"
    finally:
        for log in (seal, copy, own):
            log.close()
    books = Books(packed=packed, leaves=[*map(parse, packed)])
    check_order(books)
    return books


def bodies_of(log: Log) -> list[bytes]:
    """Return all leaves of a log, none of which was pruned."""
    found: list[bytes] = []
    while len(found) < log.durable:
        for body in log.read(len(found), 4 << 20, log.durable):
            assert body is not None, f"leaf {len(found)} has no body"
            found.append(body)
    return found


def _check_notes(folder: Path, seal: Log, copy: Log, own: Log) -> None:
    """Verify both sides' checkpoints, and both sides' receipts, against the keys and the logs."""
    gateway_key = Verifier.from_vkey((folder / "pki" / f"{GATEWAY}.vkey").read_text().strip())
    witness = Verifier.from_vkey((folder / "pki" / f"{LEDGER}.vkey").read_text().strip())
    ledger_key = Verifier.from_vkey((folder / "pki" / f"{LEDGER}.note.vkey").read_text().strip())
    assert seal.checkpoint is not None
    assert seal.receipt is not None
    assert copy.checkpoint is not None
    assert own.checkpoint is not None
    signed = [
        checkpoints.verify(seal.checkpoint, origin=ORIGIN, verifier=gateway_key),
        checkpoints.verify_cosignature(seal.receipt, origin=ORIGIN, witness=witness)[0],
        checkpoints.verify(copy.checkpoint, origin=ORIGIN, verifier=gateway_key),
        checkpoints.verify_cosignature(copy.checkpoint, origin=ORIGIN, witness=witness)[0],
    ]
    for found in signed:
        assert found.root == seal.root(found.size) == copy.root(found.size)
    last = checkpoints.verify(own.checkpoint, origin=own.origin, verifier=ledger_key)
    assert (last.size, last.root) == (own.durable, own.root(own.durable))


def _is_refusal(leaf: Leaf) -> bool:
    return leaf.kind == "event" and leaf.body["what"] == "ledger.refused"


def check_order(books: Books) -> None:
    """Fail unless each start's sequence numbers run from 1 without a gap, one start after the other, lines chained."""
    ended: set[bytes] = set()
    boot, last = b"", 0
    lines: dict[str, str] = {}
    heads: dict[str, tuple[int, int]] = {}
    for index, leaf in enumerate(books.leaves):
        if leaf.src is not None:
            if leaf.src[0] != boot:
                ended.add(boot)
                boot, last = leaf.src[0], 0
                assert boot not in ended, f"leaf {index}: an earlier start of collect comes back"
                assert leaf.body.get("what") == "collect.started", f"leaf {index}: a start that no event tells"
                assert leaf.body["about"]["boot"] == boot.hex()
            assert leaf.src[1] == last + 1, f"leaf {index}: sequence {leaf.src[1]} after {last}"
            last += 1
        if leaf.kind == "schema" and isinstance(schema := to_schema(leaf.body), LineSchema):
            lines[schema.id.hex()] = schema.name
        if leaf.kind == "interval":
            line = lines[leaf.body["schema"].hex()]
            prev, t_ns = heads.get(line, (None, 0))
            assert leaf.prev == prev, f"leaf {index}: prev {leaf.prev}, want {prev}"
            assert leaf.body["t"] > t_ns, f"leaf {index}: boundaries do not rise"
            heads[line] = (index, leaf.body["t"])


def check_recorded(books: Books, recorder: Recorder) -> int:
    """Fail unless all that the seal acknowledged stands in the books once, unchanged and in order; return how much."""
    assert not recorder.faults, recorder.faults[:3]
    places: dict[tuple[bytes, int], int] = {}
    for index, leaf in enumerate(books.leaves):
        if leaf.src is not None:
            assert leaf.src not in places, f"leaf {index} stands twice, first at {places[leaf.src]}"
            places[leaf.src] = index
    before, count = -1, 0
    for boot, done in recorder.boots.items():
        for sequence in range(1, done.acked + 1):
            kind, body = done.puts[sequence]
            index = places.get((boot, sequence), -1)
            assert index >= 0, f"lost: {kind} {sequence} of {boot.hex()}, which the seal had acknowledged"
            assert index > before, f"leaf {index}: out of order"
            assert books.leaves[index].kind == kind
            assert books.packed[index].endswith(body), f"leaf {index}: changed on the way"
            before, count = index, count + 1
    return count


def worst_hole(books: Books, pulse: Pulse) -> float:
    """Return the longest time that any device went unread while collect and the machine ran, in seconds."""
    worst = 0.0
    for rows in books.rows().values():
        for one, next_one in itertools.pairwise(rows):
            if one.boot == next_one.boot:
                worst = max(worst, next_one.t_s - one.t_s - pulse.stood_still(one.t_s, next_one.t_s))
    return worst


def check_values(books: Books) -> None:
    """Fail where a row holds a value that is not its own device's answer: BAD without value, times that only rise."""
    for device, rows in books.rows().items():
        for one, next_one in itertools.pairwise(rows):
            if one.boot == next_one.boot:
                assert next_one.t_s > one.t_s, f"{device}: times do not rise"
        for placed in rows:
            if not placed.is_good:
                assert placed.row.values == (None,) * len(placed.row.values), f"{device}: a BAD row with a value"
