"""Our BACnet codec against bacpypes3's own encoder and decoder, and against bytes that are neither."""

import struct
from typing import Any

import pytest
from bacpypes3.apdu import (
    APDU,
    APCISequence,
    IAmRequest,
    ReadPropertyACK,
    ReadPropertyMultipleACK,
    ReadPropertyMultipleRequest,
    ReadPropertyRequest,
    SubscribeCOVPropertyRequest,
    SubscribeCOVRequest,
    UnconfirmedCOVNotificationRequest,
    WhoIsRequest,
)
from bacpypes3.basetypes import (
    ErrorType,
    PropertyIdentifier,
    PropertyValue,
    ReadAccessResult,
    ReadAccessResultElement,
    ReadAccessResultElementChoice,
    StatusFlags,
)
from bacpypes3.constructeddata import Any as AnyValue
from bacpypes3.constructeddata import SequenceOf
from bacpypes3.pdu import PDU, Address
from bacpypes3.primitivedata import (
    Boolean,
    CharacterString,
    Double,
    Enumerated,
    Integer,
    Null,
    ObjectIdentifier,
    Real,
    Unsigned,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.codec import bacnet_apdu as apdu
from gateway.codec import bacnet_requests as requests
from gateway.codec import bacnet_tags as tags

FEW = settings(max_examples=60)
HERE = Address("127.0.0.1:47808")

f32 = st.floats(width=32, allow_nan=False)
plain = st.one_of(
    f32.map(lambda v: (Real(v), tags.Plain(tags.REAL, struct.pack(">f", v)))),
    st.floats(allow_nan=False).map(lambda v: (Double(v), tags.Plain(tags.DOUBLE, struct.pack(">d", v)))),
    st.integers(0, 2**32 - 1).map(lambda v: (Unsigned(v), tags.Plain(tags.UNSIGNED, _bytes(v)))),
    st.integers(-(2**31), 2**31 - 1).map(lambda v: (Integer(v), (tags.SIGNED, v))),
    st.integers(0, 65535).map(lambda v: (Enumerated(v), tags.Plain(tags.ENUMERATED, _bytes(v)))),
    st.booleans().map(lambda v: (Boolean(v), tags.Plain(tags.BOOLEAN, bytes([v])))),
    st.text("aé€ 1", max_size=300).map(lambda v: (CharacterString(v), tags.Plain(tags.TEXT, b"\0" + v.encode()))),
    st.lists(st.integers(0, 1), min_size=4, max_size=4).map(
        lambda v: (StatusFlags(v), tags.Plain(tags.BITS, bytes([4, v[0] << 7 | v[1] << 6 | v[2] << 5 | v[3] << 4])))
    ),
    st.just((Null(()), tags.Plain(tags.NULL, b""))),
)
instances = st.integers(0, apdu.MOST_INSTANCE)
properties = st.integers(0, 4_194_303)


def _bytes(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")


def encoded(message: Any) -> bytes:
    """Return the bytes that the library makes of a message."""
    message.pduDestination = HERE
    message.apduInvokeID = 9
    generic = message.encode()
    generic.apduSeg = generic.apduMor = False
    return bytes(generic.encode().pduData)


def decoded(data: bytes) -> Any:
    """Return what the library understands of a message."""
    return APCISequence.decode(APDU.decode(PDU(data, source=HERE)))


def same(got: tags.Plain | apdu.Refusal, want: Any) -> bool:
    if want[0] == tags.SIGNED:
        return isinstance(got, tags.Plain) and int.from_bytes(got.content, "big", signed=True) == want[1]
    return bool(got == want)


@FEW
@given(
    st.lists(
        st.tuples(instances, properties, st.one_of(plain, st.tuples(st.integers(0, 7), st.integers(0, 200)))),
        max_size=30,
    )
)
def test_read_multiple_ack_is_understood_as_the_library_made_it(rows: list[tuple[int, int, Any]]) -> None:
    """Values of every plain type, and errors."""
    results = []
    for instance, property_id, (value, _) in rows:
        choice = (
            ReadAccessResultElementChoice(propertyAccessError=ErrorType(errorClass=value, errorCode=_))
            if isinstance(value, int) and type(value) is int
            else ReadAccessResultElementChoice(propertyValue=AnyValue(value))
        )
        element = ReadAccessResultElement(propertyIdentifier=PropertyIdentifier(property_id), readResult=choice)
        results.append(ReadAccessResult(objectIdentifier=ObjectIdentifier((2, instance)), listOfResults=[element]))
    data = encoded(ReadPropertyMultipleACK(listOfReadAccessResults=results))
    head = apdu.head_of(data)
    assert (head.kind, head.invoke, head.service, head.segment) == (apdu.COMPLEX_ACK, 9, apdu.READ_MULTIPLE, None)
    found = apdu.read_multiple_ack(head.body)
    assert len(found) == len(rows)
    for got, (instance, property_id, (value, want)) in zip(found, rows, strict=True):
        assert got[:3] == (apdu.object_id(2, instance), property_id, None)
        assert got.value == apdu.Refusal(value, want) if type(value) is int else same(got.value, want)


@FEW
@given(instances, properties, plain)
def test_read_ack_is_understood_as_the_library_made_it(instance: int, property_id: int, row: tuple[Any, Any]) -> None:
    """One value."""
    about = ObjectIdentifier((0, instance))
    message = ReadPropertyACK(
        objectIdentifier=about, propertyIdentifier=PropertyIdentifier(property_id), propertyValue=AnyValue(row[0])
    )
    got = apdu.read_ack(apdu.head_of(encoded(message)).body)
    assert got[:3] == (apdu.object_id(0, instance), property_id, None)
    assert same(got.value, row[1])


@FEW
@given(instances, instances, st.integers(1, 2**31 - 1), st.lists(st.tuples(properties, plain), min_size=1, max_size=4))
def test_notification_is_understood_as_the_library_made_it(
    device: int, instance: int, process: int, rows: list[tuple[int, tuple[Any, Any]]]
) -> None:
    """A change of value with its flags."""
    message = UnconfirmedCOVNotificationRequest(
        subscriberProcessIdentifier=process,
        initiatingDeviceIdentifier=ObjectIdentifier((8, device)),
        monitoredObjectIdentifier=ObjectIdentifier((1, instance)),
        timeRemaining=77,
        listOfValues=[
            PropertyValue(propertyIdentifier=PropertyIdentifier(number), value=AnyValue(value))
            for number, (value, _) in rows
        ],
    )
    got = apdu.notification(apdu.head_of(encoded(message)).body)
    assert got[:4] == (process, device, apdu.object_id(1, instance), 77)
    for found, (number, (_, want)) in zip(got.values, rows, strict=True):
        assert found.property_id == number
        assert same(found.value, want)


@FEW
@given(st.lists(st.tuples(instances, st.lists(properties, min_size=1, max_size=5)), min_size=1, max_size=20))
def test_read_multiple_is_what_the_library_understands(wanted: list[tuple[int, list[int]]]) -> None:
    """Objects and properties arrive as they were meant."""
    data = requests.read_multiple_request(
        5, requests.read_multiple([(apdu.object_id(2, instance), numbers) for instance, numbers in wanted])
    )
    message = decoded(data)
    assert isinstance(message, ReadPropertyMultipleRequest)
    assert message.apduInvokeID == 5
    got = [
        (int(spec.objectIdentifier[1]), [int(each.propertyIdentifier) for each in spec.listOfPropertyReferences])
        for spec in message.listOfReadAccessSpecs
    ]
    assert got == wanted


@FEW
@given(instances, properties, st.integers(1, 86_400), st.integers(1, 2**31 - 1), st.one_of(st.none(), st.just(0.5)))
def test_requests_are_what_the_library_understands(
    instance: int, property_id: int, lifetime_s: int, process: int, increment: float | None
) -> None:
    """ReadProperty, SubscribeCOV and SubscribeCOVProperty; never for confirmed notifications."""
    about = apdu.object_id(2, instance)
    read = decoded(requests.read_property(1, about, property_id))
    assert isinstance(read, ReadPropertyRequest)
    assert (read.objectIdentifier[1], int(read.propertyIdentifier)) == (instance, property_id)
    one = decoded(requests.subscribe_cov(1, process, about, lifetime_s))
    assert isinstance(one, SubscribeCOVRequest)
    assert (one.subscriberProcessIdentifier, one.monitoredObjectIdentifier[1], one.lifetime) == (
        process,
        instance,
        lifetime_s,
    )
    assert not one.issueConfirmedNotifications
    other = decoded(
        requests.subscribe_cov_property(1, process, about, lifetime_s, property_id=property_id, increment=increment)
    )
    assert isinstance(other, SubscribeCOVPropertyRequest)
    assert not other.issueConfirmedNotifications
    assert int(other.monitoredPropertyIdentifier.propertyIdentifier) == property_id
    assert other.covIncrement == increment


@FEW
@given(instances, st.integers(50, 1476), st.integers(0, 3), st.integers(0, 65535))
def test_introductions_are_understood_both_ways(instance: int, max_apdu: int, segmentation: int, vendor: int) -> None:
    """I-Am and Who-Is."""
    said = apdu.IAm(instance, max_apdu, segmentation, vendor)
    data = requests.i_am(said)
    theirs = decoded(data)
    assert isinstance(theirs, IAmRequest)
    assert (theirs.iAmDeviceIdentifier[1], theirs.maxAPDULengthAccepted, theirs.vendorID) == (
        instance,
        max_apdu,
        vendor,
    )
    assert apdu.i_am_of(apdu.head_of(encoded(theirs)).body) == said
    asked = decoded(requests.who_is(instance, instance))
    assert isinstance(asked, WhoIsRequest)
    assert asked.deviceInstanceRangeLowLimit == asked.deviceInstanceRangeHighLimit == instance
    assert apdu.who_is_of(apdu.head_of(encoded(asked)).body) == (instance, instance)
    assert apdu.who_is_of(b"") == (0, apdu.MOST_INSTANCE)


DECODERS = [
    apdu.head_of,
    apdu.read_ack,
    apdu.read_multiple_ack,
    apdu.notification,
    apdu.i_am_of,
    apdu.who_is_of,
    apdu.error_of,
]
GOOD = bytes.fromhex("0c000000011e29554e44412000004f296f4e8204004f29674e91004f1f0c000000021e29555e910191205f1f")


@settings(max_examples=100)
@given(
    st.one_of(
        st.binary(max_size=80),
        st.tuples(st.integers(0, len(GOOD) - 1), st.binary(max_size=3)).map(
            lambda cut: GOOD[: cut[0]] + cut[1] + GOOD[cut[0] + len(cut[1]) :]
        ),
    )
)
def test_any_bytes_are_understood_or_refused(data: bytes) -> None:
    """Nothing but ValueError, whatever comes."""
    for decode in DECODERS:
        try:
            decode(data)
        except ValueError:
            continue


@pytest.mark.parametrize("cut", range(1, len(GOOD)))
def test_answer_cut_anywhere_is_refused_or_shorter(cut: int) -> None:
    """A prefix is never read as more than it holds."""
    whole = apdu.read_multiple_ack(GOOD)
    try:
        part = apdu.read_multiple_ack(GOOD[:cut])
    except ValueError:
        return
    assert part == whole[: len(part)]
    assert len(part) < len(whole)


def test_lists_and_structures_are_skipped_and_their_depth_is_bounded() -> None:
    """A value that is not one plain value is named as such; one that nests without end is refused."""
    inside = SequenceOf(Unsigned)([1, 2, 3])
    message = ReadPropertyACK(
        objectIdentifier=ObjectIdentifier((0, 1)),
        propertyIdentifier=PropertyIdentifier(76),
        propertyValue=AnyValue(inside),
    )
    assert apdu.read_ack(apdu.head_of(encoded(message)).body).value == tags.Plain(tags.OTHER, b"")
    head = bytes.fromhex("0c00000001190b3e")
    assert apdu.read_ack(head + b"\x0e" * 10 + b"\x0f" * 10 + b"\x3f").value == tags.Plain(tags.OTHER, b"")
    with pytest.raises(ValueError, match="too deep"):
        apdu.read_ack(head + b"\x0e" * 500 + b"\x0f" * 500 + b"\x3f")
    with pytest.raises(ValueError, match="closing tag of another"):
        apdu.read_ack(head + b"\x0e\x1f\x3f")


def test_only_reads_and_subscriptions_can_be_built() -> None:
    """Read-only by construction: all that the module of requests makes, and the service of each."""
    made = {
        requests.read_property(1, 2, 3)[3],
        requests.read_multiple_request(1, b"")[3],
        requests.subscribe_cov(1, 2, 3, 4)[3],
        requests.subscribe_cov_property(1, 2, 3, 4, property_id=5, increment=None)[3],
    }
    assert made == {12, 14, 5, 28}
    assert {requests.who_is()[:2], requests.i_am(apdu.IAm(1, 2, 3, 4))[:2]} == {b"\x10\x08", b"\x10\x00"}
    others = {"abort", "reject", "segment_ack", "read_multiple", "object_id", "annotations"}
    known = {"read_property", "read_multiple_request", "subscribe_cov", "subscribe_cov_property", "who_is", "i_am"}
    assert {name for name in vars(requests) if name.islower() and not name.startswith("_")} == (
        known | others | {"struct"}
    )
