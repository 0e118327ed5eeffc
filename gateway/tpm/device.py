"""A TPM as the rest of the program sees it: bytes in, bytes out, nothing left behind inside it.

One caller at a time: each method takes the TPM's lock for as long as it runs, so a second thread waits its turn.
A method that is under way cannot be interrupted: cancelling an `asyncio.to_thread` leaves it to finish alone.
"""

import hashlib
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from gateway.attest.evidence import Counter
from gateway.errors import ConfigError, TrustError
from gateway.tpm import describing, identity, nv, sealing
from gateway.tpm.keys import KeyBlob, der_signature
from gateway.tpm.templates import SIGNING_KEY

if TYPE_CHECKING:
    from gateway.attest.credential import Credential
    from gateway.tpm.commands import Commands

DEFAULT_TCTI = "device:/dev/tpmrm0"
"""The kernel's resource manager: other programs may use the TPM beside us."""

QUOTE_TRIES = 5
INSTALL = "apt-get install libtss2-dev libtss2-tcti-device0 pkg-config gcc python3-dev; pip install 'wattseal[tpm]'"


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """A quote, and the values that it is over. attest: TPMS_ATTEST. signature: TPMT_SIGNATURE, ECDSA with SHA-256."""

    attest: bytes
    signature: bytes
    pcrs: dict[int, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Clock:
    """A TPM's time. clock_ms: while it had power, may go back after a loss of it. reset_count: starts of the device;
    restart_count: resumes since. Both rise only, until the TPM is cleared, which also ends all keys under its SRK.
    """

    clock_ms: int
    reset_count: int
    restart_count: int
    is_safe: bool


class Tpm:
    """An open TPM; a context manager. Every method raises TrustError when the TPM refuses, with its own words,
    and ConfigError when it does not answer or has no room.
    """

    def __init__(self, commands: "Commands") -> None:
        self._commands = commands

    @classmethod
    def open(cls, tcti: str = DEFAULT_TCTI) -> Self:
        """Return the TPM behind a TCTI string, as tpm2-tools has them: `device:/dev/tpmrm0`, `swtpm:path=...`.

        Raises ConfigError when nothing is there, or the software for it is not installed.
        """
        try:
            from gateway.tpm.commands import Commands  # noqa: PLC0415 (a ledger or a laptop has no libtss2)
        except (ImportError, OSError, RuntimeError) as e:
            raise ConfigError(f"tpm: got no TPM software ({e}), want tpm2-pytss and libtss2: {INSTALL}") from e
        commands = Commands(tcti)
        try:
            commands.read_clock()
        except BaseException:
            commands.close()
            raise
        return cls(commands)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the TPM; calling it again does nothing."""
        with self._commands.turn:
            self._commands.close()

    @contextmanager
    def _turn(self) -> Iterator["Commands"]:
        with self._commands.turn:
            self._commands.ready()
            yield self._commands

    @property
    def live(self) -> int:
        """How many objects and sessions of ours are in the TPM now: 0 between two calls."""
        return self._commands.live

    def describe(self) -> dict[str, str]:
        """Return what the TPM says of itself: manufacturer, vendor, firmware, family, revision, lockout."""
        with self._turn() as commands:
            return describing.describe(commands)

    def handles(self) -> dict[str, list[int]]:
        """Return the handles that are in the TPM, by kind: transient, session, persistent, nv."""
        with self._turn() as commands:
            return describing.handles(commands)

    def clock(self) -> Clock:
        """Return the TPM's time and how often it was started."""
        with self._turn() as commands:
            _, clock_ms, resets, restarts, is_safe = struct.unpack(">QQIIB", commands.read_clock())
        return Clock(clock_ms=clock_ms, reset_count=resets, restart_count=restarts, is_safe=bool(is_safe))

    def ek_certificate(self, kind: str) -> bytes | None:
        """Return the certificate of the endorsement key in DER; None where the maker stored none. kind: EK_KINDS."""
        with self._turn() as commands:
            return identity.ek_certificate(commands, kind)

    def ek_public(self, kind: str) -> bytes:
        """Return the endorsement key as TPMT_PUBLIC, by the template of the TCG EK credential profile."""
        with self._turn() as commands, identity.ek(commands, kind) as key:
            return key.public

    def ak_public(self) -> bytes:
        """Return the attestation key as TPMT_PUBLIC: the same one for the life of the TPM, stored nowhere."""
        with self._turn() as commands, identity.ak(commands) as key:
            return key.public

    def activate(self, kind: str, credential: "Credential") -> bytes:
        """Return the secret in a credential made for this EK and this TPM's AK."""
        with self._turn() as commands:
            return identity.activate(commands, kind, credential.id_object, credential.secret)

    def pcrs(self, indices: Iterable[int]) -> dict[int, bytes]:
        """Return the SHA-256 bank at these indices, as it was at one instant."""
        with self._turn() as commands:
            return commands.pcr_read(sorted(set(indices)))

    def extend(self, index: int, digest: bytes) -> None:
        """Extend a PCR of the SHA-256 bank by a digest of 32 bytes."""
        if len(digest) != hashlib.sha256().digest_size:
            raise ValueError(f"PCR {index}: got a digest of {len(digest)} bytes, want 32")
        with self._turn() as commands:
            commands.pcr_extend(index, digest)

    def quote(self, qualifying: bytes, pcrs: Sequence[int]) -> Quoted:
        """Return a quote by the AK over qualifying (up to 32 bytes) and these PCRs, with just the values it is over.

        Raises TrustError when a PCR changed at each of QUOTE_TRIES attempts.
        """
        _check(qualifying)
        indices = sorted(set(pcrs))
        if not indices:
            raise ValueError("quote: want at least one PCR")
        with self._turn() as commands, identity.ak(commands) as key:
            for _ in range(QUOTE_TRIES):
                values = commands.pcr_read(indices)
                attest, signature = commands.quote(key, qualifying, indices)
                if _covers(attest, values):
                    return Quoted(attest=attest, signature=signature, pcrs=values)
        raise TrustError(f"TPM: the PCRs changed during each of {QUOTE_TRIES} quotes")

    def create_key(self) -> KeyBlob:
        """Return a new P-256 signing key under the SRK, which no other TPM can load."""
        with self._turn() as commands, identity.srk(commands) as (parent, handle):
            public, private = commands.create(parent, SIGNING_KEY)
        return KeyBlob(public=public, private=private, parent=handle)

    def certify(self, key: KeyBlob, qualifying: bytes) -> tuple[bytes, bytes]:
        """Return (TPMS_ATTEST, TPMT_SIGNATURE): the AK's word that this key lives in the same TPM."""
        _check(qualifying)
        with self._turn() as commands, identity.loaded(commands, key) as loaded, identity.ak(commands) as ak:
            return commands.certify(loaded, ak, qualifying)

    def sign(self, key: KeyBlob, digest: bytes) -> bytes:
        """Return an ECDSA signature in DER over a SHA-256 digest."""
        with self._turn() as commands, identity.loaded(commands, key) as loaded:
            return der_signature(commands.sign(loaded, digest))

    def counter_define(self, index: int = nv.COUNTER_INDEX) -> None:
        """Make a counter at an NV index, and count once; a counter of ours that is there already stays as it is."""
        with self._turn() as commands:
            nv.define(commands, index)

    def counter_undefine(self, index: int = nv.COUNTER_INDEX) -> None:
        """Remove a counter; one made later starts above the highest value that any counter of the TPM had."""
        with self._turn() as commands:
            commands.nv_undefine(index)

    def counter_increment(self, index: int = nv.COUNTER_INDEX) -> int:
        """Count one up; return the new value. Not for each record: some TPMs wear out after 500,000."""
        with self._turn() as commands:
            commands.nv_increment(index)
            return nv.value(commands, index)

    def counter_read(self, index: int = nv.COUNTER_INDEX) -> int:
        """Return the value of a counter."""
        with self._turn() as commands:
            return nv.value(commands, index)

    def counter_public(self, index: int = nv.COUNTER_INDEX) -> bytes:
        """Return TPMS_NV_PUBLIC of a counter, which an approval names it by."""
        with self._turn() as commands:
            return nv.public(commands, index)

    def counter_certify(self, index: int, qualifying: bytes) -> Counter:
        """Return the AK's word for the value of a counter."""
        _check(qualifying)
        with self._turn() as commands, identity.ak(commands) as ak:
            public = nv.public(commands, index)
            attest, signature = commands.nv_certify(ak, index, qualifying, size=nv.COUNTER_BYTES)
        return Counter(public=public, attest=attest, signature=signature)

    def seal(
        self, secret: bytes, *, pcrs: Sequence[int] = (), approver: sealing.Approver | None = None
    ) -> sealing.Sealed:
        """Return a secret (1 to 128 bytes) that only this TPM gives back: in the present state of these PCRs, or in
        each state that the approver signs. Exactly one of the two is given.
        """
        with self._turn() as commands:
            return sealing.seal(commands, secret, pcrs=pcrs, approver=approver)

    def unseal(self, sealed: sealing.Sealed, approval: sealing.Approval | None = None) -> bytes:
        """Return the secret. approval: where an approver was named, what it signed for the present state."""
        with self._turn() as commands:
            return sealing.unseal(commands, sealed, approval)


def _check(qualifying: bytes) -> None:
    if len(qualifying) > 32:
        raise ValueError(f"qualifying: got {len(qualifying)} bytes, want at most 32, which each TPM takes")


def _covers(attest: bytes, values: Mapping[int, bytes]) -> bool:
    """Return whether a TPMS_ATTEST of a quote, whose last field is the digest of the PCRs, is over these values."""
    digest = hashlib.sha256(b"".join(values[index] for index in sorted(values))).digest()
    return attest.endswith(struct.pack(">H", len(digest)) + digest)
