"""Bytes of a TPM's structure, read in order: each length is checked before anything is taken."""

from collections.abc import Mapping
from typing import Final

from gateway.errors import TrustError

MAX_BYTES: Final = 4096


def sized(content: bytes) -> bytes:
    """Return a TPM2B: the length in 16 bits, and the content."""
    return len(content).to_bytes(2, "big") + content


class Octets:
    """A structure, read from its start to its end."""

    def __init__(self, blob: bytes, what: str) -> None:
        if len(blob) > MAX_BYTES:
            raise TrustError(f"{what}: got {len(blob)} bytes, want at most {MAX_BYTES}")
        self._blob, self._at, self._what = blob, 0, what

    def take(self, size: int) -> bytes:
        """Read so many bytes."""
        end = self._at + size
        if end > len(self._blob):
            raise TrustError(f"{self._what}: cut short at byte {len(self._blob)}")
        part = self._blob[self._at : end]
        self._at = end
        return part

    def number(self, size: int) -> int:
        """Read a number of so many bytes."""
        return int.from_bytes(self.take(size), "big")

    def sized(self, most: int) -> bytes:
        """Read a TPM2B: a 16-bit length and as many bytes."""
        size = self.number(2)
        if size > most:
            raise self.wrong(f"got a field of {size} bytes, want at most {most}")
        return self.take(size)

    def one_of(self, known: Mapping[int, str], what: str) -> str:
        """Read a 16-bit identifier and return its name."""
        value = self.number(2)
        if value not in known:
            raise self.wrong(f"got {what} 0x{value:04x}, want one of {', '.join(known.values())}")
        return known[value]

    def end(self) -> None:
        """Refuse what is left."""
        if self._at != len(self._blob):
            raise self.wrong(f"{len(self._blob) - self._at} bytes too many")

    def wrong(self, why: str) -> TrustError:
        """Return the refusal of this structure."""
        return TrustError(f"{self._what}: {why}")
