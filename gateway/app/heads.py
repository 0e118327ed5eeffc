"""What the sealer remembers beside its checkpoint, so that a restart goes on where the last one stopped."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gateway.app.agentkeys import AgentHead, advanced
from gateway.codec.agent_leaves import parsed_frames
from gateway.codec.checks import to_schema
from gateway.codec.leaves import parse
from gateway.codec.pack import pack, unpack
from gateway.errors import LogError, TrustError
from gateway.model import ClockState, LineSchema
from gateway.store.segments import Log
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.note import Verifier

MOST_BOOTS = 8
"""So many earlier boots of collect are remembered: whoever sends again is known by its boot."""
MOST_LINES = 1000


class LineHead(NamedTuple):
    """What the sealer knows of a line. columns, context: how many samples, and columns of context, an interval has."""

    name: str
    columns: int
    period_s: int
    context: int = 0

    def misfit(self, interval: Mapping[str, Any]) -> str:
        """Say what about a checked interval body does not fit this line, "" if it fits.

        One that does not would stand in the line's chain and enter no figure: no export could cross it.
        """
        if len(interval["samples"]) != self.columns:
            return f"got {len(interval['samples'])} samples, want {self.columns}, as line {self.name!r} has counters"
        if len(interval.get("context", ())) != self.context:
            return f"got {len(interval.get('context', ()))} columns of context, want {self.context}"
        if interval["t"] % (self.period_s * 1_000_000_000):
            return f"t: got {interval['t']}, want a multiple of {self.period_s} s, the period of line {self.name!r}"
        return ""


@dataclass(slots=True)
class Heads:
    """What stands beside the checkpoint, brought up to date from the leaves after it.

    boot, sequence: the newest batch. t_ns: the newest trusted time. lines: per line the index of its newest interval
    leaf. line_of: by the newest schema of each line, which its intervals may name, that line.
    earlier: boots before, and how far each got. agents: what was sealed of each agent's frames.
    epoch, key: of the newest epoch leaf, so of who signed the checkpoint that the heads stand beside; "" where they are
    of a program that did not note it.
    """

    boot: bytes = b""
    sequence: int = 0
    epoch: int = 0
    t_ns: int = 0
    lines: dict[str, int] = field(default_factory=dict)
    line_of: dict[str, LineHead] = field(default_factory=dict)
    earlier: dict[bytes, int] = field(default_factory=dict)
    agents: dict[str, AgentHead] = field(default_factory=dict)
    key: str = ""

    def packed(self) -> bytes:
        """Return the heads as bytes."""
        earlier = [[boot, sequence] for boot, sequence in self.earlier.items()]
        known = [self.boot, self.sequence, self.epoch, self.t_ns, self.lines, self.line_of, earlier, self.agents]
        return pack([*known, self.key])

    @classmethod
    def unpacked(cls, packed: bytes, size: int) -> "Heads":
        """Return the heads that stand beside a checkpoint of this size. Raises LogError when they do not fit."""
        if not packed:
            return cls()
        try:
            boot, sequence, epoch, t_ns, lines, line_of, earlier, agents, *key = unpack(packed)
            line_of = {schema_id: LineHead(*line) for schema_id, line in line_of.items()}
            agents = {agent: AgentHead.of(*head) for agent, head in agents.items()}
            heads = cls(boot, sequence, epoch, t_ns, lines, line_of, dict(earlier), agents, *key)
        except (TrustError, TypeError, ValueError, AttributeError) as e:
            raise LogError(f"log: the heads beside the checkpoint cannot be read: {e}") from e
        if not heads._fits(size):
            raise LogError("log: the heads beside the checkpoint are not those of a log of its size")
        return heads

    def _fits(self, size: int) -> bool:
        counts = (self.sequence, self.epoch, self.t_ns, *self.earlier.values())
        return (
            {type(boot) for boot in (self.boot, *self.earlier)} == {bytes}
            and type(self.lines) is dict
            and type(self.key) is str
            and all(type(count) is int and 0 <= count < 2**63 for count in counts)
            and all(type(index) is int and 0 <= index < size for index in self.lines.values())
            and all(
                tuple(map(type, line)) == (str, int, int, int) and line.period_s > 0 for line in self.line_of.values()
            )
            and all(head.fits() for head in self.agents.values())
        )

    def switch(self, boot: bytes) -> None:
        """Go over to another boot of collect; what was sealed of it before is still known."""
        if boot == self.boot:
            return
        if self.boot:
            self.earlier[self.boot] = self.sequence
        self.boot, self.sequence = boot, self.earlier.pop(boot, 0)
        while len(self.earlier) > MOST_BOOTS:
            del self.earlier[next(iter(self.earlier))]

    def adopt(self, schema: LineSchema) -> None:
        """Note that a line's intervals name this schema from here on, and none before it."""
        self.line_of = {known: of for known, of in self.line_of.items() if of.name != schema.name}
        head = LineHead(schema.name, len(schema.columns), schema.period_s, len(schema.context))
        self.line_of[schema.id.hex()] = head

    def has_room_for(self, schema: LineSchema) -> bool:
        """Return whether there may be such a line: their number has a bound, whatever collect sends."""
        return len(self.line_of) < MOST_LINES or any(line.name == schema.name for line in self.line_of.values())

    def saw(self, agents: Mapping[str, AgentHead]) -> None:
        """Note what was sealed of agents' frames; no time later than now, or a wrong clock would shut out the next."""
        for agent, head in agents.items():
            self.agents[agent] = head._replace(time_ms=min(head.time_ms, self.t_ns // 1_000_000))

    def follow(self, index: int, body: bytes) -> None:
        """Bring the heads up to date with a leaf of the log. Raises LogError for one that no sealer can have made."""
        try:
            leaf = parse(body)
            if leaf.src is not None:
                self.switch(leaf.src[0])
                self.sequence = leaf.src[1]
            seen = advanced(self.agents, parsed_frames(leaf.body))
            if leaf.kind == "interval":
                self.lines[self.line_of[leaf.body["schema"].hex()].name] = index
        except (TrustError, KeyError) as e:
            raise LogError(f"log: leaf {index}: is none that this log can hold: {e}") from e
        if leaf.kind == "epoch":
            self.epoch, self.key = leaf.body["epoch"], leaf.body["key"]
        if leaf.kind == "schema":
            schema = to_schema(leaf.body)
            if isinstance(schema, LineSchema):
                self.adopt(schema)
        if leaf.clock.state != ClockState.SUSPECT:
            self.t_ns = max(self.t_ns, leaf.clock.t_ns)
        self.saw(seen)


def recover(log: Log, *, file_key: Verifier | None) -> Heads:
    """Return the heads as of the last leaf, from those beside the checkpoint and the leaves after it.

    file_key: the key of all epochs; without one, the checkpoint on disk must be signed by the key that the newest epoch
    leaf below it announced. Raises LogError when it is not.
    """
    heads = Heads.unpacked(log.heads, log.signed)
    if log.checkpoint is not None:
        _check(log, log.checkpoint, heads, file_key)
    index = log.signed
    while index < log.durable:
        for body in log.read(index, 1 << 20, log.durable):
            if body is not None:
                heads.follow(index, body)
            index += 1
    return heads


def _check(log: Log, note: bytes, heads: Heads, file_key: Verifier | None) -> None:
    if file_key is None and not heads.key:
        raise LogError(
            f"{log.origin}: the checkpoint on disk is of a program that did not note who signed it: start once "
            "with the key file as [seal] key, then with [attest]"
        )
    try:
        found = checkpoints.verify(note, origin=log.origin, verifier=file_key or Verifier.from_vkey(heads.key))
    except TrustError as e:
        raise LogError(f"{log.origin}: the checkpoint on disk is not by this gateway's key: {e}") from e
    if found.size != log.signed or found.root != log.root(found.size):
        raise LogError(f"log: the checkpoint says {found.size} leaves, the disk {log.signed}")
