"""Agents' frames: the format of docs/wire.md, section 3, on its vectors, and how they stand in a leaf."""

import hashlib
import hmac
import json
import struct
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.codec.agent_leaves import AgentColumn, AgentSource, frames_body, frames_of, split_frames
from gateway.codec.agents import (
    AGENT,
    MAC_BYTES,
    MAX_FRAME,
    AgentPoint,
    is_frame,
    pack_frame,
    parse_frame,
    verify_frame,
)
from gateway.codec.checks import check_body
from gateway.codec.pack import pack, unpack
from gateway.errors import TrustError
from gateway.model import Quality

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "vectors" / "agent_frames.json").read_text(encoding="utf-8")
)["frames"]
KEY = bytes(range(32))
BOOT = b"one boot"
T0_MS = 1_760_000_000_000
SOURCE = AgentSource.of(
    "press-1",
    "press",
    {
        "energy": ("Wh", AgentColumn(None)),
        "power": ("W", AgentColumn(0)),
        "temperature": ("degC", AgentColumn(1, Decimal("0.5"), Decimal(-40))),
    },
)
SCHEMAS = {SOURCE.schema.id: SOURCE.schema}


def frame(sequence: int = 1, *points: AgentPoint, key: bytes = KEY, **other: Any) -> bytes:
    said = {"agent": "press-1", "boot": BOOT, "time_ms": T0_MS + 1000 * sequence, "energy": 250_000 + sequence, **other}
    return pack_frame(sequence=sequence, points=points or (AgentPoint(0, 0, 4200, -1),), key=key, **said)


def signed(body: bytes, key: bytes = KEY) -> bytes:
    """Return any bytes with a true HMAC: only their form can be wrong."""
    return body + hmac.digest(key, body, hashlib.sha256)


# ---- the vectors


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: str(vector["name"]))
def test_a_vector_reads_as_it_says_and_is_made_of_what_it_says(vector: dict[str, Any]) -> None:
    raw, key, means = bytes.fromhex(vector["hex"]), bytes.fromhex(vector["key"]), vector["means"]
    read = verify_frame(raw, key)
    points = tuple(AgentPoint(a, b, c, d, Quality(quality)) for a, b, c, d, quality in means["points"])
    said = {**means, "boot": bytes.fromhex(means["boot"]), "points": points}
    assert {name: getattr(read, name) for name in said} == said
    assert read.raw == raw
    assert pack_frame(key=key, **said) == raw


def test_the_first_vector_is_what_the_layout_of_the_docs_gives() -> None:
    """Made here with nothing but struct and HMAC, as an agent makes it."""
    vector = VECTORS[0]
    means = vector["means"]
    body = struct.pack(">4sBBB7s", b"WSAF", 1, 3, 7, b"press-1")
    body += struct.pack(
        ">8sIQQB", bytes.fromhex(means["boot"]), means["sequence"], means["time_ms"], means["energy"], 2
    )
    for point in means["points"]:
        body += struct.pack(">BIibB", *point)
    assert signed(body, bytes.fromhex(vector["key"])).hex() == vector["hex"]


# ---- any frame


AGENTS = st.from_regex(AGENT.pattern.decode(), fullmatch=True)
NO_VALUE = st.builds(lambda number, offset: AgentPoint(number, offset, 0, 0, Quality.BAD), *[st.integers(0, 255)] * 2)
VALUES = st.builds(
    AgentPoint,
    st.integers(0, 255),
    st.integers(0, 2**32 - 1),
    st.integers(-(2**31), 2**31 - 1),
    st.integers(-12, 12),
    st.sampled_from([Quality.GOOD, Quality.UNCERTAIN]),
)
POINTS = st.lists(VALUES | NO_VALUE, max_size=40, unique_by=lambda point: point[:2]).map(
    lambda points: sorted(points, key=lambda point: (-point.offset_ms, point.number))
)


@settings(max_examples=100, deadline=None)
@given(
    agent=AGENTS,
    boot=st.binary(min_size=8, max_size=8),
    sequence=st.integers(1, 2**32 - 1),
    time_ms=st.integers(2**32, 9_223_372_036_854),
    energy=st.none() | st.integers(0, 2**64 - 1),
    points=POINTS,
    clock_set=st.booleans(),
    key=st.binary(min_size=32, max_size=32),
)
def test_what_is_packed_is_what_is_read(**said: Any) -> None:
    raw = pack_frame(**said)
    read = verify_frame(raw, said.pop("key"))
    said["points"] = tuple(said["points"])
    assert {name: getattr(read, name) for name in said} == said
    assert is_frame(raw)


def test_every_byte_counts() -> None:
    """Whichever byte is changed, and however little: the HMAC does not hold any more."""
    raw = frame(7, AgentPoint(0, 500, -5, 0), AgentPoint(0, 0, 4200, -1), AgentPoint(1, 0, 99, 0, Quality.UNCERTAIN))
    assert verify_frame(raw, KEY).sequence == 7
    for place in range(len(raw)):
        for flip in (0x01, 0x80, 0xFF):
            changed = raw[:place] + bytes([raw[place] ^ flip]) + raw[place + 1 :]
            with pytest.raises(TrustError, match="HMAC"):
                verify_frame(changed, KEY)


def test_another_key_a_cut_and_an_added_byte_are_refused() -> None:
    raw = frame()
    for wrong, key in ((raw, bytes(32)), (raw[:-1], KEY), (raw + b"\0", KEY), (b"", KEY), (raw * 20, KEY)):
        with pytest.raises(TrustError):
            verify_frame(wrong, key)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda end: b"WSAF\x01\x03\x01a" + bytes(20) + end))
@example(b"")
@example(bytes(MAX_FRAME))
@example(b"WSAF\x01\x03\xff" + bytes(200))
def test_any_other_bytes_are_refused_and_nothing_else_happens(junk: bytes) -> None:
    """Signed or not: what is no frame is a TrustError, and what is one reads the same again."""
    for raw in (junk, signed(junk)):
        try:
            read = parse_frame(raw)
        except TrustError:
            continue
        assert read.raw == raw
        assert len(raw) <= MAX_FRAME


HEAD, REST = b"WSAF\x01\x03\x01a" + BOOT, struct.Struct(">IQQB")
POINT = struct.Struct(">BIibB")


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"WSAF\x02\x03\x01a" + BOOT + REST.pack(1, T0_MS, 1, 0), "version 1"),
        (b"WSAG\x01\x03\x01a" + BOOT + REST.pack(1, T0_MS, 1, 0), "version 1"),
        (b"WSAF\x01\x07\x01a" + BOOT + REST.pack(1, T0_MS, 1, 0), "flags"),
        (b"WSAF\x01\x83\x01a" + BOOT + REST.pack(1, T0_MS, 1, 0), "flags"),
        (b"WSAF\x01\x01\x01a" + BOOT + REST.pack(1, T0_MS, 1, 0), "energy register"),
        (b"WSAF\x01\x03\x01A" + BOOT + REST.pack(1, T0_MS, 1, 0), "id"),
        (b"WSAF\x01\x03\x01+" + BOOT + REST.pack(1, T0_MS, 1, 0), "id"),
        (b"WSAF\x01\x03\x02a/" + BOOT + REST.pack(1, T0_MS, 1, 0), "id"),
        (b"WSAF\x01\x03\x00a" + BOOT + REST.pack(1, T0_MS, 1, 0), "id"),
        (b"WSAF\x01\x03\x21" + b"a" * 33 + BOOT + REST.pack(1, T0_MS, 1, 0), "id"),
        (HEAD + REST.pack(0, T0_MS, 1, 0), "sequence"),
        (HEAD + REST.pack(1, 9_223_372_036_855, 1, 0), "2262"),
        (HEAD + REST.pack(1, T0_MS, 1, 1), "bytes"),
        (HEAD + REST.pack(1, T0_MS, 1, 0) + POINT.pack(0, 0, 1, 0, 0), "bytes"),
        (HEAD + REST.pack(1, T0_MS, 1, 1) + POINT.pack(0, 0, 1, 0, 3), "quality"),
        (HEAD + REST.pack(1, T0_MS, 1, 1) + POINT.pack(0, 0, 1, 13, 0), "exponent"),
        (HEAD + REST.pack(1, T0_MS, 1, 1) + POINT.pack(0, 0, 1, -13, 0), "exponent"),
        (HEAD + REST.pack(1, T0_MS, 1, 1) + POINT.pack(0, 0, 1, 0, 2), "BAD"),
        (HEAD + REST.pack(1, 999, 1, 1) + POINT.pack(0, 1000, 1, 0, 0), "stands where"),
        (HEAD + REST.pack(1, T0_MS, 1, 2) + POINT.pack(0, 0, 1, 0, 0) * 2, "stands where"),
        (HEAD + REST.pack(1, T0_MS, 1, 2) + POINT.pack(1, 0, 1, 0, 0) + POINT.pack(0, 0, 1, 0, 0), "stands where"),
        (HEAD + REST.pack(1, T0_MS, 1, 2) + POINT.pack(0, 0, 1, 0, 0) + POINT.pack(1, 5, 1, 0, 0), "stands where"),
    ],
)
def test_a_frame_of_another_form_is_refused_even_with_a_true_hmac(body: bytes, why: str) -> None:
    assert verify_frame(signed(HEAD + REST.pack(1, T0_MS, 1, 0)), KEY).sequence == 1
    with pytest.raises(TrustError, match=why):
        verify_frame(signed(body), KEY)


@pytest.mark.parametrize(
    "wrong",
    [
        {"agent": "Press"},
        {"agent": "a" * 33},
        {"boot": b"short"},
        {"boot": b"too long!"},
        {"sequence": 0},
        {"sequence": 2**32},
        {"energy": -1},
        {"energy": 2**64},
        {"points": (AgentPoint(0, 0, 2**31, 0),)},
        {"points": tuple(AgentPoint(number, 0, 0, 0) for number in range(87))},
    ],
)
def test_what_no_frame_can_say_is_not_packed(wrong: dict[str, Any]) -> None:
    said = {"agent": "press-1", "boot": BOOT, "sequence": 1, "time_ms": T0_MS, "energy": 1, "key": KEY}
    with pytest.raises(ValueError):
        pack_frame(**{**said, **wrong})


# ---- in a leaf


def test_frames_stand_in_a_leaf_byte_for_byte_and_say_what_they_mean() -> None:
    raw = [frame(1, AgentPoint(0, 500, 1, 3), AgentPoint(0, 0, 4205, -1), AgentPoint(1, 0, 131, 0)), frame(2)]
    body = check_body("readings", unpack(frames_body(SOURCE, raw)))
    assert body["frames"] == raw
    t_ns = (T0_MS + 1000) * 1_000_000
    changes = [
        (SOURCE.schema.columns[change.column].name, change.source_time_ns - t_ns, change.value)
        for change in frames_of(body, SCHEMAS, sealed_ns=0)
    ]
    assert changes == [
        ("power", -500_000_000, 1000.0),
        ("power", 0, 420.5),
        ("temperature", 0, 25.5),
        ("energy", 0, 250_001),
        ("power", 1_000_000_000, 420.0),
        ("energy", 1_000_000_000, 250_002),
    ]


def test_a_register_of_64_bits_is_exact() -> None:
    body = check_body("readings", unpack(frames_body(SOURCE, [frame(1, energy=2**64 - 1)])))
    assert [change.value for change in frames_of(body, SCHEMAS, sealed_ns=0)][-1] == 2**64 - 1


def test_what_an_agent_without_a_clock_says_is_never_good_and_dated_at_its_sealing() -> None:
    raw = frame(1, AgentPoint(0, 500, 1, 0), time_ms=4_000, clock_set=False)
    body = check_body("readings", unpack(frames_body(SOURCE, [raw])))
    changes = list(frames_of(body, SCHEMAS, sealed_ns=10**18))
    assert [change.source_time_ns - 10**18 for change in changes] == [-500_000_000, 0]
    assert {change.quality for change in changes} == {Quality.UNCERTAIN}
    assert {change.status for change in changes} == {"the agent's clock is not set"}


def test_a_bad_point_and_a_missing_register_have_no_value() -> None:
    raw = frame(1, AgentPoint(0, 0, 0, 0, Quality.BAD), AgentPoint(9, 0, 5, 0), energy=None)
    changes = list(frames_of(check_body("readings", unpack(frames_body(SOURCE, [raw]))), SCHEMAS, sealed_ns=0))
    assert [(change.column, change.value, change.quality) for change in changes] == [
        (1, None, Quality.BAD),
        (0, None, Quality.BAD),
    ]


@pytest.mark.parametrize(
    ("key", "wrong"),
    [
        ("agent", 1),
        ("agent", "Press"),
        ("agent", "ä" * 4),
        ("schema", b"short"),
        ("points", []),
        ("points", [[None, "1"]]),
        ("points", [[256, "1", "0"]]),
        ("points", [[True, "1", "0"]]),
        ("points", [[0, "1e5", "0"]]),
        ("points", [[0, 1.0, "0"]]),
        ("frames", []),
        ("frames", b""),
        ("frames", [b""]),
        ("frames", ["text"]),
        ("frames", [frame(), frame()[:-1]]),
        ("frames", [frame(), frame(agent="press-2")]),
    ],
)
def test_a_body_with_frames_of_another_form_is_refused(key: str, wrong: Any) -> None:
    body = unpack(frames_body(SOURCE, [frame()]))
    check_body("readings", body)
    with pytest.raises(TrustError, match=key):
        check_body("readings", unpack(pack({**body, key: wrong})))


def test_what_does_not_fit_the_schema_or_the_agent_is_refused_when_read() -> None:
    body = check_body("readings", unpack(frames_body(SOURCE, [frame()])))
    with pytest.raises(TrustError, match="not in the log"):
        list(frames_of(body, {}, sealed_ns=0))
    with pytest.raises(TrustError, match="do not fit"):
        list(frames_of({**body, "points": body["points"][:2]}, SCHEMAS, sealed_ns=0))
    with pytest.raises(TrustError, match="want only those of 'press-2'"):
        list(frames_of({**body, "agent": "press-2"}, SCHEMAS, sealed_ns=0))


def test_a_body_comes_apart_into_one_for_each_frame() -> None:
    raw = [frame(number) for number in range(1, 4)]
    parts = split_frames(frames_body(SOURCE, raw))
    assert parts == [frames_body(SOURCE, [each]) for each in raw]
    assert split_frames(parts[0]) == []
    assert split_frames(pack({"rows": []})) == []
    assert all(len(each) - MAC_BYTES > 0 for each in raw)
