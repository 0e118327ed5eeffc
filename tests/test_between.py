"""Sampling skew: polls that do not fall on boundaries, and what is made of them."""

import asyncio
import math
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.app.between import Between, at_boundaries, interpolated
from gateway.carbon.emissions import IntervalLeaf
from gateway.carbon.energy import Flag, LeafRef
from gateway.config import GatewayConfig, parse_gateway
from gateway.errors import ConfigError
from gateway.model import INTERPOLATED, Clock, ClockState, Interval, LineSchema, Quality, Sample
from tests.line_leaves import MINUTE, SECOND, energy, line
from tests.plans import cells_of, planned
from tests.test_collect import NS, TEMPLATE, Site

START = 420 * SECOND * 4_200_000  # a multiple of both 7 s and 60 s
WATTS = 100_000


def shown(t_ns: int) -> Decimal:
    """Return the register of a meter of 100 kW, in kWh, of six places."""
    return Decimal(WATTS * (t_ns - START) // 3_600_000_000).scaleb(-6)


def polled(t_ns: int) -> Sample:
    return Sample(point="m1.energy", source_time_ns=t_ns, raw=b"\0\1", value=shown(t_ns))


def leaves(schema: LineSchema, found: list[tuple[int, Sample]]) -> list[IntervalLeaf]:
    return [
        IntervalLeaf(
            gateway="gw1",
            ref=LeafRef(
                index=index, hash=b"\1" * 32, clock=Clock(t_ns=t_ns, state=ClockState.SYNCHRONISED, offset_ns=0)
            ),
            interval=Interval(schema_id=schema.id, t_ns=t_ns, samples=(sample,)),
        )
        for index, (t_ns, sample) in enumerate(found)
    ]


def test_100_kw_polled_each_7_s_reported_each_minute() -> None:
    """By the last poll, rounded to 0.1 kWh, 12.0 kWh come of 11.6667; interpolated, the energy is exact."""
    polls = [polled(START + number * 7 * SECOND) for number in range(61)]
    skewed = [max(one.value or 0 for one in polls if one.source_time_ns <= START + n * MINUTE) for n in range(8)]
    reported = [round(Decimal(after) - Decimal(before), 1) for before, after in pairwise(skewed)]
    assert sum(reported) == Decimal("12.0")
    between = Between(boundary_ns=MINUTE, longest_ns=16 * SECOND)
    found = [(t_ns, one) for poll in polls for t_ns, (one,) in between.take([poll])]
    schema = line(energy())
    cells = cells_of(leaves(schema, [(START, polls[0]), *found]), schema, planned(""))
    assert [t_ns for t_ns, _ in found] == [START + n * MINUTE for n in range(1, 8)]
    assert sum(cell.line.energy_mwh or 0 for cell in cells) == 11_666_666, "the register's own last digit"
    for cell in cells:
        assert abs((cell.line.energy_mwh or 0) - WATTS * 60 * 1_000_000 / 3_600_000) <= 1
    assert [cell.line.flags for cell in cells[:-1]] == [{Flag.TIME_ESTIMATED}] * 6
    assert {row.quality for cell in cells[:-1] for row in cell.figures} == {"time_estimated"}


def test_an_interpolated_sample_says_what_it_is() -> None:
    at = interpolated(polled(START + 56 * SECOND), polled(START + 63 * SECOND), START + MINUTE)
    assert at is not None
    assert (at.status, at.raw, at.source_time_ns, at.quality) == (INTERPOLATED, b"", START + MINUTE, Quality.GOOD)
    assert at.value == Decimal("1.666666428")


def test_a_poll_on_the_boundary_itself_is_taken_as_it_is() -> None:
    after = polled(START + MINUTE)
    assert interpolated(polled(START + 55 * SECOND), after, START + MINUTE) is after


def test_a_count_is_interpolated_to_whole_units() -> None:
    one, other = (
        Sample(point="good", source_time_ns=START + s * SECOND, raw=b"\0", value=Decimal(value))
        for s, value in ((56, 10), (63, 13))
    )
    (found,) = Between(boundary_ns=MINUTE, longest_ns=16 * SECOND, whole=frozenset({"good"})).take([one, other])
    assert found[1][0].value == 11


def test_a_register_that_fell_between_two_polls_says_nothing_of_the_time_between() -> None:
    before = polled(START + 56 * SECOND)
    after = Sample(point="m1.energy", source_time_ns=START + 63 * SECOND, raw=b"\0", value=Decimal(0))
    assert interpolated(before, after, START + MINUTE) is None
    between = Between(boundary_ns=MINUTE, longest_ns=16 * SECOND)
    assert between.take([before, after]) == []


def test_polls_that_lie_too_far_apart_say_nothing_of_the_time_between() -> None:
    between = Between(boundary_ns=MINUTE, longest_ns=16 * SECOND)
    assert between.take([polled(START + 56 * SECOND)]) == []
    assert between.take([polled(START + 73 * SECOND)]) == []
    assert [t_ns for t_ns, _ in between.take([polled(START + 80 * SECOND), polled(START + 96 * SECOND)])] == []


def test_a_bad_sample_and_a_clock_that_ran_back_are_no_neighbours() -> None:
    between = Between(boundary_ns=MINUTE, longest_ns=16 * SECOND)
    bad = Sample(point="m1.energy", source_time_ns=START + 63 * SECOND, raw=b"", value=None, quality=Quality.BAD)
    assert between.take([polled(START + 56 * SECOND), bad]) == []
    assert [t_ns for t_ns, _ in between.take([polled(START + 70 * SECOND)])] == [START + MINUTE]
    assert between.take([polled(START + 10 * SECOND)]) == []
    assert between.take([polled(START + 17 * SECOND)]) == []


def test_where_polls_fall_on_boundaries_nothing_is_interpolated() -> None:
    sample = polled(START)
    assert at_boundaries(None, None, [sample]) == []
    assert at_boundaries(None, START, [sample]) == [(START, [sample])]


@given(
    st.decimals(0, 10**9, places=3),
    st.decimals(0, 10**6, places=3),
    st.integers(1, 10**11),
    st.lists(st.integers(0, 10**11), min_size=1, max_size=5),
)
def test_interpolation_is_exact_to_a_billionth_and_never_falls(
    first: Decimal, grown: Decimal, span: int, offsets: list[int]
) -> None:
    before = Sample(point="e", source_time_ns=START, raw=b"\0", value=first)
    after = Sample(point="e", source_time_ns=START + span, raw=b"\0", value=first + grown)
    last = first
    for offset in sorted(offset % span for offset in offsets):
        at = interpolated(before, after, START + offset)
        assert at is not None
        assert at.value is not None
        exact = Fraction(first) + Fraction(grown) * Fraction(offset, span)
        assert 0 <= exact - Fraction(at.value) < Fraction(1, 10**9)
        assert last <= at.value <= first + grown
        last = at.value


def gateway(interval: str, period_s: str) -> GatewayConfig:
    text = f'[gateway]\nid = "gw1"\n[seal]\nkey = "k"\nwitness = "w"\n[interval]\n{interval}\n'
    text += '[forward]\nbroker = "b:1"\nca = "a"\ncert = "c"\nkey = "k"\n'
    text += f'[devices.m1]\ntemplate = "test"\nurl = "tcp://127.0.0.1:1"\nperiod_s = {period_s}\n'
    text += '[lines.filling]\nzone = "DEMO"\nenergy = ["m1.energy"]\n'
    return parse_gateway(text, name="gateway.toml", folder=Path("/site"), template_text=lambda _: TEMPLATE)


def test_a_period_that_does_not_divide_is_refused_unless_boundaries_are_interpolated() -> None:
    with pytest.raises(ConfigError, match=r"devices\.m1\.period_s: got 7, want a period that divides"):
        gateway("period_s = 60", "7")
    assert gateway("period_s = 60\ninterpolate = true", "7").interval.interpolate
    with pytest.raises(ConfigError, match=r"got 9, want at most 8 s to interpolate, or a period that divides"):
        gateway("period_s = 60\ninterpolate = true", "9")
    assert gateway("period_s = 60\ninterpolate = true", "30").period_s("m1") == 30


async def test_a_collector_gives_interpolated_samples_at_each_boundary() -> None:
    site = Site(gateway("period_s = 2\ninterpolate = true", "0.7"))
    async with site.running():
        await asyncio.sleep(5.5)
    full = [interval for interval in site.intervals() if interval.samples[0].quality == Quality.GOOD]
    assert len(full) >= 2
    rows = site.rows("m1")
    for interval in full:
        (sample,) = interval.samples
        assert (sample.status, sample.source_time_ns, interval.t_ns % (2 * NS)) == (INTERPOLATED, interval.t_ns, 0)
        before = max((row for row in rows if row.source_time_ns <= interval.t_ns), key=lambda row: row.source_time_ns)
        assert sample.value is not None
        assert isinstance(before.values[1], int | float)
        assert before.values[1] <= math.ceil(sample.value) <= before.values[1] + 1
