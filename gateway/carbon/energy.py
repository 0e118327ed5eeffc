"""Registers to energy and counts: exact differences of what a meter shows, or nothing.

A register's exact value is first rounded to whole milliwatt-hours (HALF_EVEN), and only then are differences taken.
So they telescope: however an interval is cut, the parts sum to last - first, and a float register's odd binary
fractions add no drift. Counts are whole thousandths of a unit, likewise.

What a register reads is judged by a small state machine. It holds `base`, the newest reading that it believes, and
`trial`, a run of readings that it does not believe yet. For an energy register, each GOOD reading is one of:

1. no base yet (the first reading, or the first of another meter): it becomes the base; nothing is booked.
2. plausible, 0 <= reading - base <= rated power x dt x 1.2: the difference is booked over [base, reading].
3. a roll-over: the difference is negative, and with the modulus added it is plausible. Booked, `rollover`.
   Never where the modulus or the rated power is unknown; a float register has no modulus.
4. else suspect: nothing is booked and the base stays. The reading extends the trial when it is plausible against the
   trial's newest, else it begins a new one. When a trial has three readings and has grown, the register was reset
   or exchanged unannounced: the trial's own growth is booked, `rebased`, and what was before it stays unbooked.

A base that stays is why [100, 0, 100.1] books 0.1: the 0 is passed over, and 100.1 is judged against 100. It is also
why a coarse register loses nothing: a step too large for one interval is plausible a little later, and is then spread
over all the time that it took.

dt is the longer of the times between the boundaries and between the device's answers. Where the rated power is unknown
any growth is plausible up to 1 TWh. Another serial in the line's schema is another meter: see 1, `replaced`.

Known holes: without a rated power a glitch upwards is booked, and one that lasts three growing readings is believed;
a jump after which the register stands still is booked once the load could have drawn it in the time.

A count register has no rated power. It wraps where the modulus makes the difference at most 1 % of the modulus; any
other fall is a reset, as when a PLC restarts: what it shows was counted since 0 and is booked, `count_reset`. Known
hole: a count that reads 0 by a glitch and returns is booked anew; the flag stands in the row before.
"""

import enum
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple, Protocol

from gateway.model import Clock, ClockState

MWH_PLACES = {"Wh": 3, "kWh": 6, "MWh": 9}
"""Units of an energy register: 10 ** this many mWh each."""

UNIT_PLACES = 3
"""Counts are whole thousandths."""

MAX_DELTA_MWH = 10**15
"""1 TWh: more in one step is no energy; so the sum over a line's meters also fits 63 bits."""

_TRIAL_READINGS = 3
_WRAP_PART = 100
_ONE_UNIT = 10**UNIT_PLACES


class Flag(enum.StrEnum):
    """What a reader of a figure must know; in the order in which they are written."""

    ROLLOVER = "rollover"
    REBASED = "rebased"
    GLITCH = "glitch_passed_over"
    COUNT_RESET = "count_reset"
    SUSPECT = "suspect"
    REPLACED = "replaced"
    NO_VALUE = "no_value"
    GAP_TOO_LONG = "gap_too_long"
    INCOMPLETE = "incomplete"
    NO_FACTOR = "no_factor"
    FACTOR_SECONDARY = "factor_secondary"
    FACTOR_LAST_GOOD = "factor_last_good"
    FACTOR_ANNUAL = "factor_annual"
    CLOCK_SUSPECT = "clock_suspect"
    TIME_ESTIMATED = "time_estimated"
    NEGATIVE_REMAINDER = "negative_remainder"
    PLAN_MISMATCH = "plan_mismatch"
    NO_CALORIFIC = "no_calorific_value"
    BASIS_MISMATCH = "basis_mismatch"
    UNITS_MIXED = "units_mixed"


NO_FLAGS: frozenset[Flag] = frozenset()
"""Shared: nearly all bookings have none."""

_GLITCH, _ROLLOVER, _REBASED = frozenset({Flag.GLITCH}), frozenset({Flag.ROLLOVER}), frozenset({Flag.REBASED})
_COUNT_RESET, _CLOCK_SUSPECT = frozenset({Flag.COUNT_RESET}), frozenset({Flag.CLOCK_SUSPECT})
_TIME_ESTIMATED = frozenset({Flag.TIME_ESTIMATED})
_SUSPECT_CLOCK = ClockState.SUSPECT


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafRef:
    """Where a reading is sealed: the leaf's index and hash in its gateway's log, and the sealer's clock."""

    index: int
    hash: bytes
    clock: Clock


class Reading(NamedTuple):
    """One GOOD sample of a counter. A tuple, since one is made for each sample.

    amount: whole mWh, or thousandths of a unit. register: as read, in its own unit. t_ns: the boundary.
    late: leaves before this one were passed over, because their time did not advance.
    estimated: it was interpolated between two polls.
    """

    amount: int
    register: Decimal
    t_ns: int
    source_ns: int
    leaf: LeafRef
    late: bool = False
    estimated: bool = False


class Booking(NamedTuple):
    """An amount between two readings: measured in total, by interpolation at any time between. A tuple, as Reading."""

    start: Reading
    end: Reading
    amount: int
    quantum: int = 1
    flags: frozenset[Flag] = NO_FLAGS

    def until(self, t_ns: int) -> int:
        """Return how much of the amount falls before t_ns: rounded down, so the last part takes the remainder."""
        passed, span = t_ns - self.start.t_ns, self.end.t_ns - self.start.t_ns
        return self.amount // self.quantum * passed // span * self.quantum

    def between(self, start_ns: int, end_ns: int) -> int:
        """Return the part from start_ns to end_ns; parts that meet sum exactly."""
        return self.until(end_ns) - self.until(start_ns)


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """No amount was booked, and why. base: the newest reading that is believed, if any."""

    flag: Flag
    base: Reading | None = None


class Register(Protocol):
    """One counter over time.

    base: the newest reading that is believed. settled: nothing older matters to what comes; the base is the newest
    reading of all, or there was none yet.
    """

    base: Reading | None
    settled: bool

    def read(self, reading: Reading) -> Booking | Nothing:
        """Judge one GOOD reading; their boundaries ascend."""
        ...

    def miss(self) -> Nothing:
        """Note that there was no GOOD reading at a boundary."""
        ...

    def retune(self, *, modulus: int | None, rated_power_w: int | None) -> None:
        """Take over what another schema says of the same meter."""
        ...


class EnergyRegister:
    """The state machine above. modulus in mWh. first: why the first boundary books nothing."""

    def __init__(self, *, modulus: int | None, rated_power_w: int | None, first: Flag = Flag.NO_VALUE) -> None:
        self.base: Reading | None = None
        self.settled = True
        self.modulus = modulus
        self.rated_power_w = rated_power_w
        self._first = first
        self._trial: list[Reading] = []
        self._passed_over = False

    def read(self, reading: Reading) -> Booking | Nothing:
        """Judge one GOOD reading."""
        base = self.base
        if base is None:
            self._believe(reading)
            flag, self._first = self._first, Flag.NO_VALUE
            return Nothing(flag=flag)
        grown = reading.amount - base.amount
        if self._plausible(grown, base, reading):
            return self._book(base, reading, grown, NO_FLAGS)
        if self.modulus is not None and self.rated_power_w is not None and grown < 0:
            wrapped = grown + self.modulus
            if self._plausible(wrapped, base, reading):
                return self._book(base, reading, wrapped, _ROLLOVER)
        return self._suspect(reading)

    def miss(self) -> Nothing:
        """Note that there was no GOOD reading; a trial goes on."""
        self.settled = self.base is None
        flag, self._first = self._first, Flag.NO_VALUE
        return Nothing(flag=flag, base=self.base)

    def retune(self, *, modulus: int | None, rated_power_w: int | None) -> None:
        """Take over what another schema says of the same meter."""
        self.modulus, self.rated_power_w = modulus, rated_power_w

    def _suspect(self, reading: Reading) -> Booking | Nothing:
        self.settled, self._passed_over = False, True
        trial = self._trial
        if trial and self._plausible(reading.amount - trial[-1].amount, trial[-1], reading):
            # The first, how many came after it, and the newest say all; the list never holds more than three.
            trial = [*trial[: _TRIAL_READINGS - 1], reading]
        else:
            trial = [reading]
        self._trial = trial
        grown = reading.amount - trial[0].amount
        if len(trial) == _TRIAL_READINGS and 0 < grown <= MAX_DELTA_MWH:
            self._passed_over = False
            return self._book(trial[0], reading, grown, _REBASED)
        return Nothing(flag=Flag.SUSPECT, base=self.base)

    def _plausible(self, amount: int, start: Reading, end: Reading) -> bool:
        if self.rated_power_w is None:
            return 0 <= amount <= MAX_DELTA_MWH
        dt_ns, answers_ns = end.t_ns - start.t_ns, end.source_ns - start.source_ns
        if answers_ns > dt_ns:  # noqa: PLR1730 - max() takes three times as long, for each reading
            dt_ns = answers_ns
        # rated W x dt ns x 1.2 in mWh is rated x dt / 3e9.
        return 0 <= amount * 3_000_000_000 <= self.rated_power_w * dt_ns and amount <= MAX_DELTA_MWH

    def _book(self, start: Reading, end: Reading, amount: int, flags: frozenset[Flag]) -> Booking:
        if self._passed_over:
            flags |= _GLITCH
        self._believe(end)
        return Booking(start, end, amount, 1, _with_clock(flags, start, end))

    def _believe(self, reading: Reading) -> None:
        self.base, self.settled, self._passed_over = reading, True, False
        self._trial = []


class CountRegister:
    """A production counter: it grows, wraps, or starts anew. modulus in thousandths of a unit."""

    def __init__(self, *, modulus: int | None, first: Flag = Flag.NO_VALUE) -> None:
        self.base: Reading | None = None
        self.settled = True
        self.modulus = modulus
        self._first = first

    def read(self, reading: Reading) -> Booking | Nothing:
        """Judge one GOOD reading."""
        base, self.base, self.settled = self.base, reading, True
        if base is None:
            flag, self._first = self._first, Flag.NO_VALUE
            return Nothing(flag=flag)
        flags = NO_FLAGS
        amount = reading.amount - base.amount
        if amount < 0 and self.modulus is not None and 0 <= amount + self.modulus <= self.modulus // _WRAP_PART:
            amount += self.modulus
            flags = _ROLLOVER
        elif amount < 0:
            amount = max(0, reading.amount)
            flags = _COUNT_RESET
        quantum = 1 if amount % _ONE_UNIT else _ONE_UNIT  # whole units stay whole when a gap is spread
        return Booking(base, reading, amount, quantum, _with_clock(flags, base, reading))

    def miss(self) -> Nothing:
        """Note that there was no GOOD reading."""
        self.settled = self.base is None
        flag, self._first = self._first, Flag.NO_VALUE
        return Nothing(flag=flag, base=self.base)

    def retune(self, *, modulus: int | None, rated_power_w: int | None) -> None:  # noqa: ARG002 - an energy register's
        """Take over what another schema says of the same counter."""
        self.modulus = modulus


def _with_clock(flags: frozenset[Flag], start: Reading, end: Reading) -> frozenset[Flag]:
    if end.late or _SUSPECT_CLOCK in (start.leaf.clock.state, end.leaf.clock.state):
        flags |= _CLOCK_SUSPECT
    if start.estimated or end.estimated:
        flags |= _TIME_ESTIMATED
    return flags
