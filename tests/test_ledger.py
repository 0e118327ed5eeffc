"""app/ledger.py and app/projector.py: what is taken, what is said of it, and tables that always equal a rebuild."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.carbon.grid.factors import parse_factors
from gateway.cli import run
from gateway.codec.bodies import factor_body, line_body
from gateway.codec.frames import LeafHash, unpack_log
from gateway.codec.pack import pack, unpack
from gateway.config import parse_ledger
from gateway.errors import ConfigError, LogError
from gateway.model import LineColumn, LineSchema, Role
from gateway.store.segments import StoreFull
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.merkle import leaf_hash
from gateway.tlog.note import Signer
from tests.faulty_files import FaultyFiles
from tests.ledgering import SIGNERS, Hall, Scroll, factors_toml
from tests.sealing import (
    BOOT,
    LINE,
    LINES,
    OTHER_LINE,
    SCHEMA,
    SIGNER,
    WIDER,
    WITNESS,
    Body,
    Box,
    bodies_of,
    event,
    interval,
    readings,
)

STORY: list[Body] = [
    *(SCHEMA, *LINES, event(0)),
    *(interval(0), interval(0, OTHER_LINE), readings(0, rows=3), interval(1), interval(1, OTHER_LINE)),
    *(interval(2, bad=True), interval(2, OTHER_LINE), event(2), interval(3, bad=True), interval(3, OTHER_LINE)),
    *(interval(4), readings(4), interval(4, OTHER_LINE, shown=Decimal("0.5")), interval(5)),
    *(("schema", line_body(WIDER)), interval(6, WIDER), interval(7, WIDER), interval(7, OTHER_LINE, shown=Decimal(7))),
    *(interval(9, WIDER), interval(8, WIDER), interval(10, WIDER, shown=Decimal("10.125")), interval(9, OTHER_LINE)),
    *(interval(10, OTHER_LINE, bad=True), interval(11, OTHER_LINE), interval(12, WIDER), readings(12)),
]
"""Gaps, a glitch, a hole in time, a clock that ran back, a line that gets a meter more."""


def sealed(signer: Signer, *bodies: Body, restart_after: int | None = None) -> Scroll:
    """Return the log that a real sealer makes of these bodies."""
    disk = FaultyFiles()
    box = Box(files=lambda: disk, signer=signer)
    box.sealer.welcome(BOOT)
    for number, body in enumerate(bodies):
        if number == restart_after:
            box.restart()
        box.put(body)
    return Scroll(signer, [body or b"" for body in bodies_of(box.log)])


LOGS = {
    "gw1": sealed(SIGNERS["gw1"], *STORY, restart_after=9),
    "gw2": sealed(SIGNERS["gw2"], *STORY[:15], restart_after=3),
}


@pytest.fixture
def hall(tmp_path: Path) -> Iterator[Hall]:
    made = Hall(tmp_path / "hall")
    yield made
    made.ledger.close()


def feed_all(hall: Hall) -> None:
    """Feed what is missing of both logs, in one go."""
    for gateway, log in LOGS.items():
        if hall.size(gateway) < len(log.leaves):
            hall.ledger.take(gateway, log.message(hall.size(gateway)))
    hall.ledger.commit()


# ---- receipts


def test_a_real_sealer_takes_the_receipts_of_a_real_ledger(hall: Hall) -> None:
    """From chunk to receipt and back: the seal may then forget what the ledger holds."""
    disk = FaultyFiles()
    box = Box(files=lambda: disk, signer=SIGNERS["gw1"])
    box.sealer.welcome(BOOT)
    for start in range(0, len(STORY), 7):
        box.put(*STORY[start : start + 7])
        box.sealer.sign()
        receipt = hall.take("gw1", box.payloads(700, box.sealer.receipted))
        assert box.sealer.receive(receipt) == box.log.size == hall.size()
        found = checkpoints.verify(receipt, origin="wattseal/gw1", verifier=SIGNERS["gw1"].verifier)
        assert found == box.checkpoint()
    assert (hall.counts.leaves, hall.counts.size) == (box.log.size, box.log.size)
    assert hall.counts.rows == 3 + 1 + 1
    assert (hall.counts.unusable, hall.counts.absent, hall.counts.refused, hall.counts.gaps) == (0, 0, 0, 0)


def test_two_gateways_in_one_group_get_a_receipt_each(hall: Hall) -> None:
    for gateway, log in LOGS.items():
        half = len(log.leaves) // 2
        assert hall.ledger.take(gateway, log.message(0, half)) is None
        assert hall.ledger.take(gateway, log.message(half)) is None
    receipts = hall.ledger.commit()
    assert set(receipts) == set(LOGS)
    for gateway, receipt in receipts.items():
        found, _ = checkpoints.verify_cosignature(
            receipt, origin=f"wattseal/{gateway}", witness=WITNESS.cosigner().verifier
        )
        assert found.size == len(LOGS[gateway].leaves)
    assert hall.ledger.commit() == {}
    noted = [(leaf.body["gateway"], leaf.body["checkpoint"].encode()) for leaf in hall.own("accepted")]
    assert noted == list(receipts.items())


def test_what_a_gateway_signs_enters_no_other_gateways_copy(hall: Hall) -> None:
    assert hall.ledger.take("gw2", LOGS["gw1"].message(0)) is None
    assert (hall.ledger.commit(), hall.size("gw2"), hall.counts.refused) == ({}, 0, 1)


def test_a_gap_is_answered_by_the_newest_receipt_at_most_once_a_second(hall: Hall) -> None:
    log = LOGS["gw1"]
    empty = hall.ledger.take("gw1", log.message(5))
    assert empty is not None
    found, _ = checkpoints.verify_cosignature(empty, origin="wattseal/gw1", witness=WITNESS.cosigner().verifier)
    assert found.size == 0
    assert hall.ledger.take("gw1", log.message(5)) is None
    receipt = hall.take("gw1", [log.message(0, 4)])
    assert hall.counts.gaps == 2
    hall.restart()
    assert hall.ledger.take("gw1", log.message(5)) == receipt


def test_a_start_counts_what_the_ledger_holds(hall: Hall) -> None:
    """Nobody should think that a ledger is empty because no message has come yet."""
    feed_all(hall)
    size = hall.counts.size
    hall.restart()
    assert hall.counts.size == size == sum(len(log.leaves) for log in LOGS.values())
    assert hall.counts.disk_bytes > 1000


def test_the_own_log_is_signed_and_opens_an_epoch_at_each_start(hall: Hall) -> None:
    feed_all(hall)
    hall.restart()
    assert [leaf.body["epoch"] for leaf in hall.own("epoch")] == [1, 2]
    own = hall.ledger.own.log
    found = checkpoints.verify(own.checkpoint or b"", origin=WITNESS.name, verifier=WITNESS.verifier)
    assert (found.size, found.root) == (own.size, own.root(own.size))


# ---- what is refused


def test_an_unknown_gateway_leaves_no_trace_but_a_count(hall: Hall) -> None:
    """Whatever it is called: no memory, no leaf, and one line in the log."""
    before = hall.ledger.own.log.size
    for number in range(200):
        assert hall.ledger.take(f"stranger-{number}", LOGS["gw1"].message(0)) is None
    assert hall.ledger.commit() == {}
    assert (hall.counts.messages, hall.counts.refused) == (200, 200)
    assert hall.times("ledger.refused") == 1
    assert len(hall.ledger._said) == 1
    assert hall.ledger.own.log.size == before


def test_refusals_of_one_gateway_are_written_down_once_in_a_while(hall: Hall) -> None:
    """A flood of forgeries must not fill the ledger's own log; the other gateway's are said all the same."""
    for _ in range(50):
        hall.ledger.take("gw1", b"nonsense")
        hall.ledger.commit()
    hall.ledger.take("gw2", b"nonsense")
    hall.ledger.commit()
    told = [leaf.body["about"] for leaf in hall.own("event") if leaf.body["what"] == "ledger.refused"]
    assert [about["gateway"] for about in told] == ["gw1", "gw2"]
    assert (hall.counts.refused, hall.times("ledger.refused")) == (51, 2)
    assert hall.take("gw1", [LOGS["gw1"].message(0)])


def test_a_refused_message_harms_none_of_its_group(hall: Hall) -> None:
    log = LOGS["gw1"]
    good, bad = log.message(0, 4), bytearray(log.message(4))
    bad[-80] ^= 1
    receipt = hall.take("gw1", [good, bytes(bad), b""])
    assert b"\n4\n" in receipt
    assert hall.counts.refused == 2
    hall.take("gw1", [log.message(4)])
    assert hall.dump() == hall.dump_rebuilt()


# ---- tables


def test_the_figures_are_those_of_the_story(hall: Hall) -> None:
    """Both lines, over a gap, a glitch, a hole and a new meter: 1 kWh a minute and counter, 400 g each."""
    feed_all(hall)
    energy_mwh, co2e_g, units = hall.totals()
    assert units == "12"
    assert energy_mwh == 12_000_000 + (12 - 6) * 1_000_000
    assert Decimal(co2e_g) == Decimal(energy_mwh) * 400 / 10**6


@pytest.mark.parametrize("length", [1, 2, 5, 1000])
def test_the_tables_are_the_same_however_leaves_arrive(tmp_path: Path, length: int) -> None:
    """One by one, or all at once: every row, and the rebuild's."""
    hall, whole = Hall(tmp_path / "pieces"), Hall(tmp_path / "whole")
    feed_all(whole)
    for gateway, log in LOGS.items():
        for first in range(0, len(log.leaves), length):
            hall.take(gateway, [log.message(first, min(first + length, len(log.leaves)))])
    for table in ("intervals", "line_schemas", "figures", "line_figures"):
        assert rows_of(hall.dump(), table) == rows_of(whole.dump(), table)
    assert hall.dump() == hall.dump_rebuilt()
    assert whole.dump() == whole.dump_rebuilt()
    hall.ledger.close()
    whole.ledger.close()


def rows_of(dump: list[str], table: str) -> list[str]:
    """Return a table's rows, without the gateway's leaves of the ledger's own log."""
    start = next(at for at, line in enumerate(dump) if line.startswith(f'["{table}",'))
    headers = [at for at, line in enumerate(dump) if at > start and any(line.startswith(f'["{t}","') for t in TABLES)]
    return dump[start : headers[0] if headers else None]


TABLES = ("meta", "gateways", "line_schemas", "intervals", "factors", "figures", "line_figures", "events")

FILES = [
    ((0, 60, "400"),),
    ((0, 60, "250.5"),),
    ((0, 60, "400"), (60, 120, "1")),
    ((0, 60, "0.001"),),
]
"""Factor files, in any order: other values of one window, and one that adds a window."""


def live_through(folder: Path, data: st.DataObject) -> None:
    """Let anything happen to a ledger until it has both logs; then compare its tables with a rebuild."""
    hall = Hall(folder, windows=data.draw(st.sampled_from(FILES)))
    try:
        for _ in range(200):
            behind = [name for name, log in LOGS.items() if hall.size(name) < len(log.leaves)]
            if not behind:
                break
            gateway, what = data.draw(st.sampled_from(behind)), data.draw(st.sampled_from(STEPS))
            what(hall, gateway, data.draw(st.integers(1, 20)))
        hall.ledger.commit()
        for name, log in LOGS.items():  # a receipt that a crash swallowed comes with the next repetition
            hall.ledger.take(name, log.message(len(log.leaves) - 1))
        hall.ledger.commit()
        hall.ledger.beat()
        assert [copy.log.signed for copy in hall.ledger.copies.values()] == [len(log.leaves) for log in LOGS.values()]
        assert hall.dump() == hall.dump_rebuilt()
        noted = [leaf.body["checkpoint"].encode() for leaf in hall.own("accepted")]
        assert {copy.log.checkpoint for copy in hall.ledger.copies.values()} <= set(noted)
        assert hall.totals()[0] == 18_000_000
        assert hall.counts.unusable == 0
    finally:
        hall.ledger.close()


@settings(max_examples=5, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_tables_equal_a_rebuild_whatever_happened(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Any batching, restarts at any point, crashes between the steps of a commit, factors that change in between."""
    live_through(tmp_path_factory.mktemp("hall"), data)


@pytest.mark.slow
@pytest.mark.timeout(600)
@settings(max_examples=100, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_tables_equal_a_rebuild_whatever_happened_a_hundred_times(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    live_through(tmp_path_factory.mktemp("hall"), data)


def _take(hall: Hall, gateway: str, count: int) -> None:
    log, size = LOGS[gateway], hall.size(gateway)
    hall.ledger.take(gateway, log.message(size, min(size + count, len(log.leaves))))


def _commit(hall: Hall, gateway: str, count: int) -> None:
    _take(hall, gateway, count)
    hall.ledger.commit()


def _repeat(hall: Hall, gateway: str, count: int) -> None:
    first = max(0, hall.size(gateway) - count)
    hall.ledger.take(gateway, LOGS[gateway].message(first, min(first + 2 * count, len(LOGS[gateway].leaves))))


def _gap(hall: Hall, gateway: str, count: int) -> None:
    hall.ledger.take(gateway, LOGS[gateway].message(min(hall.size(gateway) + count, len(LOGS[gateway].leaves))))


def _restart(hall: Hall, gateway: str, _: int) -> None:
    hall.ledger.take(gateway, b"nonsense")
    hall.restart()


def _crash_before_receipt(hall: Hall, gateway: str, count: int) -> None:
    _take(hall, gateway, count)
    hall.ledger.copies[gateway].log.commit()
    hall.restart()


def _crash_before_projection(hall: Hall, gateway: str, count: int) -> None:
    """Between the copy's receipt and the ledger's own log and tables."""
    _take(hall, gateway, count)
    hall.ledger.copies[gateway].commit()
    hall.restart()


def _crash_before_own_tables(hall: Hall, gateway: str, count: int) -> None:
    """Between the gateway's tables and the ledger's own."""
    _take(hall, gateway, count)
    committed = hall.ledger.copies[gateway].commit()
    if committed is not None:
        hall.ledger._projector.take(gateway, committed)
    hall.restart()


def _other_factors(hall: Hall, _: str, count: int) -> None:
    hall.write_factors(FILES[count % len(FILES)])
    hall.ledger.beat()


def _factors_then_crash(hall: Hall, _: str, count: int) -> None:
    """Have the factor in the own log, and not in the tables yet."""
    hall.write_factors(FILES[count % len(FILES)])
    hall.restart()


STEPS: list[Callable[[Hall, str, int], None]] = [
    *(_commit, _commit, _take, _repeat, _gap, _restart),
    *(_crash_before_receipt, _crash_before_projection, _crash_before_own_tables, _other_factors, _factors_then_crash),
]


def test_a_receipt_that_a_crash_kept_out_of_the_own_log_is_written_down_at_the_next_start(hall: Hall) -> None:
    """An export needs the leaf by which the ledger accepted a checkpoint; twice is not needed."""
    _crash_before_projection(hall, "gw1", 9)
    receipt = hall.ledger.copies["gw1"].log.checkpoint
    for _ in range(3):
        noted = [(leaf.body["gateway"], leaf.body["checkpoint"].encode()) for leaf in hall.own("accepted")]
        assert noted == [("gw1", receipt)]
        hall.restart()


def test_tables_that_were_deleted_come_back_at_the_next_start(hall: Hall) -> None:
    feed_all(hall)
    before = rows_of(hall.dump(), "figures")
    hall.ledger.close()
    for path in (hall.folder / "state").glob("projections.sqlite*"):
        path.unlink()
    hall.start()
    assert rows_of(hall.dump(), "figures") == before
    assert hall.dump() == hall.dump_rebuilt()


def test_a_rebuild_does_not_run_beside_the_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that says who has the log; nothing is deleted."""
    hall = Hall(tmp_path / "hall", memory=False)
    feed_all(hall)
    before = hall.dump()
    text = '[ledger]\nname = "ledger"\nstate = "state"\nkey = "ledger.key"\nfactors = "factors.toml"\n'
    text += '[broker]\nbroker = "127.0.0.1:1"\nca = "ca"\ncert = "cert"\nkey = "key"\n'
    text += "".join(f'[gateways.{name}]\nkey = "{name}.vkey"\n' for name in SIGNERS)
    path = hall.folder / "ledger.toml"
    path.write_text(text)
    assert parse_ledger(text, name="ledger.toml", folder=hall.folder) == hall.config
    assert run(["ledger", "rebuild", str(path)]) == 1
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert f"is in use by process {os.getpid()}" in said
    assert hall.dump() == before
    hall.ledger.close()
    assert run(["ledger", "rebuild", str(path)]) == 0
    first = capsys.readouterr().out
    assert run(["ledger", "rebuild", str(path)]) == 0
    assert capsys.readouterr().out == first


# ---- factors


def test_a_new_version_of_a_factor_supersedes_and_its_cells_are_computed_again(hall: Hall) -> None:
    feed_all(hall)
    energy_mwh, before, _ = hall.totals()
    hall.write_factors([(0, 60, "500")])
    hall.ledger.beat()
    assert hall.totals()[:2] == (energy_mwh, "9000")
    assert before == "7200"
    old, new = hall.own("factor")
    assert (old.body["supersedes"], new.body["supersedes"]) == ("", old.body["version"])
    assert hall.dump() == hall.dump_rebuilt()


def test_only_cells_in_the_window_of_the_new_version_change(tmp_path: Path) -> None:
    hall = Hall(tmp_path / "hall", windows=[(0, 2, "400"), (2, 60, "400")])
    feed_all(hall)
    before = set(rows_of(hall.dump(), "line_figures"))
    hall.write_factors([(0, 2, "500"), (2, 60, "400")])
    assert hall.ledger.load_factors() == 1
    changed = set(rows_of(hall.dump(), "line_figures")) ^ before
    assert len(changed) == 2 * 2 * 4, "two minutes of four lines, before and after"
    assert hall.dump() == hall.dump_rebuilt()
    hall.ledger.close()


def test_a_file_that_says_the_same_again_seals_nothing(hall: Hall) -> None:
    before = hall.ledger.own.log.size
    path = hall.folder / "factors.toml"
    os.utime(path, ns=(1, 1))
    hall.ledger.beat()
    path.write_text("# a comment\n" + path.read_text())
    hall.ledger.beat()
    assert hall.ledger.own.log.size == before


WRONG: dict[str, bytes | None] = {
    "not TOML": b"[[factor",
    "not UTF-8": b"\xff\xfe",
    "another table": b"[other]\n",
    "an unknown key": factors_toml([(0, 60, "1")]).encode() + b"colour = 1\n",
    "a factor below zero": factors_toml([(0, 60, "-1")]).encode(),
    "too deep a nest": b"factor = " + b"[" * 20_000,
    "missing": None,
}


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_factor_file_changes_nothing_and_is_said_once(hall: Hall, what: str) -> None:
    feed_all(hall)
    before, content = hall.dump(), WRONG[what]
    path = hall.folder / "factors.toml"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    for _ in range(5):
        hall.ledger.beat()
    assert hall.dump() == before
    assert hall.times("ledger.factors") == 2, "once when they came into force, once that they are wrong"
    hall.restart()
    assert hall.totals()[1] == "7200"
    hall.write_factors([(0, 60, "500")])
    hall.ledger.beat()
    assert hall.totals()[1] == "9000"


@pytest.mark.parametrize("window", [(0, 30, "1"), (30, 90, "1"), (0, 61, "1"), (1, 60, "1")])
def test_a_window_that_overlaps_one_in_force_never_gets_into_the_log(hall: Hall, window: tuple[int, int, str]) -> None:
    """A leaf is for ever: one that cannot come in force would stop the ledger at every start."""
    feed_all(hall)
    before = hall.dump()
    hall.write_factors([window, (100, 110, "1")])
    for _ in range(3):
        hall.ledger.beat()
    assert hall.dump() == before
    assert len(hall.own("factor")) == 1
    said = [call.kwargs for call in hall.said.calls if call.method_name == "error"]
    assert len(said) == 1
    assert "demo/DEMO/average/lifecycle from" in said[0]["why"]
    hall.restart()
    hall.write_factors([(0, 60, "400"), (100, 110, "1")])
    hall.ledger.beat()
    assert len(hall.own("factor")) == 2


def test_a_factor_leaf_that_does_not_fit_is_passed_over(hall: Hall) -> None:
    """Even so: an earlier version of this program may have written one."""
    (wrong,) = parse_factors(factors_toml([(30, 90, "1")]), name="x")
    hall.ledger.own.append("factor", factor_body(wrong))
    hall.ledger.commit()
    assert hall.counts.unusable == 1
    feed_all(hall)
    hall.restart()
    assert hall.totals()[1] == "7200"
    assert hall.dump() == hall.dump_rebuilt()


# ---- leaves that a gateway has signed and nobody can use


_BEGIN = sealed(SIGNERS["gw1"], SCHEMA, *LINES, interval(0), interval(1)).leaves
_END = sealed(SIGNERS["gw1"], *LINES, *(interval(number) for number in range(2, 6))).leaves[-4:]


def opened() -> Scroll:
    """Return the begin of a real log: epoch, start, schemas, two intervals."""
    return Scroll(SIGNERS["gw1"], list(_BEGIN))


def leaf_of(
    kind: str, body: object, *, prev: object = None, clock: object = (1_772_000_000_000_000_000, 0, 0)
) -> bytes:
    """Return a leaf that says anything."""
    clock = list(clock) if isinstance(clock, tuple) else clock
    return pack({"v": 1, "kind": kind, "clock": clock, "src": None, "prev": prev, "body": body})


def interval_of(t: int = 1_772_000_160_000_000_000, **changed: object) -> dict[str, object]:
    """Return an interval's body, with some of it replaced."""
    samples = [[t, b"\0\1", "3", 0, None], [t, b"\0\1", "3", 0, None]]
    return {"schema": LINE.id, "t": t, "samples": samples, **changed}


def line_of(*columns: LineColumn, period_s: int = 60, name: str = "odd", zone: str = "DEMO") -> tuple[bytes, bytes]:
    """Return the id and the leaf of a line's schema."""
    line = LineSchema(name=name, site="", zone=zone, period_s=period_s, columns=columns)
    return line.id, leaf_of("schema", unpack(line_body(line)))


ENERGY = LineColumn(point="a.b", unit="kWh", role=Role.ENERGY)
COUNT = LineColumn(point="a.b", unit="", role=Role.COUNT_GOOD)
WRAPS = replace(ENERGY, modulus=Decimal("9" * 400), rated_power_w=2**63 - 1)
NOTHING = replace(ENERGY, modulus=Decimal(0), rated_power_w=0)
HUGE = "9" * 400


def odd(column: LineColumn, *values: str, period_s: int = 60) -> list[bytes]:
    """Return a line of one counter and what it shows, minute by minute."""
    schema_id, schema = line_of(column, period_s=period_s)
    t0, step = 1_772_000_040_000_000_000 // (period_s * 10**9) * period_s * 10**9, period_s * 10**9
    bodies = [
        {"schema": schema_id, "t": t0 + n * step, "samples": [[t0 + n * step, b"", value, 0, None]]}
        for n, value in enumerate(values)
    ]
    return [schema, *(leaf_of("interval", body) for body in bodies)]


EMPTY_ID, EMPTY = line_of()
TWICE_ID, TWICE = line_of(ENERGY, ENERGY)
LONG_ID, LONG = line_of(ENERGY, period_s=2**63 - 1)
UNUSABLE: dict[str, list[bytes]] = {
    "no leaf at all": [b"\xc1", b"x", bytes(65_535)],
    "an interval of an unknown schema": [leaf_of("interval", interval_of(schema=bytes(8)))],
    "an interval with a sample too few": [leaf_of("interval", interval_of(samples=[[0, b"", "1", 0, None]]))],
    "an interval off the minute": [leaf_of("interval", interval_of(t=1_772_000_160_000_000_001))],
    "an interval that names itself": [leaf_of("interval", interval_of(), prev=7)],
    "an interval that names the future": [leaf_of("interval", interval_of(), prev=2**63 - 1)],
    "an interval that names what no index is": [leaf_of("interval", interval_of(), prev=2**64 - 1)],
    "an interval at the end of time": [leaf_of("interval", interval_of((2**63 - 1) // (60 * 10**9) * 60 * 10**9))],
    "an interval at the start of time": [leaf_of("interval", interval_of(0))],
    "a sample from the end of time": [
        leaf_of("interval", interval_of(samples=[[2**63 - 1, b"", "3", 0, None], [0, b"", "3", 0, None]]))
    ],
    "numbers without measure": [
        leaf_of("interval", interval_of(samples=[[1, b"", HUGE, 0, None], [1, b"", f"-{HUGE[1:]}", 0, None]]))
    ],
    "a clock beyond all bounds": [leaf_of("interval", interval_of(), clock=[1, 0, 2**64 - 1])],
    "a clock far behind": [leaf_of("interval", interval_of(), clock=[1, 2, -(2**63)])],
    "a line without counters": [EMPTY, leaf_of("interval", interval_of(schema=EMPTY_ID, samples=[]))] * 2,
    "a line with a counter twice": [TWICE, leaf_of("interval", interval_of(schema=TWICE_ID))],
    "a line with an endless period": [
        LONG,
        *[leaf_of("interval", {"schema": LONG_ID, "t": 0, "samples": [[0, b"", "1", 0, None]]})] * 2,
    ],
    "energy in an unknown unit": odd(LineColumn(point="a.b", unit="hp", role=Role.ENERGY), "1", "2"),
    "energy without measure": odd(ENERGY, "0", HUGE, "0", HUGE, f"{HUGE[2:]}0", f"{HUGE[2:]}1", f"{HUGE[2:]}2"),
    "counts without measure": odd(COUNT, HUGE, "0", HUGE, f"-{HUGE[1:]}"),
    "a modulus without measure": odd(WRAPS, "5", "3", "4"),
    "a modulus of nothing": odd(NOTHING, "5", "3", "4"),
    "fractions without end": odd(ENERGY, "0." + "3" * 390, "0." + "6" * 390),
    "schemas that say nothing": [leaf_of("schema", {"id": bytes(8), "device": "", "columns": []})],
    "a schema of a line that is none": [leaf_of("schema", {"id": bytes(8), "line": {}, "columns": []})],
    "names that look like SQL": [
        line_of(ENERGY, name="x'; DROP TABLE figures; --", zone='"')[1],
        leaf_of("event", {"what": "'; --\0", "t": 0, "about": {"\0": ["'", b"\xff", 1.5, None, True, float("nan")]}}),
    ],
    "kinds of the ledger's own log": [
        leaf_of("accepted", {"gateway": "gw1", "checkpoint": "x"}),
        leaf_of("factor", {"key": ["a", "DEMO", "average", "d"], "start": 0, "end": 0, "value": "1", "unit": "g/kWh"}),
    ],
    "readings of nothing": [
        leaf_of("readings", {"rows": []}),
        leaf_of("readings", {"rows": [[bytes(8), 0, None, b"\2", None]]}),
    ],
    "a kind from the future": [leaf_of("tomorrow", {})],
    "a body that was dropped": [LeafHash(leaf_hash(b"gone"))],
}


@pytest.mark.parametrize("what", UNUSABLE)
def test_no_signed_leaf_can_stop_the_ledger(hall: Hall, what: str) -> None:
    """It is in the log, so it is kept and receipted; what can be read of the rest makes figures as ever.

    Not even at the next start, or in a rebuild.
    """
    log = opened()
    log.leaves += [*UNUSABLE[what], *_END]
    receipt = hall.take("gw1", [log.message(0, 7), log.message(7)])
    assert f"\n{len(log.leaves)}\n".encode() in receipt
    hall.take("gw2", [LOGS["gw2"].message(0)])
    assert hall.totals(gateway="gw2")[0] > 0
    dump = hall.dump()
    assert sum('"filling",' in row for row in rows_of(dump, "intervals")) >= 2
    assert dump == hall.dump_rebuilt()
    assert rows_of(hall.dump(), "figures") == rows_of(dump, "figures")


@pytest.mark.parametrize(
    ("what", "count"),
    [("no leaf at all", 3), ("an interval of an unknown schema", 1), ("an interval that names itself", 1)],
)
def test_leaves_of_no_use_are_counted(hall: Hall, what: str, count: int) -> None:
    log = opened()
    log.leaves += UNUSABLE[what]
    hall.take("gw1", [log.message(0)])
    assert hall.counts.unusable == count


_texts = st.sampled_from(["", "0", "-1", "1.5", HUGE, "1e5", "x", "0.1"])
_ints = st.sampled_from([0, 1, 60 * 10**9, 1_772_000_160_000_000_000, 2**63 - 1, 2**63, -1])
_samples = st.lists(
    st.tuples(_ints, st.just(b""), st.one_of(_texts, st.none()), st.integers(0, 3), st.none()).map(list), max_size=3
)
_bodies = st.fixed_dictionaries({"schema": st.sampled_from([LINE.id, bytes(8)]), "t": _ints, "samples": _samples})
_prev = st.one_of(st.none(), _ints)


@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(bodies=st.lists(st.tuples(_bodies, _prev), min_size=1, max_size=25))
def test_no_signed_interval_can_stop_the_ledger(
    tmp_path_factory: pytest.TempPathFactory, bodies: list[tuple[dict[str, object], int | None]]
) -> None:
    hall, log = Hall(tmp_path_factory.mktemp("hall")), opened()
    try:
        for body, prev in bodies:
            with contextlib.suppress(OverflowError):
                log.leaves.append(leaf_of("interval", body, prev=prev))
        hall.take("gw1", [log.message(0)])
        assert hall.dump() == hall.dump_rebuilt()
    finally:
        hall.ledger.close()


# ---- disks


def test_a_copy_without_room_is_asked_again_and_the_other_goes_on(hall: Hall) -> None:
    """What was not durable is forgotten, and no receipt is given for it."""
    hall.take("gw1", [LOGS["gw1"].message(0, 5)])
    hall.disk("gw1").room = 0
    for gateway, log in LOGS.items():
        hall.ledger.take(gateway, log.message(hall.size(gateway)))
    assert set(hall.ledger.commit()) == {"gw2"}
    assert (hall.size("gw1"), hall.counts.full, hall.times("ledger.full")) == (5, 1, 1)
    hall.disk("gw1").room = None
    feed_all(hall)
    assert hall.size("gw1") == len(LOGS["gw1"].leaves)
    assert hall.dump() == hall.dump_rebuilt()


@pytest.mark.parametrize("restart", [False, True])
def test_an_own_log_without_room_costs_no_receipt_and_is_made_good(hall: Hall, *, restart: bool) -> None:
    """The copy is durable, so its receipt is true; what the own log and the tables lack comes later."""
    hall.disk(None).room = 0
    receipt = hall.take("gw1", [LOGS["gw1"].message(0)])
    assert hall.own("accepted") == []
    for _ in range(3):
        hall.ledger.beat()
    assert hall.times("ledger.full") == 1
    hall.disk(None).room = None
    if restart:
        hall.restart()
    else:
        hall.ledger.beat()
    assert [leaf.body["checkpoint"].encode() for leaf in hall.own("accepted")] == [receipt]
    feed_all(hall)
    assert hall.totals()[1] == "7200"
    assert hall.dump() == hall.dump_rebuilt()


def test_factors_that_come_while_there_is_no_room_are_in_force_later(hall: Hall) -> None:
    feed_all(hall)
    hall.disk(None).room = 0
    hall.write_factors([(0, 60, "500")])
    hall.ledger.beat()
    hall.write_factors([(0, 60, "600")])
    hall.ledger.beat()
    hall.disk(None).room = None
    hall.ledger.beat()
    hall.ledger.beat()
    assert hall.totals()[1] == "10800"
    assert hall.counts.unusable == 0
    assert hall.dump() == hall.dump_rebuilt()


def test_tables_without_room_lag_and_catch_up(tmp_path: Path) -> None:
    """The logs go on; nothing is projected twice when there is room again."""
    hall = Hall(tmp_path / "hall")
    hall.take("gw1", [LOGS["gw1"].message(0, 9)])
    with hall.ledger._book.writing() as connection:
        (pages,) = connection.exec_driver_sql("PRAGMA page_count").one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
    sizes = [9, 14, 20, 25, len(LOGS["gw1"].leaves)]
    for first, end in itertools.pairwise(sizes):
        assert hall.take("gw1", [LOGS["gw1"].message(first, end)])
    assert hall.counts.full > 0
    assert hall.times("ledger.full") == 1
    with hall.ledger._book.reading() as connection:
        connection.exec_driver_sql("PRAGMA max_page_count = 1000000")
    hall.ledger.beat()
    feed_all(hall)
    assert hall.totals() == (18_000_000, "7200", "12")
    assert hall.dump() == hall.dump_rebuilt()
    hall.ledger.close()


@pytest.mark.parametrize("gateway", ["gw1", None])
def test_a_disk_that_is_full_for_a_moment_changes_no_figure(tmp_path: Path, gateway: str | None) -> None:
    """At each step of a commit in turn, of a copy or of the own log; what may not be durable stops the ledger."""
    pieces = [LOGS["gw1"].message(0, 12), LOGS["gw1"].message(12)]
    for step in range(1, 11):
        hall = Hall(tmp_path / f"{step}")
        hall.take("gw1", pieces[:1])
        disk = hall.disk(gateway)
        disk.faults = {disk.changes + step: "full"}
        for _ in range(2):
            try:
                hall.ledger.take("gw1", pieces[1])
                hall.ledger.commit()
            except LogError:
                hall.restart()
        disk.faults = {}
        hall.ledger.beat()
        assert hall.ledger.copies["gw1"].log.signed == len(LOGS["gw1"].leaves)
        assert hall.totals() == (18_000_000, "7200", "12")
        noted = [leaf.body["checkpoint"].encode() for leaf in hall.own("accepted")]
        assert hall.ledger.copies["gw1"].log.checkpoint in noted
        if step % 3 == 0:
            assert hall.dump() == hall.dump_rebuilt()
        hall.ledger.close()


def test_a_disk_that_dies_stops_the_ledger(hall: Hall) -> None:
    disk = hall.disk("gw1")
    disk.faults = {disk.changes + 2: "dying"}
    hall.ledger.take("gw1", LOGS["gw1"].message(0))
    with pytest.raises(LogError):
        hall.ledger.commit()


def test_a_ledger_without_room_to_start_says_so(hall: Hall) -> None:
    hall.ledger.close()
    hall.disk(None).room = 0
    with pytest.raises(StoreFull):
        hall.start()
    hall.disk(None).room = None
    hall.start()


# ---- keys


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("ledger.key", "nonsense", "ledger.key: got .*: not a private key"),
        ("ledger.key", Signer.generate("wattseal-ledger/other").to_text(), "want the key of wattseal-ledger/ledger"),
        ("gw1.vkey", "nonsense", r"gateways.gw1.key: got .*, want a verifier key: <name>"),
        ("gw1.vkey", SIGNERS["gw2"].verifier.vkey, "the key of wattseal/gw2, want the key of wattseal/gw1"),
        ("gw1.vkey", WITNESS.cosigner().verifier.vkey, "a key of type 0x04, want one of type 0x01"),
        ("gw2.vkey", SIGNER.to_text(), r"gateways.gw2.key: got .*, want a verifier key"),
    ],
    ids=["no key", "another's", "no verifier key", "another gateway's", "another type", "a private one"],
)
def test_a_wrong_key_is_one_line_that_quotes_no_key(hall: Hall, name: str, text: str, told: str) -> None:
    hall.ledger.close()
    hall.write_key(name, text)
    with pytest.raises(ConfigError, match=told) as caught:
        hall.start()
    assert "\n" not in str(caught.value)
    assert text[-20:] not in str(caught.value) or text == "nonsense"
    hall.__post_init__()


def test_a_missing_key_is_one_line(hall: Hall) -> None:
    hall.ledger.close()
    (hall.folder / "gw1.vkey").unlink()
    with pytest.raises(ConfigError, match=r"gateways.gw1.key: got .*gw1.vkey: No such file"):
        hall.start()
    hall.__post_init__()


def test_another_key_than_the_one_that_signed_the_own_log_stops_the_start(hall: Hall) -> None:
    hall.ledger.close()
    hall.write_key("ledger.key", Signer.generate(WITNESS.name).to_text())
    with pytest.raises(LogError, match="not by this ledger's key"):
        hall.start()
    hall.__post_init__()


def test_a_message_of_the_wire_is_what_a_sealer_makes() -> None:
    """The logs of these tests are made by hand: message by message they are what forward sends."""
    message = unpack_log(LOGS["gw1"].message(3, 7))
    assert (message.first, len(message.leaves)) == (3, 4)
