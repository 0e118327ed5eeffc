"""Signed notes (C2SP signed-note), and the Ed25519 keys that sign notes and cosign checkpoints (C2SP tlog-cosignature).

The only module that knows Ed25519. One key may serve as signer and as cosigner under one name: the type byte gives it
two key ids, and no text that begins like a cosigned message is signed or accepted, so neither passes for the other.
"""

from __future__ import annotations

import base64
import enum
import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from gateway.errors import ConfigError, TrustError
from gateway.tlog.lines import (
    CONTROL,
    MAX_NAME_BYTES,
    MAX_NOTE_BYTES,
    MAX_SIGNATURES,
    SignatureLine,
    check_name,
    decode_base64,
    split_note,
)

MAX_TIME_S = 2**63 - 1

_KEY_BYTES = 32
_SIGNATURE_BYTES = 64
_COSIGNED = "cosignature/v1\n"
_PRIVATE = "PRIVATE+KEY+"
_SIGNING_INPUT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")
_FIELD = 2**255 - 19
_ORDER_8_Y = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
# The y of all eight points whose order divides 8. Under such a key one signature fits any text.
_LOW_ORDER_Y = frozenset({0, 1, _FIELD - 1, _ORDER_8_Y, _FIELD - _ORDER_8_Y})


class SignatureKind(enum.IntEnum):
    """The signature type byte of C2SP signed-note."""

    NOTE = 0x01
    COSIGNATURE = 0x04


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """A public key under its name, for one kind of signature. Raises TrustError where it cannot be one.

    key_id: the 4 bytes that stand before a signature.
    """

    name: str
    kind: SignatureKind
    public_key: bytes
    key_id: bytes = field(init=False)

    def __post_init__(self) -> None:
        """Refuse a name or key that C2SP or Ed25519 rules out, and derive the key id."""
        check_name(self.name)
        if len(self.public_key) != _KEY_BYTES:
            raise TrustError(f"an Ed25519 public key has {_KEY_BYTES} bytes, not {len(self.public_key)}")
        y = int.from_bytes(self.public_key, "little") & (2**255 - 1)
        if y >= _FIELD or y in _LOW_ORDER_Y:
            raise TrustError("this public key is not a point that a signature could be bound to")
        named = self.name.encode() + b"\n" + bytes([self.kind]) + self.public_key
        object.__setattr__(self, "key_id", hashlib.sha256(named).digest()[:4])

    @classmethod
    def from_vkey(cls, vkey: str) -> Verifier:
        """Return the verifier that a C2SP verifier key stands for. Raises TrustError if it is not a well-formed one."""
        name, key_id, rest = _three_parts(vkey, "verifier key")
        content = decode_base64(rest)
        if not content or content[0] not in set(SignatureKind):
            raise TrustError("the verifier key is of a type that this program does not know")
        verifier = cls(name=name, kind=SignatureKind(content[0]), public_key=content[1:])
        if verifier.key_id.hex() != key_id:
            raise TrustError(f"the verifier key of {name} says id {key_id}, its key has {verifier.key_id.hex()}")
        return verifier

    @property
    def vkey(self) -> str:
        """The key as C2SP verifier key text."""
        content = base64.b64encode(bytes([self.kind]) + self.public_key).decode()
        return f"{self.name}+{self.key_id.hex()}+{content}"

    def fingerprint(self) -> str:
        """Return what people compare: SHA-256 of the vkey text, in base64 without padding."""
        digest = hashlib.sha256(self.vkey.encode()).digest()
        return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")

    def verify_signature(self, text: str, signature: bytes) -> int | None:
        """Return the cosignature's time in Unix seconds, or None for a note signature; TrustError if it is wrong.

        signature: what stands behind the key id.
        """
        time_s, message = None, text
        if self.kind is SignatureKind.COSIGNATURE:
            if len(signature) != 8 + _SIGNATURE_BYTES:
                raise TrustError(f"the cosignature of {self.name} has {len(signature)} bytes")
            time_s, signature = int.from_bytes(signature[:8], "big"), signature[8:]
            if time_s > MAX_TIME_S:
                raise TrustError(f"the cosignature of {self.name} has an impossible time")
            message = _cosigned_message(text, time_s)
        elif len(signature) != _SIGNATURE_BYTES or text.startswith(_COSIGNED):
            raise TrustError(f"the line of {self.name} is not a note signature")
        try:
            Ed25519PublicKey.from_public_bytes(self.public_key).verify(signature, message.encode())
        except (InvalidSignature, ValueError) as e:
            raise TrustError(f"the signature of {self.name}+{self.key_id.hex()} is wrong") from e
        return time_s


class _PrivateKey:
    """An Ed25519 private key under a name, for one kind of signature."""

    __slots__ = ("_key", "verifier")
    kind: ClassVar[SignatureKind]

    def __init__(self, *, name: str, key: Ed25519PrivateKey) -> None:
        self._key = key
        public_key = key.public_key().public_bytes_raw()
        self.verifier = Verifier(name=name, kind=self.kind, public_key=public_key)

    @property
    def name(self) -> str:
        """The key name."""
        return self.verifier.name

    def _line(self, signature: bytes) -> str:
        return str(SignatureLine(name=self.name, key_id=self.verifier.key_id, signature=signature))


class Cosigner(_PrivateKey):
    """A private key that cosigns checkpoints (type 0x04). Made by Signer.cosigner."""

    __slots__ = ()
    kind = SignatureKind.COSIGNATURE

    def line(self, text: str, *, time_s: int) -> str:
        """Return the signature line by which this key cosigns a checkpoint's text at time_s (Unix seconds)."""
        if not 0 <= time_s <= MAX_TIME_S:
            raise ValueError(f"a cosignature cannot be of the time {time_s}")
        message = _cosigned_message(text, time_s)
        return self._line(time_s.to_bytes(8, "big") + self._key.sign(message.encode()))


class Signer(_PrivateKey):
    """A private key that signs notes (type 0x01)."""

    __slots__ = ()
    kind = SignatureKind.NOTE

    @classmethod
    def generate(cls, name: str) -> Signer:
        """Return a new key under this name."""
        return cls(name=name, key=Ed25519PrivateKey.generate())

    @classmethod
    def from_text(cls, text: str) -> Signer:
        """Return the key that to_text wrote; one final newline is allowed. Raises ConfigError, which quotes no key."""
        name, key_id, content = "", "", b""
        try:
            if text.startswith(_PRIVATE):
                name, key_id, rest = _three_parts(text.removeprefix(_PRIVATE).removesuffix("\n"), "private key")
                content = decode_base64(rest)
            if len(content) == 1 + _KEY_BYTES and content[0] == cls.kind:
                signer = cls(name=name, key=Ed25519PrivateKey.from_private_bytes(content[1:]))
                if signer.verifier.key_id.hex() == key_id:
                    return signer
        except TrustError as e:
            raise ConfigError(f"not a private key: {e}") from e
        raise ConfigError(
            f"not a private key: want {_PRIVATE}<name>+<id>+<base64>, of type 1 and with the id of the key"
        )

    def to_text(self) -> str:
        """Return the private key as text, in the form that Go's note package reads. Secret."""
        content = base64.b64encode(bytes([self.kind]) + self._key.private_bytes_raw()).decode()
        return f"{_PRIVATE}{self.name}+{self.verifier.key_id.hex()}+{content}"

    def cosigner(self) -> Cosigner:
        """Return the same key and name as a cosigner."""
        return Cosigner(name=self.name, key=self._key)

    def sign_note(self, text: str) -> bytes:
        """Return the note of text signed by this key alone."""
        return sign_note(text, [self])

    def line(self, text: str) -> str:
        """Return the signature line of this key under a note's text. Raises ValueError unless it can stand in a note.

        text: ends in a newline and holds no other control character.
        """
        if not text.endswith("\n") or CONTROL.search(text) or text.startswith(_COSIGNED):
            raise ValueError("this text cannot stand in a note")
        return self._line(self._key.sign(text.encode()))

    def sign_token(self, signing_input: str) -> bytes:
        """Return the signature over a JWS signing input (RFC 7515, 5.1). Raises ValueError for any other text.

        One key may serve both: two base64url parts and a dot hold no newline, and a note's text ends in one.
        """
        if not _SIGNING_INPUT.fullmatch(signing_input):
            raise ValueError("this is not what a JWS signs")
        return self._key.sign(signing_input.encode())


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """One signature that held. time_s: when it was made, Unix seconds, for a cosignature; else None."""

    verifier: Verifier
    time_s: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A note that at least one known key signed. text ends in a newline; verified is in the order of the lines."""

    text: str
    verified: tuple[Verified, ...]


def sign_note(text: str, signers: Sequence[Signer]) -> bytes:
    """Return the note of text, signed by each signer. Raises ValueError where it could not be opened again."""
    if not 1 <= len({signer.verifier for signer in signers}) == len(signers) <= MAX_SIGNATURES:
        raise ValueError(f"a note has 1 to {MAX_SIGNATURES} signers, each once")
    note = "".join([text, "\n", *(signer.line(text) for signer in signers)]).encode()
    if len(note) > MAX_NOTE_BYTES:
        raise ValueError(f"a note of {len(note)} bytes is too long")
    return note


def open_note(note: bytes, verifiers: Iterable[Verifier]) -> Note:
    """Return the text that known keys signed, and by which of them.

    Lines of unknown keys are ignored, as C2SP asks. Raises TrustError when the note is malformed, when a line of a
    known key is wrong, when a key has two lines, and when no known key has one.
    """
    text, lines = split_note(note)
    known: dict[tuple[str, bytes], Verifier] = {}
    for verifier in verifiers:
        if known.setdefault((verifier.name, verifier.key_id), verifier) != verifier:
            raise TrustError(f"two known keys share the name and id {verifier.name}+{verifier.key_id.hex()}")
    verified: list[Verified] = []
    for line in lines:
        signed_by = known.get((line.name, line.key_id))
        if signed_by is not None:
            verified.append(Verified(verifier=signed_by, time_s=signed_by.verify_signature(text, line.signature)))
    if not verified:
        raise TrustError("no known key signed the note")
    return Note(text=text, verified=tuple(verified))


def _cosigned_message(text: str, time_s: int) -> str:
    return f"{_COSIGNED}time {time_s}\n{text}"


def _three_parts(key: str, what: str) -> tuple[str, str, str]:
    parts = key.split("+", 2)
    if len(key) > 2 * MAX_NAME_BYTES or len(parts) != 3 or not re.fullmatch("[0-9a-f]{8}", parts[1]):
        raise TrustError(f"the {what} is not a name, eight hexadecimal digits and base64, joined by plus signs")
    return parts[0], parts[1], parts[2]
