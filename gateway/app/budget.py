"""How much each source may send."""

from gateway.web.clerk import BusyError


class Budget:
    """So much a minute, and so much at once."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._left: dict[str, tuple[float, int]] = {}

    def spend(self, source: str, facts: int, now_ns: int) -> None:
        """Count facts of a source. Raises BusyError where they are too many."""
        left, then_ns = self._left.get(source, (float(self._per_minute), now_ns))
        gained = max(0, now_ns - then_ns) / 60e9 * self._per_minute
        left = min(float(self._per_minute), left + gained)
        if facts > left:
            self._left[source] = (left, now_ns)
            wait_s = 1 + int((facts - left) * 60 / self._per_minute)
            raise BusyError(f"got more than {self._per_minute} facts a minute", retry_s=wait_s, crowded=True)
        self._left[source] = (left - facts, now_ns)
