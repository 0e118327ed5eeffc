"""What is new among offered factors, and what a new version changes."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from gateway.carbon.exact import EXACT, text
from gateway.carbon.grid.table import FactorTable, is_weaker, said
from gateway.errors import ConfigError
from gateway.model import UNTIL_FURTHER_NOTICE_NS, Factor, FactorKey


def news_of(table: FactorTable, factors: Iterable[Factor]) -> Sequence[Factor]:
    """Return those that are not in force yet, each naming the version that it supersedes; of one window the last.

    The same value in a weaker state, as an estimate of what was measured, is no news. Raises ConfigError for a window
    that overlaps another: leaves are for ever, and one that cannot come in force has no place in the log.
    """
    news: dict[tuple[FactorKey, int, int], Factor] = {}
    for factor in factors:
        held = table.in_force(factor)
        if held is None and table.overlaps(factor):
            raise ConfigError(f"factors: got {said(factor)}, want the window in force, or one beside it")
        window = (factor.key, factor.start_ns, factor.end_ns)
        if held is None:
            news[window] = factor
        elif held.factor.version == factor.version or is_weaker(factor, held.factor):
            news.pop(window, None)
        else:
            news[window] = replace(factor, supersedes=held.factor.version)
    for before, after in pairwise(sorted(news)):
        ends_ns = after[1] if before[2] == UNTIL_FURTHER_NOTICE_NS and before[1] < after[1] else before[2]
        if before[0] == after[0] and after[1] < ends_ns:
            raise ConfigError(f"factors: got {said(news[after])}, which overlaps {said(news[before])}")
    return list(news.values())


def restated(old: Factor, new: Factor) -> dict[str, Any]:
    """Return what the event says when a new version supersedes an old one (docs/log.md, `factor.restated`)."""
    return {
        "key": list(new.key),
        "start": new.start_ns,
        "end": new.end_ns,
        "old": text(old.g_per_kwh),
        "new": text(new.g_per_kwh),
        "delta": text(EXACT.subtract(new.g_per_kwh, old.g_per_kwh)),
        "reason": _reason(old, new),
    }


def _reason(old: Factor, new: Factor) -> str:
    changes = [f"state {old.state} to {new.state}"] if old.state != new.state else []
    if old.g_per_kwh != new.g_per_kwh:
        changes.append("value revised")
    if old.method != new.method:
        changes.append("another method")
    if old.source != new.source:
        changes.append(f"source {new.source}, was {old.source}")
    if old.model_date != new.model_date:
        changes.append(f"model of {new.model_date or 'no date'}")
    return ", ".join(changes)
