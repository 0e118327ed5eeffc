"""Which factor applies to a zone at an instant, and whether it is the one that was wanted.

A figure takes only average factors; marginal ones are for decisions. What the operator states in grid-settings.json
has precedence over all. Else, with a policy (`[grid.<zone>]` of the plan), the first of these that there is:

1. a factor of the first provider of its order whose window covers the instant: nothing is flagged;
2. one of a later provider of its order: `factor_secondary`;
3. the one whose window ended last, not longer ago than last_good_h: `factor_last_good`;
4. an annual one (granularity P1Y) of a provider of its order: `factor_annual`.

Only factors of the policy's type count, lifecycle or direct, so that a year's figures never mix them. A policy
without an order takes all providers as equal. Of equals the shortest window has precedence, then the first key.
Without a policy the shortest window has it, as an hour's over a year's, then the first key; no last good one.
Where none of these is, there is no factor. Never zero.

The choice at an instant is the least of a rank that rests on each candidate alone. So it stays the same where the
others, which lost, are not shown, as in an export; but what ends an open window is (`enders`).
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway.carbon.energy import Flag
from gateway.carbon.exact import utc
from gateway.config.plan import GridSection
from gateway.errors import TrustError
from gateway.model import UNTIL_FURTHER_NOTICE_NS, Factor, FactorKey

AVERAGE = "average"
ANNUAL = "P1Y"
STATES = ("forecast", "estimated", "measured", "final")
"""From the weakest on."""

_HOUR_NS = 3_600_000_000_000
_COVERS, _LAST_GOOD, _ANNUAL = range(3)


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorLeaf:
    """A factor and where it is sealed in the ledger's log. hash: of its leaf."""

    factor: Factor
    index: int
    hash: bytes


class Span(NamedTuple):
    """A piece of time to which one factor applies, or none. fallback: why it is not the one that was wanted."""

    start_ns: int
    end_ns: int
    leaf: FactorLeaf | None
    fallback: Flag | None = None


class _Stated(NamedTuple):
    """Since when the operator states a factor for a zone ("": for all), or None: no longer."""

    from_ns: int
    zone: str
    leaf: FactorLeaf | None


class _Ranked(NamedTuple):
    """A candidate at an instant; the least rank counts."""

    rank: tuple[int, int, int, int, FactorKey]
    leaf: FactorLeaf
    fallback: Flag | None


class _Windows:
    """The windows of one key in order of time. None overlaps another; an open one ends where the next starts."""

    def __init__(self, key: FactorKey) -> None:
        self.key = key
        self.starts: list[int] = []
        self.leaves: list[FactorLeaf] = []

    def place(self, t_ns: int) -> int:
        """Return the place of the newest window that starts at or before t_ns, -1 for none."""
        return bisect_right(self.starts, t_ns) - 1

    def next_start(self, place: int) -> int:
        """Return where the window after a place starts."""
        return self.starts[place + 1] if place + 1 < len(self.starts) else UNTIL_FURTHER_NOTICE_NS

    def end(self, place: int) -> int:
        """Return where the window at a place ends."""
        end_ns = self.leaves[place].factor.end_ns
        return self.next_start(place) if end_ns == UNTIL_FURTHER_NOTICE_NS else end_ns

    def has_room(self, start_ns: int, end_ns: int) -> bool:
        """Return whether a window that is not empty fits between those that there are."""
        place = self.place(start_ns)
        if end_ns <= start_ns or (place >= 0 and self.starts[place] == start_ns):
            return False
        before_ns = self.leaves[place].factor.end_ns if place >= 0 else 0
        if start_ns < before_ns != UNTIL_FURTHER_NOTICE_NS:
            return False
        return end_ns == UNTIL_FURTHER_NOTICE_NS or end_ns <= self.next_start(place)

    def put(self, leaf: FactorLeaf) -> None:
        """Add a window for which there is room, or replace the one of the same start."""
        place = self.place(leaf.factor.start_ns)
        if place >= 0 and self.starts[place] == leaf.factor.start_ns:
            self.leaves[place] = leaf
            return
        self.starts.insert(place + 1, leaf.factor.start_ns)
        self.leaves.insert(place + 1, leaf)


class FactorTable:
    """The factors in force: those of a ledger's leaves, in the order of the log."""

    def __init__(self) -> None:
        self._windows: dict[FactorKey, _Windows] = {}
        self._stated: list[_Stated] = []
        # By zone and policy: whose windows count, each with its rank; and the newest answer, with the time it holds.
        self._counted: dict[tuple[str, GridSection | None], Sequence[tuple[int, int, _Windows]]] = {}
        self._newest: dict[tuple[str, GridSection | None], Span] = {}

    @property
    def zones(self) -> tuple[str, ...]:
        """The zones of which there is an average factor, in order."""
        return tuple(sorted({key[1] for key in self._windows if key[2] == AVERAGE}))

    def add(self, leaf: FactorLeaf) -> bool:
        """Put a factor leaf in force; return whether anything changed.

        The same version again changes nothing, nor does the same value in a weaker state. Another version of the same
        window must name in `supersedes` the one in force. Raises TrustError where it does not, or where windows of one
        key overlap otherwise.
        """
        factor = leaf.factor
        held = self.in_force(factor)
        if held is not None:
            if held.factor.version == factor.version:
                return False
            if factor.supersedes != held.factor.version:
                raise TrustError(f"factor: {said(factor)} does not supersede the version in force", index=leaf.index)
            if is_weaker(factor, held.factor):
                return False
        elif self.overlaps(factor):
            raise TrustError(f"factor: {said(factor)} overlaps another window of its key", index=leaf.index)
        if factor.key not in self._windows:
            self._windows[factor.key] = _Windows(factor.key)
            self._counted.clear()
        self._windows[factor.key].put(leaf)
        self._newest.clear()
        return True

    def state(self, from_ns: int, *, zone: str, leaf: FactorLeaf | None) -> None:
        """Take what the operator states from an instant on, instead of all that he stated before for then.

        zone: "" for all. None: he states nothing any more.
        """
        while self._stated and self._stated[-1].from_ns >= from_ns:
            self._stated.pop()
        self._stated.append(_Stated(from_ns, zone, leaf))
        self._newest.clear()

    def in_force(self, factor: Factor) -> FactorLeaf | None:
        """Return the version in force of the same key and window, None where there is none."""
        windows = self._windows.get(factor.key)
        place = -1 if windows is None else windows.place(factor.start_ns)
        if windows is None or place < 0:
            return None
        held = windows.leaves[place]
        same = (held.factor.start_ns, held.factor.end_ns) == (factor.start_ns, factor.end_ns)
        return held if same else None

    def overlaps(self, factor: Factor) -> bool:
        """Return whether another window of its key, or an empty one of its own, keeps a factor from coming in force."""
        windows = self._windows.get(factor.key) or _Windows(factor.key)
        return not windows.has_room(factor.start_ns, factor.end_ns)

    def reach(self, factor: Factor, beyond_ns: int) -> int:
        """Return until when a factor in force may matter, when a last good one may stand in for beyond_ns."""
        windows = self._windows[factor.key]
        place = windows.place(factor.start_ns)
        next_ns = windows.next_start(place)
        if place > 0 and windows.leaves[place - 1].factor.end_ns == UNTIL_FURTHER_NOTICE_NS:
            return next_ns  # that one held so far, and was ended for good
        return min(windows.end(place) + beyond_ns, next_ns)

    def enders(self, indices: frozenset[int | None]) -> frozenset[int]:
        """Return the leaves that end an open window of these leaves, and one that ends another so: they count too."""
        found: set[int] = set()
        for windows in self._windows.values():
            follows = False
            for leaf in windows.leaves:
                found.update((leaf.index,) if follows else ())
                follows = (follows or leaf.index in indices) and leaf.factor.end_ns == UNTIL_FURTHER_NOTICE_NS
        return frozenset(found)

    def at(self, zone: str, t_ns: int, policy: GridSection | None = None) -> FactorLeaf | None:
        """Return the factor of a zone at an instant, None where none is known."""
        return self._stretch(zone, t_ns, policy).leaf

    def spans(self, zone: str, start_ns: int, end_ns: int, policy: GridSection | None = None) -> tuple[Span, ...]:
        """Return [start_ns, end_ns), cut where the factor, or why it counts, changes; in order of time.

        Its cost grows with the windows in it, and with the zone's keys; not with how many factors there are.
        """
        newest = self._newest.get((zone, policy))
        if newest is not None and newest.start_ns <= start_ns and end_ns <= newest.end_ns:
            return (Span(start_ns, end_ns, newest.leaf, newest.fallback),)
        found: list[Span] = []
        begun = start_ns
        while True:
            stretch = self._stretch(zone, begun, policy)
            until = min(stretch.end_ns, end_ns)
            if found and found[-1].leaf is stretch.leaf and found[-1].fallback is stretch.fallback:
                found[-1] = found[-1]._replace(end_ns=until)
            else:
                found.append(Span(begun, until, stretch.leaf, stretch.fallback))
            if until >= end_ns:
                return tuple(found)
            begun = until

    def _stretch(self, zone: str, t_ns: int, policy: GridSection | None) -> Span:
        """Return what counts at an instant, and a piece of time around it in which nothing changes."""
        newest = self._newest.get((zone, policy))
        if newest is None or not newest.start_ns <= t_ns < newest.end_ns:
            newest = self._newest[zone, policy] = self._look(zone, t_ns, policy)
        return newest

    def _look(self, zone: str, t_ns: int, policy: GridSection | None) -> Span:
        last_good_ns = 0 if policy is None else round(policy.last_good_h * _HOUR_NS)
        place = bisect_right(self._stated, t_ns, key=lambda one: one.from_ns)
        cuts = [one.from_ns for one in self._stated[max(0, place - 1) : place + 1]]
        best: _Ranked | None = None
        for tier, order, windows in self._counts(zone, policy):
            at = windows.place(t_ns)
            cuts.append(windows.next_start(at))
            if at < 0:
                continue
            start_ns, end_ns = windows.starts[at], windows.end(at)
            cuts += (start_ns, end_ns, end_ns + last_good_ns)
            ranked = _ranked(windows, at, tier=tier, order=order, gone_ns=t_ns - end_ns, last_good_ns=last_good_ns)
            if ranked is not None and (best is None or ranked.rank < best.rank):
                best = ranked
        stated = self._stated[place - 1] if place else None
        if stated is not None and stated.leaf is not None and stated.zone in {"", zone}:
            best = _Ranked((_COVERS, 0, -1, 0, stated.leaf.factor.key), stated.leaf, None)
        return Span(
            start_ns=max((cut for cut in cuts if cut <= t_ns), default=-(2**63)),
            end_ns=min((cut for cut in cuts if cut > t_ns), default=2**63),
            leaf=None if best is None else best.leaf,
            fallback=None if best is None else best.fallback,
        )

    def _counts(self, zone: str, policy: GridSection | None) -> Sequence[tuple[int, int, _Windows]]:
        """Return what counts in a zone: tier, place in the policy's order, windows."""
        held = self._counted.get((zone, policy))
        if held is None:
            held = self._counted[zone, policy] = [
                (_ANNUAL if policy is not None and key[4] == ANNUAL else _COVERS, _order(key, policy), windows)
                for key, windows in self._windows.items()
                if key[1] == zone and key[2] == AVERAGE and is_counted(key, policy)
            ]
        return held


def is_counted(key: FactorKey, policy: GridSection | None) -> bool:
    """Return whether a policy takes a key's factors."""
    return policy is None or (key[3] == policy.type and (not policy.order or key[0] in policy.order))


def is_weaker(factor: Factor, than: Factor) -> bool:
    """Return whether a factor says the same value again, and is less sure of it."""
    ranks = [STATES.index(one.state) if one.state in STATES else -1 for one in (factor, than)]
    return factor.g_per_kwh == than.g_per_kwh and ranks[0] < ranks[1]


def said(factor: Factor) -> str:
    """Return a factor's key and window in words."""
    until = "until further notice" if factor.end_ns == UNTIL_FURTHER_NOTICE_NS else f"to {utc(factor.end_ns)}"
    return f"{'/'.join(filter(None, factor.key))} from {utc(factor.start_ns)} {until}"


def _order(key: FactorKey, policy: GridSection | None) -> int:
    return policy.order.index(key[0]) if policy is not None and policy.order else 0


def _ranked(windows: _Windows, place: int, *, tier: int, order: int, gone_ns: int, last_good_ns: int) -> _Ranked | None:
    """Return what the newest window of a key amounts to. gone_ns: since when it is over; negative: it is not."""
    leaf, key = windows.leaves[place], windows.key
    length = leaf.factor.end_ns - leaf.factor.start_ns
    if gone_ns < 0:
        flag = Flag.FACTOR_ANNUAL if key[4] == ANNUAL else Flag.FACTOR_SECONDARY if order else None
        return _Ranked((tier, 0, order, length, key), leaf, flag)
    if gone_ns < last_good_ns and key[4] != ANNUAL:
        return _Ranked((_LAST_GOOD, -windows.end(place), order, length, key), leaf, Flag.FACTOR_LAST_GOOD)
    return None
