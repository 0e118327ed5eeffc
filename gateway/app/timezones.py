"""The UTC offsets of a time zone, as rules that are sealed beside a plan: whoever checks it needs no tables."""

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from gateway.errors import ConfigError

YEARS_BACK = 3
YEARS_ON = 10
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = timedelta(seconds=1)

Rules = tuple[tuple[int, int], ...]
"""(since ns, seconds east), in order."""


def rules_of(timezone: str, *, from_ns: int, now_ns: int) -> Rules:
    """Return the offsets of an IANA time zone, from some years before from_ns to some after now_ns.

    Raises ConfigError for a name that the tables of this machine do not have.
    """
    try:
        zone = ZoneInfo(timezone)
    except (KeyError, ValueError, OSError) as e:  # OSError: a folder of the tables, such as Europe
        raise ConfigError(f"site.timezone: got {timezone!r}, want an IANA name such as Europe/Berlin") from e
    at = datetime(max(1971, _year(from_ns) - YEARS_BACK), 1, 1, tzinfo=UTC)
    end = datetime(_year(max(from_ns, now_ns)) + YEARS_ON, 1, 1, tzinfo=UTC)
    rules = [(_ns(at), _offset_s(zone, at))]
    while at < end:
        after = at + timedelta(days=1)
        if (offset_s := _offset_s(zone, after)) != rules[-1][1]:
            rules.append((_ns(_change(zone, at, after)), offset_s))
        at = after
    return tuple(rules)


def covers(rules: Rules, other: Rules, start_ns: int, end_ns: int) -> bool:
    """Return whether rules say the same as others between two instants."""
    return _within(rules, start_ns, end_ns) == _within(other, start_ns, end_ns)


def _within(rules: Rules, start_ns: int, end_ns: int) -> list[tuple[int, int]]:
    before = [offset_s for since_ns, offset_s in rules if since_ns <= start_ns]
    later = [(since_ns, offset_s) for since_ns, offset_s in rules if start_ns < since_ns < end_ns]
    return [(start_ns, before[-1] if before else 0), *later]


def _change(zone: ZoneInfo, before: datetime, after: datetime) -> datetime:
    """Return the first whole second between two instants at which the offset is that of the later one."""
    wanted = _offset_s(zone, after)
    while after - before > _SECOND:
        middle = before + (after - before) // 2
        middle = middle.replace(microsecond=0)
        if _offset_s(zone, middle) == wanted:
            after = middle
        else:
            before = middle
    return after


def _offset_s(zone: ZoneInfo, at: datetime) -> int:
    offset = at.astimezone(zone).utcoffset()
    return 0 if offset is None else offset.days * 86_400 + offset.seconds


def _year(t_ns: int) -> int:
    return (_EPOCH + timedelta(seconds=t_ns // 1_000_000_000)).year


def _ns(at: datetime) -> int:
    since = at - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000_000
