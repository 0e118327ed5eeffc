"""When to poll: wall-clock-aligned ticks, and a circuit breaker per device. Pure but for the clock passed in."""

from dataclasses import dataclass

NS = 1_000_000_000


def next_tick(now_ns: int, period_ns: int) -> int:
    """Return the first multiple of the period after now."""
    return (now_ns // period_ns + 1) * period_ns


@dataclass(slots=True)
class Ticker:
    """The ticks of one device: multiples of its period, UTC.

    due_ns: the next one. When polls take longer than the period, ticks are skipped and counted,
    never made up for; the interval boundary among them is not skipped.
    """

    period_ns: int
    boundary_ns: int
    due_ns: int
    missed: int = 0

    def realign(self, now_ns: int) -> None:
        """Come back from a future that a clock stepped back has left behind; to be called while waiting."""
        if self.due_ns - now_ns > self.period_ns + NS:
            self.due_ns = next_tick(now_ns, self.period_ns)

    def take(self, now_ns: int) -> int | None:
        """Move past the tick that is due and return the interval boundary that it stands for, None for none."""
        last = self.due_ns
        if last <= now_ns < last + self.period_ns:
            self.due_ns = last + self.period_ns
            return None if last % self.boundary_ns else last
        if now_ns < last - self.boundary_ns:
            last = next_tick(now_ns, self.period_ns) - self.period_ns  # the clock was stepped back
        elif now_ns > last:
            last = now_ns // self.period_ns * self.period_ns
            self.missed += (last - self.due_ns) // self.period_ns
        boundary = last // self.boundary_ns * self.boundary_ns
        crossed = boundary >= self.due_ns or boundary == last
        self.due_ns = last + self.period_ns
        return boundary if crossed else None


@dataclass(slots=True)
class Breaker:
    """Keeps a silent device from costing the others their cadence.

    After `tolerated` failures in a row it opens: the device is asked again only after 1, 2, 4 ... s,
    at most `most_s`.
    """

    tolerated: int = 2
    most_s: float = 60.0
    failures: int = 0
    retry_ns: int = 0

    @property
    def is_open(self) -> bool:
        """Return whether the device counts as down."""
        return self.failures >= self.tolerated

    def allows(self, now_ns: int) -> bool:
        """Return whether the device may be asked now."""
        return not self.is_open or now_ns >= self.retry_ns or self.retry_ns - now_ns > self.most_s * NS

    def failed(self, now_ns: int) -> bool:
        """Count a failure; return whether it opened the breaker."""
        self.failures += 1
        if self.is_open:
            wait_s = min(2.0 ** min(self.failures - self.tolerated, 10), self.most_s)
            self.retry_ns = now_ns + int(wait_s * NS)
        return self.failures == self.tolerated

    def answered(self) -> bool:
        """Count an answer; return whether the device was down before."""
        was_open, self.failures, self.retry_ns = self.is_open, 0, 0
        return was_open
