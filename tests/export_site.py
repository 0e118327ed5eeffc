"""A small site for export tests: real keys, leaves, trees and proofs, in memory."""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

import pytest

from gateway.carbon.audit.evidence import ProvenLeaf, pack_leaves
from gateway.carbon.audit.export import LogPart, build
from gateway.carbon.audit.form import LEDGER_LEAVES, MANIFEST, LineName, Subject, leaves_path, pack_manifest
from gateway.carbon.audit.verify import verify
from gateway.codec.bodies import (
    accepted_body,
    epoch_body,
    event_body,
    factor_body,
    interval_body,
    line_body,
)
from gateway.codec.leaves import seal
from gateway.errors import TrustError
from gateway.model import Clock, ClockState, Factor, Interval, LineSchema
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.merkle import CompactRange, inclusion_proof, leaf_hash
from gateway.tlog.note import Signer
from tests.line_leaves import CONSTANT, MINUTE, SECOND, T0, Shown, energy, factor, good, line, sample
from tests.naive_tree import StoredTree

UNUSED = factor("9", 0, 2**62, zone="ELSEWHERE")
FILLER = line(energy("m1.energy", rated_power_w=600_000, serial="S1"), energy("m2.energy"), good(), name="filler")
PACKER = line(energy("m3.energy"), name="packer")
BOILER = line(energy("b.energy", unit="Wh"), name="boiler, old")


class MemoryLog:
    """A log of one key, whole in memory."""

    def __init__(self, origin: str) -> None:
        self.origin = origin
        self.signer = Signer.generate(origin)
        self.leaves: list[bytes] = []
        self.add("epoch", epoch_body(1, self.signer.verifier.vkey, {"type": "unattested"}))

    def add(self, kind: str, body: bytes, *, t_ns: int = T0, prev: int | None = None) -> int:
        """Append a leaf."""
        clock = Clock(t_ns=t_ns, state=ClockState.SYNCHRONISED, offset_ns=250_000)
        self.leaves.append(seal(kind, body, clock=clock, prev=prev))
        return len(self.leaves) - 1

    def checkpoint(self, size: int) -> Checkpoint:
        """Return the checkpoint of so many leaves."""
        edge = CompactRange()
        edge.extend(map(leaf_hash, self.leaves[:size]))
        return Checkpoint(origin=self.origin, size=size, root=edge.root())

    def note(self, size: int) -> bytes:
        """Return it signed."""
        return checkpoints.sign(self.checkpoint(size), self.signer)

    def proven(self, indices: Sequence[int], size: int) -> tuple[ProvenLeaf, ...]:
        """Return leaves with their proofs."""
        tree = StoredTree(self.leaves[:size])
        return tuple(
            ProvenLeaf(index=index, leaf=self.leaves[index], proof=inclusion_proof(index, size, tree.node))
            for index in indices
        )


class Gateway(MemoryLog):
    """A gateway's log, with lines in it."""

    def __init__(self, name: str) -> None:
        super().__init__(f"wattseal/{name}")
        self.name = name
        self.schema_at: dict[bytes, int] = {}
        self.intervals: dict[str, list[int]] = {}

    def adopt(self, schema: LineSchema) -> None:
        """Seal a schema."""
        self.schema_at[schema.id] = self.add("schema", line_body(schema))

    def shows(self, schema: LineSchema, t_ns: int, shown: Sequence[Shown]) -> int:
        """Seal one interval."""
        if schema.id not in self.schema_at:
            self.adopt(schema)
        samples = tuple(
            sample(one, t_ns + SECOND)._replace(point=column.point)
            for one, column in zip(shown, schema.columns, strict=True)
        )
        body = interval_body(Interval(schema_id=schema.id, t_ns=t_ns, samples=samples))
        held = self.intervals.setdefault(schema.name, [])
        held.append(self.add("interval", body, t_ns=t_ns + SECOND, prev=held[-1] if held else None))
        return held[-1]


class Site:
    """Two gateways and a ledger; seven minutes of three lines."""

    def __init__(self, factors: Sequence[Factor] = (UNUSED, CONSTANT)) -> None:
        self.gateways = {name: Gateway(name) for name in ("gw1", "gw2")}
        self.ledger = MemoryLog("wattseal-ledger/test")
        self.factors = [self.ledger.add("factor", factor_body(one)) for one in factors]
        gw1, gw2 = self.gateways.values()
        for minute in range(8):
            t_ns = T0 + minute * MINUTE
            used = Decimal(minute) / 8
            m2 = None if minute in (3, 4) else str(used * 2)
            gw1.shows(FILLER, t_ns, [str(used), m2, str(minute * 5)])
            gw1.add("event", event_body("device.up", t_ns, {"n": minute}))
            gw1.shows(PACKER, t_ns, [str(used * 3)])
            gw2.shows(BOILER, t_ns, [str(minute * 100)])
        self.sizes = {name: len(one.leaves) for name, one in self.gateways.items()}
        self.receipts = {name: self.receipt(name, size) for name, size in self.sizes.items()}
        self.accepted = {name: self.accept(name, note) for name, note in self.receipts.items()}

    def receipt(self, name: str, size: int) -> bytes:
        """Return a cosigned checkpoint."""
        return checkpoints.cosign(self.gateways[name].note(size), self.ledger.signer.cosigner(), time_s=T0 // SECOND)

    def accept(self, name: str, note: bytes) -> int:
        """Seal that the ledger took this checkpoint."""
        return self.ledger.add("accepted", accepted_body(name, note))

    @property
    def vkey(self) -> str:
        """Return the ledger's key."""
        return self.ledger.signer.verifier.vkey

    def part(self, name: str, lines: Sequence[str], first: int = 0, last: int | None = None) -> LogPart:
        """Return what an export shows of a gateway: intervals first to last (excluded) of these lines."""
        gateway, indices = self.gateways[name], {0}
        for one in (FILLER, PACKER, BOILER):
            if one.name in lines:
                indices |= {gateway.schema_at[one.id], *gateway.intervals[one.name][first:last]}
        leaves = gateway.proven(sorted(indices), self.sizes[name])
        return LogPart(note=self.receipts[name], key=gateway.signer.verifier, leaves=leaves)

    def ledger_part(self, names: Sequence[str], factors: Sequence[int] | None = None) -> LogPart:
        """Return what an export shows of the ledger."""
        chosen = self.factors if factors is None else factors
        size = len(self.ledger.leaves)
        leaves = self.ledger.proven([0, *chosen, *(self.accepted[name] for name in names)], size)
        return LogPart(note=self.ledger.note(size), key=self.ledger.signer.verifier, leaves=leaves)

    def export(self, subject: Subject) -> dict[str, bytes]:
        """Return the files of an export."""
        lines = {name: [line for its, line in subject.lines if its == name] for name in subject.gateways}
        parts = {name: self.part(name, its) for name, its in lines.items()}
        return build(subject, gateways=parts, ledger=self.ledger_part(list(parts)), signer=self.ledger.signer)

    def manifested(self, files: Mapping[str, bytes]) -> dict[str, bytes]:
        """Return the files with a manifest that fits them: what only the ledger itself can forge."""
        rest = {path: content for path, content in files.items() if path != MANIFEST}
        return {**rest, MANIFEST: self.ledger.signer.sign_note(pack_manifest(rest))}

    def with_leaves(self, files: Mapping[str, bytes], name: str, indices: Sequence[int]) -> dict[str, bytes]:
        """Return the files with just these leaves of a gateway, each with its true proof."""
        leaves = self.gateways[name].proven(indices, self.sizes[name])
        return {**files, leaves_path(name): pack_leaves(leaves)}

    def with_ledger_leaves(self, files: Mapping[str, bytes], indices: Sequence[int]) -> dict[str, bytes]:
        """Return the files with just these leaves of the ledger."""
        return {**files, LEDGER_LEAVES: pack_leaves(self.ledger.proven(indices, len(self.ledger.leaves)))}


def subject(*lines: LineName, first: int = 0, last: int = 7) -> Subject:
    """Return the subject of some minutes; of all lines where none are named."""
    named = lines or (("gw1", "filler"), ("gw1", "packer"), ("gw2", "boiler, old"))
    return Subject(start_ns=T0 + first * MINUTE, end_ns=T0 + last * MINUTE, lines=tuple(named))


SITE = Site()
FILES = SITE.export(subject())
GW1 = leaves_path("gw1")
NAMES = re.compile(r"leaf \d+|row \d+|line \d+|" + "|".join(map(re.escape, FILES)))


def refused(files: Mapping[str, bytes], match: str | None = None, trust: list[str] | None = None) -> TrustError:
    """Return why an export does not verify."""
    with pytest.raises(TrustError, match=match) as caught:
        verify(files, trust)
    return caught.value


def lines_of(files: Mapping[str, bytes], path: str) -> list[bytes]:
    """Return the lines of a file."""
    return files[path].splitlines(keepends=True)


def edited(files: Mapping[str, bytes], path: str, edit: Callable[[list[bytes]], object]) -> dict[str, bytes]:
    """Return the files with the lines of one changed, and a manifest that fits, so that it cannot tell."""
    lines = lines_of(files, path)
    edit(lines)
    return SITE.manifested({**files, path: b"".join(lines)})
