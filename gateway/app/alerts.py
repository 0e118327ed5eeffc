"""The alerts and baselines that the ledger's own log holds, from its events; and alerts in words."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field

from gateway.carbon.alerts.alert import ACCEPTED, CLEARED, DATA, LEARNED, RAISED, SHELVED, UPDATED, Alert, Cause
from gateway.carbon.alerts.baseline import Baseline, from_flat
from gateway.carbon.exact import utc
from gateway.store.projections import Connection, EventRow, events_named

LineName = tuple[str, str]
"""Gateway and line."""


@dataclass(slots=True)
class AlertBook:
    """What was said so far. alerts: by id, as said last, the oldest first.

    said_ns: by line, the time of the newest event of its own; what an operator shelves is no such one. learning: by
    line, product and recipe, the alert that was accepted, while the baseline that was dropped is learned anew.
    unusable: events that say no alert and no baseline.
    """

    alerts: dict[str, Alert] = field(default_factory=dict)
    baselines: dict[LineName, dict[tuple[str, str], Baseline]] = field(default_factory=dict)
    said_ns: dict[LineName, int] = field(default_factory=dict)
    learning: dict[LineName, dict[tuple[str, str], Alert]] = field(default_factory=dict)
    unusable: int = 0

    def of(self, line: LineName) -> list[Alert]:
        """Return the alerts of a line."""
        return [one for one in self.alerts.values() if (one.gateway, one.line) == line]


def read_alerts(connection: Connection) -> AlertBook:
    """Return what the events of the ledger's log say."""
    return fold(events_named(connection, LEARNED, RAISED, UPDATED, SHELVED, CLEARED, ACCEPTED))


def fold(rows: Iterable[EventRow]) -> AlertBook:
    """Return what events say, in the order of the log."""
    book = AlertBook()
    for row in rows:
        about = json.loads(row.about)
        try:
            line = (about["gateway"], about["line"])
            if row.what == LEARNED:
                baseline = from_flat(about)
                key = (baseline.product, baseline.recipe)
                book.baselines.setdefault(line, {})[key] = baseline
                book.learning.get(line, {}).pop(key, None)
            else:
                alert = Alert.of(about)
                book.alerts[alert.id] = alert
                if row.what == ACCEPTED:
                    key = (alert.product, alert.recipe)
                    book.baselines.get(line, {}).pop(key, None)
                    book.learning.setdefault(line, {})[key] = alert
        except (KeyError, ValueError, TypeError):
            book.unusable += 1
            continue
        if row.what != SHELVED:
            book.said_ns[line] = max(book.said_ns.get(line, 0), row.t_ns)
    return book


def cause_words(cause: Cause, unit: str) -> str:
    """Return a cause in words: `compressor: short cycling, 30 starts/h instead of 6, +0.14 kg/unit (71 %)`."""
    said = f"{cause.name}: {cause.evidence[0]}" if cause.evidence else cause.name
    return said if cause.kind == DATA else f"{said}, {cause.contribution:+.2g} {unit} ({cause.share:.0%})"


def state_words(alert: Alert, now_ns: int) -> str:
    """Return in words whether an alert is open."""
    if alert.cleared_ns is not None:
        return "accepted" if alert.accepted_by else "cleared"
    return f"shelved until {utc(alert.shelved_until_ns)}" if alert.shelved_until_ns > now_ns else "open"


def change_words(alert: Alert) -> str:
    """Return in words what changed, and what the repair was worth."""
    if alert.kind == DATA:
        return "no kg/unit"
    said = f"{_number(alert.before)} -> {_number(alert.after)} {alert.unit}"
    if alert.repaired is not None:
        said += f", since the repair {_number(alert.repaired)}"
        if alert.unrepaired is not None and _number(alert.unrepaired) != _number(alert.after):
            said += f" instead of {_number(alert.unrepaired)}"
        said += "" if alert.change_percent is None else f" ({alert.change_percent:+.0f} %)"
    if alert.excess_kg is not None:
        said += f"; {alert.excess_kg:+.0f} kg {'so far' if alert.cleared_ns is None else 'while it lasted'}"
    if alert.avoided_kg is not None:
        said += f"; {alert.avoided_kg:.0f} kg avoided in the rest of the shift (a projection)"
    return said


def _number(value: float | None) -> str:
    return "?" if value is None else f"{value:.2f}"
