"""Under which attestation state a gateway's leaves were accepted, and what people decided about that since."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class State(enum.StrEnum):
    """What the ledger, as relying party, holds of a gateway. Figures rest on leaves under the first two alone."""

    UNATTESTED = "UNATTESTED"  # the operator has pinned a key and asks for no attestation: said loudly
    TRUSTED = "TRUSTED"
    PENDING = "PENDING"  # not appraised since it started
    STALE = "STALE"  # the newest good result is too old
    UNREACHABLE = "UNREACHABLE"  # a challenge was not answered in time
    FAILED = "FAILED"  # appraised, and found wrong

    @property
    def is_affirmed(self) -> bool:
        """Whether figures may rest on leaves under it."""
        return self in {State.UNATTESTED, State.TRUSTED}

    @property
    def is_waiting(self) -> bool:
        """Whether leaves under it only wait for a good result: it may reach back over them."""
        return self in {State.PENDING, State.STALE, State.UNREACHABLE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """From leaf `first` of a gateway's log on, leaves are accepted under this state; sealed at each change.

    A good result may reach back over leaves that were only waiting for it (PENDING, STALE, UNREACHABLE), never over
    FAILED ones, nor over another epoch's. size: leaves that the ledger held then; so [first, size) is what it reaches
    back over. epoch: the one that the result is about; 0 for none.
    t_ns: when the ledger found so. verified_ns: when the device was last found good; None for never.
    start_ns, end_ns: the time whose cells may change by reaching back; None for none.
    result: the EAR (a JWT) by which; "" where the ledger's clock alone says so.
    """

    gateway: str
    first: int
    size: int
    state: State
    reason: str
    epoch: int
    t_ns: int
    verified_ns: int | None
    start_ns: int | None
    end_ns: int | None
    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """A person's signed word on leaves [first, stop) of a gateway: use them in figures, or do not.

    start_ns, end_ns: the time whose cells may change. note: the signed note that says all of this, and why.
    """

    gateway: str
    first: int
    stop: int
    admit: bool
    start_ns: int
    end_ns: int
    note: bytes
