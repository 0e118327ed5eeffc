"""What one address said on a wire, read without code of ours: Modbus functions, BACnet services, OPC UA requests."""

from collections.abc import Iterator
from dataclasses import dataclass, field

_IPV4, _TCP, _UDP = 0x0800, 6, 17

MODBUS_READS = {1, 2, 3, 4}
BACNET_READS = {
    ("confirmed", 5): "SubscribeCOV",
    ("confirmed", 12): "ReadProperty",
    ("confirmed", 14): "ReadPropertyMultiple",
    ("unconfirmed", 0): "I-Am",
    ("unconfirmed", 8): "Who-Is",
}
"""ASHRAE 135, clause 21: what a reader needs to say by itself. All that writes has another number."""
OPCUA_READS = {
    422: "FindServers",
    428: "GetEndpoints",
    446: "OpenSecureChannel",
    452: "CloseSecureChannel",
    461: "CreateSession",
    467: "ActivateSession",
    473: "CloseSession",
    527: "Browse",
    533: "BrowseNext",
    554: "TranslateBrowsePathsToNodeIds",
    631: "Read",
    751: "CreateMonitoredItems",
    781: "DeleteMonitoredItems",
    787: "CreateSubscription",
    793: "ModifySubscription",
    799: "SetPublishingMode",
    826: "Publish",
    832: "Republish",
    847: "DeleteSubscriptions",
}
"""OPC 10000-6, the encoding ids of requests. Write is 673, Call 712, HistoryUpdate 700, AddNodes 488."""


@dataclass(slots=True)
class Tap:
    """Keeps what one address sends. streams: by the other side's TCP port; datagrams: by its UDP port."""

    address: bytes
    packets: int = 0
    datagrams: dict[int, list[bytes]] = field(default_factory=dict)
    _segments: dict[tuple[int, int], dict[int, bytes]] = field(default_factory=dict)

    def hear(self, frame: bytes) -> None:
        """Keep an Ethernet frame's payload, if it is from the address."""
        if int.from_bytes(frame[12:14], "big") != _IPV4 or frame[26:30] != self.address:
            return
        self.packets += 1
        length = (frame[14] & 0x0F) * 4
        packet = frame[14 + length : 14 + int.from_bytes(frame[16:18], "big")]
        ports = int.from_bytes(packet[0:2], "big"), int.from_bytes(packet[2:4], "big")
        if frame[23] == _UDP:
            self.datagrams.setdefault(ports[1], []).append(packet[8:])
        elif frame[23] == _TCP and (payload := packet[(packet[12] >> 4) * 4 :]):
            self._segments.setdefault(ports, {})[int.from_bytes(packet[4:8], "big")] = payload

    def streams(self, port: int) -> Iterator[bytes]:
        """Yield what was sent on each connection to a port, put together. Fails where a segment was not heard."""
        for (_, to), segments in self._segments.items():
            if to != port:
                continue
            stream, at = b"", min(segments)
            for start, payload in sorted(segments.items()):
                if start + len(payload) <= at:
                    continue  # sent again
                assert start <= at, "the tap missed a segment"
                stream += payload[at - start :]
                at = start + len(payload)
            yield stream


def modbus_functions(stream: bytes) -> Iterator[int]:
    """Yield the function code of each Modbus/TCP request."""
    at = 0
    while at + 8 <= len(stream):
        assert stream[at + 2 : at + 4] == b"\0\0", "not Modbus/TCP"
        yield stream[at + 7]
        at += 6 + int.from_bytes(stream[at + 4 : at + 6], "big")


def bacnet_service(datagram: bytes) -> tuple[str, int]:
    """Return the kind of APDU and its service in a BACnet/IP datagram; ("bvll", function) for what holds none."""
    assert datagram[0] == 0x81
    if datagram[1] not in {0x04, 0x09, 0x0A, 0x0B}:
        return "bvll", datagram[1]
    npdu = datagram[10:] if datagram[1] == 0x04 else datagram[4:]
    control, at = npdu[1], 2
    if control & 0x20:
        at += 3 + npdu[at + 2]
    if control & 0x08:
        at += 3 + npdu[at + 2]
    if control & 0x20:
        at += 1
    if control & 0x80:
        return "network", npdu[at]
    apdu = npdu[at:]
    kind = apdu[0] >> 4
    if kind == 0:
        return "confirmed", apdu[5 if apdu[0] & 0x08 else 3]
    return ("unconfirmed", apdu[1]) if kind == 1 else ("answer", kind)


def opcua_requests(stream: bytes) -> Iterator[int]:
    """Yield the type of each OPC UA request in a stream whose messages are not encrypted."""
    at = 0
    while at + 8 <= len(stream):
        kind, final = stream[at : at + 3], stream[at + 3 : at + 4]
        size = int.from_bytes(stream[at + 4 : at + 8], "little")
        assert kind in {b"HEL", b"OPN", b"MSG", b"CLO"}, f"not OPC UA: {kind!r}"
        assert size >= 8
        if kind in {b"MSG", b"CLO"}:
            assert final == b"F", "a request of several chunks: none of ours is so long"
            yield _node_number(stream[at + 24 :])  # after channel, token, sequence and request number
        at += size


def _node_number(body: bytes) -> int:
    """Return the number of a NodeId in namespace 0 (OPC 10000-6, 5.2.2.9)."""
    assert body[0] in {0, 1}
    return body[1] if body[0] == 0 else int.from_bytes(body[2:4], "little")
