"""What the ledger's own leaves say that figures rest on beside the meters: factors, plans, context."""

import hashlib
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from gateway.carbon.calendar import Calendar
from gateway.carbon.grid.table import FactorLeaf, FactorTable
from gateway.carbon.setting import NO_CONTEXT, NO_SETTING, LineContext, Piece, Setting, merged, setting_at, told_cuts
from gateway.config.plan import Plan, parse_plan
from gateway.errors import ConfigError, TrustError
from gateway.model import ContextFact, Document, LineSchema, Told

PLAN = "plan"
GRID_SETTINGS = "grid-settings"
END_NS = 2**63 - 1


class Touched(NamedTuple):
    """Which cells a new fact may change: those that overlap [start_ns, end_ns).

    zone: of this grid zone alone; gateway, line: of this line alone; None: of all.
    """

    start_ns: int
    end_ns: int
    zone: str | None = None
    gateway: str | None = None
    line: str | None = None


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


NO_PLAN = PlanLeaf(plan=Plan(), from_ns=0, sha256="", index=None)


class Facts:
    """All of them, added in the order of the ledger's log. Each addition says what it may change; None for nothing."""

    def __init__(self) -> None:
        self.factors = FactorTable()
        self._plans: list[PlanLeaf] = []
        self._contexts: dict[tuple[str, str], LineContext] = {}

    def add_factor(self, leaf: FactorLeaf) -> Touched | None:
        """Put a factor in force. Raises TrustError as FactorTable.add does."""
        if not self.factors.add(leaf):
            return None
        return Touched(leaf.factor.start_ns, leaf.factor.end_ns, zone=leaf.factor.key[1])

    def add_document(self, index: int, document: Document) -> Touched | None:
        """Put a document in force from its time on. Raises TrustError for one that cannot be read."""
        if document.name != PLAN:
            return None
        try:
            plan = parse_plan(document.content.decode(), name="plan")
        except (ConfigError, UnicodeDecodeError) as e:
            raise TrustError(f"document: {e}", index=index) from e
        sha256 = hashlib.sha256(document.content).hexdigest()
        self._plans.append(
            PlanLeaf(plan=plan, from_ns=document.from_ns, sha256=sha256, index=index, rules=document.rules)
        )
        return Touched(document.from_ns, END_NS)

    def add_context(self, index: int, fact: ContextFact) -> Touched | None:
        """Take what a system of the DMZ says of a line."""
        context = self._contexts.setdefault((fact.gateway, fact.line), LineContext())
        start_ns, end_ns = context.add(index, fact)
        return Touched(start_ns, end_ns, gateway=fact.gateway, line=fact.line)

    def plan_at(self, t_ns: int) -> PlanLeaf:
        """Return the plan in force at an instant: of those that hold since then or before, the one sealed last."""
        return next((leaf for leaf in reversed(self._plans) if leaf.from_ns <= t_ns), NO_PLAN)

    def pieces(
        self,
        gateway: str,
        schema: LineSchema,
        start_ns: int,
        end_ns: int,
        told: tuple[tuple[Told, ...], ...],
    ) -> tuple[Piece, ...]:
        """Cut [start_ns, end_ns) of a line where its setting, or the plan, changes. told: by its interval leaf."""
        said = self._contexts.get((gateway, schema.name), NO_CONTEXT)
        if not self._plans and not told and said is NO_CONTEXT:
            return (Piece(start_ns, end_ns, NO_SETTING),)
        calendar = self.plan_at(start_ns).calendar
        cuts = {leaf.from_ns for leaf in self._plans if start_ns < leaf.from_ns < end_ns}
        cuts.update(told_cuts(told, start_ns, end_ns), said.cuts(start_ns, end_ns))
        cuts.update(calendar.cuts(gateway, schema.name, start_ns, end_ns))
        bounds = [start_ns, *sorted(cuts), end_ns]
        return merged(
            Piece(begin, end, self._setting(gateway, schema, begin, told, said)) for begin, end in pairwise(bounds)
        )

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
