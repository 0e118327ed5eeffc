"""All blocks of a device to one row of values, by precompiled structs. Pure.

All four byte orders come from two tricks that cost the same for any number of values: the bytes are read as
they are or with the two bytes of each register swapped, and by a big- or a little-endian struct.
    ABCD as they are, big    BADC swapped, big    CDAB swapped, little    DCBA as they are, little
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Sequence
from math import isfinite
from operator import itemgetter
from typing import Any, NamedTuple

from gateway.codec.number import (
    FLOATS,
    LITTLE,
    MAX_EXPONENT,
    code_of,
    encode,
    exact,
    ratio,
    raw_of,
    store_of,
    swap_bytes,
    swaps,
)
from gateway.codec.planner import Block, Limits, is_bits, plan, size_of, width
from gateway.errors import ConfigError
from gateway.model import Point, Quality, Value, WireType

__all__ = ["Block", "Decoder", "Limits", "encode", "exact", "plan", "raw_of", "store_of"]

Values = tuple[Value | None, ...]
Qualities = tuple[Quality, ...]


class _Field(NamedTuple):
    """One raw value: of the swapped bytes or not, in which byte order, from which byte of the image on, as what."""

    swapped: bool
    little: bool
    offset: int
    code: str


class _Place(NamedTuple):
    """Where a point stands: in which block, in which bytes of its reply, and where in the image."""

    block: int
    start: int
    stop: int
    offset: int


class Decoder:
    """The compiled form of a device's points and of the blocks that read them.

    Each point must be in one of the blocks. Raises ConfigError where a scale factor's point is no use.
    The image is the replies of all blocks, one after the other, those of bits last: so registers are aligned.
    """

    def __init__(self, points: Sequence[Point], blocks: Sequence[Block]) -> None:
        self._points = tuple(points)
        self._blocks = tuple(blocks)
        self._order = sorted(range(len(blocks)), key=lambda i: is_bits(blocks[i].function))
        self._ordered = self._order == list(range(len(blocks)))
        self._size = sum(block.size for block in blocks)
        self._registers_size = sum(block.size for block in blocks if not is_bits(block.function))
        places = _places(self._blocks, self._order)
        self._places = [places[point.name] for point in self._points]
        self._compile_structs()
        self._compile_steps()

    def _compile_structs(self) -> None:
        """Turn the places of all points into as few structs as can be, and the way from those to a row."""
        fields = [_field(point, place) for point, place in zip(self._points, self._places, strict=True)]
        layers = list(_layers(set(fields)))
        inside = [field for layer in layers for field in layer]
        at = {field: i for i, field in enumerate(inside)}
        indexes = [at[field] for field in fields]
        self._structs = [(layer[0].swapped, _struct(layer).unpack_from) for layer in layers]
        self._one_struct = len(layers) == 1 and not layers[0][0].swapped
        self._arrange = None if indexes == list(range(len(inside))) else _getter(indexes)

    def _compile_steps(self) -> None:
        """Sort the points by what is left to do once their raw values stand in a row."""
        index = {point.name: i for i, point in enumerate(self._points)}
        self._bits: list[tuple[int, int]] = []
        self._texts: list[int] = []
        self._sentinels: list[tuple[int, frozenset[int]]] = []
        self._whole: list[tuple[int, int, int]] = []
        self._scaled: list[tuple[int, int, int, int]] = []
        self._powered: list[tuple[int, int, int, int, int]] = []
        floats: list[int] = []
        for i, point in enumerate(self._points):
            if point.type is WireType.BIT:
                self._bits.append((i, self._shift(i)))
            elif point.type is WireType.STRING:
                self._texts.append(i)
            else:
                self._add_number(i, point, index)
                if store_of(point) in {"f32", "f64"}:
                    floats.append(i)
        self._float_indexes = floats
        self._floats = _getter(floats) if floats else None
        self._all_plain = not (
            self._bits or self._texts or self._sentinels or self._whole or self._scaled or self._powered
        )

    def _add_number(self, i: int, point: Point, index: dict[str, int]) -> None:
        """Note what has to be done to one number."""
        a, b, d = ratio(point)
        if point.sentinels:
            self._sentinels.append((i, point.sentinels))
        if point.scale_point is not None:
            j = index.get(point.scale_point)
            if j is None or self._points[j].type in FLOATS | {WireType.BIT, WireType.STRING}:
                raise ConfigError(f"point {point.name}: scale_point: got {point.scale_point}, want an integer point")
            self._powered.append((i, j, a, b, d))
        elif store_of(point) == "f64" and (point.type not in FLOATS or (a, b, d) != (1, 0, 1)):
            self._scaled.append((i, a, b, d))
        elif (a, b) != (1, 0):
            self._whole.append((i, a, b))

    def _shift(self, i: int) -> int:
        """Return by how much to shift the raw value that holds a bit: a register, or a byte of coils."""
        point = self._points[i]
        return (point.address - self._blocks[self._places[i].block].address) % 8 if point.bit is None else point.bit

    def raw(self, index: int, replies: Sequence[bytes | None]) -> bytes | None:
        """Return the bytes of one point as they came; None where its block has no reply."""
        block, start, stop, _ = self._places[index]
        reply = replies[block]
        return None if reply is None else reply[start:stop]

    def block_of(self, index: int) -> int:
        """Return which of the blocks holds a point."""
        return self._places[index].block

    def decode(self, replies: Sequence[bytes | None]) -> tuple[Values, Qualities | None]:
        """Return one value a point, None exactly where it is BAD, and the qualities, None when all are GOOD.

        replies: the register or bit bytes of each block, None for one that failed.
        Raises ValueError where a reply is not as long as its block.
        """
        missing = None in replies
        image = b"".join(replies) if self._ordered and not missing else self._image(replies)  # type: ignore[arg-type]
        if len(image) != self._size:
            raise ValueError(f"got {len(image)} bytes, want {self._size}")
        # The usual case, kept short: one struct, nothing left to do.
        values = self._structs[0][1](image) if self._one_struct else self._gather(image)
        if self._arrange is not None:
            values = self._arrange(values)
        # One NaN or infinity makes a whole sum not finite, so a single test clears the row.
        if self._all_plain and not missing and isfinite(sum(values)):
            return values, None
        bad = {i for i, place in enumerate(self._places) if replies[place.block] is None} if missing else set()
        row = self._convert(values, bad)
        if not bad:
            return tuple(row), None
        for i in bad:
            row[i] = None
        return tuple(row), tuple(Quality.BAD if value is None else Quality.GOOD for value in row)

    def _image(self, replies: Sequence[bytes | None]) -> bytes:
        """Return all replies as one, zeros where one is missing."""
        parts = [
            bytes(block.size) if reply is None else reply for reply, block in zip(replies, self._blocks, strict=True)
        ]
        return b"".join(parts if self._ordered else [parts[i] for i in self._order])

    def _gather(self, image: bytes) -> tuple[Any, ...]:
        """Return the raw values of several structs, one after the other."""
        swapped = swap_bytes(image[: self._registers_size])
        values: tuple[Any, ...] = ()
        for of_swapped, unpack in self._structs:
            values += unpack(swapped if of_swapped else image)
        return values

    def _convert(self, raw: tuple[Any, ...], bad: set[int]) -> list[Any]:
        """Return the values of raw ones; add to `bad` the indexes of those that hold none."""
        values = list(raw)
        for i, sentinels in self._sentinels:
            if raw[i] in sentinels:
                bad.add(i)
        for i, a, b in self._whole:
            values[i] = raw[i] * a + b
        for i, a, b, d in self._scaled:
            values[i] = (raw[i] * a + b) / d
        if self._bits or self._texts or self._powered:
            self._convert_rare(raw, values, bad)
        if self._floats is not None and not isfinite(sum(self._floats(values))):
            bad.update(i for i in self._float_indexes if not isfinite(values[i]))
        return values

    def _convert_rare(self, raw: tuple[Any, ...], values: list[Any], bad: set[int]) -> None:
        """Convert what few devices have: bits, texts and SunSpec scale factors."""
        for i, shift in self._bits:
            values[i] = bool(raw[i] >> shift & 1)
        for i, j, a, b, d in self._powered:
            power = raw[j]
            if j in bad or not -MAX_EXPONENT <= power <= MAX_EXPONENT:
                bad.add(i)
            else:
                values[i] = (raw[i] * a + b) * 10 ** max(power, 0) / (d * 10 ** max(-power, 0))
        for i in self._texts:
            text = _text(raw[i])
            values[i] = text
            if text is None or (0 in self._points[i].sentinels and not any(raw[i])):
                bad.add(i)


def _text(raw: bytes) -> str | None:
    """Return the text before the first NUL without trailing spaces; None where it is not UTF-8."""
    try:
        return raw.split(b"\0", 1)[0].rstrip(b" ").decode()
    except UnicodeDecodeError:
        return None


def _places(blocks: Sequence[Block], order: Sequence[int]) -> dict[str, _Place]:
    """Return where each point of the blocks stands."""
    places = {}
    base = 0
    for i in order:
        block = blocks[i]
        for point in block.points:
            at = point.address - block.address
            start = at // 8 if is_bits(block.function) else 2 * at
            places[point.name] = _Place(i, start, start + size_of(block.function, width(point)), base + start)
        base += block.size
    return places


def _field(point: Point, place: _Place) -> _Field:
    """Return what a struct has to unpack for a point."""
    if is_bits(point.function):
        return _Field(swapped=False, little=False, offset=place.offset, code="B")
    little = point.type is not WireType.STRING and point.order in LITTLE
    return _Field(swapped=swaps(point), little=little, offset=place.offset, code=code_of(point))


def _layers(fields: set[_Field]) -> Iterator[list[_Field]]:
    """Sort fields into lists, each for one struct: same bytes, same order, nothing that overlaps."""
    left = sorted(fields)
    while left:
        layer: list[_Field] = []
        rest: list[_Field] = []
        end = 0
        for field in left:
            if (not layer or field[:2] == layer[0][:2]) and field.offset >= end:
                layer.append(field)
                end = field.offset + struct.calcsize("=" + field.code)
            else:
                rest.append(field)
        yield layer
        left = rest


def _struct(layer: Sequence[_Field]) -> struct.Struct:
    """Return the struct that unpacks the fields of a layer from an image."""
    parts = ["<" if layer[0].little else ">"]
    end = 0
    for field in layer:
        parts.append(f"{field.offset - end}x{field.code}")
        end = field.offset + struct.calcsize("=" + field.code)
    return struct.Struct("".join(parts))


def _getter(indexes: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Return an itemgetter that gives a tuple for a single index too."""
    if len(indexes) == 1:
        only = indexes[0]
        return lambda values: (values[only],)
    return itemgetter(*indexes)
