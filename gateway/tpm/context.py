"""The one owner of an ESAPI context: it opens, retries, counts what is live, flushes, and narrows errors."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from tpm2_pytss import ESAPI, TCTILdr, TSS2_Exception
from tpm2_pytss.constants import ESYS_TR, TPM2_ALG, TPM2_SE, TPMA_SESSION
from tpm2_pytss.types import TPM2B_PRIVATE, TPM2B_PUBLIC, TPM2B_SENSITIVE_CREATE, TPMT_PUBLIC, TPMT_SYM_DEF

from gateway.attest.octets import sized
from gateway.errors import TrustError
from gateway.tpm.refusals import is_lost, is_passing, narrowed

MAX_LIVE = 3
"""Objects and sessions at once: what swtpm holds, and the kernel's resource manager gives one descriptor."""

TRIES = 10
PAUSE_S = 0.02
"""Before the second attempt; twice as long before each further one: some 10 s in all."""

OWNER, ENDORSEMENT = ESYS_TR.OWNER, ESYS_TR.ENDORSEMENT
_HIERARCHIES = {"owner": OWNER, "endorsement": ENDORSEMENT}


@dataclass(frozen=True, slots=True, kw_only=True)
class Handle:
    """Something in the TPM, while its `with` lasts. tr: ESAPI's number. public: TPMT_PUBLIC, b"" of a session."""

    tr: Any
    public: bytes = b""


class Context:
    """A connection to a TPM. turn: held by whoever talks to it."""

    def __init__(self, tcti: str) -> None:
        self.turn = threading.RLock()
        self.live = 0
        self.tcti = tcti
        self._is_closed = False
        self._is_lost = self._is_open = False
        self._open()

    def _open(self) -> None:
        try:
            self._transport = TCTILdr.parse(self.tcti)
        except TSS2_Exception as e:
            raise narrowed(e, self.tcti) from e
        try:
            self.api = ESAPI(self._transport)
        except TSS2_Exception as e:
            self._transport.close()
            raise narrowed(e, self.tcti) from e
        self._is_open = True

    def close(self) -> None:
        """Let go of the TPM. Raises RuntimeError when something of ours is still in it: a bug."""
        self._is_closed = True
        self._shut()
        if self.live:
            raise RuntimeError(f"TPM: {self.live} handles were left open")

    def _shut(self) -> None:
        if self._is_open:
            self._is_open = False
            self.api.close()
            self._transport.close()

    def ready(self) -> None:
        """Connect again after the connection was lost. Raises ConfigError when nothing answers."""
        if self._is_closed:
            raise RuntimeError("TPM: used after it was closed")
        if self._is_lost:
            self._shut()
            self._open()
            self._is_lost = False

    def run(self, call: Callable[..., Any], *args: Any, **named: Any) -> Any:
        """Return what an ESAPI call returns, asked again while the TPM is busy, for a bounded time."""
        try:
            return attempt(lambda: call(*args, **named))
        except TSS2_Exception as e:
            self._is_lost = self._is_lost or is_lost(e)
            raise narrowed(e, call.__name__) from e

    @contextmanager
    def primary(self, hierarchy: str, template: bytes) -> Iterator[Handle]:
        """Give the primary key of this template, until the `with` ends. hierarchy: owner or endorsement."""
        seed = _HIERARCHIES[hierarchy]
        with self._room():
            made = self.run(self.api.create_primary, TPM2B_SENSITIVE_CREATE(), area(template), seed)
            with self._flushed(made[0]):
                yield Handle(tr=made[0], public=made[1].publicArea.marshal())

    @contextmanager
    def load(self, parent: Handle, public: bytes, private: bytes) -> Iterator[Handle]:
        """Give an object that was created under parent, until the `with` ends."""
        with self._room():
            tr = self.run(self.api.load, parent.tr, parsed(TPM2B_PRIVATE, sized(private)), area(public))
            with self._flushed(tr):
                yield Handle(tr=tr, public=public)

    @contextmanager
    def load_public(self, public: bytes) -> Iterator[Handle]:
        """Give somebody else's public key, until the `with` ends."""
        with self._room():
            tr = self.run(self.api.load_external, area(public), hierarchy=OWNER)
            with self._flushed(tr):
                yield Handle(tr=tr, public=public)

    @contextmanager
    def persistent(self, handle: int) -> Iterator[Handle]:
        """Give an object that stays in the TPM. It takes a slot while it is used, so it counts."""
        with self._room():
            tr = self.run(self.api.tr_from_tpmpublic, handle)
            try:
                public, _, _ = self.run(self.api.read_public, tr)
                yield Handle(tr=tr, public=public.publicArea.marshal())
            finally:
                self.api.tr_close(tr)

    @contextmanager
    def session(self, *, is_policy: bool, salt: Handle | None = None) -> Iterator[Handle]:
        """Give a session of SHA-256. salt: a decryption key of the TPM; with it, the first parameter of each command
        and answer crosses the bus encrypted, and the answers are authenticated.
        """
        secret = TPMT_SYM_DEF.parse("aes128cfb") if salt else TPMT_SYM_DEF(algorithm=TPM2_ALG.NULL)
        with self._room():
            tr = self.run(
                self.api.start_auth_session,
                salt.tr if salt else ESYS_TR.NONE,
                ESYS_TR.NONE,
                TPM2_SE.POLICY if is_policy else TPM2_SE.HMAC,
                secret,
                TPM2_ALG.SHA256,
            )
            with self._flushed(tr):
                attributes = TPMA_SESSION.CONTINUESESSION
                if salt:
                    attributes |= TPMA_SESSION.DECRYPT | TPMA_SESSION.ENCRYPT
                self.run(self.api.trsess_set_attributes, tr, attributes)
                yield Handle(tr=tr)

    @contextmanager
    def _room(self) -> Iterator[None]:
        if self.live >= MAX_LIVE:
            raise RuntimeError(f"TPM: {self.live} handles are open, want at most {MAX_LIVE}")
        self.live += 1
        try:
            yield
        finally:
            self.live -= 1

    @contextmanager
    def _flushed(self, tr: Any) -> Iterator[None]:
        try:
            yield
        except BaseException:
            with suppress(TSS2_Exception):  # the first error says what is wrong
                self.api.flush_context(tr)
            raise
        self.run(self.api.flush_context, tr)


def area(public: bytes) -> Any:
    """Return a TPMT_PUBLIC as ESAPI takes it."""
    return TPM2B_PUBLIC(publicArea=parsed(TPMT_PUBLIC, public))


def parsed(kind: Any, data: bytes) -> Any:
    """Return the TPM structure in these bytes. Raises TrustError."""
    try:
        value, used = kind.unmarshal(data)
    except TSS2_Exception as e:
        raise narrowed(e, kind.__name__) from e
    if used != len(data):
        raise TrustError(f"TPM: {kind.__name__}: got {len(data)} bytes, want {used}")
    return value


def attempt(call: Callable[[], Any], *, pause: Callable[[float], None] = time.sleep) -> Any:
    """Return what call returns; call again, TRIES times in all, while the TPM says that it is busy."""
    for attempts in range(TRIES - 1):
        try:
            return call()
        except TSS2_Exception as e:
            if not is_passing(e.rc):
                raise
        pause(PAUSE_S * 2**attempts)
    return call()
