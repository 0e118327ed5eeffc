"""What holds of an export."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.attest.epoch import UNATTESTED
from gateway.carbon.audit.compute import Alone
from gateway.carbon.audit.devices import DeviceVerdict
from gateway.carbon.audit.form import Subject
from gateway.carbon.audit.standing import DecisionVerdict, StandingVerdict
from gateway.carbon.figures import Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class LogVerdict:
    """One log of the export, its checkpoint verified.

    named: the caller named this key as one that it trusts.
    epoch: the number of the key's. binding: how the key is bound to the device; `unattested`: not at all.
    device: the one that is found to vouch for it; None where none does, or where nobody checked.
    receipt_s: when the ledger cosigned it, Unix seconds; None for the ledger's own log.
    """

    origin: str
    size: int
    vkey: str
    fingerprint: str
    named: bool
    epoch: int
    binding: str
    device: DeviceVerdict | None
    receipt_s: int | None
    leaves: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LineVerdict:
    """One line of the export, its figures computed again.

    first_ns, last_ns: boundaries of the first and last interval leaf. begins: the first is the line's first of all.
    settled: the leaves reach over the end of the period, and none to come changes a row of it.
    quarantined: by why, how many of the period's leaves no figure rests on. alone: as LineCells has it.
    """

    gateway: str
    line: str
    intervals: int
    first_ns: int
    last_ns: int
    begins: bool
    settled: bool
    quarantined: Mapping[str, int]
    alone: tuple[Alone, ...]
    totals: Totals


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """All that holds of an export. trust_given: whether the caller named the keys that it trusts."""

    subject: Subject
    calc_version: str
    trust_given: bool
    files: int
    rows: int
    ledger: LogVerdict
    gateways: tuple[LogVerdict, ...]
    lines: tuple[LineVerdict, ...]
    standings: tuple[StandingVerdict, ...]
    decisions: tuple[DecisionVerdict, ...]

    @property
    def leaves(self) -> int:
        """How many leaves were proven."""
        return self.ledger.leaves + sum(gateway.leaves for gateway in self.gateways)

    @property
    def unattested(self) -> tuple[str, ...]:
        """The logs whose key no device vouches for: to be said aloud."""
        return tuple(log.origin for log in (self.ledger, *self.gateways) if log.binding == UNATTESTED)

    @property
    def claimed(self) -> tuple[str, ...]:
        """The logs that say a device vouches for their key, which nobody has checked."""
        logs = (self.ledger, *self.gateways)
        return tuple(log.origin for log in logs if log.binding != UNATTESTED and log.device is None)
