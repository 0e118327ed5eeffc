"""Our own data: a grid whose intensity follows the hours, the same for everybody who asks."""

from datetime import UTC, datetime, timedelta

DAY_S = 86_400


def grams(t_s: int, *, revision: int = 0) -> int:
    """Return the intensity at an instant in g/kWh: high in the evening, low at noon. revision: adds so much."""
    hour = t_s % DAY_S // 3_600
    return 300 + 20 * abs(hour - 12) + t_s // DAY_S % 7 + revision


def instants(start_s: int, end_s: int, period_s: int) -> range:
    """Return the starts of the windows that lie in [start, end)."""
    return range(-(-start_s // period_s) * period_s, end_s, period_s)


def said(t_s: int, form: str = "%Y-%m-%dT%H:%M:%S.000Z") -> str:
    """Return an instant as text."""
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=t_s)).strftime(form)


def heard(text: str) -> int:
    """Return the seconds of an ISO 8601 time. Raises ValueError."""
    then = datetime.fromisoformat(text)
    if then.tzinfo is None:
        raise ValueError(f"got {text}, want a time with its offset")
    return int(then.timestamp())
