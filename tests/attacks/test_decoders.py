"""Every decoder of ours that takes bytes from elsewhere: bent in any way, they are refused in their own error.

No crash, no hang, no memory that the bytes themselves do not have.
"""

import asyncio
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.app.source import source_of
from gateway.codec.bodies import readings_body
from gateway.codec.changes import changes_body, changes_of
from gateway.codec.checks import check_body, rows_of
from gateway.codec.frames import FrameReader, LogMessage, pack_frame, pack_log, unpack_log
from gateway.codec.leaves import parse, seal
from gateway.codec.pack import unpack
from gateway.config import parse_template
from gateway.drivers.modbus_pdu import Request
from gateway.drivers.modbus_tcp import TcpLine
from gateway.errors import ConfigError, GatewayError, TrustError
from gateway.model import Change
from gateway.tlog.checkpoint import Checkpoint, read_unverified, sign
from gateway.tlog.lines import split_note
from gateway.tlog.note import Signer, Verifier
from tests.leaf_cases import CLOCK, LEAVES, METER, ROWS

SIGNER = Signer.generate("wattseal/gw1")
NOTE = sign(Checkpoint(origin="wattseal/gw1", size=5, root=bytes(32)), SIGNER)
CHANGES = changes_body([Change(schema=METER, column=0, source_time_ns=7, value=1.5, low=1.0, high=2.0, status="x")])
GOOD_LEAVES = [make() for make in LEAVES.values()]
SCHEMAS = {METER.id: METER}


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """One decoder. good: what it takes. refusal: what it raises for all else."""

    decode: Callable[[bytes], object]
    good: list[bytes]
    refusal: type[GatewayError] = TrustError


def readings(body: bytes) -> object:
    """Read a readings body to its last value."""
    checked = check_body("readings", unpack(body))
    return [*rows_of(checked, SCHEMAS), *changes_of(checked, SCHEMAS)]


def modbus(stream: bytes) -> object:
    """Let a Modbus/TCP connection receive this while a request is under way."""

    async def receive() -> bytes:
        line = TcpLine(0.05)
        line.connection_made(Sink())
        reply = line.ask(Request(unit_id=1, function=3, address=0, count=2), ())
        line.data_received(stream)
        return await reply

    return asyncio.run(receive())


class Sink(asyncio.Transport):
    """A transport to nowhere."""

    def write(self, data: object) -> None:
        """Forget it."""

    def abort(self) -> None:
        """Do nothing."""


def text(decode: Callable[[str], object]) -> Callable[[bytes], object]:
    """Return a decoder of bytes that are text."""
    return lambda some: decode(some.decode("utf-8", errors="replace"))


TEMPLATE = (
    b'title = "a"\nverified = false\nsources = []\nvotes = 0\n[points.p]\naddress = 1\ntype = "u16"\nscale = "0.1"\n'
)
GATEWAY = (
    b'[gateway]\nid = "gw1"\n[seal]\nkey = "k"\nwitness = "w"\n[forward]\nbroker = "h:1"\nca = "a"\ncert = "b"\n'
    b'key = "c"\n[devices.m1]\ntemplate = "abb-b23"\nurl = "tcp://h:502"\n[lines.l]\nzone = "DE"\n'
    b'energy = ["m1.import_energy"]\n'
)

DECODERS: dict[str, Decoder] = {
    "msgpack": Decoder(decode=unpack, good=[b"\x82\xa1a\x01\xa1b\x93\xc0\xc3\xc4\x01\x00"]),
    "a leaf": Decoder(decode=parse, good=GOOD_LEAVES),
    "a readings body": Decoder(decode=readings, good=[readings_body(ROWS), CHANGES]),
    "a frame between processes": Decoder(
        decode=lambda some: FrameReader().feed(some), good=[pack_frame(["put", 1, "event", b"body"])]
    ),
    "a log message": Decoder(
        decode=unpack_log, good=[pack_log(LogMessage(first=0, leaves=tuple(GOOD_LEAVES), checkpoint=NOTE))]
    ),
    "a note": Decoder(decode=split_note, good=[NOTE]),
    "a checkpoint": Decoder(decode=lambda some: read_unverified(some, origin="wattseal/gw1"), good=[NOTE]),
    "a verifier key": Decoder(
        decode=text(Verifier.from_vkey), good=[SIGNER.verifier.vkey.encode()], refusal=GatewayError
    ),
    "a Modbus/TCP stream": Decoder(
        decode=modbus, good=[bytes.fromhex("0001000000070103040001beef")], refusal=GatewayError
    ),
    "a device template": Decoder(
        decode=text(lambda some: parse_template(some, "meter")), good=[TEMPLATE], refusal=ConfigError
    ),
    "a gateway.toml": Decoder(
        decode=text(lambda some: source_of(some, Path("gateway.toml"))), good=[GATEWAY], refusal=ConfigError
    ),
}

BOMBS = [
    b"\xdd\xff\xff\xff\xff",  # an array of 2**32 - 1
    b"\xdf\xff\xff\xff\xff",  # a map of as many
    b"\xc6\xff\xff\xff\xff",  # so many bytes
    b"\xdb\x7f\xff\xff\xff",  # so much text
    b"\x91" * 60_000,  # arrays in arrays
    b"\x81\xa0" * 30_000,
    b"\xff" * 60_000,
    b"\x00" * 60_000,
    b"[" * 60_000,
    b"a=" + b"[" * 30_000,
    b"a=" + b"9" * 60_000,
    "\N{EM DASH} ".encode() * 20_000,
    b"\n" * 60_000,
]


@st.composite
def bent(draw: st.DrawFn, good: bytes) -> bytes:
    """Draw something near to what is good."""
    some = bytearray(good)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(some)))
        match draw(st.sampled_from(["flip", "cut", "insert", "again", "end"])):
            case "flip" if at < len(some):
                some[at] ^= 1 << draw(st.integers(0, 7))
            case "cut":
                del some[at : at + draw(st.integers(1, 8))]
            case "insert":
                some[at:at] = draw(st.binary(min_size=1, max_size=8))
            case "again":
                some[at:at] = some[max(0, at - 9) : at]
            case _:
                del some[at:]
    return bytes(some)


def taken(decoder: Decoder, some: bytes) -> Any:
    """Return what a decoder makes of bytes, None where it refuses them; fail on anything else."""
    began_s, made, why = time.monotonic(), None, ""
    try:
        made = decoder.decode(some)
    except decoder.refusal as e:
        why = str(e)
    assert time.monotonic() - began_s < 1
    assert len(why) < 2000
    return made


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_good_is_taken(name: str) -> None:
    for good in DECODERS[name].good:
        assert taken(DECODERS[name], good) is not None


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=60)
@given(data=st.data())
def test_what_is_bent_is_taken_or_refused_and_nothing_else_happens(name: str, data: st.DataObject) -> None:
    decoder = DECODERS[name]
    taken(decoder, data.draw(st.sampled_from(decoder.good).flatmap(bent) | st.binary(max_size=200)))


@pytest.mark.parametrize("name", DECODERS)
def test_a_bomb_takes_neither_time_nor_memory(name: str) -> None:
    decoder = DECODERS[name]
    good = decoder.good[0]
    for bomb in [*BOMBS, *(good[: len(good) // 2] + bomb for bomb in BOMBS)]:
        tracemalloc.start()
        try:
            taken(decoder, bomb)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 24 << 20, f"{peak} bytes for {len(bomb)}"


def test_the_table_has_each_kind_of_leaf() -> None:
    assert parse(seal("readings", CHANGES, clock=CLOCK)).kind == "readings"
