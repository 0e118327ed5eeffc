"""What a station writes to: the registrar and the device authority. A batch may share them."""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.attest.birth import Birth, read_birth, sign_birth
from gateway.attest.structures import Public
from gateway.codec.enrol_lines import to_text
from gateway.errors import TrustError
from gateway.tlog.note import Signer, Verifier
from provisioning.ca.authority import Authority
from provisioning.label import Label
from provisioning.registrar.registrar import Registrar
from provisioning.registrar.unit import AK, EK, IDEVID, MOST_TEXT, State, Unit
from provisioning.station.order import Order
from provisioning.station.steps import AttestationKey, Endorsed


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A birth record that the registrar and the factory's log have. note: as it was signed."""

    note: bytes
    birth: Birth

    @classmethod
    def read(cls, note: bytes, verifier: Verifier) -> Self:
        """Return the record that this factory signed. Raises TrustError for anything else."""
        return cls(note=note, birth=read_birth(note, verifier=verifier))

    @property
    def sha256(self) -> str:
        """What the label and the unit say of it."""
        return hashlib.sha256(self.note).hexdigest()

    @property
    def label(self) -> Label:
        """The unit's label."""
        said = self.birth
        return Label(
            serial=said.serial,
            model=said.model,
            ak_fingerprint=said.ak_certificate_sha256,
            birth_sha256=self.sha256,
        )


class Books:
    """The registrar and the authority, as the steps use them. Every method raises TrustError or ConfigError."""

    def __init__(self, *, registrar: Registrar, authority: Authority, factory: Signer) -> None:
        self._registrar, self._authority, self._factory = registrar, authority, factory
        self._turn = threading.Lock()

    def begin(self, order: Order) -> None:
        """Open the unit's page, or find it open. Refuses a serial that is taken, or that was retired."""
        self._registrar.begin(order.serial, model=order.model, order=order.order, operator=order.operator)

    def record(self, serial: str, name: str, said: Mapping[str, str]) -> None:
        """Write down what a step found."""
        self._registrar.step(serial, name, said)

    def recorded(self, serial: str) -> Recorded | None:
        """Return the birth record of a unit that is enrolled, None for one that is not."""
        unit = self._find(serial)
        if unit is not None and unit.state in {State.REVOKED, State.DECOMMISSIONED}:
            raise TrustError(f"got a unit that is {unit.state}, want one that never was")
        return None if unit is None or unit.birth is None else Recorded.read(unit.birth, self._factory.verifier)

    def ak_name(self, serial: str) -> str | None:
        """Return the name of the attestation key that a unit was begun with, in hex; None before it proved one."""
        unit = self._find(serial)
        return None if unit is None else unit.ak

    def claim(self, serial: str, endorsed: Endorsed, ak: AttestationKey) -> None:
        """Write down whose TPM this is. Refuses an EK or an AK that is another unit's."""
        sha256 = hashlib.sha256(endorsed.certificate).hexdigest()
        remarks = {f"remark_{place}": _plain(text) for place, text in enumerate(endorsed.remarks[:8], 1)}
        self.record(
            serial, "ek", {EK: sha256, "kind": endorsed.kind, "maker": _plain(endorsed.maker) or "-", **remarks}
        )
        self.record(serial, "activate", {AK: ak.area.name.hex(), "public": to_text(ak.public)})

    def idevid(self, order: Order, csr: bytes, tls: Public) -> bytes:
        """Return the unit's IDevID in DER: the one that was issued for this key, else a new one."""
        return self._issue(IDEVID, order, tls, self._new_idevid(order, csr))

    def ak_certificate(self, order: Order, ak: AttestationKey) -> bytes:
        """Return the certificate of the attestation key in DER, likewise."""
        make = lambda: self._authority.issue_ak(ak.key, serial=order.serial, model=order.model)  # noqa: E731
        return self._issue("ak", order, ak.area, make)

    def renew_idevid(self, order: Order, csr: bytes, tls: Public, certify: Mapping[str, str]) -> bool:
        """Give an enrolled unit an IDevID for the key that it has now; return whether that is a new one.

        The log says it first; then every other IDevID of the unit is revoked: nobody can have its key any more.
        """
        with self._turn:
            made = self._made(IDEVID, order, tls, self._new_idevid(order, csr))
            sha256 = hashlib.sha256(made).hexdigest()
            is_new = self._registrar.unit(order.serial).certificates.get(IDEVID) != sha256
            self._registrar.renew(order.serial, sha256, certify)
            issued = self._authority.issued(subject=order.serial)
            old = [one for one in issued if one.kind == IDEVID and one.sha256 != sha256]
            for one in old:
                self._authority.revoke(one.number, "superseded")
            if old:
                self._authority.crl()
        return is_new

    def _new_idevid(self, order: Order, csr: bytes) -> Callable[[], bytes]:
        return lambda: self._authority.issue_idevid(csr, serial=order.serial, model=order.model)

    def _made(self, kind: str, order: Order, area: Public, make: Callable[[], bytes]) -> bytes:
        """Return the certificate that was issued for this key and holds, else a new one."""
        found = [
            one.der
            for one in self._authority.issued(subject=order.serial)
            if one.kind == kind and one.revoked_s is None and _is_for(one.der, area, order)
        ]
        return found[-1] if found else make()

    def _issue(self, kind: str, order: Order, area: Public, make: Callable[[], bytes]) -> bytes:
        with self._turn:
            made = self._made(kind, order, area, make)
            self.record(order.serial, f"{kind}_certificate", {f"{kind}_sha256": hashlib.sha256(made).hexdigest()})
        return made

    def complete(self, birth: Birth) -> Recorded:
        """Return the signed birth record, which the registrar and the factory's log have from here on.

        A record that was signed for just this before an interruption is used again: the log gets one a unit.
        """
        unit = self._find(birth.serial)
        kept = {} if unit is None else unit.steps.get("birth", {})
        earlier = replace(birth, made_s=int(kept.get("made_s", birth.made_s)))
        note = sign_birth(earlier, self._factory)  # Ed25519: the same record has the same bytes
        if kept and kept["sha256"] != hashlib.sha256(note).hexdigest():
            note, earlier = sign_birth(birth, self._factory), birth
        said = {"made_s": str(earlier.made_s), "sha256": hashlib.sha256(note).hexdigest()}
        self._registrar.step(birth.serial, "birth", said)
        self._registrar.complete(birth.serial, note)
        return Recorded(note=note, birth=earlier)

    def _find(self, serial: str) -> Unit | None:
        try:
            return self._registrar.unit(serial)
        except TrustError:  # there is none of this serial
            return None

    def certificates(self, serial: str) -> tuple[Sequence[bytes], Sequence[bytes]]:
        """Return the chains in DER of an enrolled unit's attestation key and of its IDevID."""
        own = self._registrar.unit(serial).certificates
        with self._turn:
            issued = {one.sha256: one for one in self._authority.issued(subject=serial)}
        found = [issued.get(own[kind]) for kind in ("ak", IDEVID)]
        if any(one is None or one.revoked_s is not None for one in found):
            raise TrustError("the authority's book lacks a certificate of this unit, or it is revoked")
        ak, idevid = ((one.der, *self._authority.chain) for one in found if one is not None)
        return ak, idevid


def _plain(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:MOST_TEXT])


def _is_for(der: bytes, area: Public, order: Order) -> bool:
    """Return whether a certificate is for this key and this model."""
    certificate = x509.load_der_x509_certificate(der)
    held, wanted = certificate.public_key(), area.key
    forms = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    models = certificate.subject.get_attributes_for_oid(x509.NameOID.ORGANIZATIONAL_UNIT_NAME)
    return held.public_bytes(*forms) == wanted.public_bytes(*forms) and [one.value for one in models] == [order.model]
