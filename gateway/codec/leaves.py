"""Leaves: the normative form is docs/log.md, section 1.

The body is packed once, where it arises; the sealer puts its header before the body's bytes and
never unpacks and packs them again.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.codec.checks import check_body
from gateway.codec.pack import pack, shown, unpack
from gateway.errors import TrustError
from gateway.model import Clock, ClockState

MAX_LEAF = 65_535
MAX_HEADER = 128
"""No header is longer: so a body of MAX_LEAF - MAX_HEADER bytes always fits."""

CHAINED = ("interval", "document", "context", "counts", "statement", "standing", "decision")
"""Kinds whose leaves name the one before them of their chain, so that none can be left out."""

_KEYS = ["v", "kind", "clock", "src", "prev", "body"]
_START = b"\x86" + pack("v") + pack(1) + pack("kind")
_CLOCK, _SRC, _PREV, _BODY = pack("clock"), pack("src"), pack("prev"), pack("body")


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """One parsed leaf.

    src: (boot id, sequence number) of the collector that handed it in; None for the log's own.
    prev: for a leaf of a CHAINED kind, the index of the previous one of its chain.
    body: checked against its kind.
    """

    kind: str
    clock: Clock
    src: tuple[bytes, int] | None
    prev: int | None
    body: dict[str, Any]


def seal(
    kind: str, body: bytes, *, clock: Clock, src: tuple[bytes, int] | None = None, prev: int | None = None
) -> bytes:
    """Return the leaf's bytes around the untouched bytes of its body.

    Raises TrustError when the leaf would be longer than 65,535 bytes.
    """
    leaf = b"".join(
        (
            _START,
            pack(kind),
            _CLOCK,
            pack([clock.t_ns, int(clock.state), clock.offset_ns]),
            _SRC,
            pack(None if src is None else [src[0], src[1]]),
            _PREV,
            pack(prev),
            _BODY,
            body,
        )
    )
    if len(leaf) > MAX_LEAF:
        raise TrustError(f"leaf: got {len(leaf)} bytes, want at most {MAX_LEAF}")
    return leaf


def parse(leaf: bytes) -> Leaf:
    """Return the parsed leaf, its body checked. Raises TrustError for anything malformed."""
    if len(leaf) > MAX_LEAF:
        raise TrustError(f"leaf: got {len(leaf)} bytes, want at most {MAX_LEAF}")
    fields = unpack(leaf)
    if type(fields) is not dict or list(fields) != _KEYS:
        raise TrustError(f"leaf: got keys {_keys(fields)}, want {_KEYS}")
    if type(fields["v"]) is not int or fields["v"] != 1:
        raise TrustError(f"leaf: v: got {shown(fields['v'])}, want 1")
    kind, prev = fields["kind"], fields["prev"]
    if type(kind) is not str:
        raise TrustError("leaf: kind: want a string")
    if prev is not None and (type(prev) is not int or not 0 <= prev < 2**63 or kind not in CHAINED):
        raise TrustError(f"leaf: prev: got {shown(prev)}, want nil, or an index in a leaf of a chained kind")
    return Leaf(
        kind=kind,
        clock=_clock(fields["clock"]),
        src=_src(fields["src"]),
        prev=prev,
        body=check_body(kind, fields["body"]),
    )


def _keys(fields: Any) -> Sequence[str]:
    return [str(key)[:20] for key in list(fields)[:8]] if type(fields) is dict else type(fields).__name__


def _clock(clock: Any) -> Clock:
    if type(clock) is not list or len(clock) != 3 or any(type(part) is not int for part in clock):
        raise TrustError("leaf: clock: want [time_ns, state, offset_ns]")
    if not 0 <= clock[0] < 2**63 or clock[1] not in {0, 1, 2}:
        raise TrustError(f"leaf: clock: got {clock!r}, want a time in ns and a state 0..2")
    return Clock(t_ns=clock[0], state=ClockState(clock[1]), offset_ns=clock[2])


def _src(src: Any) -> tuple[bytes, int] | None:
    if src is None:
        return None
    if type(src) is not list or len(src) != 2 or type(src[0]) is not bytes or len(src[0]) != 8:
        raise TrustError("leaf: src: want nil or [8 bytes, sequence]")
    if type(src[1]) is not int or not 0 < src[1] < 2**63:
        raise TrustError("leaf: src: want a sequence number from 1")
    return src[0], src[1]
