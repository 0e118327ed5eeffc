"""Checkpoints (C2SP tlog-checkpoint) and cosignatures (C2SP tlog-cosignature): see docs/log.md, 2.

A log's checkpoint is what it says of itself; its ledger's cosignature on it is the receipt.
"""

from __future__ import annotations

import base64
import re
from dataclasses import dataclass

from gateway.errors import TrustError
from gateway.tlog.lines import MAX_SIGNATURES, check_name, decode_base64, split_note
from gateway.tlog.merkle import EMPTY_ROOT, HASH_BYTES, MAX_SIZE
from gateway.tlog.note import Cosigner, SignatureKind, Signer, Verifier, open_note

# ASCII digits, and no leading zero; 19 of them are enough for MAX_SIZE.
_SIZE = re.compile("0|[1-9][0-9]{0,18}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """The size and root of a log at one moment. Raises TrustError where no log could have them.

    origin: the log's name, which is also the name of the key that signs it.
    """

    origin: str
    size: int
    root: bytes

    def __post_init__(self) -> None:
        """Refuse what the text of a checkpoint cannot say."""
        check_name(self.origin)
        if not 0 <= self.size <= MAX_SIZE:
            raise TrustError(f"a checkpoint of {self.origin} cannot be of {self.size} leaves")
        if len(self.root) != HASH_BYTES:
            raise TrustError(f"the root in a checkpoint of {self.origin} has {len(self.root)} bytes")
        if self.size == 0 and self.root != EMPTY_ROOT:
            raise TrustError(f"the checkpoint of the empty log {self.origin} has a root of some other tree")

    @property
    def text(self) -> str:
        """The note text: origin, size and root, a line each."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"


def sign(checkpoint: Checkpoint, signer: Signer) -> bytes:
    """Return the note by which a log signs its checkpoint. Raises ValueError unless the key is the origin's."""
    if signer.name != checkpoint.origin:
        raise ValueError(f"the key of {signer.name} does not sign for {checkpoint.origin}")
    return signer.sign_note(checkpoint.text)


def verify(note: bytes, *, origin: str, verifier: Verifier) -> Checkpoint:
    """Return the checkpoint that this log's key signed. Raises TrustError for anything else."""
    if verifier.kind is not SignatureKind.NOTE or verifier.name != origin:
        raise TrustError(f"the key {verifier.vkey} does not sign checkpoints of {origin}")
    return _parse(open_note(note, [verifier]).text, origin)


def cosign(subject: bytes | Checkpoint, cosigner: Cosigner, *, time_s: int) -> bytes:
    """Return a checkpoint's note with this key's cosignature as its last line.

    subject: a note, whose signature the caller has verified; or a bare checkpoint, as of an empty log that has signed
        nothing yet: then the cosignature is the only line.
    time_s: now, in Unix seconds. Raises TrustError when the note is malformed, is full, or has a line of this key.
    """
    if isinstance(subject, Checkpoint):
        text, before = subject.text, subject.text.encode() + b"\n"
    else:
        text, lines = split_note(subject)
        _parse(text, None)
        before = subject
        if len(lines) >= MAX_SIGNATURES:
            raise TrustError("the note has no room for one more signature line")
        if any((line.name, line.key_id) == (cosigner.name, cosigner.verifier.key_id) for line in lines):
            raise TrustError(f"the note has a cosignature line of {cosigner.name} already")
    return before + cosigner.line(text, time_s=time_s).encode()


def verify_cosignature(note: bytes, *, origin: str, witness: Verifier) -> tuple[Checkpoint, int]:
    """Return the checkpoint that the witness cosigned, and when, in Unix seconds. Raises TrustError for anything else.

    The log's own signature need not be there: a receipt is the witness's word alone.
    """
    if witness.kind is not SignatureKind.COSIGNATURE:
        raise TrustError(f"the key {witness.vkey} is not one that cosigns")
    opened = open_note(note, [witness])
    time_s = opened.verified[0].time_s
    if time_s is None:
        raise TrustError("a cosignature without a time")
    return _parse(opened.text, origin), time_s


def read_unverified(note: bytes, *, origin: str) -> Checkpoint:
    """Return what a well-formed note says, whoever signed it. Nothing may rest on it that is not verified elsewhere."""
    return _parse(split_note(note)[0], origin)


def _parse(text: str, origin: str | None) -> Checkpoint:
    """Return the checkpoint of a note text. origin: the one that is expected; None takes any."""
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise TrustError("the text of a checkpoint is not the three lines origin, size and root")
    if origin is not None and lines[0] != origin:
        raise TrustError(f"the checkpoint is of another log than {origin}")
    if not _SIZE.fullmatch(lines[1]):
        raise TrustError("the size in a checkpoint is not a plain decimal number")
    return Checkpoint(origin=lines[0], size=int(lines[1]), root=decode_base64(lines[2]))
