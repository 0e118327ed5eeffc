"""A station as a whole: its policy, its books, its way to units."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.app.keys import read_verifier
from gateway.attest.ek import roots_of
from gateway.errors import ConfigError, TrustError
from gateway.tlog.note import SignatureKind, Signer
from provisioning.ca.authority import Authority
from provisioning.ca.folder import to_pem
from provisioning.ca.unlock import VARIABLE, Unlock
from provisioning.label import write_label
from provisioning.registrar.place import Place
from provisioning.station.books import Books, Recorded
from provisioning.station.enrolment import Enrolled, Enrolment
from provisioning.station.order import Order, Policy
from provisioning.station.settings import Settings
from provisioning.station.transport import Connect, connect, ssh_options


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """Enrols one unit after the other, or several at once. now_s: Unix seconds."""

    policy: Policy
    books: Books
    connect: Connect
    label_folder: Path
    label_format: str
    now_s: Callable[[], int]

    def enrol(self, order: Order, *, told: Callable[[str], None] = lambda _: None) -> Enrolled:
        """Take one unit through all steps. told: hears of each that is begun. Raises StepError."""
        return Enrolment(
            connect=lambda: self.connect(order.address),
            order=order,
            policy=self.policy,
            books=self.books,
            label=self.label_folder / f"{order.serial}.{self.label_format}",
            now_s=self.now_s,
            told=told,
        ).run()


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
    return write_label(Recorded.read(unit.birth, place.signer.verifier).label, settings.label.folder, kind=kind)


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
    """Return (roots, intermediates) in DER from a folder of PEM files: see roots_of.

    Raises ConfigError, also for a folder without a root.
    """
    found: list[x509.Certificate] = []
    try:
        for path in sorted(folder.iterdir()):
            if path.suffix in {".pem", ".crt"}:
                found += x509.load_pem_x509_certificates(path.read_bytes())
        roots, between = roots_of(one.public_bytes(Encoding.DER) for one in found)
    except (OSError, ValueError, TrustError, x509.InvalidVersion) as e:
        raise ConfigError(f"ek.roots: got {folder}: {e}, want a folder of PEM files") from e
    if not roots:
        raise ConfigError(f"ek.roots: got {folder} without a root, want the PEM files of the TPM makers you accept")
    return roots, between
