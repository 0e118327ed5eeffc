"""Signing keys and verifier keys from files; whatever is wrong with one is said in one line that quotes no key."""

import os
from pathlib import Path

from gateway.errors import ConfigError, TrustError
from gateway.tlog.note import SignatureKind, Signer, Verifier

ROLES = {"verifier": "wattseal-verifier/", "ledger": "wattseal-ledger/", "officer": "wattseal-officer/"}
"""What a key's name begins with, by who holds it. A gateway with a TPM and a factory make their own."""


def make_key(path: Path, role: str, name: str) -> list[Path]:
    """Write a new private key for its owner alone, and beside it what others need: .vkey; return the files.

    A ledger's .vkey is that of the witness, which gateways pin; .note.vkey is the one that auditors trust.
    Raises ConfigError where a file stands there, or for a name that is none.
    """
    try:
        signer = Signer.generate(f"{ROLES[role]}{name}")
    except TrustError as e:
        raise ConfigError(f"{role}: got {name!r}: {e}, want a name without spaces") from e
    public = {path.with_suffix(".vkey"): signer.verifier}
    if role == "ledger":
        public = {
            path.with_suffix(".vkey"): signer.cosigner().verifier,
            path.with_suffix(".note.vkey"): signer.verifier,
        }
    try:
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 (a mode)
            file.write(signer.to_text() + "\n")
        for other, key in public.items():
            with other.open("x", encoding="utf-8") as file:
                file.write(key.vkey + "\n")
    except OSError as e:
        raise ConfigError(f"{e.filename or path}: {e.strerror}, want a new file") from e
    return [path, *public]


def read_signer(path: Path, where: str, *, name: str | None) -> Signer:
    """Return the private key in a file. Raises ConfigError.

    where: the configuration key that names the file. name: whose key it must be; None takes any.
    """
    try:
        signer = Signer.from_text(_text(path, where))
    except ConfigError as e:
        raise ConfigError(f"{where}: got {path}: {e}") from e
    if name is not None and signer.name != name:
        raise ConfigError(f"{where}: got {path}, the key of {signer.name}, want the key of {name}")
    return signer


def read_verifier(path: Path, where: str, *, kind: SignatureKind, name: str | None = None) -> Verifier:
    """Return the verifier key in a file. Raises ConfigError.

    where: the configuration key that names the file. name: whose key it must be; None takes any.
    """
    try:
        verifier = Verifier.from_vkey(_text(path, where))
    except TrustError as e:
        raise ConfigError(f"{where}: got {path}: {e}, want a verifier key: <name>+<id>+<base64>") from e
    if verifier.kind is not kind:
        raise ConfigError(f"{where}: got {path}, a key of type {verifier.kind:#04x}, want one of type {kind:#04x}")
    if name is not None and verifier.name != name:
        raise ConfigError(f"{where}: got {path}, the key of {verifier.name}, want the key of {name}")
    return verifier


def _text(path: Path, where: str) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as e:
        raise ConfigError(f"{where}: got {path}: {e.strerror}, want a readable key file") from e
    except UnicodeDecodeError as e:
        raise ConfigError(f"{where}: got {path}: byte {e.start} is not UTF-8, want a key file") from e
