"""What the sealer remembers beside its checkpoint, so that a restart goes on where the last one stopped."""

from dataclasses import dataclass, field

from gateway.codec.leaves import parse
from gateway.codec.pack import pack, unpack
from gateway.errors import LogError, TrustError
from gateway.model import ClockState, LineSchema

MOST_BOOTS = 8
"""So many earlier boots of collect are remembered: whoever sends again is known by its boot."""
MOST_LINES = 1000


@dataclass(slots=True)
class Heads:
    """What stands beside the checkpoint, brought up to date from the leaves after it.

    boot, sequence: the newest batch. t_ns: the newest trusted time. lines: per line the index of its newest interval
    leaf. line_of: per line the newest schema that its intervals may name. earlier: boots before, and how far each got.
    """

    boot: bytes = b""
    sequence: int = 0
    epoch: int = 0
    t_ns: int = 0
    lines: dict[str, int] = field(default_factory=dict)
    line_of: dict[str, str] = field(default_factory=dict)
    earlier: dict[bytes, int] = field(default_factory=dict)

    def packed(self) -> bytes:
        """Return the heads as bytes."""
        earlier = [[boot, sequence] for boot, sequence in self.earlier.items()]
        return pack([self.boot, self.sequence, self.epoch, self.t_ns, self.lines, self.line_of, earlier])

    @classmethod
    def unpacked(cls, packed: bytes, size: int) -> "Heads":
        """Return the heads that stand beside a checkpoint of this size. Raises LogError when they do not fit."""
        if not packed:
            return cls()
        try:
            boot, sequence, epoch, t_ns, lines, line_of, earlier = unpack(packed)
            heads = cls(boot, sequence, epoch, t_ns, lines, line_of, dict(earlier))
        except (TrustError, TypeError, ValueError) as e:
            raise LogError(f"log: the heads beside the checkpoint cannot be read: {e}") from e
        if not heads._fits(size):
            raise LogError("log: the heads beside the checkpoint are not those of a log of its size")
        return heads

    def _fits(self, size: int) -> bool:
        counts = (self.sequence, self.epoch, self.t_ns, *self.earlier.values())
        return (
            {type(boot) for boot in (self.boot, *self.earlier)} == {bytes}
            and type(self.lines) is dict
            and type(self.line_of) is dict
            and all(type(count) is int and 0 <= count < 2**63 for count in counts)
            and all(type(index) is int and 0 <= index < size for index in self.lines.values())
            and all(type(line) is str for line in self.line_of.values())
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

    def adopt(self, schema_id: str, line: str) -> None:
        """Note that a line's intervals name this schema from here on, and none before it."""
        self.line_of = {known: of for known, of in self.line_of.items() if of != line}
        self.line_of[schema_id] = line

    def has_room_for(self, schema: LineSchema) -> bool:
        """Return whether there may be such a line: their number has a bound, whatever collect sends."""
        return len(self.line_of) < MOST_LINES or schema.name in self.line_of.values()

    def follow(self, index: int, body: bytes) -> None:
        """Bring the heads up to date with a leaf of the log. Raises LogError for one that no sealer can have made."""
        try:
            leaf = parse(body)
            if leaf.src is not None:
                self.switch(leaf.src[0])
                self.sequence = leaf.src[1]
            if leaf.kind == "interval":
                self.lines[self.line_of[leaf.body["schema"].hex()]] = index
        except (TrustError, KeyError) as e:
            raise LogError(f"log: leaf {index}: is none that this log can hold: {e}") from e
        if leaf.kind == "epoch":
            self.epoch = leaf.body["epoch"]
        if leaf.kind == "schema" and "line" in leaf.body:
            self.adopt(leaf.body["id"].hex(), leaf.body["line"]["name"])
        if leaf.clock.state != ClockState.SUSPECT:
            self.t_ns = max(self.t_ns, leaf.clock.t_ns)
