"""OPC UA's binary encoding as we cut it: the same as asyncua says, and bounded for whatever comes."""

import base64
import struct
import time
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import asyncua.ua
import pytest
from asyncua.ua.ua_binary import struct_to_binary
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.drivers.opcua_binary import ARRAY, MALFORMED, Cut
from gateway.drivers.opcua_replies import (
    MOST_CHANGES,
    ServiceFaultError,
    created_items,
    published,
    read_results,
    subscribed,
)
from gateway.drivers.opcua_values import Node, OpcuaPoint, status_text, time_ns
from gateway.drivers.opcua_wire import MOST_MESSAGE
from gateway.errors import ConfigError
from gateway.model import Kind, Quality

ua: Any = asyncua.ua  # its types say more than its values do

V = ua.VariantType
T0 = datetime(2026, 2, 3, 4, 5, 6, 700_000, tzinfo=UTC)
T0_NS = int(T0.timestamp()) * 10**9 + 700_000_000
VARIANTS: list[tuple[Any, Any, Any]] = [
    (True, V.Boolean, True),
    (-5, V.SByte, -5),
    (200, V.Byte, 200),
    (-300, V.Int16, -300),
    (60_000, V.UInt16, 60_000),
    (-70_000, V.Int32, -70_000),
    (4_000_000_000, V.UInt32, 4_000_000_000),
    (-(2**62), V.Int64, -(2**62)),
    (2**63 + 5, V.UInt64, 2**63 + 5),
    (1.5, V.Float, 1.5),
    (-2.25e300, V.Double, -2.25e300),
    ("grün", V.String, "grün"),
    ("", V.String, ""),
    (None, V.String, None),
    (T0, V.DateTime, ...),
    (uuid.UUID(int=7), V.Guid, None),
    (b"bytes", V.ByteString, None),
    (ua.XmlElement("<a/>"), V.XmlElement, None),
    (ua.NodeId("text", 2), V.NodeId, None),
    (ua.NodeId(uuid.UUID(int=9), 2), V.NodeId, None),
    (ua.ExpandedNodeId("text", 2, NamespaceUri="urn:x", ServerIndex=3), V.ExpandedNodeId, None),
    (ua.StatusCode(ua.UInt32(0x80340000)), V.StatusCode, 0x80340000),
    (ua.QualifiedName("name", 3), V.QualifiedName, None),
    (ua.LocalizedText("text", "en"), V.LocalizedText, "text"),
    (ua.Argument("a"), V.ExtensionObject, None),
    (ua.DataValue(ua.Variant(3, V.Int32)), V.DataValue, None),
    ([1.0, 2.0, 3.0], V.Double, None),
    (["a", "b"], V.String, ("a", "b")),
    ([b"a", b"bcd"], V.ByteString, None),
    ([[1, 2], [3, 4]], V.Int16, None),
    ([ua.Variant(1, V.Int16), ua.Variant("x", V.String)], V.Variant, None),
    ([], V.Double, None),
]
STAMPS: list[dict[str, Any]] = [
    {},
    {"SourceTimestamp": T0},
    {"SourceTimestamp": T0, "ServerTimestamp": T0},
    {"SourceTimestamp": T0, "SourcePicoseconds": ua.UInt16(7)},
    {"ServerTimestamp": T0, "ServerPicoseconds": ua.UInt16(9)},
]


def header(response: Any) -> Any:
    response.ResponseHeader.Timestamp = T0
    return response


def read_reply(values: list[Any]) -> bytes:
    response = header(ua.ReadResponse())
    response.Results = values
    return struct_to_binary(response)


def reply_with(value: bytes) -> bytes:
    """Return a ReadResponse with one value of these bytes."""
    return read_reply([])[:-8] + struct.pack("<I", 1) + value + b"\xff\xff\xff\xff"


def publish_reply(changes: list[tuple[int, Any]], *more: Any) -> bytes:
    response = header(ua.PublishResponse())
    response.Parameters.SubscriptionId = 5
    response.Parameters.AvailableSequenceNumbers = [ua.UInt32(1), ua.UInt32(2)]
    response.Parameters.NotificationMessage.SequenceNumber = 2
    items = [ua.MonitoredItemNotification(ua.UInt32(handle), value) for handle, value in changes]
    notes = [ua.DataChangeNotification(MonitoredItems=items)] if changes else []
    response.Parameters.NotificationMessage.NotificationData = [*notes, *more]
    return struct_to_binary(response)


@pytest.mark.parametrize("stamps", STAMPS, ids=["bare", "source", "both", "pico", "server"])
@pytest.mark.parametrize("code", [None, 0x40900000])
def test_values_of_every_type_are_cut_as_asyncua_wrote_them(code: int | None, stamps: dict[str, Any]) -> None:
    """Each between others, so that a length that is wrong shows."""
    status = {} if code is None else {"StatusCode": ua.StatusCode(ua.UInt32(code))}
    values = [ua.DataValue(ua.Variant(value, kind), **status, **stamps) for value, kind, _ in VARIANTS]
    cuts = read_results(read_reply(values), len(values))
    _, _, notices, _ = published(publish_reply(list(enumerate(values))))
    for found in (cuts, [cut for _, cut in notices]):
        for (value, kind, wanted), cut in zip(VARIANTS, found, strict=True):
            assert cut.kind & 0x3F == kind.value
            assert bool(cut.kind & ARRAY) == isinstance(value, list)
            assert wanted is ... or cut.value == wanted
            assert cut.code == (code or 0)
            assert time_ns(cut, 42) == (T0_NS if stamps else 42)
    assert [handle for handle, _ in notices] == list(range(len(values)))


def test_a_value_without_anything_and_a_null_are_none() -> None:
    cuts = read_results(read_reply([ua.DataValue(ua.Variant(None)), ua.DataValue()]), 2)
    node = Node(OpcuaPoint(name="a", node="i=1"))
    assert [node.tell(cut) for cut in cuts] == [(None, Quality.BAD, "a: holds no value")] * 2


def test_notices_tell_sequences_keep_alives_and_the_end_of_a_subscription() -> None:
    value = ua.DataValue(ua.Variant(1.0, V.Double))
    assert published(publish_reply([(7, value)]))[:2] == (5, 2)
    assert published(publish_reply([])).sequence is None
    ended = ua.StatusChangeNotification(Status=ua.StatusCode(ua.UInt32(0x800A0000)))
    assert published(publish_reply([(7, value)], ended)).status == 0x800A0000


def test_a_service_fault_is_its_code() -> None:
    fault = header(ua.ServiceFault())
    fault.ResponseHeader.ServiceResult = ua.StatusCode(ua.UInt32(0x80250000))
    for parse in (partial(read_results, count=1), published, subscribed, partial(created_items, count=1)):
        with pytest.raises(ServiceFaultError) as caught:
            parse(struct_to_binary(fault))
        assert caught.value.code == 0x80250000


def test_a_reply_to_something_else_is_malformed() -> None:
    with pytest.raises(MALFORMED, match="got 1 values, want 2"):
        read_results(read_reply([ua.DataValue()]), 2)
    with pytest.raises(MALFORMED, match="type 634"):
        published(read_reply([ua.DataValue()]))


def test_five_bytes_make_no_list_of_two_thousand_million_nothings() -> None:
    """Asyncua would run out of memory."""
    whole = read_reply([ua.DataValue(ua.Variant([1], V.Int32))])
    at = whole.index(b"\x03\x86\x01\x00\x00\x00")  # a value, an array of Int32, of one
    for kind in (0x80, 0x81, 0x8C, 0x97, 0x98):
        bomb = whole[: at + 1] + bytes([kind]) + b"\xff\xff\xff\x7f" + whole[at + 6 :]
        started = time.process_time()
        with pytest.raises(MALFORMED):
            read_results(bomb, 1)
        assert time.process_time() - started < 0.5


def test_times_stand_in_the_order_of_the_specification() -> None:
    """Part 6, 5.2.2.17: asyncua, which writes the source's picoseconds behind the server's time, is no witness."""
    ticks = 116_444_736_000_000_000
    value = struct.pack("<BBhqHqH", 0x3D, V.Int16.value, -7, ticks + 5, 1, ticks + 9, 2)
    (found,) = read_results(reply_with(value), 1)
    assert (found.value, found.source - ticks, found.server - ticks) == (-7, 5, 9)


ROOM = MOST_MESSAGE - 200
BOMBS = {
    "empty DataValues": b"\x97" + struct.pack("<I", ROOM) + bytes(ROOM),
    "Variants in Variants": b"\x18" * ROOM,
    "DataValues in DataValues": b"\x17\x01" * (ROOM // 2),
    "arrays in arrays": b"\x98\x01\x00\x00\x00" * (ROOM // 5),
}


@pytest.mark.parametrize("body", BOMBS.values(), ids=BOMBS.keys())
def test_the_largest_message_takes_no_second(body: bytes) -> None:
    whole = read_reply([ua.DataValue(ua.Variant([1], V.Int32))])
    at = whole.index(b"\x03\x86\x01\x00\x00\x00")
    started = time.process_time()
    with pytest.raises(MALFORMED):
        read_results(whole[: at + 1] + body, 1)
    assert time.process_time() - started < 1.0


def test_work_that_is_spread_over_many_changes_is_bounded_too() -> None:
    """Each of them has an array of 400 empty DataValues."""
    change = struct.pack("<IBBI", 1, 1, 0x97, 400) + bytes(400)
    body = struct.pack("<I", 9000) + change * 9000 + b"\xff\xff\xff\xff"
    extension = b"\x01\x00\x2b\x03\x01" + struct.pack("<I", len(body)) + body
    whole = publish_reply([])
    at = whole.rindex(bytes(4), 0, -8)  # no notification data, no results, no diagnostics
    started = time.process_time()
    with pytest.raises(MALFORMED, match="parts"):
        published(whole[:at] + struct.pack("<I", 1) + extension + whole[at + 4 :])
    assert time.process_time() - started < 1.0


def test_more_changes_than_asked_for_are_refused() -> None:
    value = ua.DataValue(ua.Variant(True, V.Boolean))
    reply = publish_reply([(i, value) for i in range(MOST_CHANGES + 1)])
    with pytest.raises(MALFORMED, match="at once"):
        published(reply)


SEEDS = [
    read_reply([ua.DataValue(ua.Variant(value, kind), SourceTimestamp=T0) for value, kind, _ in VARIANTS]),
    publish_reply([(1, ua.DataValue(ua.Variant(1.0, V.Double))), (2, ua.DataValue(ua.Variant("x", V.String)))]),
]


@settings(max_examples=100)
@given(st.sampled_from(SEEDS), st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6), st.data())
def test_no_bytes_crash_what_cuts_replies(seed: bytes, flips: list[tuple[int, int]], data: st.DataObject) -> None:
    broken = bytearray(seed)
    for at, byte in flips:
        broken[at % len(broken)] = byte
    reply = bytes(broken[: data.draw(st.integers(0, len(broken)))])
    for parse in (
        lambda raw: read_results(raw, len(VARIANTS)),
        published,
        subscribed,
        lambda raw: created_items(raw, 2),
    ):
        try:
            parse(reply)
        except (*MALFORMED, ServiceFaultError):
            pass


@given(st.binary(max_size=300))
@settings(max_examples=100)
def test_no_random_value_crashes_or_becomes_a_wrong_number(raw: bytes) -> None:
    nodes = [
        Node(OpcuaPoint(name="a", node="i=1", store=store)) for store in ("f32", "f64", "i64", "u64", "bool", "s32")
    ]
    try:
        (cut,) = read_results(reply_with(raw), 1)
    except (*MALFORMED, ServiceFaultError):
        return
    for node in nodes:
        value, quality, status = node.tell(cut)
        assert (value is None) == (quality is Quality.BAD)
        assert quality is Quality.GOOD or status


def cut(value: Any, kind: Any = V.Double) -> Cut:
    return Cut(kind.value, value, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("scale", "offset", "value", "kind", "wanted"),
    [
        ("0.1", "0", 3, V.Int16, 0.3),
        ("0.001", "0", 123_456, V.Int32, 123.456),
        ("1", "-40", 21.5, V.Double, -18.5),
        ("0.1", "0", 3.0, V.Double, 0.3),
        ("-2", "1", 5, V.Byte, -9.0),
    ],
)
def test_scales_are_exact_and_rounded_once(scale: str, offset: str, value: Any, kind: Any, wanted: float) -> None:
    node = Node(OpcuaPoint(name="a", node="i=1", scale=Decimal(scale), offset=Decimal(offset)))
    assert node.tell(cut(value, kind)) == (wanted, Quality.GOOD, "")


def test_what_overflows_a_store_is_bad() -> None:
    for store, value, kind in (
        ("f32", 1e300, V.Double),
        ("u64", -1, V.Int32),
        ("i64", 2**63, V.UInt64),
        ("f64", float("inf"), V.Double),
        ("s32", "x" * 33, V.String),
        ("s32", "a\0b", V.String),
    ):
        value_, quality, status = Node(OpcuaPoint(name="a", node="i=1", store=store)).tell(cut(value, kind))
        assert (value_, quality) == (None, Quality.BAD)
        assert status.startswith("a: ")


def test_a_float_counter_is_exact_and_one_with_too_many_digits_is_refused() -> None:
    node = Node(OpcuaPoint(name="a", node="i=1", kind=Kind.COUNTER, scale=Decimal("0.001")))
    assert node.exact(cut(0.5)) == Decimal("0.0005")
    assert node.exact(cut(1e22)) == 10**19
    with pytest.raises(ValueError, match="too many digits"):
        node.exact(cut(5e-324))
    with pytest.raises(ValueError, match="is nan"):
        node.exact(cut(float("nan")))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("nsu=urn:x;s=a;b=c", ua.NodeId("a;b=c", 3)),
        ("nsu=urn:x;i=77", ua.NodeId(77, 3)),
        ("nsu=urn:x;g=00000000-0000-0000-0000-000000000007", ua.NodeId(uuid.UUID(int=7), 3)),
        (f"nsu=urn:x;b={base64.b64encode(b'ab').decode()}", ua.NodeId(b"ab", 3)),
    ],
)
def test_nodes_are_named_by_uri(text: str, wanted: Any) -> None:
    node = Node(OpcuaPoint(name="a", node=text))
    assert (node.uri, node.node_id(3)) == ("urn:x", wanted)


@pytest.mark.parametrize("text", ["ns=2;s=a", "i=4294967296", "i=-1", "g=x", "b=?", "a"])
def test_a_node_that_cannot_be_is_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError, match=r"points.a.node: got"):
        Node(OpcuaPoint(name="a", node=text))


def test_status_codes_have_their_names_and_numbers() -> None:
    assert status_text(0x80340000) == "BadNodeIdUnknown (0x80340000)"
    assert status_text(0x00000480) == "Good (0x00000480)"
    assert status_text(0x8FFF0000) == "Bad (0x8FFF0000)"


def test_times_beyond_reason_fall_back() -> None:
    assert time_ns(Cut(11, 1.0, 0, 0, 0, 0, 0), 42) == 42
    assert time_ns(Cut(11, 1.0, 0, 2**63 - 1, 0, 0, 0), 42) == 42
    assert time_ns(Cut(11, 1.0, 0, -5, 116_444_736_000_000_001, 0, 0), 42) == 100
