"""Counts of an MES over the cells of a line: what one window says is not what another left open."""

from decimal import Decimal

import pytest

from gateway.carbon.counted import Counted, LineCounts
from gateway.model import CountFact

HOUR = 3_600_000_000_000


def counts(*said: tuple[int | None, int | None]) -> LineCounts:
    """Return counts of one hour each, good and total, one after the other."""
    made = LineCounts()
    for n, (good, total) in enumerate(said):
        made.add(
            n,
            CountFact(
                gateway="gw1",
                line="filling",
                start_ns=n * HOUR,
                end_ns=(n + 1) * HOUR,
                good=good,
                total=total,
                source="mes",
                id=f"c-{n}",
            ),
        )
    return made


@pytest.mark.parametrize(
    ("said", "good", "total"),
    [
        (((95, 100), (None, 100)), None, Decimal(200)),
        (((95, None), (90, 100)), Decimal(185), None),
        (((95, None), (None, 100)), None, None),
        (((95, 100), (90, 100)), Decimal(185), Decimal(200)),
    ],
)
def test_a_cell_over_two_counts_knows_only_what_both_say(
    said: tuple[tuple[int | None, int | None], ...], good: Decimal | None, total: Decimal | None
) -> None:
    assert counts(*said).between(0, 2 * HOUR) == Counted(good, total, whole=True)


def test_a_cell_within_one_count_knows_what_that_says() -> None:
    made = counts((95, 100), (None, 100))
    assert made.between(0, HOUR) == Counted(Decimal(95), Decimal(100), whole=True)
    assert made.between(HOUR, 2 * HOUR) == Counted(None, Decimal(100), whole=True)
