"""What a line was doing at an instant: its state, product, recipe and job, and the shift."""

from bisect import bisect_right, insort
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from gateway.config.plan import LinePlan
from gateway.model import ContextColumn, ContextFact, Told, What


class Setting(NamedTuple):
    """What applies to a piece of time of a line; "" where it is not known, or there is none.

    state: producing, idle, setup, down or standby. shift: `<date>/<name>`, the date on which it started.
    """

    state: str = ""
    product: str = ""
    recipe: str = ""
    job: str = ""
    shift: str = ""


class Piece(NamedTuple):
    """A piece of time in which one setting holds, [start_ns, end_ns)."""

    start_ns: int
    end_ns: int
    setting: Setting


NO_SETTING = Setting()

PACKML_STATES = {
    **dict.fromkeys(("6",), "producing"),
    **dict.fromkeys(("4", "5", "10", "11", "12", "13", "14", "16", "17"), "idle"),
    **dict.fromkeys(("1", "3", "15"), "setup"),
    **dict.fromkeys(("2", "7", "8", "9"), "down"),
}
"""StateCurrent of PackML (OPC 30050, 6.3) by category: Execute produces; Held, Suspended and Complete wait."""


def category(plan: LinePlan, state: str) -> str:
    """Return the category of what a controller or an MES writes as a state, "" for one that is not known."""
    for name, said in plan.states.items():
        if state in said:
            return name
    if state in {"producing", "idle", "setup", "down", "standby"}:
        return state
    return "" if plan.states else PACKML_STATES.get(state, "")


class LineContext:
    """What systems of the DMZ said of one line, in order of time. Of one id of a source the newest leaf counts."""

    def __init__(self) -> None:
        self._facts: dict[What, list[tuple[int, int, str]]] = {}
        self._of_id: dict[tuple[str, str], list[tuple[int, ContextFact]]] = {}

    def add(self, index: int, fact: ContextFact) -> tuple[int, int]:
        """Add a fact, its leaf's index; return the window in which what holds may differ, [start, end).

        The window takes in the pieces of time that meet its ends: they may now join, or part.
        """
        versions = self._of_id.setdefault((fact.source, fact.id), [])
        start_ns, end_ns = fact.t_ns, self._next_ns(fact.what, fact.t_ns)
        if versions:
            at, old = versions[-1]
            self._facts[old.what].remove((old.t_ns, at, old.value))
            start_ns, end_ns = min(start_ns, old.t_ns), max(end_ns, self._next_ns(old.what, old.t_ns))
        versions.append((index, fact))
        insort(self._facts.setdefault(fact.what, []), (fact.t_ns, index, fact.value))
        return start_ns - 1, min(end_ns, 2**63 - 2) + 1

    def known(self, fact: ContextFact) -> int | None:
        """Return the leaf in which just this was said, None where it was not: also where it was corrected since."""
        versions = self._of_id.get((fact.source, fact.id), [])
        return next((index for index, version in versions if version == fact), None)

    def _next_ns(self, what: What, t_ns: int) -> int:
        """Return when the next word on a matter was said after an instant: until then a word holds."""
        facts = self._facts.get(what, [])
        place = bisect_right(facts, (t_ns, 2**63, ""))
        return facts[place][0] if place < len(facts) else 2**63 - 1

    def at(self, what: What, t_ns: int) -> Told | None:
        """Return what was said last of a matter at an instant."""
        facts = self._facts.get(what, [])
        place = bisect_right(facts, (t_ns, 2**63, ""))
        return Told(facts[place - 1][0], facts[place - 1][2]) if place else None

    def cuts(self, start_ns: int, end_ns: int) -> Iterable[int]:
        """Yield the instants within (start_ns, end_ns) at which something was said."""
        for facts in self._facts.values():
            place = bisect_right(facts, (start_ns, 2**63, ""))
            while place < len(facts) and facts[place][0] < end_ns:
                yield facts[place][0]
                place += 1


NO_CONTEXT = LineContext()


def setting_at(
    t_ns: int,
    *,
    plan: LinePlan,
    columns: Sequence[ContextColumn],
    told: Sequence[Sequence[Told]],
    said: LineContext,
    shift: str,
) -> Setting:
    """Return the setting at an instant.

    told: by column of the line's interval leaf. said: by systems of the DMZ. Of both the later word counts.
    """
    found: dict[str, str] = {}
    for column, values in zip(columns, told, strict=True):
        newest = next((one for one in reversed(values) if one.t_ns <= t_ns), None)
        if newest is not None:
            found[column.what] = _later(newest, said.at(column.what, t_ns))
    for what in What:
        if what not in found and (one := said.at(what, t_ns)) is not None:
            found[what] = one.value or ""
    return Setting(
        state=category(plan, found.get(What.STATE, "")),
        product=found.get(What.PRODUCT, ""),
        recipe=found.get(What.RECIPE, ""),
        job=found.get(What.JOB, ""),
        shift=shift,
    )


def _later(told: Told, said: Told | None) -> str:
    newest = told if said is None or said.t_ns < told.t_ns else said
    return newest.value or ""


def told_cuts(told: Sequence[Sequence[Told]], start_ns: int, end_ns: int) -> Iterable[int]:
    """Yield the instants within (start_ns, end_ns) at which a controller told something new."""
    for values in told:
        yield from (one.t_ns for one in values if start_ns < one.t_ns < end_ns)


def merged(pieces: Iterable[Piece]) -> tuple[Piece, ...]:
    """Return pieces with those that meet and say the same joined."""
    joined: list[Piece] = []
    for piece in pieces:
        if joined and joined[-1].setting == piece.setting:
            joined[-1] = joined[-1]._replace(end_ns=piece.end_ns)
        else:
            joined.append(piece)
    return tuple(joined)
