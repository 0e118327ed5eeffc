"""From which of a provider's regions a zone's factors come, and since when: a new region never speaks for the past."""

from collections.abc import Iterator

from gateway.carbon.grid.answers import HOUR_NS, Window


class Regions:
    """The regions of one feed by time; each holds until the next one does."""

    def __init__(self) -> None:
        self._held: list[tuple[int, str]] = []

    @property
    def newest(self) -> str:
        """The newest region, "" for none."""
        return self._held[-1][1] if self._held else ""

    @property
    def since_ns(self) -> int:
        """Since when the newest region holds."""
        return self._held[-1][0] if self._held else 0

    def start(self, asked_ns: int) -> int:
        """Return since when a region holds that is asked from asked_ns on: the next full hour; the first one always.

        No window of a factor is longer than an hour or lies across two, so each is of one region.
        """
        return max(self.since_ns, -(-asked_ns // HOUR_NS) * HOUR_NS) if self._held else 0

    def take(self, region: str, since_ns: int) -> None:
        """Let a region hold from since_ns on."""
        self._held.append((since_ns, region))

    def within(self, window: Window) -> Iterator[tuple[str, Window]]:
        """Cut a window where the region changes; yield each part and its region, in order of time."""
        ends = [since_ns for since_ns, _ in self._held[1:]]
        for (since_ns, region), until_ns in zip(self._held, [*ends, window.end_ns], strict=True):
            start_ns, end_ns = max(since_ns, window.start_ns), min(until_ns, window.end_ns)
            if start_ns < end_ns:
                yield region, Window(start_ns=start_ns, end_ns=end_ns)
