"""How the seal keeps its log within the disk budget: docs/log.md, section 4, at the end."""

import contextlib
from collections.abc import Callable

from gateway.codec.leaves import parse
from gateway.store.segments import Dropped, Log, StoreFull

REST = 60
"""So many beats pass before the disk-full policy is tried again where it found no room itself."""


class Room:
    """One log's budget. It counts whole bundles: the newest, of which nothing can be deleted yet, comes on top.

    Deleting begins a little below it, so that as a rule there is room before anything must be refused.

    keep_bytes: how much of what has a receipt stays all the same, less where the budget or the disk is smaller.
    drop_readings: whether bodies without a receipt may go, bulk readings alone.
    """

    def __init__(self, log: Log, *, budget_bytes: int, keep_bytes: int, drop_readings: bool) -> None:
        self._log, self.budget_bytes, self._drop_readings = log, budget_bytes, drop_readings
        self._begin_bytes, self._target_bytes = budget_bytes * 19 // 20, budget_bytes * 9 // 10
        self._keep_bytes = min(keep_bytes, self._target_bytes)
        self._receipt: tuple[bytes, int] | None = None
        self._rest = 0

    @property
    def is_over(self) -> bool:
        """Whether the budget is used up."""
        return self._whole_bytes > self.budget_bytes

    @property
    def _whole_bytes(self) -> int:
        return self._log.body_bytes - self._log.growing_bytes

    def give_up_reserve(self) -> None:
        """Remove all that has a receipt: the disk is fuller than the budget foresaw."""
        with contextlib.suppress(StoreFull):
            self._log.prune(0)

    def store_receipt(self, note: bytes, size: int) -> None:
        """Store a receipt and remove what it covers; without room for it, at a later `tidy`."""
        self._receipt = (note, size)
        try:
            self._log.record_receipt(note, size)
            self._receipt = None
            self._log.prune(self._keep_bytes)
        except StoreFull:
            self.give_up_reserve()

    def tidy(self, say: Callable[[Dropped], None]) -> Dropped | None:
        """Delete what the budget has no room for; return what went without a receipt, None for nothing.

        say: called before that goes. Raises StoreFull when there is not even room for that.
        """
        if self._receipt is not None:
            self.store_receipt(*self._receipt)  # forward may have no reason to bring it again
        self._rest = max(0, self._rest - 1)
        if self._whole_bytes <= self._begin_bytes or self._rest:
            return None
        growing_bytes = self._log.growing_bytes
        self._log.prune(self._keep_bytes + growing_bytes)
        if self._whole_bytes <= self._begin_bytes or not self._drop_readings:
            return None
        try:
            return self._log.drop(_is_kept, self._target_bytes + growing_bytes, say=say)
        except StoreFull:
            self._rest = REST
            raise


def _is_kept(leaf: bytes) -> bool:
    """Return whether the disk-full policy must keep this leaf: all but bulk readings."""
    return parse(leaf).kind != "readings"
