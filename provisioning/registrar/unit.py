"""What the registrar says of one unit."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.attest.names import check_serial
from gateway.errors import TrustError

EK, AK = "ek", "ak"
"""Keys in a step's result: the SHA-256 of the EK certificate, and the name of the attestation key, both in hex.

Each is of one unit for ever, also after its end.
"""
IDEVID = "idevid"
"""The kind of the one certificate that a unit may get anew."""
MOST_TEXT = 200


class State(StrEnum):
    """Where a unit stands. DECOMMISSIONED is for ever: its serial, EK and AK never come back."""

    BEGUN = "begun"
    ENROLLED = "enrolled"
    ONBOARDED = "onboarded"
    REVOKED = "revoked"
    DECOMMISSIONED = "decommissioned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One unit. owner, gateway, reason: "" without one. ek, ak, birth, birth_leaf: None as long as there is none.

    steps: the newest result of each. certificates: SHA-256 of its own, by kind. leaves: of the factory's log about it.
    Times: UTC nanoseconds.
    """

    serial: str
    state: State
    model: str
    order: str
    operator: str
    ek: str | None
    ak: str | None
    owner: str
    gateway: str
    reason: str
    began_ns: int
    changed_ns: int
    birth: bytes | None
    birth_leaf: int | None
    steps: Mapping[str, Mapping[str, str]]
    certificates: Mapping[str, str]
    leaves: tuple[int, ...]


def checked_serial(serial: str) -> str:
    """Return a serial. Raises TrustError for what no certificate could name."""
    return check_serial(serial)


def checked_text(what: str, text: object) -> str:
    """Return a text that may stand in a record. Raises TrustError."""
    if type(text) is not str or not 0 < len(text) <= MOST_TEXT or not text.isprintable():
        raise TrustError(f"{what}: want 1 to {MOST_TEXT} printable characters on one line")
    return text
