"""The checks of an enrolment, one function each: what the unit showed, verified, or an error that says got and want.

Nothing that a unit says is believed: it is signed by its TPM over a fresh nonce, or compared with the order. The
checks rest on each other in this order; provisioning.station.enrolment keeps it.
"""

import hashlib
import hmac
import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.attest.birth import Birth
from gateway.attest.credential import Credential, make_credential
from gateway.attest.ek import check_ek_public, verify_ek_chain
from gateway.attest.lenient import read_certificate
from gateway.attest.structures import Public, parse_public
from gateway.codec import enrol_lines as lines
from gateway.codec.enrol_lines import EK_KINDS, NONCE_BYTES, PROTOCOL, credential_proof, to_text
from gateway.errors import TrustError
from provisioning.registrar.evidence import Answer
from provisioning.station.link import Link
from provisioning.station.order import STRICT, Order, Policy

_SECRET_BYTES = 32
_BLOB = lines.blob(4096)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hello:
    """What a unit says of itself first. birth: SHA-256 of the birth record that it holds."""

    serial: str
    is_enrolled: bool
    birth: str
    about: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsed:
    """An endorsement key that a pinned maker vouches for. public: TPMT_PUBLIC. certificate: DER."""

    kind: str
    certificate: bytes
    public: bytes
    maker: str
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationKey:
    """An attestation key. It lives in the TPM of a certain EK only once activate says so."""

    public: bytes
    area: Public
    key: ec.EllipticCurvePublicKey


def hello(link: Link, *, tries: int | None = None) -> Hello:
    """Return what the unit says of itself; nothing of it is proven. tries: the link's without it."""
    fields: Mapping[str, lines.Field] = {
        "protocol": lines.whole(0, 1000),
        "serial": lambda text: text and lines.serial(text),
        "enrolled": lines.truth,
        "birth": lines.digest,
        "about": lines.texts,
    }
    said = link.ask("hello", {}, fields, tries=tries)
    if said["protocol"] != PROTOCOL:
        raise TrustError(f"got protocol {said['protocol']}, want {PROTOCOL}")
    return Hello(serial=said["serial"], is_enrolled=said["enrolled"], birth=said["birth"], about=said["about"])


def identify(link: Link, order: Order) -> None:
    """Make sure that this is the unit that the order means."""
    said = link.ask(
        "identify", {"serial": order.serial, "order": order.order}, {"serial": lines.serial, "order": lines.name}
    )
    if said != {"serial": order.serial, "order": order.order}:
        raise TrustError(f"got serial {said['serial']}, want {order.serial}")


def image(link: Link, order: Order, *, patience: float) -> str:
    """Return the SHA-256 of the unit's image, as the unit says it, if it is the order's."""
    said = link.ask("image", {}, {"sha256": lines.digest, "bytes": lines.whole(0, 2**62)}, patience=patience)
    if said["sha256"] != order.image_sha256:
        raise TrustError(f"got an image of {said['bytes']} bytes, SHA-256 {said['sha256']}, want {order.image_sha256}")
    return str(said["sha256"])


def endorsement(link: Link, policy: Policy, *, at_s: int) -> Endorsed:
    """Return the unit's endorsement key, if a pinned maker vouches for it."""
    for kind in policy.ek_kinds:
        said = _ek(link, kind)
        if said is not None:
            break
    else:
        raise TrustError(f"got a TPM without an EK certificate, want one of {', '.join(policy.ek_kinds)}")
    certificate, public = said
    found = verify_ek_chain(certificate, policy.intermediates, policy.roots, at_s=at_s)
    if found.remarks and policy.ek_policy == STRICT:
        raise TrustError(f"got an EK certificate that strays from the norm ({'; '.join(found.remarks)})")
    check_ek_public(found, public)
    return Endorsed(kind=kind, certificate=found.certificate, public=public, maker=found.maker, remarks=found.remarks)


def _ek(link: Link, kind: str) -> tuple[bytes, bytes] | None:
    """Return the certificate and the public area of the unit's EK of this kind, None where its maker gave it none."""
    fields = {"certificate": lines.optional(lines.blob(8192)), "public": lines.optional(_BLOB)}
    said = link.ask("ek", {"kind": kind}, fields)
    return None if said["certificate"] is None or said["public"] is None else (said["certificate"], said["public"])


def same_tpm(link: Link, birth: Birth) -> None:
    """Make sure that this is the TPM of a birth record: it holds that EK and that AK. The unit may be enrolled."""
    shown = ((kind, _ek(link, kind)) for kind in EK_KINDS)
    for kind, said in shown:
        if said is not None and (read := read_certificate(said[0])).raw == birth.ek_certificate:
            area = parse_public(said[1])
            if area.key != read.key or not area.is_restricted_decrypt:
                raise TrustError("the TPM's key is not the one in its EK certificate")
            endorsed = Endorsed(
                kind=kind, certificate=read.raw, public=said[1], maker=read.tpm[0], remarks=birth.ek_remarks
            )
            activate(link, endorsed, birth.ak_name)
            return
    raise TrustError("this serial is enrolled with another TPM: two units with one serial?")


def attestation_key(link: Link) -> AttestationKey:
    """Return the key that the unit shows as its attestation key."""
    public = link.ask("ak", {}, {"public": _BLOB})["public"]
    area = parse_public(public)
    if not area.is_restricted_signing or not isinstance(area.key, ec.EllipticCurvePublicKey):
        raise TrustError("got an attestation key that is not a restricted P-256 signing key")
    return AttestationKey(public=public, area=area, key=area.key)


def activate(link: Link, endorsed: Endorsed, name: bytes) -> None:
    """Make sure that one TPM holds the EK and the AK of this name: it alone opens a credential made for the pair."""
    secret, nonce = secrets.token_bytes(_SECRET_BYTES), secrets.token_bytes(NONCE_BYTES)
    credential = credential_for(endorsed, name, secret)
    said = link.ask("activate", _activation(endorsed, credential, nonce), {"proof": lines.blob(32, least=32)})
    if not hmac.compare_digest(said["proof"], credential_proof(secret, nonce)):
        raise TrustError("the TPM of this EK does not hold this attestation key")


def credential_for(endorsed: Endorsed, name: bytes, secret: bytes) -> Credential:
    """Return a credential that only the TPM of this EK can open, and only for the key of this name."""
    return make_credential(
        endorsed.public, name, secret, seed=secrets.token_bytes(32), padding_seed=secrets.token_bytes(32)
    )


def certify(link: Link, ak: AttestationKey) -> tuple[Public, Answer]:
    """Return the key of the IDevID, and how the attestation key vouches for it: it lives in the same TPM."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    fields = {"public": _BLOB, "attest": _BLOB, "signature": _BLOB}
    answer = Answer(nonce=nonce, **link.ask("certify", {"nonce": to_text(nonce)}, fields))
    return answer.key(ak.key), answer


def request(link: Link, order: Order, tls: Public) -> bytes:
    """Return the unit's request for its IDevID in DER, if it is for the certified key."""
    csr = link.ask("request", {"model": order.model}, {"csr": _BLOB})["csr"]
    try:
        read = x509.load_der_x509_csr(csr)
        is_right = read.is_signature_valid and read.public_key() == tls.key
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.InvalidVersion) as e:
        raise TrustError(f"got a certificate request that cannot be read: {e}") from e
    if not is_right:
        raise TrustError("got a certificate request for another key, want the one that the TPM certified")
    return bytes(csr)


def install(link: Link, policy: Policy) -> None:
    """Install the trust anchors, and compare what stands on the unit's disk."""
    wanted = {name: to_text(content) for name, content in policy.anchors.items()}
    fields = {name: lines.optional(lines.blob(16 * 1024)) for name in policy.anchors}
    found = link.ask("install", wanted, fields)
    wrong = [name for name, content in policy.anchors.items() if found[name] != content]
    if wrong:
        raise TrustError(f"got other bytes back for {', '.join(wrong)}")


def floor(link: Link, policy: Policy, ak: AttestationKey) -> tuple[int, Answer]:
    """Return the value of the unit's version counter, at or above the floor, and the TPM's word for it."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    asked = {"index": policy.nv_index, "value": policy.nv_floor, "nonce": to_text(nonce)}
    said = link.ask("floor", asked, {"public": _BLOB, "attest": _BLOB, "signature": _BLOB}, patience=4.0)
    answer = Answer(nonce=nonce, **said)
    index, value = answer.counter(ak.key)
    if index != policy.nv_index or value < policy.nv_floor:
        raise TrustError(
            f"got counter 0x{index:08x} at {value}, want 0x{policy.nv_index:08x} at {policy.nv_floor} or more"
        )
    return value, answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """A quote of the unit as the factory leaves it, with what is needed to check it again."""

    answer: Answer
    pcrs: Mapping[int, bytes]

    @property
    def texts(self) -> dict[str, str]:
        """For the registrar: the PCRs by index, and the quote."""
        return {str(index): digest.hex() for index, digest in self.pcrs.items()} | self.answer.texts


def quote(link: Link, policy: Policy, ak: AttestationKey, order: Order) -> Golden:
    """Return a quote over a fresh nonce, verified."""
    nonce = secrets.token_bytes(NONCE_BYTES)
    fields = {"attest": _BLOB, "signature": _BLOB, "pcrs": lines.pcrs}
    said = link.ask("quote", quote_request(order.serial, nonce, policy), fields)
    if tuple(said["pcrs"]) != policy.pcrs:
        raise TrustError(f"got a quote over PCRs {sorted(said['pcrs'])}, want {sorted(policy.pcrs)}")
    golden = Golden(answer=Answer(nonce=nonce, attest=said["attest"], signature=said["signature"]), pcrs=said["pcrs"])
    golden.answer.check_quote(ak.key, golden.pcrs)
    return golden


def quote_request(serial: str, nonce: bytes, policy: Policy) -> dict[str, object]:
    """Return the arguments of a request for a quote."""
    return {"serial": serial, "nonce": to_text(nonce), "pcrs": list(policy.pcrs)}


def finish(link: Link, files: Mapping[str, bytes]) -> None:
    """Give the unit its certificates and its birth record; from here on it refuses to be enrolled."""
    said = link.ask(
        "finish", {name: to_text(content) for name, content in files.items()}, {"birth": lines.digest}, patience=2.0
    )
    if said["birth"] != hashlib.sha256(files["birth.note"]).hexdigest():
        raise TrustError("got another birth record back")


def _activation(endorsed: Endorsed, credential: Credential, nonce: bytes) -> dict[str, object]:
    return {
        "kind": endorsed.kind,
        "id_object": to_text(credential.id_object),
        "secret": to_text(credential.secret),
        "nonce": to_text(nonce),
    }
