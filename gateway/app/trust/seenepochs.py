"""What the ledger knows of the epochs of an attested gateway. It stands beside the receipt (app/trust/signedby.py)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.attest.epoch import BoundKey
from gateway.codec.checks import check_body
from gateway.codec.pack import pack, unpack
from gateway.errors import LogError, TrustError


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningEpoch:
    """An epoch of an attested gateway. index: of its leaf; None while that is still to come.

    body: of the leaf. bound: what the device's TPM said of the key; None when that does not hold any more.
    """

    body: Mapping[str, Any]
    index: int | None
    bound: BoundKey | None = None

    @property
    def number(self) -> int:
        """Its number, from 1."""
        return int(self.body["epoch"])

    @property
    def vkey(self) -> str:
        """Its key."""
        return str(self.body["key"])


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """What the ledger knows of the epochs of an attested gateway.

    leaf: the newest epoch leaf. signing: the newest epoch that has signed, which may be ahead of the leaves.
    awaited: what the leaves of epochs that have signed must hash to, by number, until they come.
    """

    leaf: SigningEpoch | None = None
    signing: SigningEpoch | None = None
    awaited: Mapping[int, bytes] = field(default_factory=dict)

    def packed(self) -> bytes:
        """Return it as bytes; Pinned's are text."""
        both = [None if one is None else [one.index, dict(one.body)] for one in (self.leaf, self.signing)]
        return pack([1, *both, [[number, hashed] for number, hashed in self.awaited.items()]])

    @classmethod
    def unpacked(cls, packed: bytes) -> "Seen | str":
        """Return what these bytes say; the key, where they are Pinned's. Raises LogError."""
        try:
            if packed[:1] != b"\x94":
                return packed.decode()
            _, leaf, signing, awaited = unpack(packed)
            return cls(
                leaf=_kept(leaf), signing=_kept(signing), awaited={int(n): bytes(hashed) for n, hashed in awaited}
            )
        except (TrustError, TypeError, ValueError, IndexError) as e:
            raise LogError(f"log: the heads beside the receipt cannot be read: {e}") from e


def _kept(said: Any) -> SigningEpoch | None:
    return None if said is None else SigningEpoch(index=said[0], body=check_body("epoch", said[1]))
