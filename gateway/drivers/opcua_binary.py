"""What we read of OPC UA's binary encoding: the values in replies, cut out of their bytes. Pure.

asyncua decodes 20 to 30 us a value, and can be made to build a list of two thousand million nothings by five bytes
of a server. Here a scalar costs one struct, what we do not read is skipped, and all work is bounded by the bytes
that came. Whatever is malformed raises ValueError, IndexError or struct.error: `MALFORMED`.

Source: OPC UA Part 6, 5.2 (encodings); Part 4, 5.10.2, 5.12.2, 5.13.5 and 7.33 (the replies).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any, Final, NamedTuple

MALFORMED: Final = (ValueError, IndexError, struct.error)
"""What the functions here raise for bytes that are not what they should be."""

NULL, BOOLEAN, FLOAT, DOUBLE, STRING, DATE_TIME, LOCALIZED = 0, 1, 10, 11, 12, 13, 21
ARRAY: Final = 0x80
"""Added to a kind: an array of it."""

_FORMATS: Final = dict(zip([*range(1, 12), 13, 19], "?bBhHiIqQfdqI", strict=True))
_SIZES: Final = {kind: struct.calcsize("<" + code) for kind, code in _FORMATS.items()} | {14: 16}
_DEEPEST: Final = 8
_MOST_PARTS: Final = 100_000
"""Parts of arrays that are passed over one by one in a reply, at most: so that none takes a second."""
_I32: Final = struct.Struct("<i")
_U32: Final = struct.Struct("<I")


class Cut(NamedTuple):
    """A DataValue. A tuple, since one is made for each value.

    kind: the built-in type's number, `ARRAY` added for an array; `NULL` where there is no value.
    value: of a scalar number, a text, or an array of texts; bytes for a text that is not UTF-8; None for all else.
    code: the status code. source, server: timestamps in 100 ns since 1601, 0 for none.
    start, end: where the value stands in the reply, with the byte that says its type.
    """

    kind: int
    value: float | bool | str | bytes | tuple[str, ...] | None
    code: int
    source: int
    server: int
    start: int
    end: int


_Layout = tuple[Callable[[bytes, int], tuple[Any, ...]], int, int, int, int, int]
_LAYOUTS: dict[int, _Layout | None] = {}


def _layout(mask: int, encoding: int) -> _Layout | None:
    """Return how to cut a DataValue at once; None where a struct cannot do it.

    What unpacks it, where in that its status and its timestamps stand (-1, which is the zero put behind the rest, where
    it has none), and the bytes of its value and of all of it.
    """
    code = _FORMATS.get(encoding)
    if not mask & 1 or mask & 0xC0 or code is None:
        return None
    fields = [(bit, part) for bit, part in ((2, "I"), (4, "q"), (16, "H"), (8, "q"), (32, "H")) if mask & bit]
    at = {bit: place for place, (bit, _) in enumerate(fields, 1)}
    whole = struct.Struct("<" + code + "".join(part for _, part in fields))
    return whole.unpack_from, at.get(2, -1), at.get(4, -1), at.get(8, -1), 2 + _SIZES[encoding], 2 + whole.size


def cut_value(data: bytes, at: int, reader: Reader) -> tuple[Cut, int]:
    """Return the DataValue that begins at a byte, and where it ends. reader: of the same bytes; its place is lost."""
    key = data[at] << 8 | data[at + 1]
    try:
        layout = _LAYOUTS[key]
    except KeyError:
        layout = _LAYOUTS[key] = _layout(data[at], data[at + 1])
    if layout is None:
        reader.at = at
        return reader.data_value(0), reader.at
    unpack, status, source, server, size, whole = layout
    parts = (*unpack(data, at + 2), 0)
    cut = Cut(key & 0xFF, parts[0], parts[status], parts[source], parts[server], at + 1, at + size)
    return cut, at + whole


class Reader:
    """Bytes and a place in them. left: how many parts may still be looked at, shared with those of parts of it."""

    def __init__(self, data: bytes, left: list[int] | None = None) -> None:
        self.data, self.at = data, 0
        self._left = [_MOST_PARTS] if left is None else left

    def skip(self, size: int) -> int:
        """Pass over some bytes; return where they began."""
        start = self.at
        if size < 0 or start + size > len(self.data):
            raise ValueError(f"ends {start + size - len(self.data)} bytes early")
        self.at = start + size
        return start

    def u8(self) -> int:
        """Return a byte."""
        return self.data[self.skip(1)]

    def u32(self) -> int:
        """Return a UInt32."""
        number: int = _U32.unpack_from(self.data, self.skip(4))[0]
        return number

    def count(self, least: int) -> int:
        """Return the length of an array, of which each element takes so many bytes at least."""
        number: int = _I32.unpack_from(self.data, self.skip(4))[0]
        if number * least > len(self.data) - self.at:
            raise ValueError(f"an array of {number} in {len(self.data) - self.at} bytes")
        return max(number, 0)

    def each(self, least: int) -> range:
        """Return what to loop over for an array whose elements are looked at one by one."""
        number = self.count(least)
        self._left[0] -= number
        if self._left[0] < 0:
            raise ValueError(f"more than {_MOST_PARTS} parts")
        return range(number)

    def blob(self) -> bytes | None:
        """Return a ByteString; None for a null one."""
        size: int = _I32.unpack_from(self.data, self.skip(4))[0]
        if size < 0:
            return None
        start = self.skip(size)
        return self.data[start : self.at]

    def text(self) -> str | bytes | None:
        """Return a String, as bytes where it is not UTF-8."""
        found = self.blob()
        try:
            return None if found is None else found.decode()
        except UnicodeDecodeError:
            return found

    def node_id(self) -> int | None:
        """Pass over a NodeId; return its number where it is one of namespace 0."""
        encoding = self.u8()
        form = encoding & 0x3F
        number: int | None = None
        if form == 0:
            number = self.u8()
        elif form in {1, 2}:
            space, number = struct.unpack_from(("<BH", "<HI")[form - 1], self.data, self.skip(3 * form))
            number = None if space else number
        elif form in {3, 5}:
            self.skip(2)
            self.blob()
        elif form == 4:
            self.skip(18)
        else:
            raise ValueError(f"a node id of form {form}")
        if encoding & 0x80:
            self.blob()
        if encoding & 0x40:
            self.skip(4)
        return number

    def extension(self) -> tuple[int | None, Reader | None]:
        """Return an ExtensionObject's type and its body, None where it has none in binary."""
        kind = self.node_id()
        form = self.u8()
        body = self.blob() if form else None
        return kind, Reader(body, self._left) if form == 1 and body is not None else None

    def diagnostic(self, depth: int = 0) -> None:
        """Pass over a DiagnosticInfo."""
        mask = self.u8()
        self.skip(4 * (mask & 0x0F).bit_count())
        if mask & 0x10:
            self.blob()
        if mask & 0x20:
            self.skip(4)
        if mask & 0x40:
            _check(depth)
            self.diagnostic(depth + 1)

    def scalar(self, kind: int, depth: int) -> float | str | bytes | None:
        """Return a value that is a number or a text; pass over any other, None."""
        if kind in _FORMATS:
            number: float = struct.unpack_from("<" + _FORMATS[kind], self.data, self.skip(_SIZES[kind]))[0]
            return number
        if kind == STRING:
            return self.text()
        if kind == LOCALIZED:
            mask = self.u8()
            if mask & 1:
                self.blob()
            return self.text() if mask & 2 else None
        self._pass_over(kind, depth)
        return None

    def _pass_over(self, kind: int, depth: int) -> None:
        match kind:
            case 14:
                self.skip(16)
            case 17 | 18:
                self.node_id()
            case 20:
                self.skip(2)
                self.blob()
            case 22:
                self.extension()
            case 23:
                self.data_value(depth + 1)
            case 24:
                self.variant(depth + 1)
            case 25:
                self.diagnostic()
            case 15 | 16 | 26 | 27 | 28 | 29 | 30 | 31:  # the last six are reserved, and coded as ByteStrings
                self.blob()
            case _:
                raise ValueError(f"a value of type {kind}")

    def variant(self, depth: int) -> tuple[int, float | str | bytes | tuple[str, ...] | None]:
        """Return a Variant's kind and value."""
        _check(depth)
        encoding = self.u8()
        kind = encoding & 0x3F
        if not encoding & ARRAY:
            return kind, self.scalar(kind, depth) if kind else None
        texts: list[str] = []
        if kind in _SIZES:
            self.skip(self.count(_SIZES[kind]) * _SIZES[kind])
        else:
            for _ in self.each(1):
                found = self.scalar(kind, depth)
                if kind == STRING:
                    texts.append(found if isinstance(found, str) else "")
        if encoding & 0x40:
            self.skip(4 * self.count(4))
        return kind | ARRAY, tuple(texts) if kind == STRING else None

    def data_value(self, depth: int) -> Cut:
        """Return a DataValue, whatever it holds."""
        _check(depth)
        mask = self.u8()
        start = self.at
        kind, value = self.variant(depth) if mask & 1 else (NULL, None)
        end = self.at
        code = self.u32() if mask & 2 else 0
        times = {4: 0, 8: 0}
        for bit, size in ((4, 8), (16, 2), (8, 8), (32, 2)):
            if mask & bit:
                place = self.skip(size)
                if size == 8:
                    times[bit] = struct.unpack_from("<q", self.data, place)[0]
        return Cut(kind, value, code, times[4], times[8], start, end)


def _check(depth: int) -> None:
    if depth > _DEEPEST:
        raise ValueError(f"values {depth} deep in values")
