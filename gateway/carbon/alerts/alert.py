"""What the watch of a line says: alerts, their causes, and the events that are sealed of them."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from gateway.carbon.alerts.baseline import Baseline, to_flat

ENERGY, RATE, GRID, LIMIT, DATA = "energy", "throughput", "grid", "limit", "data"
"""Kinds of alerts: energy beside what the throughput explains; the throughput; the grid's factor, which is no fault of
the line's; a fixed threshold; counts or meters that are missing."""

LEARNED, RAISED, CLEARED, SHELVED = "baseline.learned", "alert.raised", "alert.cleared", "alert.shelved"
UPDATED, ACCEPTED = "alert.updated", "alert.accepted"
"""Names of events."""

ACCEPTABLE = frozenset({ENERGY, RATE})
"""The kinds that rest on a baseline, and stop its learning. A limit is the plan's own, the grid's factor is usual after
a day, and missing data is never normal."""


class Cause(NamedTuple):
    """One cause of an alert.

    kind: asset, grid, throughput, process, standby or data. name: the asset, or in words. contribution: in the alert's
    unit. share: of the change, 1 is all of it. confidence: 0 to 1. determined: False where the evidence does not say
    more than that it is this part of the sum. evidence: short texts with numbers.
    """

    kind: str
    name: str
    share: float
    contribution: float
    confidence: float
    evidence: tuple[str, ...] = ()
    determined: bool = True

    def text(self) -> str:
        """Return it as canonical JSON: how it stands in an event's list."""
        return json.dumps(
            {
                "confidence": f"{self.confidence:.2f}",
                "contribution": f"{self.contribution:.9f}",
                "determined": self.determined,
                "evidence": list(self.evidence),
                "kind": self.kind,
                "name": self.name,
                "share": f"{self.share:.6f}",
            },
            sort_keys=True,
            ensure_ascii=False,
            separators=(",", ":"),
        )

    @classmethod
    def of(cls, text: str) -> "Cause":
        """Return the cause that `text` wrote. Raises ValueError or KeyError."""
        found = json.loads(text)
        return cls(
            kind=found["kind"],
            name=found["name"],
            share=float(found["share"]),
            contribution=float(found["contribution"]),
            confidence=float(found["confidence"]),
            evidence=tuple(found["evidence"]),
            determined=found["determined"],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One alert of one line.

    onset_ns: when the change began, as far as it can be told; raised_ns: when it was said. before: what is usual,
    after: since the onset, in unit; None where there is no KPI. causes: by contribution, the largest first. Of one that
    is updated while it is open, after and causes are of what was made since it was said before.
    repaired: in unit, since repaired_ns. unrepaired: as it would be had nobody repaired it, the fault's energy at the
    grid's factor since repaired_ns; None where the grid is what changed. excess_kg: CO2e from onset to repair, or
    so far, beyond what is usual, at the factors that held then. avoided_kg: a projection: (unrepaired - repaired) x the
    units of the rest of the shift at the repaired throughput.
    dropped_baseline: the number of the baseline that was dropped when it was accepted as the new normal; 0 for none.
    """

    id: str
    gateway: str
    line: str
    kind: str
    onset_ns: int
    raised_ns: int
    unit: str = "kg/unit"
    before: float | None = None
    after: float | None = None
    product: str = ""
    recipe: str = ""
    causes: tuple[Cause, ...] = ()
    why: str = ""
    cleared_ns: int | None = None
    repaired_ns: int | None = None
    repaired: float | None = None
    unrepaired: float | None = None
    excess_kg: float | None = None
    avoided_kg: float | None = None
    shelved_until_ns: int = 0
    shelved_by: str = ""
    shelved_why: str = ""
    accepted_by: str = ""
    accepted_why: str = ""
    dropped_baseline: int = 0

    @property
    def first(self) -> tuple[str, str] | None:
        """Kind and name of the first cause; None without any."""
        return (self.causes[0].kind, self.causes[0].name) if self.causes else None

    @property
    def change_percent(self) -> float | None:
        """By how much the repair changed the KPI, -22 for a fifth and more less; None before, or without a KPI.

        Both sides stand at one factor of the grid, unless that is what the alert is of.
        """
        was = self.after if self.kind == GRID else self.unrepaired
        return 100 * (self.repaired / was - 1) if was and self.repaired is not None else None

    def about(self) -> dict[str, Any]:
        """Return it flat: text, whole numbers, and the causes as a list of texts; what is not known is left out."""
        flat: dict[str, Any] = {"alert": self.id, "gateway": self.gateway, "line": self.line, "kind": self.kind}
        flat |= {"onset": self.onset_ns, "raised": self.raised_ns, "unit": self.unit}
        flat |= {name: value for name in _TEXTS if (value := getattr(self, name))}
        flat |= {name: repr(value) for name in _FLOATS if (value := getattr(self, name)) is not None}
        flat |= {name: value for name, key in _WHOLE.items() if (value := getattr(self, key))}
        return {**flat, "causes": [cause.text() for cause in self.causes]}

    @classmethod
    def of(cls, about: Mapping[str, Any]) -> "Alert":
        """Return the alert that `about` wrote. Raises ValueError or KeyError for a map that says none."""
        more: dict[str, Any] = {name: about.get(name, "") for name in _TEXTS}
        more |= {name: float(about[name]) for name in _FLOATS if name in about}
        more |= {key: about[name] for name, key in _WHOLE.items() if name in about}
        return cls(
            id=about["alert"],
            gateway=about["gateway"],
            line=about["line"],
            kind=about["kind"],
            onset_ns=about["onset"],
            raised_ns=about["raised"],
            unit=about["unit"],
            causes=tuple(map(Cause.of, about["causes"])),
            **more,
        )


_TEXTS = ("product", "recipe", "why", "shelved_by", "shelved_why", "accepted_by", "accepted_why")
_FLOATS = ("before", "after", "repaired", "unrepaired", "excess_kg", "avoided_kg")
_WHOLE = {
    "cleared": "cleared_ns",
    "repaired_at": "repaired_ns",
    "shelved_until": "shelved_until_ns",
    "dropped_baseline": "dropped_baseline",
}


def alert_id(gateway: str, line: str, kind: str, raised_ns: int) -> str:
    """Return the short name of an alert: eight digits, the same for the same alert."""
    return hashlib.sha256(f"{gateway}\t{line}\t{kind}\t{raised_ns}".encode()).hexdigest()[:8]


class AlertEvent(NamedTuple):
    """Something to be sealed. what: one of the names above. t_ns: of the line's time."""

    what: str
    t_ns: int
    alert: Alert | None = None
    baseline: Baseline | None = None
    gateway: str = ""
    line: str = ""

    def about(self) -> dict[str, Any]:
        """Return the event's flat map."""
        if self.alert is not None:
            return self.alert.about()
        if self.baseline is None:
            return {}
        return {"gateway": self.gateway, "line": self.line, **to_flat(self.baseline)}


def shelved(alert: Alert, *, until_ns: int, by: str, why: str) -> Alert:
    """Return an alert that is to be quiet until a time."""
    return replace(alert, shelved_until_ns=until_ns, shelved_by=by, shelved_why=why)
