"""Frames of the unix sockets and the `log` payload: however they arrive, and whatever a peer may send instead."""

import contextlib
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.codec.frames import (
    MAX_FRAME,
    MAX_LOG_MESSAGE,
    FrameReader,
    LeafHash,
    LogMessage,
    Message,
    pack_frame,
    pack_leaves,
    pack_log,
    unpack_leaves,
    unpack_log,
)
from gateway.codec.leaves import MAX_LEAF
from gateway.errors import TrustError

BOOT = bytes(range(8))
HASH = bytes(range(32))
MESSAGES: list[Message] = [
    ["hello", 1, BOOT],
    ["welcome", 0],
    ["put", 2**63 - 1, "readings", b"\x81\xa4rows\x90"],
    ["ack", 7],
    ["refused", 8, "malformed \N{EM DASH} see docs/log.md"],
    ["full", 9],
    ["hello", 1],
    ["position", 3, 4],
    ["read", 0, 1_000_000],
    ["chunk", 3, [b"leaf", [HASH], b"other"], b"a note\n"],
    ["chunk", 3, [], b"a note\n"],
    ["idle"],
    ["receipt", b"a note\n"],
    ["receipted", 4],
    ["error", ""],
]
STREAM = b"".join(map(pack_frame, MESSAGES))


def framed(packed: bytes) -> bytes:
    return len(packed).to_bytes(4, "big") + packed


# --- frames ---


def test_a_frame_is_its_length_in_four_bytes_and_msgpack() -> None:
    """The bytes of docs/wire.md, written by hand."""
    assert pack_frame(["ack", 7]) == b"\x00\x00\x00\x06" + b"\x92" + b"\xa3ack" + b"\x07"
    hello = b"\x93\xa5hello\x01\xc4\x08" + BOOT
    assert pack_frame(["hello", 1, BOOT]) == b"\x00\x00\x00\x12" + hello


def test_each_message_of_docs_wire_arrives_as_it_was_sent() -> None:
    assert FrameReader().feed(STREAM) == MESSAGES


def test_frames_split_at_every_byte_arrive_all_the_same() -> None:
    """A stream has no message bounds: whatever read returns, the messages are the same, and come as early as can be."""
    for cut in range(len(STREAM) + 1):
        reader = FrameReader()
        first = reader.feed(STREAM[:cut])
        assert first == FrameReader().feed(STREAM[:cut])
        assert first + reader.feed(STREAM[cut:]) == MESSAGES
    reader = FrameReader()
    assert [message for byte in STREAM for message in reader.feed(bytes([byte]))] == MESSAGES


def test_a_message_is_given_with_its_last_byte_and_not_before() -> None:
    reader, frame = FrameReader(), pack_frame(MESSAGES[2])
    for byte in frame[:-1]:
        assert reader.feed(bytes([byte])) == []
    assert reader.feed(frame[-1:]) == [MESSAGES[2]]
    assert reader.feed(b"") == []


@pytest.mark.parametrize("length", [0, MAX_FRAME + 1, 2**31, 2**32 - 1])
def test_a_frame_of_a_forbidden_length_is_refused_by_its_length_alone(length: int) -> None:
    """Nothing of it is waited for: a peer cannot have us hold what we will refuse."""
    with pytest.raises(TrustError, match=f"frame: got {length} bytes, want 1..{MAX_FRAME}"):
        FrameReader().feed(length.to_bytes(4, "big"))


def test_a_frame_of_the_greatest_length_arrives() -> None:
    head = msgpack.packb(["put", 1, "readings"])[1:]
    body = bytes(MAX_FRAME - 1 - len(head) - 5)
    message = ["put", 1, "readings", body]
    frame = pack_frame(message)
    assert len(frame) == 4 + MAX_FRAME
    reader = FrameReader()
    for start in range(0, len(frame) - 1, 1 << 20):
        assert reader.feed(frame[start : min(start + (1 << 20), len(frame) - 1)]) == []
    assert reader.feed(frame[-1:]) == [message]


@pytest.mark.parametrize(
    "packed",
    [
        b"\xc0",
        b"\x80",
        b"\x81\xa3ack\x07",
        b"\xa3ack",
        b"\x90",
        b"\x91\xc4\x03ack",
        b"\x92\x07\xa3ack",
        b"\x92\xc0\x07",
        b"\x91\x91\xa3ack",
        b"\x92\xa3ack",
        b"\x92\xa3ack\x07\x07",
        b"\x92\xa3ack\xc1",
        b"\x91\xa1\xff",
        b"\x92\xa3ack\xc2",
        b"\x92\xa3ack\xc3",
        b"\x92\xa3ack\xc0",
        b"\x92\xa3ack\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00",
        b"\x92\xa3ack\x80",
        b"\x92\xa3ack\x81\xa1a\x01",
        b"\x92\xa3ack\xd4\x05\x00",
        b"\x92\xa3ack\xd6\xff\x00\x00\x00\x01",
        b"\x92\xa5chunk\x91\xc0",
        b"\x92\xa5chunk\x91\xa1a",
        b"\x92\xa5chunk\x91\x90",
        b"\x92\xa5chunk\x91\x92\xc4\x00\xc4\x00",
        b"\x92\xa5chunk\x91\x91\x90",
        b"\x92\xa3ack" + b"\x91" * 900 + b"\xc0",
        b"\x92\xa3ack" + b"\x91" * 1021 + b"\xc0",
        b"\x91" * 1024 + b"\xc0",
        b"\x91" * 100_000 + b"\xc0",
    ],
    ids=lambda packed: packed[:16].hex(),
)
def test_a_frame_of_another_shape_is_refused(packed: bytes) -> None:
    """Only whole numbers, text, bytes and leaves: once, `true` passed for sequence number 1 and was sealed as such."""
    with pytest.raises(TrustError) as caught:
        FrameReader().feed(framed(packed))
    assert len(str(caught.value)) < 200
    reader = FrameReader()
    assert reader.feed(STREAM) == MESSAGES
    with pytest.raises(TrustError):
        reader.feed(framed(packed))


def test_a_stream_that_was_refused_stays_refused() -> None:
    """After nonsense there is no telling where a frame starts."""
    reader = FrameReader()
    for more in (framed(b"\xc0"), b"", STREAM):
        with pytest.raises(TrustError, match="frame: want an array"):
            reader.feed(more)


ITEMS = (
    st.integers(-(2**63), 2**64 - 1)
    | st.text(max_size=5)
    | st.binary(max_size=40)
    | st.lists(st.binary(max_size=5) | st.lists(st.binary(max_size=5), min_size=1, max_size=1), max_size=3)
)
SENT = st.builds(lambda name, items: [name, *items], st.text(max_size=5), st.lists(ITEMS, max_size=4))


@given(st.lists(SENT, max_size=4), st.lists(st.integers(1, 20), min_size=1, max_size=6))
def test_any_messages_in_any_pieces_arrive_in_order(sent: list[Message], sizes: list[int]) -> None:
    stream = b"".join(map(pack_frame, sent))
    arrived: list[Message] = []
    reader, place = FrameReader(), 0
    while place < len(stream):
        size = sizes[len(arrived) % len(sizes)]
        arrived += reader.feed(stream[place : place + size])
        place += size
    assert arrived == sent


@given(st.lists(st.binary(max_size=60), max_size=5))
def test_any_bytes_are_messages_or_refused(pieces: list[bytes]) -> None:
    """Nothing but TrustError leaves the reader, and the pieces make no difference."""

    def read(fed: list[bytes]) -> tuple[list[Message], bool]:
        messages: list[Message] = []
        reader = FrameReader()
        try:
            for piece in fed:
                messages += reader.feed(piece)
        except TrustError:
            return messages, True
        return messages, False

    bytewise = read([bytes([byte]) for byte in b"".join(pieces)])
    messages, refused = read(pieces)
    assert refused == bytewise[1]
    assert messages == bytewise[0][: len(messages)]
    if not refused:
        assert messages == bytewise[0]


@given(st.data())
def test_a_damaged_stream_gives_messages_or_is_refused(data: st.DataObject) -> None:
    """Bytes overwritten in real frames."""
    stream = bytearray(STREAM)
    for place in data.draw(st.lists(st.integers(0, len(stream) - 1), min_size=1, max_size=3)):
        stream[place] = data.draw(st.integers(0, 255))
    with contextlib.suppress(TrustError):
        for message in FrameReader().feed(bytes(stream)):
            assert type(message[0]) is str
            assert {type(item) for item in message} <= {int, str, bytes, list}


# --- leaves and the log payload ---

LOG = LogMessage(first=7, leaves=(b"leaf", LeafHash(HASH), HASH), checkpoint="note \N{EM DASH} x\n".encode())


def test_a_log_message_is_the_map_of_docs_wire() -> None:
    """The bytes, written by hand: a hash that stands for a dropped body is told from a leaf by its array."""
    assert pack_log(LOG) == (
        b"\x84"
        b"\xa1v\x01"
        b"\xa5first\x07"
        b"\xa6leaves\x93\xc4\x04leaf\x91\xc4\x20"
        + HASH
        + b"\xc4\x20"
        + HASH
        + b"\xaacheckpoint\xabnote \xe2\x80\x94 x\n"
    )


def test_a_log_message_comes_out_as_it_went_in() -> None:
    found = unpack_log(pack_log(LOG))
    assert found == LOG
    assert [type(leaf) for leaf in found.leaves] == [bytes, LeafHash, bytes]
    empty = LogMessage(first=0, leaves=(), checkpoint=b"")
    assert unpack_log(pack_log(empty)) == empty
    announcing = LogMessage(first=7, leaves=(b"leaf",), checkpoint=b"note", epoch=b"the body of an epoch leaf")
    assert unpack_log(pack_log(announcing)) == announcing
    assert (announcing.end, announcing.epoch) == (8, b"the body of an epoch leaf")


GOOD: dict[str, Any] = {"v": 1, "first": 7, "leaves": [b"leaf", [HASH]], "checkpoint": "note"}


@pytest.mark.parametrize(
    "fields",
    [
        None,
        [],
        {},
        1,
        {key: GOOD[key] for key in list(GOOD)[:3]},
        {key: GOOD[key] for key in list(GOOD)[1:]},
        {key: GOOD[key] for key in reversed(GOOD)},
        {**GOOD, "more": 1},
        {**GOOD, "v": 2},
        {**GOOD, "v": True},
        {**GOOD, "v": 1.0},
        {**GOOD, "v": "1"},
        {**GOOD, "first": -1},
        {**GOOD, "first": True},
        {**GOOD, "first": 2**63},
        {**GOOD, "first": 7.0},
        {**GOOD, "first": None},
        {**GOOD, "leaves": None},
        {**GOOD, "leaves": {}},
        {**GOOD, "leaves": b"leaf"},
        {**GOOD, "leaves": "leaf"},
        {**GOOD, "leaves": [b""]},
        {**GOOD, "leaves": ["leaf"]},
        {**GOOD, "leaves": [None]},
        {**GOOD, "leaves": [7]},
        {**GOOD, "leaves": [[]]},
        {**GOOD, "leaves": [[HASH[:31]]]},
        {**GOOD, "leaves": [[HASH + b"x"]]},
        {**GOOD, "leaves": [[HASH, HASH]]},
        {**GOOD, "leaves": [["x" * 32]]},
        {**GOOD, "leaves": [[[HASH]]]},
        {**GOOD, "leaves": [b"x" * (MAX_LEAF + 1)]},
        {**GOOD, "checkpoint": b"note"},
        {**GOOD, "checkpoint": None},
        {**GOOD, "checkpoint": ["note"]},
        {**GOOD, "epoch": b""},
        {**GOOD, "epoch": None},
        {**GOOD, "epoch": "body"},
        {**GOOD, "epoch": {"epoch": 1}},
        {**GOOD, "epoch": bytes(MAX_LEAF + 1)},
        {**GOOD, "epoch": b"body", "more": 1},
        {"epoch": b"body", **GOOD},
    ],
    ids=lambda fields: repr(fields)[:60],
)
def test_a_log_message_of_another_shape_is_refused(fields: Any) -> None:
    assert unpack_log(msgpack.packb(GOOD)).first == 7
    with pytest.raises(TrustError) as caught:
        unpack_log(msgpack.packb(fields))
    assert len(str(caught.value)) < 200


def test_a_log_message_nested_too_deep_to_print_is_refused_and_not_printed() -> None:
    """Once, the text of the refusal itself failed, with an error that would have stopped the ledger."""
    for levels in (900, 1000, 1020, 5000):
        nested = b"\x91" * levels + b"\xc0"
        for payload in (
            nested,
            b"\x84\xa1v" + nested + b"\xa5first\x00\xa6leaves\x90\xaacheckpoint\xa0",
            b"\x84\xa1v\x01\xa5first" + nested + b"\xa6leaves\x90\xaacheckpoint\xa0",
            b"\x84\xa1v\x01\xa5first\x00\xa6leaves" + nested + b"\xaacheckpoint\xa0",
        ):
            with pytest.raises(TrustError):
                unpack_log(payload)


def test_a_log_message_with_a_key_twice_trailing_bytes_or_an_extension_is_refused() -> None:
    good = msgpack.packb(GOOD)
    for payload in (
        b"\x85" + good[1:] + b"\xa1v\x01",
        good + b"\0",
        good[:-1],
        b"",
        good.replace(b"\xa4note", b"\xd4\x05\x00"),
        good.replace(b"\x07", b"\xd6\xff\x00\x00\x00\x01", 1),
    ):
        with pytest.raises(TrustError):
            unpack_log(payload)


def test_a_log_message_of_more_than_a_mebibyte_is_refused_unread() -> None:
    leaf, many = b"x" * 60_000, MAX_LOG_MESSAGE // 60_000
    full = pack_log(LogMessage(first=0, leaves=(leaf,) * many, checkpoint=b""))
    room = MAX_LOG_MESSAGE - len(full) - 3
    for more, fits in ((room, True), (room + 1, False)):
        payload = pack_log(LogMessage(first=0, leaves=(*(leaf,) * many, b"x" * more), checkpoint=b""))
        assert (len(payload) == MAX_LOG_MESSAGE) == fits
        if fits:
            assert len(unpack_log(payload).leaves) == many + 1
            continue
        with pytest.raises(TrustError, match="want at most 1048576"):
            unpack_log(payload)


LEAVES = st.lists(
    st.binary(min_size=1, max_size=40) | st.binary(min_size=32, max_size=32).map(LeafHash), max_size=5
).map(tuple)


@given(st.integers(0, 2**63 - 1), LEAVES, st.text(max_size=20))
def test_any_log_message_comes_out_as_it_went_in(
    first: int, leaves: tuple[bytes | LeafHash, ...], checkpoint: str
) -> None:
    message = LogMessage(first=first, leaves=leaves, checkpoint=checkpoint.encode())
    found = unpack_log(pack_log(message))
    assert found == message
    assert [type(leaf) for leaf in found.leaves] == [type(leaf) for leaf in leaves]
    assert unpack_leaves(pack_leaves(leaves)) == leaves


@given(st.binary(max_size=80), st.data())
def test_any_payload_is_a_log_message_or_refused(payload: bytes, data: st.DataObject) -> None:
    """Random bytes, and real ones with a byte changed."""
    with contextlib.suppress(TrustError):
        unpack_log(payload)
    damaged = bytearray(pack_log(LOG))
    damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(TrustError):
        assert isinstance(unpack_log(bytes(damaged)), LogMessage)
