"""What the leaves of an export come to: shared by those who make one and those who check one."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from gateway.attest.epoch import is_attested
from gateway.carbon.audit.evidence import GatewayEvidence, LedgerEvidence
from gateway.carbon.audit.form import LEDGER_LEAVES, Subject, leaves_path
from gateway.carbon.audit.rows import header, lines_of
from gateway.carbon.emissions import LineProjector
from gateway.carbon.figures import Cell
from gateway.carbon.standings import Standings
from gateway.errors import TrustError
from gateway.model import State


@dataclass(frozen=True, slots=True, kw_only=True)
class Alone:
    """Interval leaves of a line, one after the other, that count, or do not, by the ledger's word alone.

    state: UNATTESTED, which counts, or PENDING or STALE, which do not. first, last: of so many `leaves`.
    """

    state: str
    first: int
    last: int
    leaves: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LineCells:
    """A line's cells of the period. settled: no leaf to come changes them.

    quarantined: by why, how many of the leaves that the period's cells would rest on are in quarantine. alone: of all
    that the period's cells would rest on, those of which neither a verifier nor an officer has said anything.
    """

    gateway: str
    line: str
    cells: tuple[Cell, ...]
    settled: bool
    quarantined: Mapping[str, int]
    alone: tuple[Alone, ...]


def compute(subject: Subject, gateways: Mapping[str, GatewayEvidence], ledger: LedgerEvidence) -> tuple[LineCells, ...]:
    """Return all figures of an export.

    Raises TrustError for an interval that fits no schema, for one that would count as UNATTESTED and is not shown to be
    of an epoch that no TPM has bound, and where a TPM has bound one and no standing of the gateway is shown.
    """
    standings = ledger.facts.standings
    for gateway, evidence in gateways.items():
        for index, body in evidence.epochs.items():
            standings.note_epoch(gateway, index, body["epoch"], body["key"], body["binding"]["type"])
        if is_attested(evidence.epoch) and standings.newest(gateway) is None:
            raise TrustError(
                f"{LEDGER_LEAVES}: no state of gateway {gateway!r} is shown, and a TPM has bound its key: "
                "its standings were left out"
            )
    return tuple(_compute(subject, gateways[gateway], line, gateway, ledger) for gateway, line in subject.lines)


def _compute(subject: Subject, evidence: GatewayEvidence, line: str, gateway: str, ledger: LedgerEvidence) -> LineCells:
    projector = LineProjector(schemas=evidence.schemas, facts=ledger.facts)
    made: dict[int, Cell] = {}
    settled = False
    quarantined: dict[str, int] = {}
    states: list[tuple[State | None, int]] = []
    for leaf in evidence.lines[line].leaves:
        is_within = subject.start_ns < leaf.interval.t_ns <= subject.end_ns
        state = _state(ledger.facts.standings, gateway, leaf.ref.index)
        if is_within:
            states.append((state, leaf.ref.index))
        if why := ledger.facts.standings.why(gateway, leaf.ref.index):
            if is_within:
                quarantined[why] = quarantined.get(why, 0) + 1
            continue
        made |= {cell.line.start_ns: cell for cell in projector.feed(leaf)}
        settled = settled or (projector.clean and leaf.interval.t_ns >= subject.end_ns)
    cells = tuple(made[start] for start in sorted(made) if subject.start_ns <= start < subject.end_ns)
    return LineCells(
        gateway=gateway, line=line, cells=cells, settled=settled, quarantined=quarantined, alone=_runs(states)
    )


def _runs(states: Iterable[tuple[State | None, int]]) -> tuple[Alone, ...]:
    found = []
    for state, run in groupby(states, key=itemgetter(0)):
        leaves = [index for _, index in run]
        if state is not None:
            found.append(Alone(state=str(state), first=leaves[0], last=leaves[-1], leaves=len(leaves)))
    return tuple(found)


def _state(standings: Standings, gateway: str, index: int) -> State | None:
    """Return the state that a leaf has by the ledger's word alone, None for none. Raises TrustError: see compute."""
    state = standings.alone(gateway, index)
    if state is State.UNATTESTED and not standings.is_unbound(gateway, index):
        raise TrustError(
            f"{leaves_path(gateway)}: leaf {index}: it counts as UNATTESTED, and no epoch leaf before it shows that "
            "no TPM has bound its key",
            index=index,
        )
    return state


def rows_of(lines: Iterable[LineCells]) -> Iterator[str]:
    """Yield the lines of rows.csv."""
    yield header()
    for line in lines:
        yield from lines_of(line.cells)


def factors_of(lines: Iterable[LineCells], ledger: LedgerEvidence) -> frozenset[int | None]:
    """Return the ledger's leaf indices of the factors that rows rest on: named there, or the end of one that is."""
    used = frozenset(figure.factor_leaf_index for line in lines for cell in line.cells for figure in cell.figures)
    return used | ledger.facts.factors.enders(used)
