"""Leaves: golden bytes first, then everything that a leaf must not be.

The vectors say each leaf's bytes in hex and what they mean; bytes in the meaning are written "hex:...".
"""

import contextlib
import hashlib
import json
import struct
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.codec.bodies import event_body, line_body
from gateway.codec.checks import check_body, rows_of, to_schema
from gateway.codec.leaves import CHAINED, MAX_HEADER, MAX_LEAF, Leaf, parse, seal
from gateway.codec.ledger_leaves import to_factor
from gateway.codec.line_leaves import to_interval
from gateway.codec.pack import pack, unpack
from gateway.errors import TrustError
from gateway.model import Clock, ClockState, LineColumn, LineSchema, Role
from gateway.tlog.merkle import leaf_hash
from tests.leaf_cases import BODIES, BOOT, CLOCK, LEAVES, LINE, METER, T, meaning, nested, pairs

VECTORS: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "leaves.json").read_text())["leaves"]

# --- golden bytes ---


@pytest.mark.parametrize("name", LEAVES)
def test_a_leaf_has_the_bytes_that_it_always_had(name: str) -> None:
    """What was sealed once must read the same for years: the bytes of each kind stand in a file."""
    assert LEAVES[name]().hex() == VECTORS[name]["hex"]


@pytest.mark.parametrize("name", VECTORS)
def test_a_golden_leaf_reads_as_it_always_did(name: str) -> None:
    """Parsing the stored bytes gives the meaning that stands beside them, and their hash is RFC 6962's."""
    vector = VECTORS[name]
    leaf = parse(bytes.fromhex(vector["hex"]))
    assert vector["means"] == {
        "kind": leaf.kind,
        "clock": [leaf.clock.t_ns, int(leaf.clock.state), leaf.clock.offset_ns],
        "src": meaning(leaf.src),
        "prev": leaf.prev,
        "body": meaning(leaf.body),
    }
    assert hashlib.sha256(b"\0" + bytes.fromhex(vector["hex"])).hexdigest() == vector["leaf_hash"]
    assert leaf_hash(bytes.fromhex(vector["hex"])).hex() == vector["leaf_hash"]


def test_every_kind_of_docs_log_has_a_golden_leaf_or_is_still_to_come() -> None:
    """A kind that check_body takes has a vector."""
    assert {VECTORS[name]["means"]["kind"] for name in VECTORS} == {
        "epoch",
        "schema",
        "readings",
        "interval",
        "event",
        "factor",
        "document",
        "context",
        "counts",
        "statement",
        "standing",
        "decision",
        "accepted",
    }
    for kind in ("restatement", "verdict", ""):
        with pytest.raises(TrustError, match="leaf: kind: got"):
            check_body(kind, {})


def test_an_event_leaf_written_by_hand_from_the_msgpack_specification() -> None:
    """The bytes are those of the public format, not of a library: this leaf was put together by hand."""
    body = b"\x83\xa4what\xa1x\xa1t\x05\xa5about\x80"
    by_hand = (
        b"\x86"
        b"\xa1v\x01"
        b"\xa4kind\xa5event"
        b"\xa5clock\x93\xce\x00\x01\x00\x00\x01\xff"  # [65536, 1, -1]
        b"\xa3src\x92\xc4\x08\x00\x01\x02\x03\x04\x05\x06\x07\xcd\x01\x00"  # [boot, 256]
        b"\xa4prev\xc0"
        b"\xa4body" + body
    )
    clock = Clock(t_ns=65_536, state=ClockState.UNSYNCHRONISED, offset_ns=-1)
    assert seal("event", body, clock=clock, src=(BOOT, 256)) == by_hand
    assert parse(by_hand) == Leaf(
        kind="event", clock=clock, src=(BOOT, 256), prev=None, body={"what": "x", "t": 5, "about": {}}
    )


def test_row_bytes_are_the_columns_big_endian_without_padding() -> None:
    """values: each column's number one after the other, as docs/log.md says, built here by struct alone."""
    _, body = BODIES["readings"]
    first, second, third = body["rows"]
    number = struct.pack(">f", 1.5) + struct.pack(">d", 0.1) + struct.pack(">q", -2) + struct.pack(">Q", 2**64 - 1)
    assert first == [METER.id, T, number + b"\x01" + "Öl".encode() + b"\0", None, None]
    zero = struct.pack(">f", 1.5) + bytes(8 + 8 + 8 + 1 + 4)
    assert second == [METER.id, T + 1, zero, b"\x01\x02\x00\x00\x00\x00", "exception 2"]
    assert third == [METER.id, T + 2, None, b"\x02" * 6, "no answer"]


def test_schema_ids_are_the_hash_that_docs_log_describes() -> None:
    """An id can be computed from the leaf with SHA-256 and nothing of ours."""
    body = BODIES["schema of readings"][1]
    text = "\n".join([body["device"], *("\t".join(column) for column in body["columns"])])
    assert body["id"] == hashlib.sha256(text.encode()).digest()[:8]
    body = BODIES["schema of intervals"][1]
    lines = ["\t".join(str(part) for part in body["line"].values())]
    lines += ["\t".join("" if part is None else str(part) for part in column) for column in body["columns"]]
    assert body["id"] == hashlib.sha256("\n".join(lines).encode()).digest()[:8]


@pytest.mark.parametrize("modulus", ["1E+3", "4.294967296E+12", "1E-9", "0.10", "42949672.96"])
def test_a_modulus_with_an_exponent_has_the_id_of_its_plain_digits(modulus: str) -> None:
    """Once, "1E+3" was hashed as such and written as 1000: the seal then refused the schema, and all its intervals."""
    column = LineColumn(point="m1.e", unit="kWh", role=Role.ENERGY, modulus=Decimal(modulus))
    line = LineSchema(name="l", site="", zone="Z", period_s=1, columns=(column,))
    body = check_body("schema", unpack(line_body(line)))
    assert to_schema(body) == line
    assert body["columns"][0][3] == f"{Decimal(modulus):f}"


# --- the header ---

GOOD = {"what": "x", "t": 1, "about": {}}
HEADER: list[tuple[str, Any]] = [
    ("v", 1),
    ("kind", "event"),
    ("clock", [T, 0, 0]),
    ("src", [BOOT, 1]),
    ("prev", None),
    ("body", GOOD),
]


def changed(**fields: Any) -> bytes:
    return pairs(*((key, fields.get(key, value)) for key, value in HEADER))


def test_the_header_that_the_variants_change_is_a_good_one() -> None:
    assert parse(changed()).body == GOOD


def test_a_leaf_with_a_key_less_or_more_is_refused() -> None:
    for place in range(len(HEADER)):
        with pytest.raises(TrustError, match="leaf: got keys"):
            parse(pairs(*HEADER[:place], *HEADER[place + 1 :]))
    with pytest.raises(TrustError, match="leaf: got keys"):
        parse(pairs(*HEADER, ("more", None)))


def test_a_leaf_with_its_keys_in_another_order_is_refused() -> None:
    for place in range(len(HEADER) - 1):
        swapped = [*HEADER[:place], HEADER[place + 1], HEADER[place], *HEADER[place + 2 :]]
        with pytest.raises(TrustError, match="leaf: got keys"):
            parse(pairs(*swapped))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"v": 2}, "v: got 2"),
        ({"v": True}, "v: got True"),
        ({"v": 1.0}, "v: got 1.0"),
        ({"v": "1"}, "v: got"),
        ({"v": nested(1000)}, "v: got"),
        ({"kind": None}, "kind: want a string"),
        ({"kind": ["event"]}, "kind: want a string"),
        ({"kind": "verdict"}, "kind: got 'verdict'"),
        ({"kind": "x" * 1000}, "kind: got 'xxxxxxxxxxxxxxxxxxxx'"),
        ({"clock": None}, "clock: want"),
        ({"clock": [T, 0]}, "clock: want"),
        ({"clock": [T, 0, 0, 0]}, "clock: want"),
        ({"clock": [True, 0, 0]}, "clock: want"),
        ({"clock": [T, True, 0]}, "clock: want"),
        ({"clock": [T, 0, False]}, "clock: want"),
        ({"clock": [T, 0, 0.5]}, "clock: want"),
        ({"clock": [T, 0.0, 0]}, "clock: want"),
        ({"clock": [T, 3, 0]}, "clock: got"),
        ({"clock": [T, -1, 0]}, "clock: got"),
        ({"clock": [-1, 0, 0]}, "clock: got"),
        ({"clock": [2**63, 0, 0]}, "clock: got"),
        ({"clock": {"t": 1}}, "clock: want"),
        ({"src": []}, "src: want nil or"),
        ({"src": [BOOT]}, "src: want nil or"),
        ({"src": [BOOT, 1, 1]}, "src: want nil or"),
        ({"src": [BOOT[:7], 1]}, "src: want nil or"),
        ({"src": [BOOT + b"x", 1]}, "src: want nil or"),
        ({"src": ["bootboot", 1]}, "src: want nil or"),
        ({"src": [BOOT, 0]}, "src: want a sequence"),
        ({"src": [BOOT, -1]}, "src: want a sequence"),
        ({"src": [BOOT, True]}, "src: want a sequence"),
        ({"src": [BOOT, 2**63]}, "src: want a sequence"),
        ({"src": [BOOT, 1.0]}, "src: want a sequence"),
        ({"src": 5}, "src: want nil or"),
        ({"prev": 0}, "prev: got 0"),
        ({"prev": nested(1000)}, "prev: got"),
        ({"body": None}, "event: body: got NoneType"),
        ({"body": [1]}, "event: body: got list"),
        ({"body": "x"}, "event: body: got str"),
    ],
    ids=str,
)
def test_a_header_field_of_another_type_or_range_is_refused(fields: dict[str, Any], why: str) -> None:
    with pytest.raises(TrustError) as caught:
        parse(changed(**fields))
    assert why in str(caught.value)


@pytest.mark.parametrize("prev", [-1, 2**63, True, 1.0, "0", [0], {}], ids=str)
def test_prev_of_an_interval_is_an_index_or_nil(prev: Any) -> None:
    kind, body = BODIES["first interval"]
    good = changed(kind=kind, body=body, prev=7)
    assert parse(good).prev == 7
    with pytest.raises(TrustError, match="prev: got"):
        parse(changed(kind=kind, body=body, prev=prev))


@pytest.mark.parametrize("name", [name for name in LEAVES if BODIES[name][0] not in CHAINED])
def test_prev_belongs_to_chained_kinds_alone(name: str) -> None:
    kind, body = BODIES[name]
    with pytest.raises(TrustError, match="prev: got 3"):
        parse(changed(kind=kind, body=body, prev=3))


@pytest.mark.parametrize("leaf", [b"", b"\xc0", b"\x01", b"\x90", b"\x96" + bytes(6), b"\x80", b"\xa5event", b"\xc1"])
def test_what_is_no_map_is_no_leaf(leaf: bytes) -> None:
    with pytest.raises(TrustError):
        parse(leaf)


@pytest.mark.parametrize("name", LEAVES)
def test_trailing_bytes_are_refused(name: str) -> None:
    """A leaf is one item and nothing after it, or two readers could disagree on what was hashed."""
    for tail in (b"\0", b"\xc0", LEAVES[name]()):
        with pytest.raises(TrustError, match="msgpack"):
            parse(LEAVES[name]() + tail)


@pytest.mark.parametrize("name", LEAVES)
def test_a_leaf_cut_anywhere_is_refused(name: str) -> None:
    leaf = LEAVES[name]()
    for stop in range(len(leaf)):
        with pytest.raises(TrustError, match="msgpack"):
            parse(leaf[:stop])


def test_a_key_that_stands_twice_is_refused() -> None:
    """A reader that keeps the first and one that keeps the last would read two leaves in one."""
    for twice in (pairs(*HEADER, HEADER[0]), pairs(*HEADER[:5], ("body", pairs(("what", "x"), ("what", "y"))))):
        with pytest.raises(TrustError, match="a key twice"):
            parse(twice)
    about = pairs(("what", "x"), ("t", 1), ("about", pairs(("a", 1), ("a", 1))))
    with pytest.raises(TrustError, match="a key twice"):
        parse(changed(body=about))


@pytest.mark.parametrize("key", [1, None, True, 1.5, b"a"], ids=repr)
def test_a_key_that_is_no_string_is_refused(key: Any) -> None:
    about = pairs(("what", "x"), ("t", 1), ("about", pairs((key, 1))))
    with pytest.raises(TrustError, match="msgpack"):
        parse(changed(body=about))


@pytest.mark.parametrize(
    "extension",
    [
        msgpack.packb(msgpack.ExtType(5, b"xy")),
        b"\xd4\xfe\x00",
        msgpack.packb(msgpack.Timestamp(1, 2)),
        b"\xd6\xff\x00\x00\x00\x01",  # a timestamp of 32 bits
    ],
    ids=["5", "-2", "timestamp 64", "timestamp 32"],
)
def test_extension_types_are_refused_wherever_they_stand(extension: bytes) -> None:
    """A timestamp of msgpack's own too: its library makes an object of it, which nothing here expects."""
    for leaf in (
        changed(v=extension),
        changed(clock=extension),
        changed(src=extension),
        changed(prev=extension),
        changed(body=extension),
        changed(body=pairs(("what", extension), ("t", 1), ("about", {}))),
        changed(body=pairs(("what", "x"), ("t", 1), ("about", pairs(("a", extension))))),
        changed(body=pairs(("what", "x"), ("t", 1), ("about", pairs(("a", b"\x92\x01" + extension))))),
        changed(kind="epoch", body=pairs(("epoch", 1), ("key", "k"), ("binding", pairs(("q", extension))))),
    ):
        with pytest.raises(TrustError):
            parse(leaf)


def test_text_that_is_not_utf8_is_refused() -> None:
    for text in (b"\xa1\xff", b"\xa3\xed\xa0\x80", b"\xa2\xc0\x80"):  # stray byte, surrogate, overlong
        with pytest.raises(TrustError, match="msgpack"):
            parse(changed(kind=text))


def test_nesting_is_bounded_so_that_a_body_which_the_seal_takes_always_opens_again() -> None:
    """Once, a body nested 1022 deep was sealed, and the leaf around it could never be parsed again."""

    def about(levels: int) -> bytes:
        return pairs(("what", "x"), ("t", 1), ("about", pairs(("a", nested(levels)))))

    assert parse(seal("event", about(7), clock=CLOCK)).kind == "event"
    for levels in (8, 100, 990, 1000, 1020, 1021, 1022, 1023, 5000):
        for body, kind in (
            (about(levels), "event"),
            (b"\x83\xa5epoch\x01\xa3key\xa1k\xa7binding" + nested(1), "epoch"),
        ):
            with pytest.raises(TrustError):
                check_body(kind, unpack(body))
        with pytest.raises(TrustError):
            parse(seal("event", about(levels), clock=CLOCK))


def test_a_refusal_of_something_huge_is_a_short_message() -> None:
    """A message must not repeat what a peer sent: it goes to a log, and deep nesting cannot even be printed."""
    for value in (nested(1000), msgpack.packb("x" * 60_000), msgpack.packb(["y" * 100] * 500), b"\xcf" + b"\xff" * 8):
        for leaf in (
            changed(v=value),
            changed(prev=value),
            changed(body=pairs(("what", value), ("t", value), ("about", {}))),
        ):
            with pytest.raises(TrustError) as caught:
                parse(leaf)
            assert len(str(caught.value)) < 300


# --- size ---


def test_a_leaf_is_at_most_65535_bytes() -> None:
    """The entry bundle gives a leaf's length two bytes."""

    def body(size: int) -> bytes:
        return event_body("x", 1, {"a": bytes(size)})

    room = MAX_LEAF - len(seal("event", body(60_000), clock=CLOCK)) + 60_000
    leaf = seal("event", body(room), clock=CLOCK)
    assert len(leaf) == MAX_LEAF
    assert parse(leaf).body["about"]["a"] == bytes(room)
    with pytest.raises(TrustError, match="got 65536 bytes, want at most 65535"):
        seal("event", body(room + 1), clock=CLOCK)
    too_long = changed(body=body(room + 100))
    with pytest.raises(TrustError, match="want at most 65535"):
        parse(too_long)


CLOCKS = st.builds(
    lambda t_ns, state, offset_ns: Clock(t_ns=t_ns, state=state, offset_ns=offset_ns),
    st.integers(0, 2**63 - 1),
    st.sampled_from(ClockState),
    st.integers(-(2**63), 2**63 - 1),
)


@given(CLOCKS, st.integers(1, 2**63 - 1), st.none() | st.integers(0, 2**63 - 1))
def test_a_body_within_the_bound_always_fits_behind_its_header(clock: Clock, sequence: int, prev: int | None) -> None:
    """Collect bounds its bodies by MAX_HEADER; a leaf that then did not fit would be refused for ever."""
    for kind in ("readings", "restatement", "interval"):
        leaf = seal(kind, bytes(MAX_LEAF - MAX_HEADER), clock=clock, src=(BOOT, sequence), prev=prev)
        assert len(leaf) <= MAX_LEAF


# --- fuzz ---


def agrees(leaf: bytes) -> None:
    """Check that a leaf is refused with TrustError, or is what our own sealer would have written.

    The sealer writes msgpack's shortest form; docs/log.md does not ask a reader to refuse others.
    """
    try:
        found = parse(leaf)
    except TrustError:
        return
    again = seal(found.kind, pack(found.body), clock=found.clock, src=found.src, prev=found.prev)
    assert parse(again) == found
    if pack(unpack(leaf)) == leaf:
        assert again == leaf


@given(st.binary(max_size=200))
def test_any_bytes_are_refused_or_a_leaf(leaf: bytes) -> None:
    agrees(leaf)


@given(
    name=st.sampled_from(list(LEAVES)),
    edits=st.lists(
        st.tuples(st.floats(0, 1), st.integers(0, 2), st.binary(min_size=1, max_size=3)), min_size=1, max_size=3
    ),
)
def test_a_damaged_leaf_is_refused_or_a_leaf(name: str, edits: list[tuple[float, int, bytes]]) -> None:
    """Bytes overwritten, inserted or cut anywhere."""
    leaf = LEAVES[name]()
    for where, gone, put in edits:
        place = int(where * len(leaf))
        leaf = leaf[:place] + put + leaf[place + gone :]
    agrees(leaf)


PLAIN: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "1.5", "f32", "energy", "g/kWh"])
    | st.text(max_size=4)
    | st.binary(max_size=9)
    | st.sampled_from([METER.id, LINE.id]),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=12,
)


def replaced(value: Any, path: list[float], new: Any) -> Any:
    """Return value with what stands at the end of path replaced; each step picks among the items by a share."""
    if not path or not isinstance(value, list | dict) or not value:
        return new
    keys = list(value) if isinstance(value, dict) else list(range(len(value)))
    key = keys[int(path[0] * (len(keys) - 1))]
    inner = replaced(value[key], path[1:], new)
    if isinstance(value, dict):
        return {**value, key: inner}
    return [*value[:key], inner, *value[key + 1 :]]


def read_all(kind: str, body: Mapping[str, Any]) -> None:
    """Read a checked body as its consumers do."""
    if kind == "schema":
        to_schema(body)
    if kind == "interval":
        to_interval(body, LINE)
    if kind == "factor":
        to_factor(body)
    if kind == "readings":
        list(rows_of(body, {METER.id: METER}))


@given(
    name=st.sampled_from(list(BODIES)),
    edits=st.lists(st.tuples(st.lists(st.floats(0, 1), max_size=4), PLAIN), max_size=2),
)
def test_what_the_seal_takes_from_collect_opens_again(name: str, edits: list[tuple[list[float], Any]]) -> None:
    """The seal checks the body alone; if the leaf around it were refused later, it would poison the whole log."""
    kind, body = BODIES[name]
    changed_body: Any = body
    for path, new in edits:
        changed_body = replaced(changed_body, path, new)
    packed = msgpack.packb(changed_body)
    try:
        checked = check_body(kind, unpack(packed))
    except TrustError:
        return
    leaf = parse(seal(kind, packed, clock=CLOCK, src=(BOOT, 1)))
    assert leaf.body == checked
    with contextlib.suppress(TrustError):
        read_all(kind, checked)
