"""What a station writes to: the registrar and the device authority. A batch may share them."""

import hashlib
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.attest.birth import Birth, read_birth, sign_birth
from gateway.attest.structures import Public
from gateway.errors import TrustError
from gateway.tlog.note import Signer
from provisioning.ca.authority import Authority
from provisioning.registrar.registrar import Registrar
from provisioning.registrar.unit import AK, EK, MOST_TEXT, State, Unit
from provisioning.station.order import Order
from provisioning.station.steps import AttestationKey, Endorsed

_KINDS = {"ak": "ak_certificate_sha256", "idevid": "idevid_sha256"}


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

    def birth_of_enrolled(self, serial: str) -> bytes | None:
        """Return the birth record of a unit that is enrolled, None for one that is not."""
        unit = self._find(serial)
        if unit is not None and unit.state in {State.REVOKED, State.DECOMMISSIONED}:
            raise TrustError(f"got a unit that is {unit.state}, want one that never was")
        return None if unit is None else unit.birth

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
        self.record(serial, "activate", {AK: ak.area.name.hex()})

    def idevid(self, order: Order, csr: bytes, tls: Public) -> bytes:
        """Return the unit's IDevID in DER: the one that was issued for this key, else a new one."""
        make = lambda: self._authority.issue_idevid(csr, serial=order.serial, model=order.model)  # noqa: E731
        return self._issue("idevid", order, tls, make)

    def ak_certificate(self, order: Order, ak: AttestationKey) -> bytes:
        """Return the certificate of the attestation key in DER, likewise."""
        make = lambda: self._authority.issue_ak(ak.key, serial=order.serial, model=order.model)  # noqa: E731
        return self._issue("ak", order, ak.area, make)

    def _issue(self, kind: str, order: Order, area: Public, make: Callable[[], bytes]) -> bytes:
        with self._turn:
            found = [
                one.der
                for one in self._authority.issued(subject=order.serial)
                if one.kind == kind and one.revoked_s is None and _is_for(one.der, area, order)
            ]
            made = found[-1] if found else make()
            self._registrar.step(
                order.serial, f"{kind}_certificate", {f"{kind}_sha256": hashlib.sha256(made).hexdigest()}
            )
        return made

    def complete(self, birth: Birth) -> bytes:
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
        return note

    def _find(self, serial: str) -> Unit | None:
        try:
            return self._registrar.unit(serial)
        except TrustError:  # there is none of this serial
            return None

    def certificates(self, serial: str, note: bytes) -> tuple[Sequence[bytes], Sequence[bytes]]:
        """Return the chains in DER of the attestation key and the IDevID that a birth record names."""
        birth = read_birth(note, verifier=self._factory.verifier)
        with self._turn:
            issued = {one.sha256: one for one in self._authority.issued(subject=serial)}
        found = [issued.get(getattr(birth, attribute)) for attribute in _KINDS.values()]
        if any(one is None or one.revoked_s is not None for one in found):
            raise TrustError("the authority's book lacks a certificate of the birth record, or it is revoked")
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
