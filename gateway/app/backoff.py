"""How long to wait before the next attempt at something that failed."""

import random


class Backoff:
    """Waits that double from least to most, each shortened by up to a half at random, so that a fleet spreads out."""

    def __init__(self, *, least_s: float = 0.2, most_s: float = 10.0, chance: random.Random | None = None) -> None:
        self._least_s, self._most_s = least_s, most_s
        self._chance = chance or random.SystemRandom()
        self._wait_s = least_s

    def next_s(self) -> float:
        """Return how long to wait this time, in seconds."""
        wait_s = self._wait_s
        self._wait_s = min(2 * wait_s, self._most_s)
        return max(self._least_s, wait_s * self._chance.uniform(0.5, 1.0))

    def reset(self) -> None:
        """Start again from the shortest wait: it worked."""
        self._wait_s = self._least_s
