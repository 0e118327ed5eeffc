"""Signing keys and verifier keys from files; whatever is wrong with one is said in one line that quotes no key."""

from pathlib import Path

from gateway.errors import ConfigError, TrustError
from gateway.tlog.note import SignatureKind, Signer, Verifier


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
