"""Which factor applies to a zone at an instant."""

from bisect import bisect_right, insort
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.carbon.exact import utc
from gateway.errors import TrustError
from gateway.model import Factor, FactorKey

AVERAGE = "average"


@dataclass(frozen=True, slots=True, kw_only=True)
class FactorLeaf:
    """A factor and where it is sealed in the ledger's log."""

    factor: Factor
    index: int
    hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A piece of time to which one factor applies, or none."""

    start_ns: int
    end_ns: int
    leaf: FactorLeaf | None


class FactorTable:
    """The factors in force: those of a ledger's factor leaves, in the order of the log.

    A figure takes only average factors: marginal ones are for decisions. Where several keys of a zone cover an
    instant, the shortest window has precedence, as an hour's over a year's; of equal ones the first key in order. So
    the choice rests on the factors alone, and is the same where others, which lost, are not shown.
    """

    def __init__(self) -> None:
        self._windows: dict[FactorKey, dict[int, FactorLeaf]] = {}
        self._starts: dict[FactorKey, list[int]] = {}
        self._keys: dict[str, list[FactorKey]] = {}

    def add(self, leaf: FactorLeaf) -> bool:
        """Put a factor leaf in force; return whether anything changed.

        The same version again changes nothing. Another version of the same window must name in `supersedes` the one
        in force. Raises TrustError where it does not, or where windows of one key overlap otherwise.
        """
        factor = leaf.factor
        held = self.in_force(factor)
        if held is not None:
            if held.factor.version == factor.version:
                return False
            if factor.supersedes != held.factor.version:
                raise TrustError(f"factor: {_said(factor)} does not supersede the version in force", index=leaf.index)
        else:
            if self.overlaps(factor):
                raise TrustError(f"factor: {_said(factor)} overlaps another window of its key", index=leaf.index)
            insort(self._starts.setdefault(factor.key, []), factor.start_ns)
        self._windows.setdefault(factor.key, {})[factor.start_ns] = leaf
        if factor.key[2] == AVERAGE and factor.key not in self._keys.setdefault(factor.key[1], []):
            self._keys[factor.key[1]].append(factor.key)
        return True

    def in_force(self, factor: Factor) -> FactorLeaf | None:
        """Return the version in force of the same key and window, None where there is none."""
        held = self._windows.get(factor.key, {}).get(factor.start_ns)
        return held if held is not None and held.factor.end_ns == factor.end_ns else None

    def overlaps(self, factor: Factor) -> bool:
        """Return whether another window of its key, or an empty one of its own, keeps a factor from coming in force."""
        windows, starts = self._windows.get(factor.key, {}), self._starts.get(factor.key, [])
        place = bisect_right(starts, factor.start_ns)
        before = windows[starts[place - 1]].factor.end_ns if place else 0
        after = starts[place] if place < len(starts) else factor.end_ns
        return factor.end_ns <= factor.start_ns or before > factor.start_ns or after < factor.end_ns

    def at(self, zone: str, t_ns: int) -> FactorLeaf | None:
        """Return the factor of a zone at an instant, None where none is known."""
        covering: list[FactorLeaf] = []
        for key in self._keys.get(zone, ()):
            starts = self._starts[key]
            place = bisect_right(starts, t_ns)
            if place and t_ns < self._windows[key][starts[place - 1]].factor.end_ns:
                covering.append(self._windows[key][starts[place - 1]])
        return min(covering, key=_precedence, default=None)

    def spans(self, zone: str, start_ns: int, end_ns: int) -> Iterator[Span]:
        """Cut [start_ns, end_ns) where the factor changes; yield the pieces in order."""
        begun, leaf = start_ns, self.at(zone, start_ns)
        for cut in self._cuts(zone, start_ns, end_ns):
            then = self.at(zone, cut)
            if then is not leaf:
                yield Span(start_ns=begun, end_ns=cut, leaf=leaf)
                begun, leaf = cut, then
        yield Span(start_ns=begun, end_ns=end_ns, leaf=leaf)

    def _cuts(self, zone: str, start_ns: int, end_ns: int) -> list[int]:
        cuts: set[int] = set()
        for key in self._keys.get(zone, ()):
            starts = self._starts[key]
            place = max(0, bisect_right(starts, start_ns) - 1)
            while place < len(starts) and starts[place] < end_ns:
                cuts.update((starts[place], self._windows[key][starts[place]].factor.end_ns))
                place += 1
        return sorted(cut for cut in cuts if start_ns < cut < end_ns)


def _precedence(leaf: FactorLeaf) -> tuple[int, FactorKey]:
    return leaf.factor.end_ns - leaf.factor.start_ns, leaf.factor.key


def _said(factor: Factor) -> str:
    return f"{'/'.join(factor.key)} from {utc(factor.start_ns)} to {utc(factor.end_ns)}"
