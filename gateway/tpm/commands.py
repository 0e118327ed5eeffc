"""The TPM commands that we use, each in one method: marshalled structures in, marshalled structures out.

A structure that ESAPI returns is marshalled here at once: a field of a temporary (`sign(...).signature.ecdsa`) would
be read from freed memory.
"""

import struct
from collections.abc import Sequence
from typing import Any

from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_CAP, TPM2_EO, TPM2_RH
from tpm2_pytss.types import (
    TPM2B_ENCRYPTED_SECRET,
    TPM2B_ID_OBJECT,
    TPM2B_NV_PUBLIC,
    TPM2B_OPERAND,
    TPM2B_SENSITIVE_CREATE,
    TPML_DIGEST_VALUES,
    TPML_PCR_SELECTION,
    TPMS_NV_PUBLIC,
    TPMS_SENSITIVE_CREATE,
    TPMT_SIG_SCHEME,
    TPMT_SIGNATURE,
    TPMT_TK_HASHCHECK,
)

from gateway.attest.structures import SHA256
from gateway.errors import TrustError
from gateway.tpm import policy
from gateway.tpm.context import ENDORSEMENT, OWNER, Context, Handle, area, parsed
from gateway.tpm.templates import ECDSA_SHA256

_READ_AT_ONCE = 8
"""PCR_Read gives at most 8 values (TPM 2.0 Library, Part 2, 10.9.8)."""
_READ_TRIES = 5
_ABSENT = 0x018B
"""TPM_RC_HANDLE of the first handle."""
_NULL_SCHEME = TPMT_SIG_SCHEME(scheme=TPM2_ALG.NULL)


class Commands(Context):
    """A connection to a TPM, and what we say over it."""

    def create(
        self, parent: Handle, template: bytes, secret: bytes = b"", *, session: Handle | None = None
    ) -> tuple[bytes, bytes]:
        """Return (TPMT_PUBLIC, private) of a new object under parent. secret: what it seals, b"" for a key."""
        sensitive = TPM2B_SENSITIVE_CREATE(TPMS_SENSITIVE_CREATE(data=secret))
        auth = session.tr if session else ESYS_TR.PASSWORD
        private, public, *_ = self.run(self.api.create, parent.tr, sensitive, area(template), session1=auth)
        return public.publicArea.marshal(), bytes(private)

    def quote(self, key: Handle, qualifying: bytes, indices: Sequence[int]) -> tuple[bytes, bytes]:
        """Return (TPMS_ATTEST, TPMT_SIGNATURE)."""
        chosen = parsed(TPML_PCR_SELECTION, policy.selection(indices))
        return _attested(self.run(self.api.quote, key.tr, chosen, qualifying))

    def certify(self, key: Handle, signer: Handle, qualifying: bytes) -> tuple[bytes, bytes]:
        """Return (TPMS_ATTEST, TPMT_SIGNATURE): signer's word for key."""
        return _attested(self.run(self.api.certify, key.tr, signer.tr, qualifying, _NULL_SCHEME))

    def sign(self, key: Handle, digest: bytes) -> bytes:
        """Return TPMT_SIGNATURE over a SHA-256 digest."""
        scheme = parsed(TPMT_SIG_SCHEME, ECDSA_SHA256)
        ticket = TPMT_TK_HASHCHECK(tag=0x8024, hierarchy=TPM2_RH.NULL)
        made = self.run(self.api.sign, key.tr, digest, scheme, ticket)
        return bytes(made.marshal())

    def activate(self, ak: Handle, ek: Handle, id_object: bytes, secret: bytes, *, session: Handle | None) -> bytes:
        """Return what a credential holds. session: satisfies the EK's policy; None where an empty password does."""
        made = self.run(
            self.api.activate_credential,
            ak.tr,
            ek.tr,
            parsed(TPM2B_ID_OBJECT, id_object),
            parsed(TPM2B_ENCRYPTED_SECRET, secret),
            session2=session.tr if session else ESYS_TR.PASSWORD,
        )
        return bytes(made)

    def policy_endorsement(self, session: Handle) -> None:
        """Satisfy PolicySecret of the endorsement hierarchy, with an empty password."""
        self.run(self.api.policy_secret, ENDORSEMENT, session.tr, expiration=0)

    def policy_pcr(self, session: Handle, indices: Sequence[int]) -> None:
        """Continue a policy by what these PCRs are now."""
        self.run(self.api.policy_pcr, session.tr, b"", parsed(TPML_PCR_SELECTION, policy.selection(indices)))

    def policy_at_most(self, session: Handle, index: int, version: int) -> None:
        """Continue a policy by: this counter is at version or below. Raises TrustError when it is not."""
        tr = self._index(index)
        try:
            operand = TPM2B_OPERAND(struct.pack(">Q", version))
            self.run(self.api.policy_nv, tr, tr, session.tr, operand, TPM2_EO.UNSIGNED_LE)
        finally:
            self.api.tr_close(tr)

    def policy_authorize(
        self, session: Handle, key: Handle, *, approved: bytes, reference: bytes, digest: bytes, signature: bytes
    ) -> None:
        """Replace an approved policy by the one of the key that signed it. Raises TrustError when it did not."""
        ticket = self.run(self.api.verify_signature, key.tr, digest, parsed(TPMT_SIGNATURE, signature))
        name = policy.name(key.public)
        self.run(self.api.policy_authorize, session.tr, approved, name, ticket, reference)

    def policy_digest(self, session: Handle) -> bytes:
        """Return where a policy stands."""
        return bytes(self.run(self.api.policy_get_digest, session.tr))

    def unseal(self, item: Handle, *, session: Handle) -> bytes:
        """Return a sealed secret."""
        return bytes(self.run(self.api.unseal, item.tr, session1=session.tr))

    def pcr_read(self, indices: Sequence[int]) -> dict[int, bytes]:
        """Return values of the SHA-256 bank, all of one instant. Raises TrustError when there is none for one."""
        for _ in range(_READ_TRIES):
            values, updates = self._pcr_read(indices)
            if len(updates) <= 1:
                return values
        raise TrustError("TPM: pcr_read: the PCRs keep changing")

    def _pcr_read(self, indices: Sequence[int]) -> tuple[dict[int, bytes], set[int]]:
        values: dict[int, bytes] = {}
        updates = set()
        wanted = list(indices)
        while wanted:
            chosen = parsed(TPML_PCR_SELECTION, policy.selection(wanted[:_READ_AT_ONCE]))
            update, got, digests = self.run(self.api.pcr_read, chosen)
            bits = int.from_bytes(got.marshal()[-3:], "little") if len(got) else 0
            read = dict(zip((i for i in range(24) if bits >> i & 1), map(bytes, digests), strict=True))
            if not read:
                raise TrustError(f"TPM: pcr_read: there is no SHA-256 value of PCR {wanted[0]}")
            values |= read
            updates.add(int(update))
            wanted = [index for index in wanted if index not in values]
        return values, updates

    def pcr_extend(self, index: int, digest: bytes) -> None:
        """Extend a PCR of the SHA-256 bank."""
        policy.selection([index])
        values = parsed(TPML_DIGEST_VALUES, struct.pack(">IH", 1, SHA256) + digest)
        self.run(self.api.pcr_extend, ESYS_TR(index), values)

    def nv_public(self, index: int) -> bytes | None:
        """Return TPMS_NV_PUBLIC; None where the index is not defined."""
        try:
            tr = self._index(index)
        except TrustError as e:
            if getattr(e.__cause__, "rc", None) == _ABSENT:
                return None
            raise
        try:
            public, _ = self.run(self.api.nv_read_public, tr)
            return bytes(public.nvPublic.marshal())
        finally:
            self.api.tr_close(tr)

    def nv_define(self, public: bytes) -> None:
        """Define an index in the owner's hierarchy, with an empty password. public: TPMS_NV_PUBLIC."""
        space = TPM2B_NV_PUBLIC(nvPublic=parsed(TPMS_NV_PUBLIC, public))
        self.api.tr_close(self.run(self.api.nv_define_space, b"", space))

    def nv_undefine(self, index: int) -> None:
        """Remove an index of the owner's hierarchy."""
        tr = self._index(index)
        try:
            self.run(self.api.nv_undefine_space, tr, OWNER)
        except BaseException:
            self.api.tr_close(tr)
            raise

    def nv_increment(self, index: int) -> None:
        """Count one up."""
        tr = self._index(index)
        try:
            self.run(self.api.nv_increment, tr)
        finally:
            self.api.tr_close(tr)

    def nv_read(self, index: int, size: int, *, by_owner: bool = False) -> bytes:
        """Return what an index holds. by_owner: read with the owner's rights, not the index's own."""
        read = b""
        tr = self._index(index)
        try:
            while len(read) < size:
                part = min(size - len(read), self.nv_buffer)
                read += bytes(self.run(self.api.nv_read, tr, part, len(read), auth_handle=OWNER if by_owner else tr))
        finally:
            self.api.tr_close(tr)
        return read

    def nv_certify(self, signer: Handle, index: int, qualifying: bytes, *, size: int) -> tuple[bytes, bytes]:
        """Return (TPMS_ATTEST, TPMT_SIGNATURE): signer's word for what an index holds."""
        tr = self._index(index)
        try:
            return _attested(self.run(self.api.nv_certify, signer.tr, tr, qualifying, _NULL_SCHEME, size))
        finally:
            self.api.tr_close(tr)

    @property
    def nv_buffer(self) -> int:
        """Bytes that one NV_Read gives at most."""
        return self.properties(0x12C, 1).get(0x12C, 512)

    def properties(self, first: int, count: int) -> dict[int, int]:
        """Return properties of the TPM (TPM_PT), by number, from first on."""
        packed = self._capability(TPM2_CAP.TPM_PROPERTIES, first, count)
        numbers = struct.unpack_from(f">{struct.unpack_from('>I', packed, 4)[0] * 2}I", packed, 8)
        return dict(zip(numbers[::2], numbers[1::2], strict=True))

    def handles(self, first: int) -> list[int]:
        """Return the handles in the TPM of the type that first begins."""
        packed = self._capability(TPM2_CAP.HANDLES, first, 254)
        return list(struct.unpack_from(f">{struct.unpack_from('>I', packed, 4)[0]}I", packed, 8))

    def read_clock(self) -> bytes:
        """Return TPMS_TIME_INFO."""
        return bytes(self.run(self.api.read_clock).marshal())

    def _capability(self, kind: Any, first: int, count: int) -> bytes:
        _, got = self.run(self.api.get_capability, kind, first, count)
        return bytes(got.marshal())

    def _index(self, index: int) -> Any:
        return self.run(self.api.tr_from_tpmpublic, index)


def _attested(made: tuple[Any, Any]) -> tuple[bytes, bytes]:
    attest, signature = made
    return bytes(attest), bytes(signature.marshal())
