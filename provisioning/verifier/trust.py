"""What the verifier rests on, read from files: roots, lists of the revoked, reference values, and who is asked.

A file that changes is read again. A bad new one keeps the old one in force, and is said loudly until it is good.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from structlog.typing import FilteringBoundLogger

from gateway.attest.chain import Anchors
from gateway.attest.references import References, parse_references
from gateway.errors import ConfigError, GatewayError, TrustError
from provisioning.verifier.config import VerifierConfig, load_verifier

_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """What answers are measured by. devices: the serial number that each gateway's device must have.

    until_s: when the first list of the revoked, or root, runs out, Unix seconds.
    """

    anchors: Anchors
    references: References
    devices: Mapping[str, str]
    until_s: int


class TrustFiles:
    """The files behind a verifier's trust. file: verifier.toml. Raises ConfigError when one is bad at the start."""

    def __init__(self, file: Path, log: FilteringBoundLogger) -> None:
        self._file, self._log = file, log
        self.config = load_verifier(file)
        head = self.config.verifier
        self._paths = [path for path in (file, head.device_ca, head.crl, head.reference) if path is not None]
        self._stamps = self._look()
        self.trust = self._read(self.config)
        self.is_bad = False

    def refresh(self) -> bool:
        """Read again what has changed; return whether there is something new in force."""
        stamps = self._look()
        if stamps == self._stamps:
            return False
        self._stamps = stamps
        try:
            config = load_verifier(self._file)
            trust = self._read(config)
        except GatewayError as e:
            self.is_bad = True
            self._log.error("verifier.file_refused", why=str(e), in_force="what was read before")
            return False
        if (config.verifier, config.broker) != (self.config.verifier, self.config.broker):
            self._log.warning(
                "verifier.restart_wanted", why="[verifier] or [broker] has changed; gateways are in force"
            )
        self.is_bad = False
        changed, self.trust = trust != self.trust, trust
        if changed:
            self._log.info("verifier.read", policy=trust.references.policy, gateways=len(trust.devices))
        return changed

    def _read(self, config: VerifierConfig) -> Trust:
        head = self.config.verifier
        roots = _content(head.device_ca)
        crls = _content(head.crl) if head.crl is not None else b""
        try:
            anchors = Anchors.read(roots, crls)
        except TrustError as e:
            raise ConfigError(f"verifier.device_ca, verifier.crl: {e}") from e
        text = _text(head.reference)
        ends = [int(crl.next_update_utc.timestamp()) for crl in anchors.crls if crl.next_update_utc is not None]
        ends += [int(root.not_valid_after_utc.timestamp()) for root in anchors.roots]
        return Trust(
            anchors=anchors,
            until_s=min(ends),
            references=parse_references(text, name=head.reference.name),
            devices={gateway: one.device for gateway, one in config.gateways.items()},
        )

    def _look(self) -> list[_Stamp]:
        return [_stamp(path) for path in self._paths]


def _stamp(path: Path) -> _Stamp:
    try:
        found = path.stat()
    except OSError:
        return (0, 0, 0)
    return (found.st_mtime_ns, found.st_size, found.st_ino)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}, want a readable file") from e


def _text(path: Path) -> str:
    try:
        return _content(path).decode()
    except UnicodeDecodeError as e:
        raise ConfigError(f"{path}: byte {e.start} is not UTF-8, want a TOML file") from e
