"""When history is asked for again: providers revise what they published for up to three months."""

from gateway.carbon.grid.answers import DAY_NS, Window

REPOLL_DAYS = (1, 7, 30, 90)
"""A day of UTC is asked for again so many days after its end."""
_MOST_LATE_NS = 30 * DAY_NS


def due(since_ns: int, now_ns: int) -> list[Window]:
    """Return the days that came to be due after since and until now, those of one age as one window.

    After a longer stop than 30 days the days of the last 30 alone.
    """
    since_ns = max(since_ns, now_ns - _MOST_LATE_NS)
    windows = []
    for days in REPOLL_DAYS:
        age = days + 1
        first, last = since_ns // DAY_NS - age + 1, now_ns // DAY_NS - age
        if 0 <= first <= last:
            windows.append(Window(start_ns=first * DAY_NS, end_ns=(last + 1) * DAY_NS))
    return windows
