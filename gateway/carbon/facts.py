"""What the ledger's own leaves say that figures rest on beside the meters: factors, plans, context."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from gateway.carbon.calendar import Calendar
from gateway.carbon.counted import NO_COUNTS, Counted, LineCounts, has_counter
from gateway.carbon.grid.settings import GridSettings, parse_settings
from gateway.carbon.grid.table import FactorLeaf, FactorTable
from gateway.carbon.scopes.books import Books, books_of
from gateway.carbon.scopes.fuels import FUEL, FuelFactors
from gateway.carbon.setting import NO_CONTEXT, NO_SETTING, LineContext, Piece, Setting, merged, setting_at, told_cuts
from gateway.carbon.standings import Standings
from gateway.config.plan import GridSection, Plan, parse_plan
from gateway.errors import ConfigError, TrustError
from gateway.model import ContextFact, CountFact, Decision, Document, LineSchema, Standing, Told

PLAN = "plan"
GRID_SETTINGS = "grid-settings"
END_NS = 2**63 - 1
HOUR_NS = 3_600_000_000_000


class Touched(NamedTuple):
    """Which cells a new fact may change: those that overlap [start_ns, end_ns).

    zone: of this grid zone alone; gateway, line: of this line alone; None: of all.
    """

    start_ns: int
    end_ns: int
    zone: str | None = None
    gateway: str | None = None
    line: str | None = None


def joined(touched: Iterable[Touched]) -> list[Touched]:
    """Return windows with those that meet, and are of the same cells, as one: no cell is computed twice."""
    found: list[Touched] = []
    for one in sorted(touched, key=lambda window: (*(str(part) for part in window[2:]), window[0])):
        if found and found[-1][2:] == one[2:] and one.start_ns <= found[-1].end_ns:
            found[-1] = found[-1]._replace(end_ns=max(found[-1].end_ns, one.end_ns))
        else:
            found.append(one)
    return found


@dataclass(frozen=True, kw_only=True)
class PlanLeaf:
    """A plan and where it is sealed. index: of its leaf in the ledger's log; None for the empty plan before any."""

    plan: Plan
    from_ns: int
    sha256: str
    index: int | None
    rules: tuple[tuple[int, int], ...] = ()

    @cached_property
    def calendar(self) -> Calendar:
        """Its shifts."""
        return Calendar(self.plan, self.rules)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsLeaf:
    """What the operator states of the grid, and where it is sealed."""

    settings: GridSettings
    from_ns: int
    sha256: str
    index: int


NO_PLAN = PlanLeaf(plan=Plan(), from_ns=0, sha256="", index=None)


class Facts:
    """All of them, added in the order of the ledger's log. Each addition says what it may change; None for nothing."""

    def __init__(self) -> None:
        self.factors = FactorTable()
        self.fuels = FuelFactors()
        self.standings = Standings()
        self._books: dict[tuple[int | None, str, bytes], Books] = {}
        self._plans: list[PlanLeaf] = []
        self._settings: list[SettingsLeaf] = []
        self._documents: dict[str, Document] = {}
        self._contexts: dict[tuple[str, str], LineContext] = {}
        self._counts: dict[tuple[str, str], LineCounts] = {}

    def add_factor(self, leaf: FactorLeaf) -> Touched | None:
        """Put a factor in force. Raises TrustError as FactorTable.add does."""
        if not self.factors.add(leaf):
            return None
        factor = leaf.factor
        if factor.key[2] == FUEL:
            self.fuels.add(leaf)
            return Touched(factor.start_ns, factor.end_ns)  # its zone is a fuel, which lines of any grid zone may burn
        sections = (plan.plan.grid.get(factor.key[1]) for plan in self._plans)
        last_good_h = max((section.last_good_h for section in sections if section is not None), default=0)
        return Touched(factor.start_ns, self.factors.reach(factor, round(last_good_h * HOUR_NS)), zone=factor.key[1])

    def add_document(self, index: int, document: Document, leaf_hash: bytes = b"") -> Touched | None:
        """Put a document in force from its time on. leaf_hash: of its leaf. Raises TrustError for one unreadable."""
        if document.name not in {PLAN, GRID_SETTINGS}:
            return None
        sha256 = hashlib.sha256(document.content).hexdigest()
        try:
            if document.name == PLAN:
                self._add_plan(index, document, sha256)
            else:
                self._add_settings(index, document, sha256, leaf_hash)
        except (ConfigError, UnicodeDecodeError) as e:
            raise TrustError(f"document: {e}", index=index) from e
        self._documents[document.name] = document
        return Touched(document.from_ns, END_NS)

    def _add_plan(self, index: int, document: Document, sha256: str) -> None:
        plan = parse_plan(document.content.decode(), name="plan")
        self._plans.append(
            PlanLeaf(plan=plan, from_ns=document.from_ns, sha256=sha256, index=index, rules=document.rules)
        )

    def _add_settings(self, index: int, document: Document, sha256: str, leaf_hash: bytes) -> None:
        settings = parse_settings(document.content, name="grid-settings")
        factor = settings.factor(document.from_ns)
        leaf = None if factor is None else FactorLeaf(factor=factor, index=index, hash=leaf_hash)
        self._settings.append(SettingsLeaf(settings=settings, from_ns=document.from_ns, sha256=sha256, index=index))
        self.factors.state(document.from_ns, zone=settings.zone, leaf=leaf)

    def document(self, name: str) -> Document | None:
        """Return the document of a name that was sealed last, in force yet or not; None for none."""
        return self._documents.get(name)

    def add_standing(self, index: int, standing: Standing) -> Touched | None:
        """Take what the ledger holds of a gateway. Raises TrustError as Standings.add does."""
        self.standings.add(index, standing)
        if standing.start_ns is None or standing.end_ns is None:
            return None
        return Touched(standing.start_ns, standing.end_ns, gateway=standing.gateway)

    def add_decision(self, index: int, decision: Decision) -> Touched | None:
        """Take a person's decision on leaves of a gateway. Raises TrustError as Standings.decide does."""
        self.standings.decide(index, decision)
        return Touched(decision.start_ns, decision.end_ns, gateway=decision.gateway)

    def add_context(self, index: int, fact: ContextFact) -> Touched | None:
        """Take what a system of the DMZ says of a line."""
        context = self._contexts.setdefault((fact.gateway, fact.line), LineContext())
        start_ns, end_ns = context.add(index, fact)
        return Touched(start_ns, end_ns, gateway=fact.gateway, line=fact.line)

    def add_counts(self, index: int, fact: CountFact) -> Touched | None:
        """Take what a system of the DMZ counted of a line. Raises TrustError where another count covers some of it."""
        start_ns, end_ns = self._counts.setdefault((fact.gateway, fact.line), LineCounts()).add(index, fact)
        return Touched(start_ns, end_ns, gateway=fact.gateway, line=fact.line)

    def counts(self, gateway: str, line: str) -> LineCounts:
        """Return what systems of the DMZ counted of a line; to read."""
        return self._counts.get((gateway, line), NO_COUNTS)

    def counted(self, gateway: str, schema: LineSchema, start_ns: int, end_ns: int) -> Counted | None:
        """Return the units of a piece of time as systems counted them; None for none, or where the line counts."""
        if not self._counts or has_counter(schema):
            return None
        return self.counts(gateway, schema.name).between(start_ns, end_ns)

    def known(self, fact: ContextFact | CountFact) -> int | None:
        """Return the leaf in which just this was said, None where it was not: also where it was corrected since."""
        if isinstance(fact, CountFact):
            return self.counts(fact.gateway, fact.line).known(fact)
        return self.said(fact.gateway, fact.line).known(fact)

    def said(self, gateway: str, line: str) -> LineContext:
        """Return what systems of the DMZ said of a line; to read."""
        return self._contexts.get((gateway, line), NO_CONTEXT)

    def plan_at(self, t_ns: int) -> PlanLeaf:
        """Return the plan in force at an instant: of those that hold since then or before, the one sealed last."""
        return next((leaf for leaf in reversed(self._plans) if leaf.from_ns <= t_ns), NO_PLAN)

    def plan_cuts(self, start_ns: int, end_ns: int) -> tuple[int, ...]:
        """Return the instants within (start_ns, end_ns) at which another plan, or other settings, may come in force."""
        since = {*(leaf.from_ns for leaf in self._plans), *(leaf.from_ns for leaf in self._settings)}
        return tuple(sorted(from_ns for from_ns in since if start_ns < from_ns < end_ns))

    def settings_at(self, t_ns: int) -> SettingsLeaf | None:
        """Return the operator's grid settings in force at an instant: of those since then or before the one last."""
        return next((leaf for leaf in reversed(self._settings) if leaf.from_ns <= t_ns), None)

    def books(self, leaf: PlanLeaf, gateway: str, schema: LineSchema) -> Books:
        """Return what a line's figures are made of by a plan: made once, as each of its cells asks."""
        key = (leaf.index, gateway, schema.id)
        held = self._books.get(key)
        if held is None:
            held = self._books[key] = books_of(leaf.plan, gateway, schema)
        return held

    def policy_at(self, zone: str, t_ns: int) -> GridSection | None:
        """Return what the plan in force says of a grid zone, None where it says nothing."""
        return self.plan_at(t_ns).plan.grid.get(zone)

    def pieces(
        self,
        gateway: str,
        schema: LineSchema,
        start_ns: int,
        end_ns: int,
        told: tuple[tuple[Told, ...], ...],
    ) -> tuple[Piece, ...]:
        """Cut [start_ns, end_ns) of a line where its setting or a document changes. told: by its interval leaf."""
        said = self.said(gateway, schema.name)
        if not self._plans and not self._settings and not told and said is NO_CONTEXT:
            return (Piece(start_ns, end_ns, NO_SETTING),)
        documents = [start_ns, *self.plan_cuts(start_ns, end_ns), end_ns]
        found: list[Piece] = []
        for since_ns, until_ns in pairwise(documents):  # pieces of two plans stay apart, though they say the same
            cuts = {*told_cuts(told, since_ns, until_ns), *said.cuts(since_ns, until_ns)}
            cuts.update(self.plan_at(since_ns).calendar.cuts(gateway, schema.name, since_ns, until_ns))
            bounds = [since_ns, *sorted(cuts), until_ns]
            found += merged(
                Piece(begin, end, self._setting(gateway, schema, begin, told, said)) for begin, end in pairwise(bounds)
            )
        return tuple(found)

    def _setting(
        self, gateway: str, schema: LineSchema, t_ns: int, told: tuple[tuple[Told, ...], ...], said: LineContext
    ) -> Setting:
        leaf = self.plan_at(t_ns)
        return setting_at(
            t_ns,
            plan=leaf.plan.line(gateway, schema.name),
            columns=schema.context,
            told=told,
            said=said,
            shift=leaf.calendar.shift_at(gateway, schema.name, t_ns),
        )
