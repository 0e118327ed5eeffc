"""Stations and units for tests: real TPMs in software, a real authority and registrar, and ways to lie."""

import atexit
import functools
import hashlib
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography import x509

from gateway.app.enrolment.enrolee import Enrolee
from gateway.app.enrolment.identity import Identity
from gateway.codec.enrol_lines import pack_line, read_line
from gateway.tlog.note import Signer
from provisioning.ca.authority import Authority
from provisioning.ca.folder import make_all, to_pem
from provisioning.ca.unlock import Unlock
from provisioning.registrar.registrar import Registrar
from provisioning.station.books import Books
from provisioning.station.enrolment import Enrolled
from provisioning.station.link import Transport
from provisioning.station.maker import Maker, new_tpm, now, open_tpm, running_tpm
from provisioning.station.order import LENIENT, Order, Policy
from provisioning.station.station import Station
from provisioning.station.transport import Direct

PASSWORD = Unlock(secret="correct horse battery")
FACTORY = Signer.generate("wattseal-factory/test")
VERIFIER = Signer.generate("wattseal-verifier/test")
LEDGER = Signer.generate("wattseal-ledger/test")
MAKER = Maker("Test TPM Maker", now=now())
IMAGE = b"image of the order"
IMAGE_SHA256 = hashlib.sha256(IMAGE).hexdigest()

Answer = Callable[[bytes], bytes | None]
Twist = Callable[[str, dict[str, Any], Answer, bytes], bytes | None]
"""What a unit does instead of answering: (operation, arguments, the honest unit, the line) -> the reply."""


def make_authority(folder: Path) -> Authority:
    """Make a device authority in a folder: with keys that all tests share, since scrypt takes its time."""
    made = _first_authority()
    shutil.copytree(made.folder, folder)
    (folder / "issued.sqlite").unlink()
    chain = [x509.load_der_x509_certificate(der) for der in made.chain]
    return Authority(folder, made.about, made._key, chain, now=now)


@functools.cache
def _first_authority() -> Authority:
    folder = Path(tempfile.mkdtemp(prefix="ws-ca-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return make_all(folder / "ca", name="Test Devices", root_unlock=PASSWORD, unlock=PASSWORD, passes=1)[1]


def order_of(serial: str, **changes: str) -> Order:
    """Return an order for a unit."""
    made = Order(
        serial=serial, address=serial, model="WS-100", order="WO-17", operator="A. Smith", image_sha256=IMAGE_SHA256
    )
    return replace(made, **changes)


@dataclass
class Plant:
    """A factory's floor: boards with TPMs, and one station."""

    folder: Path
    authority: Authority
    registrar: Registrar
    boards: Path
    twists: dict[str, Twist] = field(default_factory=dict)
    serials: dict[str, str] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)

    @property
    def station(self) -> Station:
        """The station, new as after a restart."""
        chain = self.authority.chain
        return Station(
            policy=Policy(
                station="line-1",
                roots=(MAKER.root,),
                intermediates=(),
                ek_policy=LENIENT,
                ek_kinds=("rsa2048", "p256", "p384"),
                anchors={
                    "device-ca.pem": to_pem([chain[-1]]),
                    "verifier.vkey": VERIFIER.verifier.vkey.encode(),
                    "ledger.vkey": LEDGER.cosigner().verifier.vkey.encode(),
                    "factory.vkey": FACTORY.verifier.vkey.encode(),
                },
                nv_index=0x01805753,
                nv_floor=3,
                pcrs=(0, 1, 2, 3, 7),
                timeout_s=10.0,
                image_timeout_s=20.0,
            ),
            books=Books(registrar=self.registrar, authority=self.authority, factory=FACTORY),
            connect=self.connect,
            label_folder=self.folder / "labels",
            label_format="svg",
            now_s=lambda: int(time.time()),
        )

    def enrol(self, serial: str, **changes: str) -> Enrolled:
        """Enrol a unit; address: of its board, the serial's own without it."""
        return self.station.enrol(order_of(serial, **changes))

    def identity(self, address: str) -> Identity:
        """Return a board's identity folder."""
        return Identity(self.boards / address / "identity")

    def connect(self, address: str) -> Transport:
        """Power a board, with a new TPM when it is a new board."""
        own = self.boards / address
        if not (own / "t").exists():
            new_tpm(own / "t", MAKER)
        (own / "image").write_bytes(self.images.get(address, IMAGE))
        with ExitStack() as stack:
            tpm = stack.enter_context(open_tpm(stack.enter_context(running_tpm(own / "t"))))
            unit = Enrolee(
                tpm=tpm,
                identity=self.identity(address),
                image=own / "image",
                serial=self.serials.get(address, address),
                about={"version": "test"},
            )
            stack.enter_context(self.identity(address).taken())
            kept = stack.pop_all()
        twist = self.twists.get(address)
        answer = unit.answer if twist is None else twisted(unit.answer, twist)
        return Direct(answer, close=kept.close)


def twisted(answer: Answer, twist: Twist) -> Answer:
    """Return a unit that does something else with each question."""

    def lie(line: bytes) -> bytes | None:
        said = read_line(line)
        return None if said is None else twist(said["op"], said["args"], answer, line)

    return lie


def honest(answer: Answer, line: bytes) -> dict[str, Any]:
    """Return what an honest unit replies."""
    reply = answer(line)
    assert reply is not None
    said = read_line(reply.strip())
    assert said is not None
    return said


def instead(operation: str, change: Callable[[dict[str, Any]], Mapping[str, Any]]) -> Twist:
    """Return the twist of a unit that changes its answers to one operation."""

    def twist(op: str, _: dict[str, Any], answer: Answer, line: bytes) -> bytes | None:
        said = honest(answer, line)
        if op == operation and "ok" in said:
            said = {"id": said["id"], "ok": dict(change(said["ok"]))}
        return pack_line(said)

    return twist


@contextmanager
def plant_in(folder: Path) -> Iterator[Plant]:
    """Give a factory in a folder."""
    registrar = Registrar.open(f"sqlite:///{folder / 'registrar.db'}", log=folder / "log", signer=FACTORY)
    try:
        yield Plant(folder=folder, authority=make_authority(folder / "ca"), registrar=registrar, boards=folder / "b")
    finally:
        registrar.close()
