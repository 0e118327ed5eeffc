"""What points read over a time, out of a log that is much longer than that."""

from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.app.series import first_since, read_series
from gateway.codec.bodies import event_body, readings_body, schema_body
from gateway.codec.leaves import seal
from gateway.model import Clock, ClockState, Column, Row, Schema
from gateway.store.files import Files, RealFiles
from gateway.store.segments import Log
from tests.faulty_files import FaultyFiles

SECOND = 1_000_000_000
MINUTE, DAY = 60 * SECOND, 86_400 * SECOND
INDOOR = Column(name="indoor", unit="C", store="f64")
HALL = Schema(device="hall", columns=(INDOOR, Column(name="fan", unit="1", store="f64")))
OTHER = Schema(device="yard", columns=(INDOOR,))
GOOD, SUSPECT = ClockState.SYNCHRONISED, ClockState.SUSPECT


class Watched(Log):
    """A log that counts what is read of it."""

    leaves_read = 0

    def read(self, first: int, most_bytes: int, stop: int) -> list[bytes | None]:
        """Return leaves, and count them."""
        found = super().read(first, most_bytes, stop)
        self.leaves_read += len(found)
        return found


@dataclass
class Written:
    """A log."""

    files: Files = field(default_factory=FaultyFiles)
    log: Watched = field(init=False)

    def __post_init__(self) -> None:
        log = Watched.open(self.files, origin="wattseal/gw1")
        assert isinstance(log, Watched)
        self.log = log

    def add(self, t_ns: int, kind: str, body: bytes, state: ClockState = GOOD) -> None:
        """Append a leaf."""
        self.log.append(seal(kind, body, clock=Clock(t_ns=t_ns, state=state, offset_ns=0)))

    def read(self, t_ns: int, value: float, schema: Schema = HALL, state: ClockState = GOOD) -> None:
        """Append a reading, sealed a second later."""
        row = Row(schema, t_ns, (value,) * len(schema.columns))
        self.add(t_ns + SECOND, "readings", readings_body([row]), state)

    def pad(self, t_ns: int, megabytes: int) -> None:
        """Append so much of something else, at an instant."""
        for _ in range(megabytes * 20):
            self.add(t_ns, "event", event_body("note", t_ns, {"said": "x" * 52_000}))

    def series(self, start_ns: int, end_ns: int, *schemas: int) -> list[tuple[int, float]]:
        """Return what the hall's sensor showed."""
        self.log.commit()
        self.log.leaves_read = 0
        found = read_series(
            self.log, ["hall.indoor"], schemas=schemas, start_ns=start_ns, end_ns=end_ns, counts=lambda _: True
        )
        return found["hall.indoor"]


def test_a_time_is_read_from_its_own_leaves_though_the_log_is_long_before_and_after(tmp_path: Path) -> None:
    """The schema stands at the beginning, long before the time that is asked for."""
    made = Written(RealFiles(tmp_path))
    made.add(0, "schema", schema_body(HALL))
    made.add(0, "schema", schema_body(OTHER))
    made.read(5 * MINUTE, 1.0)
    for day in range(1, 11):
        made.pad(day * DAY, 1)
    start_ns = 20 * DAY
    for minute in range(10):
        made.read(start_ns + minute * MINUTE, 20.0 + minute)
        made.read(start_ns + minute * MINUTE, -5.0, OTHER)
    for day in range(21, 31):
        made.pad(day * DAY, 1)
    found = made.series(start_ns, start_ns + 10 * MINUTE, 0, 1)
    assert found == [(start_ns + minute * MINUTE, 20.0 + minute) for minute in range(10)]
    assert made.log.size > 420
    # 4 MB of what follows are read ahead.
    assert made.log.leaves_read < 150
    made.log.close()


def test_what_was_sealed_late_is_still_found() -> None:
    made = Written()
    made.add(0, "schema", schema_body(HALL))
    made.read(DAY, 1.0)
    body = readings_body([Row(HALL, DAY + MINUTE, (2.0, 2.0))])
    made.add(DAY + 6 * MINUTE, "readings", body)
    assert made.series(DAY, DAY + 2 * MINUTE, 0) == [(DAY, 1.0), (DAY + MINUTE, 2.0)]


def test_a_clock_that_was_not_to_be_trusted_hides_nothing() -> None:
    """A battery was empty: the gateway sealed under 1970 for a while, and read on."""
    made = Written()
    made.add(DAY, "schema", schema_body(HALL))
    for minute in range(40):
        state = SUSPECT if minute in range(10, 20) else GOOD
        made.read(minute * MINUTE + (0 if state == SUSPECT else 30 * DAY), float(minute), state=state)
    found = made.series(30 * DAY, 30 * DAY + 40 * MINUTE, 0)
    assert [value for _, value in found] == [float(minute) for minute in range(40) if minute not in range(10, 20)]


def test_without_a_clock_to_be_trusted_the_whole_log_is_read() -> None:
    made = Written()
    made.add(0, "schema", schema_body(HALL), SUSPECT)
    for minute in range(50):
        made.read(DAY + minute * MINUTE, 1.0, state=SUSPECT)
    assert len(made.series(DAY + 10 * MINUTE, DAY + 30 * MINUTE, 0)) == 20


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=60), st.integers(-1, 100))
def test_the_first_leaf_since_an_instant_has_no_trusted_one_of_it_before(
    steps: list[tuple[int, bool]], since: int
) -> None:
    made, t_ns, times = Written(), 0, []
    for step, trusted in steps:
        t_ns += step
        times.append(t_ns if trusted else None)
        made.add(t_ns if trusted else 7, "event", event_body("note", 0, {}), GOOD if trusted else SUSPECT)
    made.log.commit()
    first = first_since(made.log, since)
    before = [place for place, t in enumerate(times) if t is not None and t < since]
    assert first == (before[-1] + 1 if before else 0)


@pytest.mark.parametrize("points", [[], ["hall.outdoor"]])
def test_a_point_that_no_schema_has_is_empty(points: list[str]) -> None:
    made = Written()
    made.add(0, "schema", schema_body(HALL))
    made.read(DAY, 1.0)
    made.log.commit()
    found = read_series(made.log, points, schemas=[0], start_ns=DAY, end_ns=2 * DAY, counts=lambda _: True)
    assert found == {point: [] for point in points}
