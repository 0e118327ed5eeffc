"""What each line is making, as its controllers say: collected from polls and changes, given at each boundary.

A value is told since its source's own time, or, where it was found by polling, since the first reply that had it. What
a controller tells late may lie before the boundary that was closed last. Then it is what was in force after it, with
its true instant: it counts from that boundary on, and the interval that was closed stays as it was sealed. Where that
instant cannot be true, because something else was heard since, the value is told since it arrived: what nobody heard is
never filled in.
"""

import struct
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Final, NamedTuple

from gateway.app.ticks import NS
from gateway.codec.agent_leaves import AgentSource, stored, told
from gateway.codec.agents import AgentFrame
from gateway.codec.line_leaves import MOST_TOLD, MOST_VALUE
from gateway.model import Change, ContextColumn, LineSchema, Row, Schema, Told, Value

HOLD_NS: Final = 2 * NS
"""So long after its time a boundary waits for what devices tell by themselves: a publishing interval, and a bit."""
_MOST_KEPT: Final = 4 * MOST_TOLD
_MOST_BYTES: Final = 6_000
"""Of one context column in one leaf, which has 64 KiB: four of them, and a hundred meters that are BAD."""
_TOLD_BYTES: Final = 14


class Track:
    """One context column of one line.

    kept: in order of time, from what was in force at the last closed boundary on. raw: the newest value, not as text.
    follows: the device tells it by itself. polled: a poll found the newest value, and nobody said since when.
    """

    def __init__(self, column: ContextColumn) -> None:
        self.column = column
        self.kept: list[Told] = []
        self.raw: Value | None = None
        self.follows = False
        self.polled = False
        self._doubt: tuple[Value | None] | None = None
        self._seen_ns = 0  # when a poll read the newest value again

    def start_with(self, other: "Track") -> None:
        """Take over what another track of the same point knows is in force."""
        self.kept, self.raw = other.kept[-1:], other.raw
        self.follows, self.polled = other.follows, other.polled

    def read(self, t_ns: int, value: Value | None, store: str, now_ns: int) -> None:
        """Take what a poll read; None where it was BAD.

        A reply may have been under way while the device told something newer. So where it contradicts what was told,
        the next one must as well.
        """
        self._return(now_ns)
        if self.kept and value == self.raw:
            self._doubt, self._seen_ns = None, t_ns
        elif self.follows and self._doubt != (value,):
            self._doubt = (value,)
        else:
            self._take(t_ns, value, store, now_ns, polled=True)

    def told(self, t_ns: int, value: Value | None, store: str, now_ns: int) -> None:
        """Take what the device told by itself; None where it was BAD."""
        self._return(now_ns)
        self.follows = value is not None
        if not self.kept or value != self.raw:
            self._take(t_ns, value, store, now_ns, polled=False)
        elif self.polled and value is not None:
            # Found by a poll first; now the device says since when.
            before_ns = self.kept[-2].t_ns if len(self.kept) > 1 else -1
            if before_ns < t_ns < self.kept[-1].t_ns:
                self.kept[-1] = Told(t_ns, self.kept[-1].value)
            self.polled = False

    def _take(self, t_ns: int, value: Value | None, store: str, now_ns: int, *, polled: bool) -> None:
        t_ns = max(0, min(t_ns, now_ns))
        if self.kept and t_ns <= max(self.kept[-1].t_ns, min(self._seen_ns, now_ns)):
            t_ns = max(now_ns, self.kept[-1].t_ns + 1)
        self.raw, self.polled, self._doubt = value, polled, None
        self.kept.append(Told(t_ns, text_of(value, store)))
        if len(self.kept) > _MOST_KEPT:
            self.kept = _bounded(self.kept)

    def _return(self, now_ns: int) -> None:
        """Come back from a future that a clock stepped back has left behind."""
        if self.kept and self.kept[-1].t_ns > now_ns + NS:
            newest = self.kept[-1].value
            self.kept = [*(one for one in self.kept if one.t_ns < now_ns), Told(now_ns, newest)]

    def close(self, after_ns: int, boundary_ns: int) -> tuple[Told, ...]:
        """Return what was in force after one boundary, and each change up to the next, as an interval leaf holds it."""
        until = sum(one.t_ns <= boundary_ns for one in self.kept)
        since = sum(one.t_ns <= after_ns for one in self.kept[:until])
        found = self.kept[max(since - 1, 0) : until]
        self.kept = self.kept[max(until - 1, 0) :]
        return tuple(_bounded(found))


def _bounded(found: list[Told]) -> list[Told]:
    """Return what a leaf has room for: what was in force until the first change, nothing known then, the newest."""
    newest, room = 0, _MOST_BYTES
    for one in reversed(found[1:]):
        room -= _TOLD_BYTES + len((one.value or "").encode())
        if room < 0:
            break
        newest += 1
    if newest >= len(found) - 1 and len(found) <= MOST_TOLD:
        return found
    return [found[0], Told(found[1].t_ns, None), *found[len(found) - min(newest, MOST_TOLD - 2) :]]


def text_of(value: Value | None, store: str) -> str | None:
    """Return a value as text: true or false, a number by its shortest digits, a text as it is, cut to MOST_VALUE."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if value.is_integer() and abs(value) < 10**15:
            return str(int(value))  # a controller's 6.0 is state 6
        return _single(value) if store == "f32" else repr(value)
    return None if value is None else str(value)[:MOST_VALUE]


def _single(value: float) -> str:
    """Return the shortest digits that are this float32 and no other."""
    texts = (format(value, f".{digits}g") for digits in range(1, 10))
    return next((text for text in texts if _rounded(float(text)) == value), repr(value))


def _rounded(value: float) -> float:
    try:
        return float(struct.unpack(">f", struct.pack(">f", value))[0])
    except OverflowError:
        return value


class LineContext:
    """The context of one line. before: of the same line or others, until now: what they know of a point goes on."""

    def __init__(self, line: LineSchema, before: Iterable["LineContext"] = ()) -> None:
        self.tracks = tuple(map(Track, line.context))
        known = {track.column.point: track for context in before for track in context.tracks if track.kept}
        for track in self.tracks:
            if track.column.point in known:
                track.start_with(known[track.column.point])
        self._closed_ns = 0

    def close(self, boundary_ns: int) -> tuple[tuple[Told, ...], ...]:
        """Return the context of the interval that ends there; to be called in order of time."""
        after_ns = self._closed_ns if self._closed_ns < boundary_ns else 0  # else our clock was stepped back
        self._closed_ns = boundary_ns
        return tuple([track.close(after_ns, boundary_ns) for track in self.tracks])

    def rests_on(self, devices: AbstractSet[str]) -> bool:
        """Return whether one of these devices says something of it."""
        return any(track.column.point.partition(".")[0] in devices for track in self.tracks)


class _Place(NamedTuple):
    """Where in a device's rows a track's value stands, and how it is stored."""

    column: int
    store: str
    track: Track


class DeviceContext:
    """What one device says for the context of lines."""

    def __init__(self, schema: Schema, tracks: Mapping[str, Sequence[Track]]) -> None:
        self._places = [
            _Place(column, each.store, track)
            for column, each in enumerate(schema.columns)
            for track in tracks.get(f"{schema.device}.{each.name}", ())
        ]
        self._has_frames = False

    def __bool__(self) -> bool:
        """Return whether it says anything."""
        return bool(self._places)

    def row(self, row: Row, now_ns: int) -> None:
        """Take what was polled; nothing where frames say more."""
        for column, store, track in () if self._has_frames else self._places:
            track.read(row.source_time_ns, row.values[column], store, now_ns)

    def told(self, changes: Iterable[Change], now_ns: int) -> None:
        """Take what the device told by itself."""
        for change in changes:
            for column, store, track in self._places:
                if change.column == column:
                    track.told(change.source_time_ns, change.value, store, now_ns)

    def frame(self, source: AgentSource, frame: AgentFrame, now_ns: int) -> None:
        """Take what an agent's frame says, unless it is older than what is known: the seal refuses those."""
        self._has_frames = True
        found = {each.column: each for each in told(frame, source.columns)}
        for column, store, track in self._places:
            if (each := found.get(column)) is None:
                continue
            t_ns = frame.time_ns - each.offset_ms * 1_000_000 if frame.clock_set else now_ns
            if not track.kept or t_ns > track.kept[-1].t_ns:
                value = None if each.value is None else stored(each.value, source.columns[column])
                track.told(t_ns, value, store, now_ns)


def contexts_of(schema: Schema, contexts: Iterable[LineContext]) -> DeviceContext | None:
    """Return what a device says for these lines; None for nothing."""
    tracks: dict[str, list[Track]] = {}
    for context in contexts:
        for track in context.tracks:
            tracks.setdefault(track.column.point, []).append(track)
    return (tracks and DeviceContext(schema, tracks)) or None
