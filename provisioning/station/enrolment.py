"""One unit's way through the station: the steps in order, each recorded; enrolled by the last of them alone.

Interrupted at any point, it is begun again: each check is done anew, for the unit may have been changed meanwhile, and
nothing is issued twice. Certificates leave the station only once the registrar and the factory's log have the unit.
"""

import hashlib
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

from gateway.attest.birth import Birth
from gateway.attest.structures import Public
from gateway.errors import ConfigError, DeviceError, GatewayError, LinkError, TrustError
from provisioning.ca.folder import to_pem
from provisioning.label import write_label
from provisioning.registrar.evidence import Answer
from provisioning.station import steps
from provisioning.station.books import Books, Recorded
from provisioning.station.link import Link, Transport
from provisioning.station.order import Order, Policy
from provisioning.station.refusals import refusals

_T = TypeVar("_T")

STEPS: Mapping[str, str] = {
    "registrar": "provision show says what became of this serial; if it cannot, look at the registrar and its log",
    "connect": "look at the unit's address and cable",
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
    """Raised when a step of a unit failed: says unit, step, got and want, and how to mend it.

    seconds: of each step up to there, by name.
    """

    def __init__(self, serial: str, step: str, why: GatewayError, *, seconds: Mapping[str, float]) -> None:
        super().__init__(f"{serial}: {step}: {why}; {STEPS[step]}")
        self.serial, self.step, self.why, self.mend, self.seconds = serial, step, str(why), STEPS[step], seconds


class Way(StrEnum):
    """How a unit came to be done: AGAIN got its files or its label again, RENEWED its files and a new IDevID.

    Nothing was to be done with ALREADY; SILENT is done by the registrar and its label, and does not answer now.
    """

    ENROLLED = "enrolled"
    AGAIN = "again"
    RENEWED = "renewed"
    ALREADY = "already"
    SILENT = "silent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enrolled:
    """A unit that is done. label: where it stands. seconds: of each step of this run, by name.

    silence: why it did not answer, when it is SILENT.
    """

    way: Way
    record: Recorded
    label: Path
    seconds: Mapping[str, float]
    silence: str = ""


class Enrolment:
    """Takes one unit through the steps. label: where it is to stand, with its format behind the dot.

    told: hears of each step that is begun. now_s: Unix seconds.
    """

    _link: Link

    def __init__(
        self,
        *,
        connect: Callable[[], Transport],
        order: Order,
        policy: Policy,
        books: Books,
        label: Path,
        now_s: Callable[[], int],
        told: Callable[[str], None],
    ) -> None:
        self._connect, self._order, self._policy, self._books = connect, order, policy, books
        self._label, self._now_s, self._told = label, now_s, told
        self._seconds: dict[str, float] = {}

    def run(self) -> Enrolled:
        """Enrol the unit, or go on where it was left. Raises StepError."""
        known = self._step("registrar", lambda: self._books.recorded(self._order.serial))
        done = known if self._label.exists() else None
        silence = ""
        try:
            # What is done is asked once: it need not run its side of this any more.
            way, record = self._reached(known, tries=None if done is None else 1)
        except StepError as e:
            if done is None or not _is_silent(e):
                raise
            way, record, silence = Way.SILENT, done, f"{e.step}: {e.why}"
        if done is None:
            self._step("label", lambda: write_label(record.label, self._label.parent, kind=self._label.suffix[1:]))
            way = Way.AGAIN if way is Way.ALREADY else way
        return Enrolled(way=way, record=record, label=self._label, seconds=self._seconds, silence=silence)

    def _reached(self, known: Recorded | None, *, tries: int | None) -> tuple[Way, Recorded]:
        """Do all that the unit is needed for. known: its birth record, when it is enrolled by the registrar."""
        with closing(self._step("connect", self._connect)) as transport:
            self._link = Link(transport, session=secrets.token_hex(8), timeout_s=self._policy.timeout_s)
            hello = self._step("hello", lambda: self._hello(known, tries=tries))
            if known is None:
                way, record = Way.ENROLLED, self._enrol()
            else:
                self._step("identify", lambda: steps.identify(self._link, self._order))
                self._step("ak", lambda: steps.same_tpm(self._link, known.birth))
                if hello.is_enrolled:
                    return Way.ALREADY, known
                way, record = self._again(known.birth), known
            self._deliver(record)
        return way, record

    def _hello(self, known: Recorded | None, *, tries: int | None) -> steps.Hello:
        hello = steps.hello(self._link, tries=tries)
        if hello.is_enrolled and known is None:
            raise TrustError("got a unit that is enrolled elsewhere, want a new one or a factory reset")
        if hello.is_enrolled and known is not None and hello.birth != known.sha256:
            raise TrustError("got a unit with another birth record than the registrar's: two units with one serial?")
        return hello

    def _enrol(self) -> Recorded:
        """Go through all checks, and return the birth record, which the registrar and the log then have."""
        link, order, policy = self._link, self._order, self._policy
        patience = policy.image_timeout_s / policy.timeout_s
        self._step("identify", self._identify)
        image = self._step("image", lambda: steps.image(link, order, patience=patience))
        self._record("image", {"sha256": image})
        endorsed = self._step("ek", lambda: steps.endorsement(link, policy, at_s=self._now_s()))
        ak = self._step("ak", lambda: self._same_ak(steps.attestation_key(link)))
        self._step("activate", lambda: steps.activate(link, endorsed, ak.area.name))
        self._step("activate", lambda: self._books.claim(order.serial, endorsed, ak))
        tls, certified = self._step("certify", lambda: steps.certify(link, ak))
        self._record("certify", _certified(tls, certified))
        csr = self._step("idevid", lambda: steps.request(link, order, tls))
        idevid = self._step("idevid", lambda: self._books.idevid(order, csr, tls))
        certificate = self._step("ak_certificate", lambda: self._books.ak_certificate(order, ak))
        self._step("anchors", lambda: steps.install(link, policy))
        self._record("anchors", {name: _sha256(content) for name, content in policy.anchors.items()})
        value, counted = self._step("floor", lambda: steps.floor(link, policy, ak))
        self._record("floor", {"index": f"0x{policy.nv_index:08x}", "value": str(value)} | counted.texts)
        golden = self._step("quote", lambda: steps.quote(link, policy, ak, order))
        self._record("quote", golden.texts)
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

    def _again(self, birth: Birth) -> Way:
        """Prepare a unit that lost its files; where the key of its IDevID went with them, it gets a new one."""
        order = replace(self._order, model=birth.model)
        ak = self._step("ak", lambda: self._same_ak(steps.attestation_key(self._link)))
        tls, certified = self._step("certify", lambda: steps.certify(self._link, ak))
        csr = self._step("idevid", lambda: steps.request(self._link, order, tls))
        is_new = self._step("idevid", lambda: self._books.renew_idevid(order, csr, tls, _certified(tls, certified)))
        self._step("anchors", lambda: steps.install(self._link, self._policy))
        return Way.RENEWED if is_new else Way.AGAIN

    def _deliver(self, record: Recorded) -> None:
        """Hand the unit its certificates and its birth record; it is closed by that."""
        ak, idevid = self._step("idevid", lambda: self._books.certificates(self._order.serial))
        files = {"ak-chain.pem": to_pem(ak), "idevid-chain.pem": to_pem(idevid), "birth.note": record.note}
        self._step("deliver", lambda: steps.finish(self._link, files))

    def _record(self, name: str, said: Mapping[str, str]) -> None:
        self._step(name, lambda: self._books.record(self._order.serial, name, said))

    def _step(self, name: str, act: Callable[[], _T]) -> _T:
        """Do one part of a step, in time measured; whatever fails in it says which step that was."""
        begun_s = time.perf_counter()
        self._told(name)
        try:
            return act()
        except (TrustError, LinkError, DeviceError, ConfigError) as e:
            raise StepError(self._order.serial, name, e, seconds=self._seconds) from e
        finally:
            self._seconds[name] = self._seconds.get(name, 0.0) + time.perf_counter() - begun_s


def _certified(tls: Public, answer: Answer) -> dict[str, str]:
    return {"name": tls.name.hex()} | answer.texts


def _is_silent(error: StepError) -> bool:
    """Whether nobody was there, or nobody who answers."""
    return error.step in {"connect", "hello"} and isinstance(error.__cause__, LinkError | ConfigError)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
