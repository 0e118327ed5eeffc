"""Decisions of security officers on their way to the running ledger: signed notes in a folder of its state.

Whoever may write to the folder can drop a note; what counts is the signature of an officer of ledger.toml.
"""

import hashlib
from collections.abc import Collection, Iterator
from pathlib import Path

from gateway.errors import ConfigError, TrustError
from gateway.tlog.note import SignatureKind, Verifier

MAX_NOTE = 4096
_MOST = 100


def folder_of(state: Path) -> Path:
    """Return where notes wait for the ledger."""
    return state / "decisions"


def drop(state: Path, note: bytes) -> Path:
    """Write a note for the ledger to take up; return its file. Raises ConfigError where that cannot be done."""
    path = folder_of(state) / f"{hashlib.sha256(note).hexdigest()[:32]}.note"
    try:
        path.parent.mkdir(exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_bytes(note)
        fresh.replace(path)
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}, want the state folder of a ledger that you may write to") from e
    return path


def read_officers(path: Path) -> tuple[Verifier, ...]:
    """Return the officers' keys, one a line; empty lines and those that begin with # aside. Raises ConfigError."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"attest.officers: got {path}: {e}, want a file of verifier keys, one a line") from e
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            key = Verifier.from_vkey(line.strip())
        except TrustError as e:
            raise ConfigError(f"attest.officers: {path}: line {number}: {e}, want a verifier key") from e
        if key.kind is not SignatureKind.NOTE:
            raise ConfigError(
                f"attest.officers: {path}: line {number}: got a cosigner's key, want one that signs notes"
            )
        found.append(key)
    return tuple(found)


def waiting(state: Path, *, but: Collection[Path] = ()) -> Iterator[Path]:
    """Yield the notes that wait."""
    try:
        yield from sorted({*folder_of(state).glob("*.note")}.difference(but))[:_MOST]
    except OSError:
        return
