"""Leaves of the ledger's own log on what it holds of gateways: standings and decisions.

Normative form: docs/log.md, section 1, "Bodies".
"""

from collections.abc import Mapping
from typing import Any

from gateway.codec.fits import Check, is_int, is_int_or_nil
from gateway.errors import TrustError
from gateway.model import Decision, Standing, State

MAX_REASON = 500
MAX_RESULT = 16_384
MAX_NOTE = 4096
_STATES = frozenset(map(str, State))


def _is_short(most: int) -> Check:
    return lambda value: type(value) is str and len(value) <= most


STANDING_SHAPES: dict[str, tuple[dict[str, Check], ...]] = {
    "standing": (
        {
            "gateway": _is_short(63),
            "first": is_int,
            "size": is_int,
            "state": lambda state: type(state) is str and state in _STATES,
            "reason": _is_short(MAX_REASON),
            "epoch": is_int,
            "t": is_int,
            "verified": is_int_or_nil,
            "start": is_int_or_nil,
            "end": is_int_or_nil,
            "result": _is_short(MAX_RESULT),
        },
    ),
    "decision": (
        {
            "gateway": _is_short(63),
            "first": is_int,
            "stop": is_int,
            "admit": lambda admit: type(admit) is bool,
            "start": is_int,
            "end": is_int,
            "note": lambda note: type(note) is bytes and len(note) <= MAX_NOTE,
        },
    ),
}


def to_standing(body: Mapping[str, Any]) -> Standing:
    """Return the standing that a checked body says. Raises TrustError for one that cannot be."""
    start_ns, end_ns = body["start"], body["end"]
    if body["first"] > body["size"]:
        raise TrustError(f"standing: first: got {body['first']}, want at most size, {body['size']}")
    if (start_ns is None) != (end_ns is None) or (start_ns is not None and end_ns <= start_ns):
        raise TrustError("standing: want start and a later end, or neither")
    return Standing(
        gateway=body["gateway"],
        first=body["first"],
        size=body["size"],
        state=State(body["state"]),
        reason=body["reason"],
        epoch=body["epoch"],
        t_ns=body["t"],
        verified_ns=body["verified"],
        start_ns=start_ns,
        end_ns=end_ns,
        result=body["result"],
    )


def to_decision(body: Mapping[str, Any]) -> Decision:
    """Return the decision that a checked body says. Raises TrustError for an empty range or window."""
    if body["stop"] <= body["first"] or body["end"] <= body["start"]:
        raise TrustError("decision: want a leaf at least, and an end after start")
    return Decision(
        gateway=body["gateway"],
        first=body["first"],
        stop=body["stop"],
        admit=body["admit"],
        start_ns=body["start"],
        end_ns=body["end"],
        note=body["note"],
    )
