"""What the verifier rests on, read from files: roots, lists of the revoked, reference values, and who is asked.

A file that changes is read again. A bad new one keeps the old one in force, and is said loudly until it is good.
"""

import math
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

    ends: when each issuer's newest list of the revoked runs out, and the last root of that issuer's name: infinity,
    where the issuer is no root. last_s: when the last root runs out. Unix seconds.
    """

    anchors: Anchors
    references: References
    devices: Mapping[str, str]
    ends: Mapping[str, tuple[float, float]]
    last_s: float

    def ended(self, at_s: float) -> str:
        """Return what has run out, so that no device can be judged, "" for nothing.

        The list of a root that has itself run out is no longer missed.
        """
        if at_s > self.last_s:
            return f"the last root ran out at {self.last_s:.0f}"
        gone = [name for name, (list_s, root_s) in self.ends.items() if list_s < at_s <= root_s]
        return f"the newest list of the revoked by {gone[0]} ran out at {self.ends[gone[0]][0]:.0f}" if gone else ""


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
        return Trust(
            anchors=anchors,
            ends=_ends(anchors),
            last_s=max(root.not_valid_after_utc.timestamp() for root in anchors.roots),
            references=parse_references(text, name=head.reference.name),
            devices={gateway: one.device for gateway, one in config.gateways.items()},
        )

    def _look(self) -> list[_Stamp]:
        return [_stamp(path) for path in self._paths]


def _ends(anchors: Anchors) -> dict[str, tuple[float, float]]:
    """Return Trust.ends: of several lists by one issuer the newest counts, as where they are looked up."""
    newest = {crl.issuer: crl for crl in sorted(anchors.crls, key=lambda crl: crl.last_update_utc)}
    return {
        issuer.rfc4514_string(): (
            crl.next_update_utc.timestamp() if crl.next_update_utc else math.inf,
            max(
                (root.not_valid_after_utc.timestamp() for root in anchors.roots if root.subject == issuer),
                default=math.inf,
            ),
        )
        for issuer, crl in newest.items()
    }


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
