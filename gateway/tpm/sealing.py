"""Secrets that a TPM gives back only in a state that it was told, or that an approver signed since.

An approval says: these PCRs, and a counter at this version or below. The device counts the counter up when it has
moved on, and every approval of a lower version is dead, whoever keeps a copy. Normative form: docs/tpm.md.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from gateway.codec.fits import Check, is_bytes, is_int, is_list, is_pcrs, shaped
from gateway.codec.pack import pack, unpack
from gateway.errors import TrustError
from gateway.tpm import identity, policy
from gateway.tpm.keys import CheckingKey, SigningKey, public_area, tpm_signature
from gateway.tpm.templates import sealed_area

if TYPE_CHECKING:
    from gateway.tpm.commands import Commands

MAX_SECRET = 128
MAX_PACKED = 4096
PURPOSE = b"wattseal-approval/v1"
_SEALED = {
    "v": is_int,
    "public": is_bytes,
    "private": is_bytes,
    "parent": is_int,
    "parent_name": is_bytes,
    "pcrs": is_list,
    "approver": is_bytes,
    "purpose": is_bytes,
}
_APPROVAL = {"v": is_int, "pcrs": is_list, "counter": is_bytes, "version": is_int, "signature": is_bytes}


@dataclass(frozen=True, slots=True, kw_only=True)
class Approver:
    """Who may say which states of the device get a secret. public: TPMT_PUBLIC. purpose: bound into each signature."""

    public: bytes
    purpose: bytes = PURPOSE

    @classmethod
    def of(cls, key: CheckingKey, *, purpose: bytes = PURPOSE) -> Self:
        """Return the holder of a P-256 or RSA key."""
        return cls(public=public_area(key), purpose=purpose)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sealed:
    """A secret that only one TPM opens; to be stored anywhere.

    pcrs: those of a PolicyPCR; empty with an approver. parent_name: of the storage key, so that no other TPM's is
    trusted with a session. approver: TPMT_PUBLIC, b"" for none.
    """

    public: bytes
    private: bytes
    parent: int
    parent_name: bytes
    pcrs: tuple[int, ...] = ()
    approver: bytes = b""
    purpose: bytes = b""

    def pack(self) -> bytes:
        """Return its bytes."""
        return pack({"v": 1} | {name: getattr(self, name) for name in list(_SEALED)[1:]} | {"pcrs": list(self.pcrs)})

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Return what these bytes hold. Raises TrustError."""
        said = _unpacked(packed, _SEALED, "sealed secret")
        if not all(is_int(one) and 0 <= one <= 23 for one in said["pcrs"]) or not 0 <= said["parent"] < 1 << 32:
            raise TrustError("sealed secret: pcrs or parent do not fit docs/tpm.md")
        said["pcrs"] = tuple(said["pcrs"])
        return cls(**said)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """An approver's word. counter: TPMS_NV_PUBLIC. version: what the counter must not exceed."""

    pcrs: Mapping[int, bytes]
    counter: bytes
    version: int
    signature: bytes

    @property
    def policy(self) -> bytes:
        """The policy digest that the approver signed."""
        return policy.at_most(self.counter, self.version, policy.in_state(self.pcrs))

    def pack(self) -> bytes:
        """Return its bytes."""
        pcrs = [[index, self.pcrs[index]] for index in sorted(self.pcrs)]
        said = {"v": 1, "pcrs": pcrs, "counter": self.counter, "version": self.version}
        return pack(said | {"signature": self.signature})

    @classmethod
    def unpack(cls, packed: bytes) -> Self:
        """Return what these bytes say, unverified: the TPM verifies. Raises TrustError."""
        said = _unpacked(packed, _APPROVAL, "approval")
        if not is_pcrs(said["pcrs"]) or not 0 <= said["version"] < 1 << 64 or len(said["counter"]) < 14:
            raise TrustError("approval: pcrs, version or counter do not fit docs/tpm.md")
        said["pcrs"] = dict(said["pcrs"])
        return cls(**said)


def approve(
    key: SigningKey,
    *,
    pcrs: Mapping[int, bytes],
    counter: bytes,
    version: int,
    purpose: bytes = PURPOSE,
) -> Approval:
    """Return an approval of a state. Needs no TPM.

    pcrs: SHA-256 values by index. counter: as Tpm.counter_public gives it. version: the counter's value, or the next.
    """
    unsigned = Approval(pcrs=dict(pcrs), counter=counter, version=version, signature=b"")
    signature = tpm_signature(key, unsigned.policy + purpose)
    return replace(unsigned, signature=signature)


def seal(commands: "Commands", secret: bytes, *, pcrs: Sequence[int], approver: Approver | None) -> Sealed:
    """Return a sealed secret: under the present state of pcrs, or under what the approver signs."""
    if not 1 <= len(secret) <= MAX_SECRET:
        raise ValueError(f"secret: got {len(secret)} bytes, want 1..{MAX_SECRET}")
    if bool(pcrs) == (approver is not None):
        raise ValueError("seal: want either PCRs or an approver")
    indices = tuple(sorted(set(pcrs)))
    under = (
        policy.authorized(approver.public, approver.purpose)
        if approver
        else policy.in_state(commands.pcr_read(indices))
    )
    with identity.srk(commands) as (parent, handle), commands.session(is_policy=False, salt=parent) as session:
        public, private = commands.create(parent, sealed_area(under), secret, session=session)
        return Sealed(
            public=public,
            private=private,
            parent=handle,
            parent_name=policy.name(parent.public),
            pcrs=indices,
            approver=approver.public if approver else b"",
            purpose=approver.purpose if approver else b"",
        )


def unseal(commands: "Commands", sealed: Sealed, approval: Approval | None) -> bytes:
    """Return the secret. Raises TrustError when the state is not the one, or not approved any more."""
    if bool(sealed.approver) != (approval is not None):
        raise TrustError("unseal: want an approval just where the secret names an approver")
    with identity.srk(commands, sealed.parent) as (parent, _):
        if policy.name(parent.public) != sealed.parent_name:
            raise TrustError("unseal: the secret was sealed in another TPM")
        with commands.session(is_policy=True, salt=parent) as session:
            if approval is None:
                commands.policy_pcr(session, sealed.pcrs)
            else:
                _satisfy(commands, session, sealed, approval)
            with commands.load(parent, sealed.public, sealed.private) as item:
                return commands.unseal(item, session=session)


def _satisfy(commands: "Commands", session: Any, sealed: Sealed, approval: Approval) -> None:
    commands.policy_pcr(session, sorted(approval.pcrs))
    index = int.from_bytes(approval.counter[:4], "big")
    commands.policy_at_most(session, index, approval.version)
    if commands.policy_digest(session) != approval.policy:
        raise TrustError("unseal: the approval is for another state of the PCRs, or another counter")
    digest = hashlib.sha256(approval.policy + sealed.purpose).digest()
    with commands.load_public(sealed.approver) as key:
        commands.policy_authorize(
            session,
            key,
            approved=approval.policy,
            reference=sealed.purpose,
            digest=digest,
            signature=approval.signature,
        )


def _unpacked(packed: bytes, shape: Mapping[str, Check], what: str) -> dict[str, Any]:
    """Return what these bytes say, its version aside."""
    if len(packed) > MAX_PACKED:
        raise TrustError(f"{what}: got {len(packed)} bytes, want at most {MAX_PACKED}")
    said = shaped(unpack(packed), shape, what, doc="docs/tpm.md")
    if said.pop("v") != 1:
        raise TrustError(f"{what}: v: want 1")
    return said
