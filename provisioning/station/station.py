"""A station as a whole: its policy, its books, its way to units."""

import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.app.keys import read_verifier
from gateway.attest.birth import read_birth
from gateway.errors import ConfigError, TrustError
from gateway.tlog.note import SignatureKind, Signer
from provisioning.ca.authority import Authority
from provisioning.ca.folder import to_pem
from provisioning.ca.unlock import VARIABLE, Unlock
from provisioning.label import Label, write_label
from provisioning.registrar.place import Place
from provisioning.station.books import Books
from provisioning.station.enrolment import Enrolled, Enrolment
from provisioning.station.link import Link
from provisioning.station.order import Order, Policy
from provisioning.station.settings import Settings
from provisioning.station.transport import Connect, connect, ssh_options


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """Enrols one unit after the other, or several at once. now_s: Unix seconds."""

    policy: Policy
    books: Books
    factory: Signer
    connect: Connect
    label_folder: Path
    label_format: str
    now_s: Callable[[], int]

    def enrol(self, order: Order, *, told: Callable[[str], None] = lambda _: None) -> Enrolled:
        """Take one unit through all steps. told: hears of each that is begun. Raises StepError, ConfigError."""
        begun_s = time.perf_counter()
        told("connect")
        with closing(self.connect(order.address)) as transport:
            took_s = time.perf_counter() - begun_s
            link = Link(transport, session=secrets.token_hex(8), timeout_s=self.policy.timeout_s)
            return Enrolment(
                link=link,
                order=order,
                policy=self.policy,
                books=self.books,
                factory=self.factory,
                label=lambda enrolled: self._label(order, enrolled),
                now_s=self.now_s,
                told=told,
                seconds={"connect": took_s},
            ).run()

    def is_done(self, order: Order) -> bool:
        """Whether a unit is enrolled and has its label, the last of all: there is nothing left to do."""
        label = self.label_folder / f"{order.serial}.{self.label_format}"
        return label.exists() and self.books.birth_of_enrolled(order.serial) is not None

    def _label(self, order: Order, enrolled: Enrolled) -> None:
        label = Label(
            serial=order.serial,
            model=order.model,
            ak_fingerprint=enrolled.ak_fingerprint,
            birth_sha256=enrolled.birth_sha256,
        )
        write_label(label, self.label_folder, kind=self.label_format)


@contextmanager
def opened(settings: Settings, *, environ: Mapping[str, str]) -> Iterator[Station]:
    """Give the station of a configuration. environ: may hold the password of the authority. Raises ConfigError."""
    place = Place.read(settings.registrar.folder)
    unlock = Unlock.read(settings.ca.unlock) if settings.ca.unlock else Unlock.find(environ)
    if unlock is None:
        raise ConfigError(f"ca.unlock: got nothing, want a file with the authority's password, or {VARIABLE} set")
    authority = Authority.open(settings.ca.folder, unlock=unlock)
    unit = settings.unit
    reach = partial(connect, command=unit.command, ssh=ssh_options(known_hosts=unit.known_hosts, key=unit.ssh_key))
    policy = _policy(settings, root=authority.chain[-1], factory=place.signer)
    with closing(place.open()) as registrar:
        yield Station(
            policy=policy,
            books=Books(registrar=registrar, authority=authority, factory=place.signer),
            factory=place.signer,
            connect=reach,
            label_folder=settings.label.folder,
            label_format=settings.label.format,
            now_s=lambda: int(time.time()),
        )


def label_again(settings: Settings, serial: str, *, kind: str) -> Path:
    """Write an enrolled unit's label from the registrar's book; return where. Raises TrustError, ConfigError."""
    place = Place.read(settings.registrar.folder)
    with closing(place.open()) as registrar:
        unit = registrar.unit(serial)
    if unit.birth is None:
        raise TrustError(f"unit {serial}: it is {unit.state}, want it enrolled")
    birth = read_birth(unit.birth, verifier=place.signer.verifier)
    made = Label(
        serial=serial,
        model=birth.model,
        ak_fingerprint=birth.ak_certificate_sha256,
        birth_sha256=hashlib.sha256(unit.birth).hexdigest(),
    )
    return write_label(made, settings.label.folder, kind=kind)


def _policy(settings: Settings, *, root: bytes, factory: Signer) -> Policy:
    roots, between = read_roots(settings.ek.roots)
    verifier = read_verifier(settings.anchors.verifier, "anchors.verifier", kind=SignatureKind.NOTE)
    ledger = read_verifier(settings.anchors.ledger, "anchors.ledger", kind=SignatureKind.COSIGNATURE)
    return Policy(
        station=settings.station.name,
        roots=roots,
        intermediates=between,
        ek_policy=settings.ek.policy,
        ek_kinds=settings.ek.kinds,
        anchors={
            "device-ca.pem": to_pem([root]),
            "verifier.vkey": f"{verifier.vkey}\n".encode(),
            "ledger.vkey": f"{ledger.vkey}\n".encode(),
            "factory.vkey": f"{factory.verifier.vkey}\n".encode(),
        },
        nv_index=settings.floor.index,
        nv_floor=settings.floor.value,
        pcrs=settings.quote.pcrs,
        timeout_s=settings.unit.timeout_s,
        image_timeout_s=max(settings.unit.image_timeout_s, settings.unit.timeout_s),
    )


def read_roots(folder: Path) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Return (roots, intermediates) in DER from a folder of PEM files: what is signed by itself is a root.

    Raises ConfigError, also for a folder without a root.
    """
    found: list[x509.Certificate] = []
    try:
        for path in sorted(folder.iterdir()):
            if path.suffix in {".pem", ".crt"}:
                found += x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError, x509.InvalidVersion) as e:
        raise ConfigError(f"ek.roots: got {folder}: {e}, want a folder of PEM files") from e
    roots = tuple(one.public_bytes(Encoding.DER) for one in found if one.subject == one.issuer)
    if not roots:
        raise ConfigError(f"ek.roots: got {folder} without a root, want the PEM files of the TPM makers you accept")
    return roots, tuple(one.public_bytes(Encoding.DER) for one in found if one.subject != one.issuer)
