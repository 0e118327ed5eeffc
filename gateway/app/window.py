"""Which leaves forward sends next, and when it starts again. Pure: time is passed in, monotonic seconds."""

from collections import deque

CHUNKS = 8
"""Chunks under way without a receipt, at most (docs/wire.md, section 2)."""
SILENCE_S = 5.0
"""Without a receipt for so long, everything since the last one is sent again."""
REWIND_S = 1.0
"""A receipt that does not advance starts us again at most this often."""


class Window:
    """What is under way to the ledger, in order.

    After something was lost, one chunk goes first and each receipt doubles them: a ledger that is away or behind is
    asked with one chunk, not with eight.
    """

    def __init__(self, receipted: int) -> None:
        self.base = receipted
        self.next = receipted
        self._ends: deque[int] = deque()
        self._limit = CHUNKS
        self._heard_s = 0.0
        self._rewound_s: float | None = None

    @property
    def in_flight(self) -> int:
        """Chunks without a receipt."""
        return len(self._ends)

    @property
    def has_room(self) -> bool:
        """Whether another chunk may go, from leaf `next` on."""
        return len(self._ends) < self._limit

    def sent(self, end: int, now_s: float) -> None:
        """Note that leaves next..end-1 are under way."""
        if not self._ends:
            self._heard_s = now_s
        self._ends.append(end)
        self.next = end

    def receipt(self, size: int, now_s: float) -> bool:
        """Take the size of a receipt that the seal found true; return whether that started us again from there."""
        if size > self.base:
            self.base, self._heard_s = size, now_s
            self._limit = min(2 * self._limit, CHUNKS)
            while self._ends and self._ends[0] <= size:
                self._ends.popleft()
            self.next = max(self.next, size)
            return False
        if size == self.next or (self._rewound_s is not None and now_s - self._rewound_s < REWIND_S):
            return False
        self._rewind(size, now_s)
        return True

    def is_overdue(self, now_s: float) -> bool:
        """Return whether no receipt has come for too long, which starts us again from the last one."""
        if not self._ends or now_s - self._heard_s < SILENCE_S:
            return False
        self._rewind(self.base, now_s)
        return True

    def _rewind(self, size: int, now_s: float) -> None:
        self.base = self.next = size
        self._ends.clear()
        self._limit = 1
        self._rewound_s = now_s
