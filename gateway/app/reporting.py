"""`wattseal report` and `wattseal statements`: from the tables alone, the ledger may run meanwhile."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise
from typing import Any

from gateway.app.alerts import cause_words, change_words, read_alerts
from gateway.app.dual import read_documents, read_match, reading, year_row
from gateway.app.duties.closing_lines import statement_of
from gateway.app.standing.states import list_quarantined
from gateway.carbon.exact import text, utc
from gateway.carbon.figures import Cell
from gateway.carbon.kpi.dual import NO_INSTRUMENTS, Match
from gateway.carbon.kpi.oee import UNKNOWN
from gateway.carbon.kpi.periods import record_of
from gateway.carbon.kpi.report import DAY_NS, Tally, change_pct, report
from gateway.carbon.kpi.statements import changed, flat, said, sha256_of
from gateway.config import LedgerConfig
from gateway.errors import ConfigError
from gateway.store import projections as tables
from gateway.store.projections import Connection, Slice, StatementRow

DEFAULT_DAYS = 7
"""Without a start, the report begins so many days before the newest cell's end."""
_LOOK_BACK_NS = 4 * DAY_NS
"""A shift is compared with the one before it: over a weekend, but not over holidays."""
_OEE = ("availability", "effectiveness", "quality_rate", "oee")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportWish:
    """What somebody wants to see. line: a name, or `<gateway>/<name>`; all without it. shift: one alone.

    start_ns, end_ns: cells that start there; None for DEFAULT_DAYS, and for all up to the newest.
    """

    by: str = "shift"
    line: str | None = None
    start_ns: int | None = None
    end_ns: int | None = None
    shift: str | None = None


def make_report(config: LedgerConfig, wish: ReportWish) -> dict[str, Any]:
    """Return a report as plain JSON: a row a group, each with its figures, change and statements.

    Raises ConfigError for a line or a shift that there is not.
    """
    with reading(config) as connection:
        lines = lines_named(connection, wish.line)
        start_ns, end_ns = _window(connection, lines, wish)
        cells = _cells(connection, lines, start_ns, end_ns, wish.shift)
        by = ("line",) if wish.by == "line" else ("line", wish.by)
        rows = sorted(report(cells, by), key=lambda row: (row.group[0], row.start_ns))
        before = _before(connection, lines, wish, by, rows)
        stated = {row.group: _stated(connection, row, wish.by) for row in rows}
        match = _match(config, connection, rows)
        alerts = _alerts(connection, rows)
        quarantined = list_quarantined(config, connection, lines, start_ns, end_ns)
    if wish.shift is not None and not rows:
        raise ConfigError(f"shift: got {wish.shift!r}, want one of these lines, such as 2026-11-21/early")
    return {
        "by": wish.by,
        "start": utc(min((row.start_ns for row in rows), default=start_ns)),
        "end": utc(max((row.end_ns for row in rows), default=start_ns)),
        "market": [] if match is None else [year_row(year) for year in match.years],
        "alerts": alerts,
        "quarantined": quarantined,
        "rows": [_row(row, before.get(row.group), stated[row.group], match) for row in rows],
    }


def _alerts(connection: Connection, rows: Sequence[Tally]) -> list[dict[str, Any]]:
    """Return the alerts of the rows' lines that were open in their time, the oldest first."""
    spans: dict[str, tuple[int, int]] = {}
    for row in rows:
        line = row.group[0][1]
        start_ns, end_ns = spans.get(line, (row.start_ns, row.end_ns))
        spans[line] = (min(start_ns, row.start_ns), max(end_ns, row.end_ns))
    found = []
    for alert in sorted(read_alerts(connection).alerts.values(), key=lambda one: one.raised_ns):
        start_ns, end_ns = spans.get(f"{alert.gateway}/{alert.line}", (0, 0))
        if alert.onset_ns < end_ns and (alert.cleared_ns or end_ns) > start_ns:
            found.append(
                {
                    "alert": alert.id,
                    "line": f"{alert.gateway}/{alert.line}",
                    "kind": alert.kind,
                    "since": utc(alert.onset_ns),
                    "cause": cause_words(alert.causes[0], alert.unit) if alert.causes else alert.kind,
                    "change": change_words(alert),
                    "change_percent": alert.change_percent,
                    "excess_kg": alert.excess_kg,
                    "avoided_kg": alert.avoided_kg,
                }
            )
    return found


def _match(config: LedgerConfig, connection: Connection, rows: Sequence[Tally]) -> Match | None:
    """Return the matches of the rows' years, each of the whole load of all lines so far."""
    if not rows:
        return None
    start_ns, end_ns = min(row.start_ns for row in rows), max(row.end_ns for row in rows)
    return read_match(connection, read_documents(config, connection), start_ns=start_ns, end_ns=end_ns)


def lines_named(connection: Connection, name: str | None) -> list[tuple[str, str]]:
    """Return (gateway, line) of a NAME or GATEWAY/NAME, of all without it. Raises ConfigError for none."""
    known = sorted({(gateway, line) for gateway, line, _ in tables.line_zones(connection)})
    found = [one for one in known if name is None or name in {one[1], "/".join(one)}]
    if not found:
        want = ", ".join("/".join(one) for one in known) or "one, once a gateway has sealed a line's schema"
        raise ConfigError(f"line: got {name or 'none'!r}, want {want}")
    return found


def _window(connection: Connection, lines: Sequence[tuple[str, str]], wish: ReportWish) -> tuple[int, int]:
    end_ns = 2**63 - 1 if wish.end_ns is None else wish.end_ns
    if wish.shift is not None and wish.start_ns is None:
        day_ns = _day(wish.shift)
        return max(0, day_ns - DAY_NS), day_ns + 3 * DAY_NS
    if wish.start_ns is not None:
        return wish.start_ns, end_ns
    newest = max((tables.newest_cell_end(connection, *line) or 0 for line in lines), default=0)
    return max(0, min(newest, end_ns) - DEFAULT_DAYS * DAY_NS), end_ns


def _day(shift: str) -> int:
    """Return the UTC start of a shift's date."""
    try:
        return (date.fromisoformat(shift.partition("/")[0]) - date(1970, 1, 1)).days * DAY_NS
    except ValueError as e:
        raise ConfigError(f"shift: got {shift!r}, want <date>/<name> or <date>, such as 2026-11-21/early") from e


def _cells(
    connection: Connection, lines: Sequence[tuple[str, str]], start_ns: int, end_ns: int, shift: str | None
) -> Iterator[Cell]:
    for gateway, line in lines:
        where = Slice(start_ns=start_ns, end_ns=end_ns, gateway=gateway, line=line)
        for cell in tables.cells(connection, where):
            told = cell.line.setting.shift or utc(cell.line.start_ns)[:10]
            if shift is None or told == shift:
                yield cell


def _before(
    connection: Connection,
    lines: Sequence[tuple[str, str]],
    wish: ReportWish,
    by: Sequence[str],
    rows: Sequence[Tally],
) -> dict[tuple[tuple[str, str], ...], Tally]:
    """Return by group what a row is compared with: the line's row before it; else the same over the time before."""
    if wish.by in {"shift", "day"} and wish.shift is None:
        return {row.group: older for older, row in pairwise(rows) if older.group[0] == row.group[0]}
    if wish.shift is not None:
        return {row.group: older for row in rows if (older := _shift_before(connection, row, by)) is not None}
    if wish.start_ns is None or wish.end_ns is None:
        return {}
    earlier = max(0, 2 * wish.start_ns - wish.end_ns)
    return {row.group: row for row in report(_cells(connection, lines, earlier, wish.start_ns, None), by)}


def _shift_before(connection: Connection, row: Tally, by: Sequence[str]) -> Tally | None:
    """Return the line's newest row of the same kind, a shift or a day, in the days before a row."""
    is_shift = "/" in row.group[-1][1]
    cells = _cells(connection, sorted(row.lines), max(0, row.start_ns - _LOOK_BACK_NS), row.start_ns, None)
    older = [one for one in report(cells, by) if ("/" in one.group[-1][1]) == is_shift and one.group != row.group]
    return max(older, key=lambda one: one.start_ns, default=None)


def _stated(connection: Connection, row: Tally, by: str) -> Sequence[StatementRow]:
    """Return the statements of a row that is a shift of a line, or a day without shifts."""
    if by not in {"shift", "day"}:
        return ()
    gateway, _, line = row.group[0][1].partition("/")
    return tables.statements(connection, record=record_of(gateway, line, row.group[1][1]))


def _row(row: Tally, before: Tally | None, stated: Sequence[StatementRow], match: Match | None) -> dict[str, Any]:
    newest = flat(stated[-1].figures) if stated else {}
    subject = flat(stated[-1].subject) if stated else {}
    period_ns = int(subject["end"]) - int(subject["start"]) if subject else None
    figures = said(row, UNKNOWN, period_ns=period_ns) | {name: newest.get(name, "") for name in _OEE}
    figures |= {"market_method": NO_INSTRUMENTS} if match is None else match.market(row.by_load).said()
    change = None if before is None else change_pct(row, before)
    return {
        **dict(row.group),
        "start": utc(row.start_ns),
        "end": utc(row.end_ns),
        "figures": figures,
        "change_pct": None if change is None else text(change),
        "change_against": None if before is None else (dict(before.group) | {"start": utc(before.start_ns)}),
        "state": newest.get("state", "open"),
        "record": stated[0].record if stated else None,
        "as_closed": flat(stated[0].figures) if stated else None,
        "restated": newest if len(stated) > 1 else None,
        "versions": [{"version": one.version, "reason": one.reason, "leaf": one.leaf_index} for one in stated],
        "changed": _pairs(changed(flat(stated[0].figures), newest)) if len(stated) > 1 else {},
    }


def list_statements(config: LedgerConfig, record: str | None = None) -> list[dict[str, Any]]:
    """Return statements by shift and version, of one record or of all. Raises ConfigError for an unknown record."""
    with reading(config) as connection:
        rows = tables.statements(connection, record=record)
    if record is not None and not rows:
        raise ConfigError(f"record: got {record!r}, want one that `wattseal statements` lists")
    found: list[dict[str, Any]] = []
    for before, row in zip([None, *rows], rows, strict=False):
        older = before if before is not None and before.record == row.record else None
        found.append(
            {
                "record": row.record,
                "version": row.version,
                "leaf": row.leaf_index,
                "subject": flat(row.subject),
                "reason": row.reason,
                "supersedes": row.supersedes,
                "sha256": sha256_of(statement_of(row)),
                "figures": flat(row.figures),
                "changed": {} if older is None else _pairs(changed(flat(older.figures), flat(row.figures))),
            }
        )
    return sorted(found, key=_by_subject)


def _by_subject(one: Mapping[str, Any]) -> tuple[str, str, str, int]:
    subject = one["subject"]
    return subject.get("gateway", ""), subject.get("line", ""), subject.get("start", "").rjust(20), one["version"]


def _pairs(found: Mapping[str, tuple[str, str]]) -> dict[str, list[str]]:
    return {name: list(pair) for name, pair in found.items()}
