"""codec/changes.py: changes survive a leaf, cost what is said, and nothing malformed passes."""

import contextlib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.codec.changes import GROUP_BYTES, changes_body, changes_of, size_of
from gateway.codec.checks import check_body
from gateway.codec.pack import pack, unpack
from gateway.errors import TrustError
from gateway.model import Change, Column, Quality, Schema, Value

STORES: dict[str, st.SearchStrategy[Value]] = {
    "f32": st.floats(width=32, allow_nan=False),
    "f64": st.floats(allow_nan=False),
    "i64": st.integers(-(2**63), 2**63 - 1),
    "u64": st.integers(0, 2**64 - 1),
    "bool": st.booleans(),
    "s32": st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30).map(lambda text: text.rstrip("\0")),
}
SCHEMAS = [
    Schema(device=device, columns=tuple(Column(name=f"p{n}", unit="W", store=store) for n, store in enumerate(STORES)))
    for device in ("plc", "boiler")
]
BY_ID = {schema.id: schema for schema in SCHEMAS}


@st.composite
def changes(draw: st.DrawFn) -> Change:
    """Draw a change of any column."""
    column = draw(st.integers(0, len(STORES) - 1))
    of_it = list(STORES.values())[column]
    quality = draw(st.sampled_from(Quality))
    extremes = draw(st.none() | st.tuples(of_it, of_it))
    return Change(
        schema=draw(st.sampled_from(SCHEMAS)),
        column=column,
        source_time_ns=draw(st.integers(0, 2**63 - 1)),
        value=None if quality is Quality.BAD else draw(of_it),
        quality=quality,
        status=draw(st.text(max_size=20)),
        low=extremes and extremes[0],
        high=extremes and extremes[1],
    )


@given(st.lists(changes(), min_size=1, max_size=30))
def test_changes_survive_a_leaf_in_the_order_of_their_schema(sent: list[Change]) -> None:
    body = changes_body(sent)
    found = list(changes_of(check_body("readings", unpack(body)), BY_ID))
    assert found == [change for schema in dict.fromkeys(c.schema.id for c in sent) for change in sent
                     if change.schema.id == schema]  # fmt: skip


@given(st.lists(changes(), min_size=1, max_size=30))
def test_a_body_is_never_larger_than_was_reckoned(sent: list[Change]) -> None:
    schemas = {change.schema.id for change in sent}
    assert len(changes_body(sent)) <= 16 + GROUP_BYTES * len(schemas) + sum(map(size_of, sent))


def good_group() -> list[Any]:
    """Return a group as it stands in a leaf: two changes, the second one BAD."""
    sent = [
        Change(schema=SCHEMAS[0], column=0, source_time_ns=1, value=1.5, low=0.5, high=2.5),
        Change(schema=SCHEMAS[0], column=2, source_time_ns=2, value=None, quality=Quality.BAD, status="BadNoData"),
    ]
    group: list[Any] = unpack(changes_body(sent))["changes"][0]
    return group


BENT: dict[str, tuple[int, Any]] = {
    "a short schema id": (0, b"1234567"),
    "half a column": (1, b"\0\0\0"),
    "no change at all": (1, b""),
    "a column that the schema has not": (1, b"\0\0\0\x09"),
    "columns as a list": (1, [0, 2]),
    "a time too few": (2, bytes(8)),
    "a time past 2**63": (2, bytes(8) + b"\xff" * 8),
    "a value too few": (3, bytes(4)),
    "a byte too many": (3, bytes(13)),
    "values of no bytes": (3, None),
    "a quality too few": (4, b"\0"),
    "a quality that does not exist": (4, b"\0\3"),
    "statuses that are none": (5, []),
    "a status past the last change": (5, [[2, "x"]]),
    "statuses out of order": (5, [[1, "x"], [0, "y"]]),
    "a status that is no text": (5, [[0, b"x"]]),
    "one extreme alone": (6, [[0, bytes(4)]]),
    "an extreme of another length": (6, [[0, bytes(4), bytes(3)]]),
    "extremes twice": (6, [[0, bytes(4), bytes(4)], [0, bytes(4), bytes(4)]]),
}


@pytest.mark.parametrize("what", BENT)
def test_what_is_bent_is_refused(what: str) -> None:
    group = good_group()
    place, value = BENT[what]
    group[place] = value
    with pytest.raises(TrustError):
        list(changes_of(check_body("readings", unpack(pack({"changes": [group]}))), BY_ID))


def test_what_is_not_bent_is_taken() -> None:
    body = check_body("readings", unpack(pack({"changes": [good_group()]})))
    first, second = changes_of(body, BY_ID)
    assert (first.value, first.low, first.high) == (1.5, 0.5, 2.5)
    assert (second.value, second.quality, second.status) == (None, Quality.BAD, "BadNoData")
    with pytest.raises(TrustError, match="not in the log"):
        list(changes_of(body, {}))


@given(st.recursive(st.none() | st.binary(max_size=9) | st.integers() | st.text(max_size=3), st.lists, max_leaves=20))
def test_no_bytes_of_anybody_crash_the_reader(value: Any) -> None:
    with contextlib.suppress(TrustError):
        list(changes_of(check_body("readings", {"changes": value}), BY_ID))
