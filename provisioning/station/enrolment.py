"""One unit's way through the station: the steps in order, each recorded; enrolled by the last of them alone.

Interrupted at any point, it is begun again: each check is done anew, for the unit may have been changed meanwhile, and
nothing is issued twice. Certificates leave the station only once the registrar and the factory's log have the unit.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from gateway.attest.birth import Birth, read_birth
from gateway.errors import ConfigError, GatewayError, LinkError, TrustError
from gateway.tlog.note import Signer
from provisioning.ca.folder import to_pem
from provisioning.station import steps
from provisioning.station.books import Books
from provisioning.station.link import Link
from provisioning.station.order import Order, Policy
from provisioning.station.refusals import refusals

_T = TypeVar("_T")

STEPS: Mapping[str, str] = {
    "hello": "is the unit powered and cabled, and does `wattseal enrol` run there?",
    "identify": "compare the serial on the board with the work order's; scan it again",
    "image": "write the order's image to the unit again, or correct image_sha256",
    "ek": "put this TPM maker's root into the folder of EK roots if the maker is approved; else set the board aside",
    "ak": "start the unit anew; if it stays, set the board aside: its TPM changed since it was begun",
    "activate": "start the unit anew; if it stays, set the board aside: its TPM is not what it says",
    "certify": "start the unit anew; if it stays, set the board aside",
    "idevid": "look at the device authority: its folder, its password, its certificate",
    "ak_certificate": "look at the device authority: its folder, its password, its certificate",
    "anchors": "is the unit's disk full or read-only?",
    "floor": "remove a counter that is in the way with tpm2_nvundefine, or choose another index",
    "quote": "start the unit anew, and give it time to boot to the end",
    "refuse": "do not ship: the unit accepts what it must refuse; write the image again, else set the board aside",
    "birth": "look at the factory key, the registrar's database and the factory's log",
    "deliver": "enrol it again: the registrar has it, only the unit lacks its files",
    "label": "look at the label folder",
}
"""The steps in order, and what a person does when one fails."""


class StepError(GatewayError):
    """Raised when a step of a unit failed: says unit, step, got and want, and how to mend it."""

    def __init__(self, serial: str, step: str, why: GatewayError) -> None:
        super().__init__(f"{serial}: {step}: {why}; {STEPS[step]}")
        self.serial, self.step, self.why, self.mend = serial, step, str(why), STEPS[step]


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """A unit that is done. birth: the signed note. seconds: of each step of this run, by name."""

    serial: str
    ak_fingerprint: str
    birth: bytes
    seconds: Mapping[str, float]

    @property
    def birth_sha256(self) -> str:
        """What the label and the unit say of its birth record."""
        return hashlib.sha256(self.birth).hexdigest()


class Enrolment:
    """Takes one unit through the steps. told: hears of each step that is begun. now_s: Unix seconds.

    seconds: that were spent on the unit before.
    """

    def __init__(
        self,
        *,
        link: Link,
        order: Order,
        policy: Policy,
        books: Books,
        factory: Signer,
        label: Callable[[Enrolled], None],
        now_s: Callable[[], int],
        told: Callable[[str], None] = lambda _: None,
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        self._link, self._order, self._policy, self._books = link, order, policy, books
        self._factory, self._label, self._now_s, self._told = factory, label, now_s, told
        self._seconds = dict(seconds or {})

    def run(self) -> Enrolled:
        """Enrol the unit, or go on where it was left. Raises StepError."""
        hello = self._step("hello", lambda: steps.hello(self._link))
        done = self._step("hello", lambda: self._books.birth_of_enrolled(self._order.serial))
        if done is None:
            if hello.is_enrolled:
                why = TrustError("got a unit that is enrolled elsewhere, want a new one or a factory reset")
                raise StepError(self._order.serial, "hello", why)
            note = self._enrol()
        else:
            note = self._known(done, hello)
        enrolled = self._deliver(note, hello)
        self._step("label", lambda: self._label(enrolled))
        return enrolled

    def _enrol(self) -> bytes:
        """Go through all checks, and return the birth record, which the registrar and the log then have."""
        link, order, policy = self._link, self._order, self._policy
        patience = policy.image_timeout_s / policy.timeout_s
        self._step("identify", self._identify)
        image = self._step("image", lambda: steps.image(link, order, patience=patience))
        self._record("image", {"sha256": image})
        endorsed = self._step("ek", lambda: steps.endorsement(link, policy, at_s=self._now_s()))
        ak = self._step("ak", lambda: self._same_ak(steps.attestation_key(link)))
        self._step("activate", lambda: steps.activate(link, endorsed, ak))
        self._step("activate", lambda: self._books.claim(order.serial, endorsed, ak))
        tls = self._step("certify", lambda: steps.certify(link, ak))
        self._record("certify", {"name": tls.name.hex()})
        csr = self._step("idevid", lambda: steps.request(link, order, tls))
        idevid = self._step("idevid", lambda: self._books.idevid(order, csr, tls))
        certificate = self._step("ak_certificate", lambda: self._books.ak_certificate(order, ak))
        self._step("anchors", lambda: steps.install(link, policy))
        self._record("anchors", {name: _sha256(content) for name, content in policy.anchors.items()})
        value = self._step("floor", lambda: steps.floor(link, policy, ak))
        self._record("floor", {"index": f"0x{policy.nv_index:08x}", "value": str(value)})
        golden = self._step("quote", lambda: steps.quote(link, policy, ak, order))
        self._record("quote", {str(index): digest.hex() for index, digest in golden.pcrs.items()})
        refused = self._step(
            "refuse",
            lambda: refusals(
                link, policy=policy, order=order, endorsed=endorsed, ak=ak, golden=golden, at_s=self._now_s()
            ),
        )
        self._record("refuse", dict.fromkeys(refused, "refused"))
        birth = self._birth(
            endorsed=endorsed, ak=ak, certificate=certificate, idevid=idevid, nv_value=value, golden=golden
        )
        return self._step("birth", lambda: self._books.complete(birth))

    def _birth(
        self,
        *,
        endorsed: steps.Endorsed,
        ak: steps.AttestationKey,
        certificate: bytes,
        idevid: bytes,
        nv_value: int,
        golden: steps.Golden,
    ) -> Birth:
        """Return what the factory says of the unit, once every check has passed."""
        order, policy = self._order, self._policy
        return Birth(
            serial=order.serial,
            model=order.model,
            order=order.order,
            operator=order.operator,
            station=policy.station,
            image_sha256=order.image_sha256,
            ek_certificate=endorsed.certificate,
            ek_remarks=endorsed.remarks,
            ak_name=ak.area.name,
            ak_certificate_sha256=_sha256(certificate),
            idevid_sha256=_sha256(idevid),
            golden=golden.pcrs,
            nv_index=policy.nv_index,
            nv_value=nv_value,
            made_s=self._now_s(),
        )

    def _identify(self) -> None:
        steps.identify(self._link, self._order)
        self._books.begin(self._order)

    def _same_ak(self, ak: steps.AttestationKey) -> steps.AttestationKey:
        """Return the key, unless the unit was begun with another: then its TPM, or its board, was swapped."""
        known = self._books.ak_name(self._order.serial)
        if known is not None and known != ak.area.name.hex():
            raise TrustError("got another attestation key than when this unit was begun: another TPM answers")
        return ak

    def _known(self, note: bytes, hello: steps.Hello) -> bytes:
        """Return the birth record of a unit that the registrar has, once it is sure that this is that unit."""
        if hello.is_enrolled and hello.birth == _sha256(note):
            return note
        if hello.is_enrolled:
            why = TrustError("got a unit with another birth record than the registrar's: two units with one serial?")
            raise StepError(self._order.serial, "hello", why)
        self._step("identify", lambda: steps.identify(self._link, self._order))
        ak = self._step("ak", lambda: steps.attestation_key(self._link))
        birth = self._step("ak", lambda: read_birth(note, verifier=self._factory.verifier))
        if birth.ak_name != ak.area.name:
            why = TrustError("this serial is enrolled with another TPM: two units with one serial?")
            raise StepError(self._order.serial, "ak", why)
        self._step("quote", lambda: steps.quote(self._link, self._policy, ak, self._order))
        self._step("anchors", lambda: steps.install(self._link, self._policy))
        return note

    def _deliver(self, note: bytes, hello: steps.Hello) -> Enrolled:
        """Hand the unit its certificates and its birth record; it is closed by that."""
        ak, idevid = self._step("deliver", lambda: self._books.certificates(self._order.serial, note))
        if not hello.is_enrolled:
            files = {"ak-chain.pem": to_pem(ak), "idevid-chain.pem": to_pem(idevid), "birth.note": note}
            self._step("deliver", lambda: steps.finish(self._link, files))
        return Enrolled(serial=self._order.serial, ak_fingerprint=_sha256(ak[0]), birth=note, seconds=self._seconds)

    def _record(self, name: str, said: Mapping[str, str]) -> None:
        self._step(name, lambda: self._books.record(self._order.serial, name, said))

    def _step(self, name: str, act: Callable[[], _T]) -> _T:
        """Do one part of a step, in time measured; whatever fails in it says which step that was."""
        begun_s = time.perf_counter()
        self._told(name)
        try:
            return act()
        except (TrustError, LinkError, ConfigError) as e:
            raise StepError(self._order.serial, name, e) from e
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - begun_s


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
