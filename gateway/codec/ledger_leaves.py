"""Leaves of the ledger's own log: factors, documents, context, statements; standings are in standing_leaves.py.

Normative form: docs/log.md, section 1, "Bodies".
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from gateway.codec.fits import (
    Check,
    is_bytes,
    is_decimal,
    is_decimal_or_nil,
    is_int,
    is_int_or_nil,
    is_text,
    is_text_map,
)
from gateway.codec.standing_leaves import STANDING_SHAPES
from gateway.errors import TrustError
from gateway.model import FACTOR_UNITS, ContextFact, CountFact, Document, Factor, Statement, What


def _is_key(value: Any) -> bool:
    return type(value) is list and len(value) == 5 and all(map(is_text, value))


def _is_rules(value: Any) -> bool:
    return type(value) is list and len(value) <= 1000 and all(map(_is_rule, value))


def _is_rule(value: Any) -> bool:
    return (
        type(value) is list
        and len(value) == 2
        and type(value[0]) is int
        and -(2**63) <= value[0] < 2**63
        and type(value[1]) is int
        and -93_600 <= value[1] <= 93_600
    )


SHAPES: dict[str, tuple[dict[str, Check], ...]] = {
    "factor": (
        {
            "key": _is_key,
            "start": is_int,
            "end": is_int,
            "value": is_decimal,
            "unit": lambda unit: type(unit) is str and unit in FACTOR_UNITS,
            "state": is_text,
            "method": is_text,
            "source": is_text,
            "version": is_text,
            "supersedes": is_text,
            "model_date": is_text,
            "updated": is_int_or_nil,
            "gwp_set": is_text,
            "uncertainty_pct": is_decimal_or_nil,
        },
    ),
    "document": ({"name": is_text, "from": is_int, "content": is_bytes, "by": is_text, "rules": _is_rules},),
    "context": (
        {
            "gateway": is_text,
            "line": is_text,
            "what": lambda what: type(what) is str and what in set(What),
            "t": is_int,
            "value": is_text,
            "source": is_text,
            "id": is_text,
        },
    ),
    "counts": (
        {
            "gateway": is_text,
            "line": is_text,
            "start": is_int,
            "end": is_int,
            "good": is_int_or_nil,
            "total": is_int_or_nil,
            "source": is_text,
            "id": is_text,
        },
    ),
    "statement": (
        {
            "record": is_text,
            "version": is_int,
            "supersedes": is_text,
            "reason": is_text,
            "subject": is_text_map,
            "figures": is_text_map,
        },
    ),
    **STANDING_SHAPES,
}


def to_factor(body: Mapping[str, Any]) -> Factor:
    """Return the factor that a checked body says.

    Raises TrustError for an empty window, and for a unit that is a fuel's where it is none.
    """
    if body["end"] <= body["start"]:
        raise TrustError("factor: end: want a time after start")
    provider, zone, signal, factor_type, granularity = body["key"]
    if body["unit"] != FACTOR_UNITS[0] and signal != "fuel":
        raise TrustError(f"factor: unit: got {body['unit']}, want g/kWh for all but fuels")
    uncertainty = body["uncertainty_pct"]
    return Factor(
        key=(provider, zone, signal, factor_type, granularity),
        start_ns=body["start"],
        end_ns=body["end"],
        g_per_kwh=Decimal(body["value"]),
        state=body["state"],
        method=body["method"],
        source=body["source"],
        version=body["version"],
        supersedes=body["supersedes"],
        model_date=body["model_date"],
        updated_ns=body["updated"],
        gwp_set=body["gwp_set"],
        uncertainty_pct=None if uncertainty is None else Decimal(uncertainty),
        unit=body["unit"],
    )


def to_document(body: Mapping[str, Any]) -> Document:
    """Return the document that a checked body says. Raises TrustError for rules out of order."""
    rules = tuple((since_ns, offset_s) for since_ns, offset_s in body["rules"])
    if list(rules) != sorted({since_ns: (since_ns, offset_s) for since_ns, offset_s in rules}.values()):
        raise TrustError("document: rules: want them in order of time, none twice")
    return Document(name=body["name"], from_ns=body["from"], content=body["content"], by=body["by"], rules=rules)


def to_context(body: Mapping[str, Any]) -> ContextFact:
    """Return the piece of context that a checked body says."""
    return ContextFact(
        gateway=body["gateway"],
        line=body["line"],
        what=What(body["what"]),
        t_ns=body["t"],
        value=body["value"],
        source=body["source"],
        id=body["id"],
    )


def to_counts(body: Mapping[str, Any]) -> CountFact:
    """Return the count that a checked body says. Raises TrustError for an empty window, or more good units than all."""
    good, made = body["good"], body["total"]
    if body["end"] <= body["start"]:
        raise TrustError("counts: end: want a time after start")
    if (good is None and made is None) or (good is not None and made is not None and good > made):
        raise TrustError("counts: want good or total, and no more good units than all")
    return CountFact(
        gateway=body["gateway"],
        line=body["line"],
        start_ns=body["start"],
        end_ns=body["end"],
        good=good,
        total=made,
        source=body["source"],
        id=body["id"],
    )


def to_statement(body: Mapping[str, Any]) -> Statement:
    """Return the statement that a checked body says. Raises TrustError for a version that cannot be."""
    if body["version"] < 1 or (body["version"] == 1) != (body["supersedes"] == ""):
        raise TrustError("statement: version: want 1, or a later one that supersedes another")
    return Statement(
        record=body["record"],
        version=body["version"],
        supersedes=body["supersedes"],
        reason=body["reason"],
        subject=tuple(body["subject"].items()),
        figures=tuple(body["figures"].items()),
    )


def chain_of(kind: str, body: Mapping[str, Any]) -> str:
    """Return what chains a leaf of the ledger's log to the ones before it; body: checked, of a CHAINED kind."""
    match kind:
        case "document":
            return str(body["name"])
        case "context" | "counts":
            return f"{body['gateway']}/{body['line']}"
        case "standing" | "decision":
            return str(body["gateway"])
    return str(body["record"])
