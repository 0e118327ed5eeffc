"""When to ask which gateway, and until when to wait; pure: clock and chance are arguments.

A round is one challenge and what answers it. Answers that cannot be told to be the device's own end no round, and make
no device fail: else whoever can write to a topic could have it found wrong. What they were is said when nothing better
comes.
"""

import enum
import heapq
from collections.abc import Callable
from dataclasses import dataclass

from gateway.errors import ConfigError

A_SECOND = 50
"""Gateways asked in a second, at most, when all of them are due because the verifier has started."""
MOST_OPEN = 1000
"""Rounds at once: what a broker keeps for one client, and what waits for verification."""
FIRST_OPEN, LEAST_OPEN = 250, 50
MOST_BAD, LEAST_BAD = 1024 * 1024, 4096
"""Bytes of wrong answers to the open challenge that are verified in one round, and what each counts for at least.

What does not even hold the challenge's nonce costs nothing, and there may be any number of it.
"""
LEAST_S = 5.0
"""Between two challenges to one gateway, however often it asks for one."""
AGAIN_S = 10.0
"""A gateway that did not answer is asked again so soon, then after twice that, and so on up to the period."""


class Wrong(enum.IntEnum):
    """How much a wrong answer says of the device, from nothing on."""

    NONE = 0
    NOISE = 1  # it is for no open challenge: anyone's
    UNPROVEN = 2  # it is for this challenge, and anyone's who has seen that
    OWN = 3  # the device's own TPM has signed it for this challenge


@dataclass(slots=True)
class _Round:
    due_s: float
    asked_s: float
    nonce: bytes | None = None
    bad: int = 0
    why: str = ""
    wrong: Wrong = Wrong.NONE
    misses: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """A round that was not answered in time. why: what was wrong with the answer that says most, "" where none came.

    is_own: whether that was the device's own.
    """

    gateway: str
    nonce: bytes
    why: str
    is_own: bool


class Rounds:
    """All gateways of a verifier. Times are seconds of one steady clock.

    chance: gives a number in [0, 1) at each call. Each gateway is asked every 90 to 100 % of period_s.
    """

    def __init__(self, *, period_s: float, deadline_s: float, chance: Callable[[], float]) -> None:
        if deadline_s >= period_s:
            raise ConfigError(f"deadline_s: got {deadline_s:g}, want less than period_s, {period_s:g}")
        self._period_s, self._deadline_s, self._chance = period_s, deadline_s, chance
        self._rounds: dict[str, _Round] = {}
        self._queue: list[tuple[float, str]] = []
        self._open: dict[str, None] = {}  # in the order of asking, and so of deadlines
        self._room = float(FIRST_OPEN)

    def __contains__(self, gateway: str) -> bool:
        """Return whether this gateway is asked at all."""
        return gateway in self._rounds

    @property
    def open(self) -> int:
        """How many challenges wait for an answer."""
        return len(self._open)

    def add(self, gateway: str, now_s: float, *, among: int) -> None:
        """Ask this gateway from now on: soon, one of `among` that are added together."""
        within_s = min(self._period_s, among / A_SECOND)
        self._rounds[gateway] = _Round(due_s=0.0, asked_s=float("-inf"))
        self._due(gateway, now_s + within_s * self._chance())

    def remove(self, gateway: str) -> None:
        """Ask it no more."""
        del self._rounds[gateway]
        self._open.pop(gateway, None)

    def hello(self, gateway: str, now_s: float) -> None:
        """Ask this gateway at once: it has just connected. Saying so again and again changes nothing."""
        found = self._rounds[gateway]
        soon_s = max(now_s, found.asked_s + LEAST_S)
        if found.nonce is None and soon_s < found.due_s:
            self._due(gateway, soon_s)

    def due(self, now_s: float) -> list[str]:
        """Return whom to ask now; `ask` must follow for each. No more than MOST_OPEN wait for answers at a time.

        Fewer at first, and while answers take long: then we or the broker are slow, and nobody shall miss a deadline
        by it.
        """
        found: dict[str, None] = {}
        while self._queue and self._queue[0][0] <= now_s and len(self._open) + len(found) < self._room:
            due_s, gateway = heapq.heappop(self._queue)
            one = self._rounds.get(gateway)
            if one is not None and one.nonce is None and one.due_s == due_s:  # else it was moved, or removed
                found[gateway] = None
        return [*found]

    def next_s(self) -> float | None:
        """Return when there is something to do next, None for never."""
        times = [self._queue[0][0]] if self._queue and len(self._open) < self._room else []
        if self._open:
            times.append(self._rounds[next(iter(self._open))].asked_s + self._deadline_s)
        return min(times, default=None)

    def ask(self, gateway: str, nonce: bytes, now_s: float) -> None:
        """Open a round: this nonce was sent."""
        found = self._rounds[gateway]
        found.nonce, found.asked_s, found.bad, found.why, found.wrong = nonce, now_s, 0, "", Wrong.NONE
        self._open[gateway] = None

    def nonce(self, gateway: str) -> bytes | None:
        """Return what an answer must be for; None when none is waited for, or enough of them were wrong."""
        found = self._rounds.get(gateway)
        return found.nonce if found is not None and found.bad < MOST_BAD else None

    def wrong(self, gateway: str, why: str, what: Wrong, *, size: int = 0) -> None:
        """Note an answer of so many bytes that does not end the round; of several the first that says most is kept."""
        found = self._rounds[gateway]
        if what > Wrong.NOISE:
            found.bad += max(size, LEAST_BAD)
        if what > found.wrong:
            found.wrong, found.why = what, why

    def answered(self, gateway: str, now_s: float) -> None:
        """Close the round: the device has answered, well or not."""
        is_quick = now_s - self._rounds[gateway].asked_s <= self._deadline_s / 4
        self._room = min(MOST_OPEN, self._room + 1) if is_quick else max(LEAST_OPEN, self._room * 0.98)
        self._rounds[gateway].misses = 0
        self._close(gateway)

    def missed(self, now_s: float) -> list[Missed]:
        """Close the rounds that are past their deadline, and return them."""
        found: list[Missed] = []
        for gateway in [*self._open]:
            one = self._rounds[gateway]
            if one.asked_s + self._deadline_s > now_s:
                break
            is_own = one.wrong is Wrong.OWN
            found.append(Missed(gateway=gateway, nonce=one.nonce or b"", why=one.why, is_own=is_own))
            self._close(gateway)
            again_s = AGAIN_S * 2 ** min(one.misses, 16) * (1 + self._chance())
            one.misses += 1
            if now_s + again_s < one.due_s:
                self._due(gateway, now_s + again_s)
        return found

    def withdraw(self, now_s: float) -> None:
        """Close all rounds as if never asked, and ask again: it was the verifier's own connection that was lost."""
        self._room = float(FIRST_OPEN)
        waiting = [*self._open]
        for gateway in waiting:
            self._open.pop(gateway)
            self._rounds[gateway].nonce = None
            self._due(gateway, now_s + min(self._period_s, len(waiting) / A_SECOND) * self._chance())

    def _close(self, gateway: str) -> None:
        found = self._rounds[gateway]
        found.nonce = None
        self._open.pop(gateway, None)
        self._due(gateway, found.asked_s + self._period_s * (1 - 0.1 * self._chance()))

    def _due(self, gateway: str, due_s: float) -> None:
        self._rounds[gateway].due_s = due_s
        heapq.heappush(self._queue, (due_s, gateway))
