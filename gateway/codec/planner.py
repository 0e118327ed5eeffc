"""Which registers are read together: points to blocks. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.errors import ConfigError
from gateway.model import Point, WireType

# Modbus Application Protocol V1.1b3, 6.1 to 6.4: the most that one reply holds.
MAX_REGISTERS = 125
MAX_BITS = 2000
SPACE = 65536

_WIDTH = {
    WireType.U16: 1,
    WireType.S16: 1,
    WireType.U32: 2,
    WireType.S32: 2,
    WireType.F32: 2,
    WireType.U64: 4,
    WireType.S64: 4,
    WireType.F64: 4,
    WireType.BIT: 1,
}

Never = tuple[int, int, int]


def is_bits(function: int) -> bool:
    """Return whether a read of this function code answers with bits (coils, discrete inputs)."""
    return function in {1, 2}


def size_of(function: int, count: int) -> int:
    """Return how many bytes `count` registers or bits take in a reply."""
    return (count + 7) // 8 if is_bits(function) else 2 * count


def width(point: Point) -> int:
    """Return how many registers a point takes; or bits, for FC 1 and 2.

    Raises ConfigError where no device could hold such a point.
    """
    if point.function not in {1, 2, 3, 4}:
        raise ConfigError(f"point {point.name}: function: got {point.function}, want 1..4")
    if is_bits(point.function) and (point.type is not WireType.BIT or point.bit is not None):
        raise ConfigError(f"point {point.name}: got {point.type} in a coil or discrete input, want a bit, unnumbered")
    if point.type is WireType.BIT and not is_bits(point.function) and (point.bit is None or not 0 <= point.bit < 16):
        raise ConfigError(f"point {point.name}: bit: got {point.bit}, want 0..15")
    count = _WIDTH.get(point.type, point.registers)
    if count < 1:
        raise ConfigError(f"point {point.name}: registers: got {point.registers}, want 1 or more")
    if not 0 <= point.address <= SPACE - count:
        raise ConfigError(f"point {point.name}: address: got {point.address}, want 0..{SPACE - count}")
    return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one device can be asked.

    max_registers, max_bits: the most in one request.
    max_gap: how many unused registers (or bits) may be read along to save a request.
    never: (function, first, last) ranges that no request may touch.
    keep_order: read in the order of the points, where a device wants that.
    """

    max_registers: int = MAX_REGISTERS
    max_bits: int = MAX_BITS
    max_gap: int = 8
    never: tuple[Never, ...] = ()
    keep_order: bool = False

    def __post_init__(self) -> None:
        """Refuse what no request can be."""
        for name, most in (("max_registers", MAX_REGISTERS), ("max_bits", MAX_BITS)):
            if not 1 <= getattr(self, name) <= most:
                raise ConfigError(f"{name}: got {getattr(self, name)}, want 1..{most}")
        if self.max_gap < 0:
            raise ConfigError(f"max_gap: got {self.max_gap}, want 0 or more")

    def most(self, function: int) -> int:
        """Return the most registers or bits in one request of a function."""
        return self.max_bits if is_bits(function) else self.max_registers

    def forbids(self, function: int, first: int, stop: int) -> bool:
        """Return whether first..stop-1 touches a range that is never to be read."""
        return any(f == function and first <= last and low < stop for f, low, last in self.never)


@dataclass(frozen=True, slots=True)
class Block:
    """Points that one request reads.

    address, count: registers, or bits for FC 1 and 2; derived from the points.
    """

    function: int = field(init=False)
    address: int = field(init=False)
    count: int = field(init=False)
    points: tuple[Point, ...]

    def __post_init__(self) -> None:
        """Span the points."""
        object.__setattr__(self, "function", self.points[0].function)
        object.__setattr__(self, "address", min(p.address for p in self.points))
        object.__setattr__(self, "count", max(p.address + width(p) for p in self.points) - self.address)

    @property
    def size(self) -> int:
        """How many bytes a reply holds."""
        return size_of(self.function, self.count)

    @property
    def range(self) -> Never:
        """The addresses as `Limits.never` says them."""
        return (self.function, self.address, self.address + self.count - 1)

    def split(self) -> tuple[Block, ...]:
        """Return two smaller blocks with the same points, or none where all points share their registers."""
        spans = sorted({(p.address, width(p)) for p in self.points})
        first = set(spans[: len(spans) // 2])
        halves = (
            tuple(p for p in self.points if (p.address, width(p)) in first),
            tuple(p for p in self.points if (p.address, width(p)) not in first),
        )
        return tuple(Block(half) for half in halves) if first else ()


def plan(points: Sequence[Point], limits: Limits) -> tuple[Block, ...]:
    """Return the blocks that read all points in few requests; each point is in exactly one.

    Raises ConfigError for a point that cannot be read within the limits.
    """
    for point in points:
        stop = point.address + width(point)
        if limits.forbids(point.function, point.address, stop):
            raise ConfigError(f"point {point.name}: got address {point.address}, which is in a range never to be read")
        if stop - point.address > limits.most(point.function):
            raise ConfigError(f"point {point.name}: got {width(point)} registers, want {limits.most(point.function)}")
    ordered = points if limits.keep_order else sorted(points, key=lambda p: (p.function, p.address, width(p)))
    blocks: list[list[Point]] = []
    stop = 0
    for point in ordered:
        joins = bool(blocks) and _joins(point, blocks[-1], stop, limits)
        if not joins:
            blocks.append([])
            stop = 0
        blocks[-1].append(point)
        stop = max(stop, point.address + width(point))
    return tuple(Block(tuple(block)) for block in blocks)


def _joins(point: Point, block: list[Point], stop: int, limits: Limits) -> bool:
    """Return whether a point may extend a block that ends before `stop`.

    A block starts at its first point: with `keep_order`, a step back begins a new one.
    """
    first = block[0].address
    last = max(stop, point.address + width(point))
    return (
        point.function == block[0].function
        and first <= point.address <= stop + limits.max_gap
        and last - first <= limits.most(point.function)
        and not limits.forbids(point.function, first, last)
    )
