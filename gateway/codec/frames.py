"""Messages between our processes: the normative form is docs/wire.md."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.codec.leaves import MAX_LEAF
from gateway.codec.pack import pack, shown, unpack
from gateway.errors import TrustError

MAX_FRAME = 4 * 1024 * 1024
MAX_LOG_MESSAGE = 1024 * 1024
MAX_CHALLENGE = 4096

Message = list[Any]

_LOG = ["v", "first", "leaves", "checkpoint"]
_ITEMS = frozenset({int, str, bytes})


class LeafHash(bytes):
    """The 32-byte hash of a leaf whose body was dropped."""

    __slots__ = ()


def pack_frame(message: Message) -> bytes:
    """Return the frame of one message: length, then msgpack."""
    packed = pack(message)
    return len(packed).to_bytes(4, "big") + packed


class FrameReader:
    """Cuts a byte stream into messages; holds at most one unfinished frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, arrived: bytes) -> list[Message]:
        """Return the messages that arrived completes.

        Raises TrustError for a frame that is too long or malformed; the stream is then of no more use.
        """
        self._buffer += arrived
        messages: list[Message] = []
        start, buffer = 0, self._buffer
        while len(buffer) - start >= 4:
            length = int.from_bytes(buffer[start : start + 4], "big")
            if not 0 < length <= MAX_FRAME:
                raise TrustError(f"frame: got {length} bytes, want 1..{MAX_FRAME}")
            if len(buffer) - start - 4 < length:
                break
            message = unpack(bytes(buffer[start + 4 : start + 4 + length]))
            if type(message) is not list or not message or type(message[0]) is not str:
                raise TrustError("frame: want an array that starts with a message's name")
            if not all(map(_fits, message)):
                raise TrustError(f"frame: {shown(message[0])}: want whole numbers, text, bytes and leaves")
            messages.append(message)
            start += 4 + length
        del buffer[:start]
        return messages


def _fits(item: Any) -> bool:
    """Return whether docs/wire.md has such an item: so no bool passes for a number, and no depth reaches a reader."""
    if type(item) is list:
        return all(type(leaf) is bytes or (type(leaf) is list and [*map(type, leaf)] == [bytes]) for leaf in item)
    return type(item) in _ITEMS


@dataclass(frozen=True, slots=True, kw_only=True)
class LogMessage:
    """Leaves on their way to the ledger, with the checkpoint that covers just these and all before.

    first: the index of the first one. checkpoint: a signed note.
    epoch: the body of the epoch leaf of the key that signed it, where that leaf is not below first; b"" for none.
    """

    first: int
    leaves: tuple[bytes | LeafHash, ...]
    checkpoint: bytes
    epoch: bytes = b""

    @property
    def end(self) -> int:
        """The index after the last one."""
        return self.first + len(self.leaves)


def pack_leaves(leaves: Sequence[bytes | LeafHash]) -> list[Any]:
    """Return leaves as a frame or a log message carries them."""
    return [[bytes(leaf)] if isinstance(leaf, LeafHash) else leaf for leaf in leaves]


def unpack_leaves(items: Any) -> tuple[bytes | LeafHash, ...]:
    """Return the leaves of a frame or a log message. Raises TrustError for anything malformed."""
    if type(items) is not list:
        raise TrustError("leaves: want an array")
    leaves: list[bytes | LeafHash] = []
    for item in items:
        if type(item) is bytes and 0 < len(item) <= MAX_LEAF:
            leaves.append(item)
        elif type(item) is list and len(item) == 1 and type(item[0]) is bytes and len(item[0]) == 32:
            leaves.append(LeafHash(item[0]))
        else:
            raise TrustError(f"leaves: item {len(leaves)}: want 1..{MAX_LEAF} bytes or [32 bytes]")
    return tuple(leaves)


def pack_log(message: LogMessage) -> bytes:
    """Return the payload of the `log` topic."""
    said = {
        "v": 1,
        "first": message.first,
        "leaves": pack_leaves(message.leaves),
        "checkpoint": message.checkpoint.decode(),
    }
    return pack({**said, "epoch": message.epoch} if message.epoch else said)


def unpack_log(payload: bytes) -> LogMessage:
    """Return what a payload of the `log` topic says. Raises TrustError for anything malformed."""
    if len(payload) > MAX_LOG_MESSAGE:
        raise TrustError(f"log message: got {len(payload)} bytes, want at most {MAX_LOG_MESSAGE}")
    fields = unpack(payload)
    if type(fields) is not dict or list(fields) not in (_LOG, [*_LOG, "epoch"]):
        raise TrustError("log message: want a map of v, first, leaves, checkpoint, and epoch or not")
    version, first, checkpoint = fields["v"], fields["first"], fields["checkpoint"]
    if type(version) is not int or version != 1:
        raise TrustError(f"log message: v: got {shown(version)}, want 1")
    if type(first) is not int or not 0 <= first < 2**63 or type(checkpoint) is not str:
        raise TrustError("log message: want first as an index and checkpoint as text")
    epoch = fields.get("epoch", b"")
    if type(epoch) is not bytes or len(epoch) > MAX_LEAF or (not epoch and "epoch" in fields):
        raise TrustError(f"log message: epoch: want 1..{MAX_LEAF} bytes, or none")
    return LogMessage(first=first, leaves=unpack_leaves(fields["leaves"]), checkpoint=checkpoint.encode(), epoch=epoch)
