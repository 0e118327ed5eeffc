"""The wall clock and what the kernel knows of it."""

import ctypes
import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.model import Clock, ClockState

STEP_NS = 1_000_000_000
"""A wall clock that moves this much more or less than the monotonic one was stepped."""

_TIME_ERROR = 5
_STA_UNSYNC = 0x0040
_STA_NANO = 0x2000


class _Timex(ctypes.Structure):
    """`struct timex` of adjtimex(2) on 64-bit Linux; only reads."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("esterror", ctypes.c_long),
        ("status", ctypes.c_int),
        ("rest", ctypes.c_byte * 512),
    )


def kernel_state() -> tuple[ClockState, int]:
    """Return whether the kernel's clock is disciplined, and by how much it is off in ns, at most (adjtimex(2))."""
    timex = _Timex()
    answer = ctypes.CDLL(None, use_errno=True).adjtimex(ctypes.byref(timex))
    if answer < 0 or answer == _TIME_ERROR or timex.status & _STA_UNSYNC:
        return ClockState.UNSYNCHRONISED, 0
    still_ns = timex.offset if timex.status & _STA_NANO else timex.offset * 1000
    return ClockState.SYNCHRONISED, max(abs(still_ns), timex.maxerror * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockLimit:
    """What a clock may be before figures must not rest on it as final: beyond it a reading is SUSPECT.

    error_ns: while it is synchronised, how far it may be off. holdover_ns: how long it may be without synchronisation.
    """

    error_ns: int
    holdover_ns: int


class WallClock:
    """Reads the time with its state; remembers a floor that it must not fall below.

    floor_ns: the newest time known for sure to have passed: an earlier reading is SUSPECT. limit: none without it; the
    time without synchronisation counts from the start at the earliest.
    """

    def __init__(
        self,
        *,
        floor_ns: int = 0,
        limit: ClockLimit | None = None,
        wall: Callable[[], int] = time.time_ns,
        steady: Callable[[], int] = time.monotonic_ns,
        state: Callable[[], tuple[ClockState, int]] = kernel_state,
    ) -> None:
        self._floor_ns, self._limit = floor_ns, limit
        self._wall, self._steady, self._state = wall, steady, state
        self._last = (wall(), steady())
        self._good_ns = self._last[1]
        self._asked_ns = -(10**18)
        self._answer = (ClockState.UNSYNCHRONISED, 0)
        self.stepped_ns = 0

    def read(self) -> Clock:
        """Return the time now. `stepped_ns` then holds how far the clock was stepped since the last reading."""
        wall, steady = self._wall(), self._steady()
        moved = (wall - self._last[0]) - (steady - self._last[1])
        self._last = (wall, steady)
        self.stepped_ns = moved if abs(moved) >= STEP_NS else 0
        if steady - self._asked_ns >= 1_000_000_000:
            self._asked_ns, self._answer = steady, self._limited(steady, *self._state())
        state, offset_ns = self._answer
        if wall < self._floor_ns or self.stepped_ns:
            return Clock(t_ns=wall, state=ClockState.SUSPECT, offset_ns=offset_ns)
        self._floor_ns = wall
        return Clock(t_ns=wall, state=state, offset_ns=offset_ns)

    def _limited(self, steady: int, state: ClockState, offset_ns: int) -> tuple[ClockState, int]:
        """Return what the kernel says, SUSPECT beyond the limit."""
        is_synchronised = state is ClockState.SYNCHRONISED
        if is_synchronised:
            self._good_ns = steady
        if self._limit is None:
            return state, offset_ns
        is_off = is_synchronised and abs(offset_ns) > self._limit.error_ns
        is_alone = not is_synchronised and steady - self._good_ns >= self._limit.holdover_ns
        return (ClockState.SUSPECT if is_off or is_alone else state), offset_ns
