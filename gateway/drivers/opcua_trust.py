"""The certificates that OPC UA servers may have: a folder of trusted ones, and one of those that were refused.

Trust is a pin: a server's own certificate stands in the folder, or it is refused. Authorities are not followed.
Each refusal is one line that says which certificate, what is wrong with it, and how to mend it.
"""

import ipaddress
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from gateway.drivers.opcua_cert import Certificate, OwnIdentity, make_own, own_identity, parse, write
from gateway.errors import ConfigError, DeviceError

__all__ = ["Certificate", "OwnIdentity", "TrustList", "make_own", "own_identity"]

MOST_REJECTED = 20
_MOST_BYTES = 65_536
_WEAK = {"md5", "sha1", ""}
_THUMBPRINT = re.compile(r"[0-9a-f]{40}\Z")


def _utc_now() -> datetime:
    return datetime.now(UTC)


class TrustList:
    """The trusted certificates as they stand in their folder at each check, so that a command can change them.

    trusted: files of any name, DER or PEM. rejected: <thumbprint>.der, the newest MOST_REJECTED. now: UTC.
    """

    def __init__(self, *, trusted: Path, rejected: Path, now: Callable[[], datetime] = _utc_now) -> None:
        self._trusted, self._rejected, self._now = trusted, rejected, now

    def check(self, der: bytes, *, uri: str, host: str) -> None:
        """Raise DeviceError, with the fix, unless this is a sound certificate of a server that we trust.

        der: what the server presented. uri: the ApplicationUri that its endpoint says. host: of the URL that we use.
        """
        try:
            server = parse(der[:_MOST_BYTES])
        except ValueError as e:
            raise DeviceError(
                f"server certificate: got {len(der)} bytes that are none ({e}): give the server a new certificate"
            ) from e
        what = f"server certificate {server.thumbprint} of {server.subject}"
        if all(server.der != known.der for _, known in _certificates(self._trusted)):
            kept = self._reject(server)
            raise DeviceError(
                f"{what} is not trusted{kept}: compare the thumbprint at the server, then "
                f"`wattseal opcua trust gateway.toml {server.thumbprint}`"
            )
        wrong = self._wrong(server, uri, host)
        if wrong:
            raise DeviceError(f"{what} {wrong}")

    def trusted(self) -> dict[Path, Certificate]:
        """Return the certificates that servers may have, by file."""
        return dict(_certificates(self._trusted))

    def rejected(self) -> dict[Path, Certificate]:
        """Return the certificates that were refused since nobody trusts them yet, by file."""
        return dict(_certificates(self._rejected))

    def accept(self, thumbprint: str) -> tuple[Path, Certificate]:
        """Move a certificate from the rejected to the trusted ones; return it and its new file. Raises ConfigError."""
        for path, known in self.trusted().items():
            if known.thumbprint == _normal(thumbprint):
                return path, known
        source, server = _one(self.rejected(), thumbprint, self._rejected)
        target = self._trusted / f"{server.thumbprint}.der"
        write(target, server.der)
        _unlink(source)
        return target, server

    def remove(self, thumbprint: str) -> Path:
        """Delete a trusted certificate; return the file that it stood in. Raises ConfigError."""
        found, _ = _one(self.trusted(), thumbprint, self._trusted)
        for path, known in self.trusted().items():
            if known.thumbprint == _normal(thumbprint):
                _unlink(path)  # it may stand there under two names
        return found

    def _wrong(self, server: Certificate, uri: str, host: str) -> str:
        """Return what is wrong with a certificate that is trusted, and the fix; "" for nothing."""
        now = self._now()
        if now > server.end:
            return f"expired on {_day(server.end)}: renew it at the server, or set this machine's clock ({_day(now)})"
        if now < server.start:
            return f"is not valid before {_day(server.start)}: set the server's clock, or this machine's ({_day(now)})"
        if len(server.uris) != 1:
            return (
                f"has {len(server.uris)} URIs in its subject's alternative names, want one: make it anew at the "
                f"server with its ApplicationUri {uri!r}"
            )
        if server.uris[0] != uri:
            return (
                f"is for the ApplicationUri {server.uris[0]!r}, but the endpoint says {uri!r}: set the server's "
                "ApplicationUri to that of its certificate, or make its certificate anew"
            )
        if not _names(server, host):
            return (
                f"is for the hosts {', '.join(server.hosts) or '(none)'}, not for {host!r}: write one of them in the "
                "device's url, or make the certificate anew with this host"
            )
        return _weak(server)

    def _reject(self, server: Certificate) -> str:
        """Keep a certificate for a person to look at; return where that failed, else ""."""
        path = self._rejected / f"{server.thumbprint}.der"
        try:
            if path.exists():
                path.touch()
                return ""
            write(path, server.der)
            kept = sorted(self._rejected.glob("*.der"), key=lambda each: each.stat().st_mtime_ns)
            for old in [each for each in kept if each != path][: max(0, len(kept) - MOST_REJECTED)]:
                old.unlink(missing_ok=True)
        except OSError as e:
            return f" (and could not be kept in {self._rejected}: {e.strerror})"
        except ConfigError as e:
            return f" (and could not be kept: {e})"
        return ""


def _certificates(folder: Path) -> Iterator[tuple[Path, Certificate]]:
    """Give the certificates of a folder; what is none, or cannot be read, is passed over."""
    try:
        paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError:
        return
    for path in paths:
        try:
            yield path, parse(path.read_bytes()[:_MOST_BYTES])
        except (OSError, ValueError):
            continue


def _one(found: dict[Path, Certificate], thumbprint: str, folder: Path) -> tuple[Path, Certificate]:
    wanted = _normal(thumbprint)
    if not _THUMBPRINT.match(wanted):
        raise ConfigError(f"thumbprint: got {thumbprint!r}, want all of its 40 hexadecimal digits")
    for path, certificate in found.items():
        if certificate.thumbprint == wanted:
            return path, certificate
    known = ", ".join(certificate.thumbprint for certificate in found.values()) or "none"
    raise ConfigError(f"thumbprint: got {wanted}, which is not in {folder}; there: {known}")


def _normal(thumbprint: str) -> str:
    return re.sub(r"[\s:]", "", thumbprint).lower()


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as e:
        raise ConfigError(f"{path}: cannot delete: {e.strerror}") from e


def _names(server: Certificate, host: str) -> bool:
    try:
        wanted = str(ipaddress.ip_address(host.strip("[]")))
    except ValueError:
        wanted = host.rstrip(".").lower()
    return wanted in {name.rstrip(".").lower() for name in server.hosts}


def _weak(server: Certificate) -> str:
    if server.key_bits < 2048:
        kind = f"RSA with {server.key_bits} bits" if server.key_bits else "another kind than RSA"
        return f"has a key of {kind}, want RSA with 2048 to 4096 bits: make it anew at the server"
    if server.signed_with in _WEAK:
        return f"is signed with {server.signed_with or 'an unknown hash'}, want sha256: make it anew at the server"
    if not server.may_serve:
        return (
            "may not be used by a server, want the key usages digitalSignature, keyEncipherment and dataEncipherment, "
            "and serverAuth: make it anew at the server"
        )
    return ""


def _day(at: datetime) -> str:
    return f"{at:%Y-%m-%d}"
