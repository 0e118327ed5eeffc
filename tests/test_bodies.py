"""Bodies of leaves: each malformed one is refused, and what goes in comes out."""

import hashlib
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.codec.bodies import factor_body, interval_body, line_body, readings_body, schema_body
from gateway.codec.checks import check_body, rows_of, to_schema
from gateway.codec.leaves import parse, seal
from gateway.codec.ledger_leaves import to_factor
from gateway.codec.line_leaves import to_interval
from gateway.errors import TrustError
from gateway.model import (
    ENERGY_UNITS,
    FUEL_UNITS,
    Column,
    ContextColumn,
    Factor,
    Interval,
    LineColumn,
    LineSchema,
    Quality,
    Role,
    Row,
    Sample,
    Schema,
    Told,
    Value,
    What,
)
from tests.leaf_cases import BODIES, BOUNDARY, CLOCK, FACTOR, INTERVAL, LINE, METER, T, sealed

WRONG: dict[str, Any] = {
    "nil": None,
    "bool": True,
    "int": 7,
    "negative": -1,
    "63 bits exceeded": 2**63,
    "float": 1.5,
    "str": "x",
    "bin": b"x",
    "array": [],
    "map": {},
}
TAKES: dict[str, dict[str, str]] = {
    "epoch": {"epoch": "int", "key": "str", "binding": "map"},
    "schema": {"id": "", "device": "", "line": "", "columns": "", "context": ""},  # any change makes another id
    "readings": {"rows": "array"},
    "interval": {"schema": "", "t": "int", "samples": "array", "context": ""},
    "event": {"what": "str", "t": "int", "about": "map"},
    "factor": {
        "key": "",
        "start": "int",
        "end": "int",
        "value": "",
        "unit": "",
        "state": "str",
        "method": "str",
        "source": "str",
        "version": "str",
        "supersedes": "str",
        "model_date": "str",
        "updated": "nil|int",
        "gwp_set": "str",
        "uncertainty_pct": "nil",
    },
    "document": {"name": "str", "from": "int", "content": "bin", "by": "str", "rules": "array"},
    "context": {
        "gateway": "str",
        "line": "str",
        "what": "",
        "t": "int",
        "value": "str",
        "source": "str",
        "id": "str",
    },
    "counts": {
        "gateway": "str",
        "line": "str",
        "start": "int",
        "end": "int",
        "good": "nil|int",
        "total": "nil|int",
        "source": "str",
        "id": "str",
    },
    "statement": {
        "record": "str",
        "version": "int",
        "supersedes": "str",
        "reason": "str",
        "subject": "map",
        "figures": "map",
    },
    "standing": {
        "gateway": "str",
        "first": "int",
        "size": "int",
        "state": "",
        "reason": "str",
        "epoch": "int",
        "t": "int",
        "verified": "nil|int",
        "start": "nil|int",
        "end": "nil|int",
        "result": "str",
    },
    "decision": {
        "gateway": "str",
        "first": "int",
        "stop": "int",
        "admit": "bool",
        "start": "int",
        "end": "int",
        "note": "bin",
    },
    "accepted": {"gateway": "str", "checkpoint": "str"},
}


def wrong_fields() -> Iterator[tuple[str, str, str]]:
    for name, (kind, body) in BODIES.items():
        for key in body:
            yield from ((name, key, wrong) for wrong in WRONG if wrong not in TAKES[kind][key].split("|"))


@pytest.mark.parametrize(("name", "key", "wrong"), list(wrong_fields()))
def test_a_body_field_of_another_type_is_refused(name: str, key: str, wrong: str) -> None:
    kind, body = BODIES[name]
    with pytest.raises(TrustError, match=kind):
        parse(sealed(kind, {**body, key: WRONG[wrong]}))


@pytest.mark.parametrize("name", BODIES)
def test_a_body_with_other_keys_or_another_order_is_refused(name: str) -> None:
    kind, body = BODIES[name]
    keys = list(body)
    # Without its context an interval, or a schema, is one of a line that has none.
    others: list[dict[str, Any]] = [{k: body[k] for k in keys if k != gone} for gone in keys if gone != "context"]
    others += [{**body, "more": 1}, {}]
    others += [{k: body[k] for k in reversed(keys)}] if len(keys) > 1 else []
    for other in others:
        with pytest.raises(TrustError, match=f"{kind}: got keys"):
            parse(sealed(kind, other))


def test_a_body_of_one_kind_is_refused_as_another() -> None:
    for name, (kind, body) in BODIES.items():
        for other in {kind for kind, _ in BODIES.values()} - {kind}:
            with pytest.raises(TrustError, match=f"{other}: got keys"):
                check_body(other, body)
        assert check_body(kind, body) is body, name


GOOD_ROW = [METER.id, T, bytes(33), None, None]


@pytest.mark.parametrize(
    "row",
    [
        None,
        {},
        [],
        GOOD_ROW[:4],
        [*GOOD_ROW, None],
        [METER.id[:7], *GOOD_ROW[1:]],
        ["bootboot", *GOOD_ROW[1:]],
        [METER.id, True, *GOOD_ROW[2:]],
        [METER.id, -1, *GOOD_ROW[2:]],
        [METER.id, 2**63, *GOOD_ROW[2:]],
        [METER.id, 1.0, *GOOD_ROW[2:]],
        [METER.id, T, "x", None, None],
        [METER.id, T, [1], None, None],
        [METER.id, T, bytes(33), "x", None],
        [METER.id, T, bytes(33), [0], None],
        [METER.id, T, bytes(33), b"", None],
        [METER.id, T, bytes(33), b"\x00\x00\x03\x00\x00\x00", None],
        [METER.id, T, bytes(33), None, b"x"],
        [METER.id, T, bytes(33), None, 1],
        [METER.id, T, None, None, None],
        [METER.id, T, None, b"", None],
        [METER.id, T, None, b"\x00" * 6, None],
        [METER.id, T, None, b"\x02\x02\x02\x02\x02\x01", None],
    ],
    ids=str,
)
def test_a_malformed_row_is_refused(row: Any) -> None:
    """Above all one without values whose quality says GOOD: once, it passed for a reading of nothing."""
    assert check_body("readings", {"rows": [GOOD_ROW]})
    with pytest.raises(TrustError, match="readings: rows"):
        parse(sealed("readings", {"rows": [GOOD_ROW, row]}))


@pytest.mark.parametrize(
    ("row", "why"),
    [
        ([bytes(8), T, bytes(33), None, None], "schema 0000000000000000 is not in the log"),
        ([METER.id, T, bytes(32), None, None], "got 32 bytes of values, want 33"),
        ([METER.id, T, bytes(34), None, None], "got 34 bytes of values, want 33"),
        ([METER.id, T, b"", None, None], "got 0 bytes of values"),
        ([METER.id, T, bytes(33), bytes(5), None], "got 5 qualities, want 6"),
        ([METER.id, T, bytes(33), bytes(7), None], "got 7 qualities, want 6"),
        ([METER.id, T, None, b"\x02" * 5, None], "got 5 qualities, want 6"),
        ([METER.id, T, bytes(29) + b"\xff\xff\xff\xff", None, None], "not UTF-8"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_row_that_does_not_fit_its_schema_is_refused(row: Any, why: str) -> None:
    body = check_body("readings", {"rows": [GOOD_ROW, row]})
    with pytest.raises(TrustError) as caught:
        list(rows_of(body, {METER.id: METER}))
    assert why in str(caught.value)


GOOD_SAMPLE = [BOUNDARY, b"\0\1", "1.5", 0, None]


@pytest.mark.parametrize(
    "sample",
    [
        None,
        [],
        {},
        GOOD_SAMPLE[:4],
        [*GOOD_SAMPLE, None],
        [-1, *GOOD_SAMPLE[1:]],
        [True, *GOOD_SAMPLE[1:]],
        [1.0, *GOOD_SAMPLE[1:]],
        [2**63, *GOOD_SAMPLE[1:]],
        [BOUNDARY, "x", "1.5", 0, None],
        [BOUNDARY, None, "1.5", 0, None],
        [BOUNDARY, b"", None, 0, None],
        [BOUNDARY, b"", None, 1, None],
        [BOUNDARY, b"", "1.5", 2, None],
        [BOUNDARY, b"", "1.5", 3, None],
        [BOUNDARY, b"", "1.5", False, None],
        [BOUNDARY, b"", "1.5", 0.0, None],
        [BOUNDARY, b"", 1.5, 0, None],
        [BOUNDARY, b"", 1, 0, None],
        [BOUNDARY, b"", "1.5", 0, b"x"],
        [BOUNDARY, b"", "1.5", 0, 0],
    ],
    ids=str,
)
def test_a_malformed_sample_is_refused(sample: Any) -> None:
    assert check_body("interval", {"schema": LINE.id, "t": BOUNDARY, "samples": [GOOD_SAMPLE]})
    with pytest.raises(TrustError, match="interval: samples"):
        parse(sealed("interval", {"schema": LINE.id, "t": BOUNDARY, "samples": [GOOD_SAMPLE, sample]}))


BAD_DECIMALS = [
    "",
    "-",
    ".",
    "+1",
    "1.",
    ".5",
    "-.5",
    "--1",
    "1-",
    "1.2.3",
    "1,5",
    "1e3",
    "1E3",
    "0x10",
    "NaN",
    "nan",
    "sNaN",
    "Infinity",
    "-Infinity",
    "inf",
    " 1",
    "1 ",
    "1\n",
    "1_000",
    "\u0661",  # an Arabic-Indic one: Python takes it for a digit
    "\uff11",  # a full-width one
    "²",
    "1" * 401,
    "0." + "0" * 399,
]


@pytest.mark.parametrize("text", BAD_DECIMALS, ids=repr)
def test_a_value_that_is_no_plain_decimal_is_refused(text: str) -> None:
    """Exact text only: no exponent, no NaN, no digit of another script, no spaces, nothing endless."""
    interval = {"schema": LINE.id, "t": BOUNDARY, "samples": [[BOUNDARY, b"", text, 0, None]]}
    factor = {**BODIES["factor"][1], "value": text}
    for kind, body in (("interval", interval), ("factor", factor)):
        with pytest.raises(TrustError, match=kind):
            parse(sealed(kind, body))


@pytest.mark.parametrize("text", ["0", "-0", "007", "-1.50", "0.000", "1" * 400, "-" + "9" * 200 + "." + "9" * 198])
def test_a_plain_decimal_is_taken_to_the_last_digit(text: str) -> None:
    line = LineSchema(name="l", site="", zone="Z", period_s=60, columns=LINE.columns[1:])
    body = {"schema": line.id, "t": BOUNDARY, "samples": [[BOUNDARY, b"", text, 0, None]]}
    value = to_interval(check_body("interval", body), line).samples[0].value
    assert format(value, "f") == text.replace("007", "7")


def with_column(*column: Any) -> dict[str, Any]:
    """Return a readings schema with this column; its id is the true hash, so that nothing but the column is wrong."""
    text = "\n".join(["m1", "\t".join(str(part) for part in column)])
    return {"id": hashlib.sha256(text.encode()).digest()[:8], "device": "m1", "columns": [list(column)]}


@pytest.mark.parametrize(
    "column",
    [
        (),
        ("a",),
        ("a", "b"),
        ("a", "b", "f32", "more"),
        ("a", "b", None),
        ("a", "b", ""),
        ("a", "b", "f16"),
        ("a", "b", "s"),
        ("a", "b", "s0"),
        ("a", "b", "s251"),
        ("a", "b", "s-1"),
        ("a", "b", "s1.0"),
        ("a", "b", "s\u0661"),
        ("a", "b", "s" + "9" * 5000),
        ("a", 1, "f32"),
        (b"a", "b", "f32"),
        ("a\tb", "b", "f32"),
        ("a", "b\n", "f32"),
        ("a\x7f", "b", "f32"),
        ("a\0", "b", "f32"),
        ("a" * 201, "b", "f32"),
    ],
    ids=lambda column: repr(column)[:40],
)
def test_a_malformed_column_is_refused(column: tuple[Any, ...]) -> None:
    """Control characters above all: they are what keeps the fields apart under the hash."""
    assert to_schema(with_column("a", "b", "f32"))
    with pytest.raises(TrustError, match="schema: "):
        parse(sealed("schema", with_column(*column)))


def test_columns_that_are_no_arrays_are_refused() -> None:
    """Once, a map of three keys passed for a column of three fields."""
    good = with_column("a", "b", "f32")
    for column in ({"a": 1, "b": 2, "f32": 3}, "abc", b"abc", 3, None):
        with pytest.raises(TrustError, match="schema: "):
            parse(sealed("schema", {**good, "columns": [column]}))


def test_a_schema_id_that_is_not_the_hash_of_its_columns_is_refused() -> None:
    """Or rows could be read under another schema than the one that they were written under."""
    for name in ("schema of readings", "schema of intervals"):
        kind, body = BODIES[name]
        with pytest.raises(TrustError, match=f"got {bytes(8).hex()}, want {body['id'].hex()}"):
            parse(sealed(kind, {**body, "id": bytes(8)}))
    with pytest.raises(TrustError, match="the hash of its columns"):
        parse(sealed("schema", {**BODIES["schema of readings"][1], "device": "m2"}))
    line = BODIES["schema of intervals"][1]
    with pytest.raises(TrustError, match="the hash of its columns"):
        parse(sealed("schema", {**line, "line": {**line["line"], "zone": "FR"}}))


def changed_line(place: int, part: Any) -> dict[str, Any]:
    """Return the line's schema with one field of its first column changed, under the id that this would have."""
    body = BODIES["schema of intervals"][1]
    columns = [list(column) for column in body["columns"]]
    columns[0][place] = part
    lines = ["filling\tworks\tDE\t60"]
    lines += ["\t".join("" if field is None else str(field) for field in column) for column in columns]
    return {**body, "id": hashlib.sha256("\n".join(lines).encode()).digest()[:8], "columns": columns}


@pytest.mark.parametrize(
    ("place", "part"),
    [
        (0, 1),
        (0, "a\tb"),
        (1, None),
        (1, "k" * 201),
        (2, "power"),
        (2, None),
        (2, ["energy"]),
        (2, 1),
        (3, 5),
        (3, "1e3"),
        (3, "NaN"),
        (3, 1.5),
        (4, "30000"),
        (4, 1.5),
        (4, -1),
        (4, True),
        (4, 2**63),
        (5, None),
        (6, 7),
    ],
    ids=str,
)
def test_a_malformed_column_of_a_line_is_refused(place: int, part: Any) -> None:
    assert to_schema(changed_line(6, "8"))
    with pytest.raises(TrustError, match="schema: "):
        parse(sealed("schema", changed_line(place, part)))


@pytest.mark.parametrize(
    "head",
    [
        {},
        {"name": "l", "site": "", "zone": "Z"},
        {"site": "", "name": "l", "zone": "Z", "period_s": 1},
        {"name": "l", "site": "", "zone": "Z", "period_s": 1, "more": 1},
        {"name": "l", "site": "", "zone": "Z", "period_s": 0},
        {"name": "l", "site": "", "zone": "Z", "period_s": True},
        {"name": "l", "site": "", "zone": "Z", "period_s": 1.0},
        {"name": "l\n", "site": "", "zone": "Z", "period_s": 1},
        {"name": None, "site": "", "zone": "Z", "period_s": 1},
    ],
    ids=str,
)
def test_a_malformed_line_is_refused(head: dict[str, Any]) -> None:
    with pytest.raises(TrustError, match="schema: "):
        parse(sealed("schema", {"id": bytes(8), "line": head, "columns": []}))


def test_an_interval_that_does_not_fit_its_line_is_refused() -> None:
    body = BODIES["first interval"][1]
    assert to_interval(body, LINE) == INTERVAL
    other = LineSchema(name="x", site="", zone="Z", period_s=60, columns=LINE.columns)
    hourly = LineSchema(name="x", site="", zone="Z", period_s=3600, columns=LINE.columns)
    for wrong, line, why in (
        (body, other, "does not fit the schema"),
        ({**body, "samples": body["samples"][:1]}, LINE, "does not fit the schema"),
        ({**body, "samples": body["samples"] * 2}, LINE, "does not fit the schema"),
        ({**body, "t": BOUNDARY + 1}, LINE, "want a multiple of 60 s"),
        ({**body, "schema": hourly.id}, hourly, "want a multiple of 3600 s"),
    ):
        with pytest.raises(TrustError, match=why):
            to_interval(check_body("interval", wrong), line)


def test_a_factor_whose_window_is_empty_is_refused() -> None:
    body = BODIES["factor"][1]
    assert to_factor(body) == FACTOR
    for end in (body["start"], body["start"] - 1):
        with pytest.raises(TrustError, match="factor: end"):
            to_factor(check_body("factor", {**body, "end": end}))


# --- what goes in comes out ---

TEXT = st.text(max_size=12).filter(lambda text: not any(ord(c) < 32 or ord(c) == 127 for c in text))
TIMES = st.integers(0, 2**63 - 1)
STORES: dict[str, st.SearchStrategy[Value]] = {
    "f32": st.floats(width=32, allow_nan=False),
    "f64": st.floats(allow_nan=False),
    "i64": st.integers(-(2**63), 2**63 - 1),
    "u64": st.integers(0, 2**64 - 1),
    "bool": st.booleans(),
}


def store_values(store: str) -> st.SearchStrategy[Value]:
    if store in STORES:
        return STORES[store]
    size = int(store[1:])
    fits = st.text(max_size=size).filter(lambda text: len(text.encode()) <= size and not text.endswith("\0"))
    return fits.map(lambda text: text)


SCHEMAS = st.builds(
    lambda device, columns: Schema(device=device, columns=tuple(columns)),
    TEXT,
    st.lists(
        st.builds(
            lambda name, unit, store: Column(name=name, unit=unit, store=store),
            TEXT,
            TEXT,
            st.sampled_from([*STORES, "s1", "s8", "s250"]),
        ),
        min_size=1,
        max_size=8,
    ),
)


@st.composite
def rows(draw: st.DrawFn, schema: Schema) -> Row:
    count = len(schema.columns)
    qualities = draw(st.none() | st.lists(st.sampled_from(Quality), min_size=count, max_size=count).map(tuple))
    values = tuple(
        None if qualities and qualities[place] == Quality.BAD else draw(store_values(column.store))
        for place, column in enumerate(schema.columns)
    )
    return Row(
        schema=schema,
        source_time_ns=draw(TIMES),
        values=values,
        qualities=qualities,
        status=draw(TEXT),
    )


@given(st.data())
def test_rows_come_out_as_they_went_in(data: st.DataObject) -> None:
    """Any rows of any schemas, through the body and the sealed leaf and back."""
    schemas = data.draw(st.lists(SCHEMAS, min_size=1, max_size=3))
    sent = [data.draw(rows(data.draw(st.sampled_from(schemas)))) for _ in range(data.draw(st.integers(0, 4)))]
    for schema in schemas:
        assert to_schema(parse(seal("schema", schema_body(schema), clock=CLOCK)).body) == schema
    body = readings_body(sent)
    leaf = parse(seal("readings", body, clock=CLOCK))
    assert list(rows_of(leaf.body, {schema.id: schema for schema in schemas})) == sent


DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**30), max_value=10**30)


UNITS = {Role.ENERGY: ENERGY_UNITS, Role.FUEL: FUEL_UNITS}


@st.composite
def line_columns(draw: st.DrawFn) -> LineColumn:
    role = draw(st.sampled_from(Role))
    return LineColumn(
        point=draw(TEXT),
        unit=draw(st.sampled_from(UNITS[role]) if role in UNITS else TEXT),
        role=role,
        modulus=draw(st.none() | DECIMALS),
        rated_power_w=draw(st.none() | TIMES),
        meter_class=draw(TEXT),
        serial=draw(TEXT),
    )


@st.composite
def lines(draw: st.DrawFn) -> LineSchema:
    columns = draw(st.lists(line_columns(), max_size=3, unique_by=lambda column: (column.role, column.point)))
    whats = draw(st.sets(st.sampled_from(What)))
    return LineSchema(
        name=draw(TEXT),
        site=draw(TEXT),
        zone=draw(TEXT),
        period_s=draw(st.integers(1, 86_400)),
        columns=tuple(columns),
        context=tuple(ContextColumn(point=draw(TEXT), what=what) for what in sorted(whats)),
    )


def told(data: st.DataObject) -> tuple[Told, ...]:
    """Draw values of one context column, in order of time."""
    times = sorted(data.draw(st.sets(TIMES, max_size=4)))
    return tuple(Told(t_ns, data.draw(st.none() | TEXT)) for t_ns in times)


@given(lines(), st.data())
def test_lines_and_their_intervals_come_out_as_they_went_in(line: LineSchema, data: st.DataObject) -> None:
    """Every digit of every counter, and the id under which it stands."""
    assert to_schema(parse(seal("schema", line_body(line), clock=CLOCK)).body) == line
    samples = []
    for column in line.columns:
        quality = data.draw(st.sampled_from(Quality))
        value = None if quality == Quality.BAD else data.draw(DECIMALS)
        raw = data.draw(st.binary(max_size=8))
        sample = Sample(
            point=column.point,
            source_time_ns=data.draw(TIMES),
            raw=raw,
            value=value,
            quality=quality,
            status=data.draw(TEXT),
        )
        samples.append(sample)
    t_ns = data.draw(st.integers(0, (2**63 - 1) // (line.period_s * 10**9))) * line.period_s * 10**9
    context = tuple(told(data) for _ in line.context)
    interval = Interval(schema_id=line.id, t_ns=t_ns, samples=tuple(samples), context=context)
    leaf = parse(seal("interval", interval_body(interval), clock=CLOCK, prev=data.draw(st.none() | TIMES)))
    assert to_interval(leaf.body, line) == interval


@given(
    factor=st.builds(
        lambda key, window, value, texts: Factor(
            key=key,
            start_ns=min(window),
            end_ns=max(window),
            g_per_kwh=value,
            state=texts[0],
            method=texts[1],
            source=texts[2],
            version=texts[3],
            supersedes=texts[4],
        ),
        st.tuples(TEXT, TEXT, TEXT, TEXT, TEXT),
        st.sets(TIMES, min_size=2, max_size=2),
        DECIMALS,
        st.lists(TEXT, min_size=5, max_size=5),
    )
)
def test_factors_come_out_as_they_went_in(factor: Factor) -> None:
    assert to_factor(parse(seal("factor", factor_body(factor), clock=CLOCK)).body) == factor


def test_a_line_that_counts_a_counter_twice_is_refused() -> None:
    """Its energy would stand in the figure twice."""
    column = LineColumn(point="m1.energy", unit="kWh", role=Role.ENERGY)
    line = LineSchema(name="filling", site="", zone="DE", period_s=60, columns=(column, column))
    with pytest.raises(TrustError, match="each counter once"):
        parse(seal("schema", line_body(line), clock=CLOCK))


def test_a_line_whose_energy_has_no_unit_of_energy_is_refused() -> None:
    column = LineColumn(point="m1.energy", unit="m3", role=Role.ENERGY)
    line = LineSchema(name="filling", site="", zone="DE", period_s=60, columns=(column,))
    with pytest.raises(TrustError, match="want one of Wh, kWh, MWh"):
        parse(seal("schema", line_body(line), clock=CLOCK))
