"""The device authority's certificates and lists of the revoked, from files; read again when they have changed."""

import time
from collections.abc import Callable
from pathlib import Path

from gateway.attest.chain import Anchors
from gateway.errors import ConfigError, TrustError

MOST_BYTES = 16 << 20
LOOK_S = 5.0
"""The files are looked at once in so long."""


class AnchorFiles:
    """Trust anchors as the files have them. Raises ConfigError from the start when they cannot be used.

    Later a mistake changes nothing: what was read last stays in force. say: told what is wrong, once for each mistake.
    """

    def __init__(
        self,
        device_ca: Path,
        crl: Path | None,
        *,
        say: Callable[[str], None],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._paths, self._say, self._monotonic_s = (device_ca, crl), say, monotonic_s
        self._looked_s = monotonic_s()
        self._wrong = ""
        self._stamp = self._stamped()
        self._anchors = self._read()

    def current(self) -> Anchors:
        """Return the anchors in force."""
        now_s = self._monotonic_s()
        if now_s - self._looked_s >= LOOK_S:
            self._looked_s = now_s
            try:
                self._look()
                self._wrong = ""
            except ConfigError as e:
                if str(e) != self._wrong:
                    self._say(str(e))
                self._wrong = str(e)
        return self._anchors

    def _look(self) -> None:
        stamp = self._stamped()
        if stamp != self._stamp:
            self._anchors = self._read()
            self._stamp = stamp

    def _stamped(self) -> list[tuple[int, int, int]]:
        try:
            found = [path.stat() for path in self._paths if path is not None]
        except OSError as e:
            raise ConfigError(f"attest.device_ca, attest.crl: {e.filename}: {e.strerror}, want a file in PEM") from e
        return [(one.st_mtime_ns, one.st_size, one.st_ino) for one in found]

    def _read(self) -> Anchors:
        return read_anchors(*self._paths, where="attest.device_ca, attest.crl")


def read_anchors(device_ca: Path, crl: Path | None, *, where: str) -> Anchors:
    """Return the anchors in these files. Raises ConfigError. where: who names the files."""
    found = [read_bounded(path) for path in (device_ca, crl) if path is not None]
    if not all(content.strip() for content in found):
        raise ConfigError(f"{where}: got an empty file, want PEM")
    try:
        return Anchors.read(*found)
    except TrustError as e:
        raise ConfigError(f"{where}: {e}") from e


def read_bounded(path: Path) -> bytes:
    """Return what a file holds, MOST_BYTES at most. Raises ConfigError."""
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}, want a readable file") from e
    if len(content) > MOST_BYTES:
        raise ConfigError(f"{path}: got more than {MOST_BYTES} bytes, want fewer")
    return content
