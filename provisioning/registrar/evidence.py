"""What a unit's TPM signed at the station, as the steps of the registrar keep it; checked again by who doubts it.

So it rests on no one's memory that a unit's keys live in its TPM, and how it left the factory.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Self

from gateway.attest.birth import Birth
from gateway.attest.evidence import Counter
from gateway.attest.structures import Public, PublicKey, parse_public
from gateway.attest.verify import verify_certify, verify_counter, verify_quote
from gateway.codec.enrol_lines import to_text
from gateway.errors import TrustError
from gateway.tlog.lines import decode_base64
from provisioning.registrar.unit import Unit


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a TPM signed over a nonce of the station. public: of what it vouches for; b"" for a quote.

    attest: TPMS_ATTEST. signature: TPMT_SIGNATURE.
    """

    nonce: bytes
    attest: bytes
    signature: bytes
    public: bytes = b""

    @property
    def texts(self) -> dict[str, str]:
        """For a step's result: base64 by name."""
        found = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: to_text(content) for name, content in found.items() if content}

    @classmethod
    def read(cls, result: Mapping[str, str]) -> Self:
        """Return the answer in a step's result. Raises TrustError."""
        try:
            return cls(**{one.name: decode_base64(result[one.name]) for one in fields(cls) if one.name in result})
        except TypeError as e:
            raise TrustError("it has no nonce, attest and signature") from e

    def key(self, ak: PublicKey) -> Public:
        """Return the key that the TPM of this AK vouches for. Raises TrustError."""
        return verify_certify(self.attest, self.signature, ak, qualifying=self.nonce, public=self.public)

    def counter(self, ak: PublicKey) -> tuple[int, int]:
        """Return the NV index and the value of the counter that it vouches for. Raises TrustError."""
        counter = Counter(public=self.public, attest=self.attest, signature=self.signature)
        return verify_counter(counter, ak, qualifying=self.nonce)

    def check_quote(self, ak: PublicKey, pcrs: Mapping[int, bytes]) -> None:
        """Raise TrustError unless it is a quote over just these PCRs."""
        verify_quote(self.attest, self.signature, ak, qualifying=self.nonce, pcrs=pcrs)


def has_evidence(unit: Unit) -> bool:
    """Whether a unit's steps hold a golden quote. One that was put into the registrar by other means has none."""
    return "attest" in unit.steps.get("quote", {})


def verify_evidence(unit: Unit, birth: Birth) -> None:
    """Check what a unit's TPM signed, by the AK of its birth record, against that record. Raises TrustError.

    The golden quote is over the record's PCRs, the counter stood where it says, the certified key is the step's.
    """
    for step, check in _CHECKS.items():
        try:
            check(unit.steps, birth)
        except KeyError as e:
            raise TrustError(f"unit {unit.serial}: {step}: got no {e}, want what its TPM signed") from e
        except TrustError as e:
            raise TrustError(f"unit {unit.serial}: {step}: {e}") from e


_Steps = Mapping[str, Mapping[str, str]]


def _ak(steps: _Steps, birth: Birth) -> PublicKey:
    ak = parse_public(decode_base64(steps["activate"]["public"]))
    if ak.name != birth.ak_name or not ak.is_restricted_signing:
        raise TrustError("the key of step activate is not the attestation key of the birth record")
    return ak.key


def _quote(steps: _Steps, birth: Birth) -> None:
    Answer.read(steps["quote"]).check_quote(_ak(steps, birth), birth.golden)


def _floor(steps: _Steps, birth: Birth) -> None:
    index, value = Answer.read(steps["floor"]).counter(_ak(steps, birth))
    if (index, value) != (birth.nv_index, birth.nv_value):
        raise TrustError(f"got 0x{index:08x} at {value}, want 0x{birth.nv_index:08x} at {birth.nv_value}")


def _certify(steps: _Steps, birth: Birth) -> None:
    if Answer.read(steps["certify"]).key(_ak(steps, birth)).name.hex() != steps["certify"]["name"]:
        raise TrustError("the TPM vouches for another key")


_CHECKS = {"quote": _quote, "floor": _floor, "certify": _certify}
