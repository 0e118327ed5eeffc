"""Starts and loaded time are counted from a power gauge, minute by minute."""

from gateway.carbon.alerts.cycles import TOLD_NS, CycleCounter, Minute
from gateway.carbon.alerts.observe import MINUTE_NS

SECOND = 1_000_000_000
T0 = 1_767_258_000 * SECOND


def counted(*samples: tuple[int, float | None], longest_ns: int | None = None) -> dict[int, Minute]:
    """Give (second, W) samples to a counter of 1 kW; return its minutes by number."""
    counter = CycleCounter(1000.0)
    for second, watts in samples:
        if longest_ns is None:
            counter.take(T0 + second * SECOND, watts)
        else:
            counter.take(T0 + second * SECOND, watts, longest_ns)
    return {(row.start_ns - T0) // MINUTE_NS: row for row in counter.rows()}


def test_a_start_is_off_to_on() -> None:
    rows = counted((0, 0.0), (10, 5000.0), (20, 5000.0), (30, 0.0), (50, 5000.0))
    assert rows[0].starts == 2
    assert (rows[0].loaded_ns, rows[0].seen_ns) == (20 * SECOND, 50 * SECOND)


def test_noise_about_the_threshold_is_no_start() -> None:
    rows = counted((0, 900.0), (10, 1010.0), (20, 990.0), (30, 1005.0), (40, 950.0), (50, 1200.0))
    assert rows[0].starts == 1


def test_time_is_split_at_the_minutes() -> None:
    rows = counted((30, 0.0), (50, 5000.0), (150, 0.0))
    assert [rows[n].loaded_ns // SECOND for n in range(3)] == [10, 60, 30]
    assert [rows[n].starts for n in range(3)] == [1, 0, 0]


def test_what_ran_when_it_was_first_seen_or_after_a_gap_did_not_start() -> None:
    assert counted((0, 5000.0))[0].starts == 0
    assert sum(row.starts for row in counted((0, 0.0), (10, None), (20, 5000.0)).values()) == 0
    assert sum(row.starts for row in counted((0, 0.0), (900, 5000.0)).values()) == 0
    assert sum(row.starts for row in counted((0, 0.0), (900, 5000.0), longest_ns=TOLD_NS).values()) == 1


def test_late_and_repeated_samples_change_nothing() -> None:
    again = ((0, 0.0), (70, 5000.0), (10, 0.0), (70, 0.0), (20, 9000.0))
    assert counted(*again) == counted((0, 0.0), (70, 5000.0))


def test_a_counter_goes_on_where_another_one_stopped() -> None:
    samples = [(n * 7, 5000.0 if n % 3 else 0.0) for n in range(60)]
    whole = counted(*samples)
    first = CycleCounter(1000.0)
    rows: dict[int, Minute] = {}
    for at, (second, watts) in enumerate(samples):
        if at % 10 == 9:  # as after a restart
            rows |= {(row.start_ns - T0) // MINUTE_NS: row for row in first.rows()}
            first = CycleCounter(1000.0, rows[max(rows)])
        first.take(T0 + second * SECOND, watts)
    rows |= {(row.start_ns - T0) // MINUTE_NS: row for row in first.rows()}
    assert rows == whole
