"""What the ledger's own log holds beside checkpoints: factors, documents, context, statements."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from gateway.model.lines import What

FactorKey = tuple[str, str, str, str, str]
"""Provider, zone, signal, factor type, granularity (an ISO 8601 duration such as PT1H or P1Y, "" where unsaid)."""

FACTOR_UNITS = ("g/kWh", "g/m3", "g/scf", "g/L", "g/kg")
"""What a factor may be in; all but the first for fuels alone."""

UNTIL_FURTHER_NOTICE_NS = 2**63 - 1
"""The end of a factor's window that the next window of its key ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Factor:
    """One version of one factor over one window.

    start_ns, end_ns: UTC; the end excluded.
    g_per_kwh: exact, in `unit`: g/kWh, or for a fuel that is counted otherwise, one of FACTOR_UNITS.
    state: forecast, estimated, measured or final. method: how the provider made it; source: where it was read.
    model_date: of the provider's model, "" where it says none.
    updated_ns: when the provider last changed it, where it says so.
    gwp_set: the global warming potentials in it, such as AR5, "" where unsaid.
    uncertainty_pct: half the width of its 95 % interval, where known.
    version: hexadecimal SHA-256 (docs/log.md, "factor").
    """

    key: FactorKey
    start_ns: int
    end_ns: int
    g_per_kwh: Decimal
    state: str
    method: str
    source: str
    version: str
    supersedes: str = ""
    model_date: str = ""
    updated_ns: int | None = None
    gwp_set: str = ""
    uncertainty_pct: Decimal | None = None
    unit: str = "g/kWh"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One version of a file of the plant's that figures rest on, sealed whole in the ledger's log.

    name: `plan` (carbon.toml), or `grid-settings`. from_ns: since when it holds, UTC.
    content: the file's bytes. by: who gave it, as far as known.
    rules: the UTC offsets of the plan's time zone, as (since ns, seconds east), in order: so that a shift's
        boundaries do not hang on a reader's time zone tables.
    """

    name: str
    from_ns: int
    content: bytes
    by: str = ""
    rules: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextFact:
    """What a system of the DMZ (an MES) says of a line's production since an instant.

    value: "" for none, such as no job. source: the system that proved who it is, or `uns:<topic>`. id: the source's own
    for this line, by which a repetition and a correction are known.
    """

    gateway: str
    line: str
    what: What
    t_ns: int
    value: str
    source: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CountFact:
    """How many units a system of the DMZ says that a line made in [start_ns, end_ns).

    good, total: whole units; None where it does not say. source, id: as of a ContextFact.
    """

    gateway: str
    line: str
    start_ns: int
    end_ns: int
    good: int | None
    total: int | None
    source: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """Figures as the ledger stated them once: a closed shift, or its restatement. Never changed, only superseded.

    record: what it is about, the same for all its versions. version: 1 as closed, then 2, 3, ...
    supersedes: SHA-256 of the version before, "" for the first. reason: why there is another one.
    subject, figures: flat maps of text.
    """

    record: str
    version: int
    supersedes: str
    reason: str
    subject: tuple[tuple[str, str], ...]
    figures: tuple[tuple[str, str], ...]
