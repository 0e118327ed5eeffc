"""How windows are put to providers: as text, and in pieces that they take."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from gateway.carbon.grid.answers import DAY_NS, S, Window

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def said(t_ns: int, form: str = "%Y-%m-%dT%H:%MZ") -> str:
    """Return an instant as text, in whole minutes."""
    return (_EPOCH + timedelta(seconds=t_ns // S)).strftime(form)


def pieces(window: Window, days: int) -> Iterator[Window]:
    """Cut a window into pieces of at most so many days."""
    start_ns = window.start_ns
    while start_ns < window.end_ns:
        end_ns = min(start_ns + days * DAY_NS, window.end_ns)
        yield Window(start_ns=start_ns, end_ns=end_ns)
        start_ns = end_ns
