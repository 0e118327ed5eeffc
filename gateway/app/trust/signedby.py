"""Whose signature counts on a gateway's log: a key that the operator has pinned, or the epochs of one attested device.

What is known of the epochs stands beside the receipt, and changes with a message that was taken, never before.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol

from gateway.app.trust.anchorfiles import AnchorFiles
from gateway.app.trust.seenepochs import Seen, SigningEpoch
from gateway.attest.chain import Anchors
from gateway.attest.epoch import BoundKey, is_attested, verify_epoch
from gateway.codec.checks import check_body
from gateway.codec.frames import LogMessage
from gateway.codec.leaves import Leaf
from gateway.codec.pack import pack, unpack
from gateway.errors import TrustError
from gateway.tlog.note import SignatureKind, Verifier

CHECKED_S = 60.0
"""So long the certificates of an epoch that was found good are taken for good, unless the files change."""
MOST_AWAITED = 64
"""So many epochs may have signed before their leaves come; of more, the oldest are forgotten."""

Leaves = Sequence[tuple[int, Leaf]]


class SignedBy(Protocol):
    """Whose signature counts on one gateway's log. Raises TrustError, and then nothing has changed.

    epoch: the newest that has signed what was taken; None where a pinned key signs, and before the first.
    """

    @property
    def epoch(self) -> SigningEpoch | None:
        """See above."""

    def key(self, message: LogMessage) -> Verifier:
        """Return the key that must have signed a message's checkpoint, before anything of its leaves is read."""

    def follow(self, message: LogMessage, start: int, leaves: Leaves) -> None:
        """Take note of a message whose signature holds, and of its new leaves, from index start on."""

    def packed(self) -> bytes:
        """Return what is to be kept beside the receipt."""

    def restore(self, heads: bytes, leaves: Leaves) -> None:
        """Go back to what was kept, and to the epoch leaves since. Raises LogError when that cannot be read."""


class Pinned:
    """One key for ever: the operator's word, and no attestation. No leaf changes it, and announcements are ignored."""

    def __init__(self, key: Verifier) -> None:
        self._key, self._announced = key, ""

    @property
    def epoch(self) -> SigningEpoch | None:
        """None: no device vouches for it."""
        return None

    def key(self, message: LogMessage) -> Verifier:  # noqa: ARG002 (the Protocol's)
        """Return it."""
        return self._key

    def follow(self, message: LogMessage, start: int, leaves: Leaves) -> None:
        """Refuse leaves whose newest epoch leaf announces another key than the one that signed."""
        if start == message.end:
            return
        _check_first(self._key.name, message, start, leaves)
        announced, at = self._announced, None
        for index, leaf in leaves:
            if leaf.kind == "epoch":
                announced, at = leaf.body["key"], index
        if announced != self._key.vkey:
            raise TrustError(
                f"{self._key.name}: signed with {self._key.vkey}, but the newest epoch leaf announces {announced}",
                index=at,
            )
        self._announced = announced

    def packed(self) -> bytes:
        """Return the key that the newest epoch leaf announces."""
        return self._announced.encode()

    def restore(self, heads: bytes, leaves: Leaves) -> None:
        """Return to it."""
        seen = Seen.unpacked(heads)
        if isinstance(seen, str):
            self._announced = seen
        else:
            self._announced = "" if seen.leaf is None else seen.leaf.vkey
        for _, leaf in leaves:
            if leaf.kind == "epoch":
                self._announced = leaf.body["key"]


class Attested:
    """The epochs of the device with this serial number: each announced by a leaf, or before it, and quoted by its TPM.

    now_s: Unix time. Numbers of epochs never fall: neither in the log nor among those who sign.
    """

    def __init__(self, origin: str, *, serial: str, anchors: AnchorFiles, now_s: Callable[[], float]) -> None:
        self._origin, self._serial, self._anchors, self._now_s = origin, serial, anchors, now_s
        self._seen = Seen()
        self._candidate: SigningEpoch | None = None
        self._checked: tuple[bytes, Anchors, float] | None = None

    @property
    def epoch(self) -> SigningEpoch | None:
        """The newest epoch that has signed what was taken; None before the first."""
        return self._seen.signing

    def key(self, message: LogMessage) -> Verifier:
        """Return the key of the epoch that is announced with the message, or of the one that signed last."""
        signing = self._seen.signing
        if message.epoch and (signing is None or message.epoch != pack(signing.body)):
            signing = self._announced(message.epoch)
        elif signing is None:
            raise TrustError(f"{self._origin}: no epoch of this gateway is known, and none is announced")
        else:
            signing = self._again(signing)
        self._candidate = signing
        return Verifier.from_vkey(signing.vkey)

    def _announced(self, packed: bytes) -> SigningEpoch:
        body = check_body("epoch", unpack(packed))
        number, newest = body["epoch"], self._seen.signing
        if newest is not None and number < newest.number:
            raise TrustError(f"{self._origin}: signed in epoch {number}, and epoch {newest.number} has signed before")
        if newest is not None and number == newest.number:
            raise TrustError(
                f"{self._origin}: epoch {number} was announced with another key or binding before: an older state of "
                "this gateway was started again"
            )
        if self._seen.leaf is not None and number <= self._seen.leaf.number:
            raise TrustError(f"{self._origin}: signed in epoch {number}, which the log has left behind")
        return SigningEpoch(body=body, index=None, bound=self._verify(body))

    def _differs(self, body: Mapping[str, Any]) -> bool:
        """Return whether this epoch was announced as another one before."""
        return self._seen.awaited.get(body["epoch"], _hash(body)) != _hash(body)

    def _again(self, epoch: SigningEpoch) -> SigningEpoch:
        """Return an epoch that was found good, once more, so that a device revoked since signs nothing."""
        anchors, now_s = self._anchors.current(), self._now_s()
        checked = (_hash(epoch.body), anchors)
        if self._checked is not None and epoch.bound is not None and self._checked[:2] == checked:
            age_s = now_s - self._checked[2]
            if 0 <= age_s < CHECKED_S:
                return epoch
        bound = self._verify(epoch.body)
        self._checked = (*checked, now_s)
        return replace(epoch, bound=bound)

    def _verify(self, body: Mapping[str, Any]) -> BoundKey:
        bound = verify_epoch(body, self._anchors.current(), at_s=int(self._now_s()))
        if bound.device.serial != self._serial:
            raise TrustError(
                f"{self._origin}: epoch {body['epoch']} is bound to device {bound.device.serial[:64]!r}, want "
                f"{self._serial!r}"
            )
        if bound.verifier.name != self._origin or bound.verifier.kind is not SignatureKind.NOTE:
            raise TrustError(f"{self._origin}: epoch {body['epoch']} announces a key of {bound.verifier.name}")
        return bound

    def follow(self, message: LogMessage, start: int, leaves: Leaves) -> None:
        """Check each epoch leaf, and note who has signed."""
        _check_first(self._origin, message, start, leaves)
        signing = self._candidate
        if signing is None:
            raise TrustError(f"{self._origin}: nobody has signed this message")
        leaf, awaited = self._seen.leaf, dict(self._seen.awaited)
        for index, one in leaves:
            if one.kind == "epoch":
                leaf = self._next(index, one.body, leaf, signing)
                awaited.pop(leaf.number, None)
                if leaf.number == signing.number:
                    signing = replace(signing, index=index)
        if signing.index is None:
            awaited[signing.number] = _hash(signing.body)
            for number in sorted(awaited)[:-MOST_AWAITED]:
                del awaited[number]
        self._seen = Seen(leaf=leaf, signing=signing, awaited=awaited)

    def _next(
        self, index: int, body: Mapping[str, Any], last: SigningEpoch | None, signing: SigningEpoch
    ) -> SigningEpoch:
        """Return the epoch of a leaf that may stand here. Only one that signs, now or before, is announced."""
        if why := self._misfit(body, last, signing):
            raise TrustError(f"{self._origin}: leaf {index}: epoch {body['epoch']}: {why}", index=index)
        if body["epoch"] == signing.number:
            return replace(signing, index=index)
        if not is_attested(body):
            return SigningEpoch(body=body, index=index)
        try:
            return SigningEpoch(body=body, index=index, bound=self._verify(body))
        except TrustError as e:
            raise TrustError(f"{self._origin}: leaf {index}: {e}", index=index) from e

    def _misfit(self, body: Mapping[str, Any], last: SigningEpoch | None, signing: SigningEpoch) -> str:
        number = body["epoch"]
        if last is not None and number <= last.number:
            return f"comes after epoch {last.number}, and numbers must rise"
        if number > signing.number:
            return f"its checkpoint is signed in epoch {signing.number}"
        if (number == signing.number and body != signing.body) or self._differs(body):
            return "was announced with another key or binding before"
        if not is_attested(body) and last is not None and is_attested(last.body):
            return "is unattested, after one that a TPM has vouched for"
        return ""

    def packed(self) -> bytes:
        """Return what is known of the epochs."""
        return self._seen.packed()

    def restore(self, heads: bytes, leaves: Leaves) -> None:
        """Return to it. Epoch leaves since were checked before they were taken."""
        found = Seen.unpacked(heads)
        seen = found if isinstance(found, Seen) else Seen()
        for index, leaf in leaves:
            if leaf.kind != "epoch":
                continue
            made = SigningEpoch(body=leaf.body, index=index)
            awaited = {number: hashed for number, hashed in seen.awaited.items() if number != made.number}
            is_newest = is_attested(leaf.body) and (seen.signing is None or seen.signing.number <= made.number)
            seen = Seen(leaf=made, signing=made if is_newest else seen.signing, awaited=awaited)
        if seen.signing is not None:
            seen = replace(seen, signing=replace(seen.signing, bound=self._remembered(seen.signing.body)))
        self._seen, self._candidate = seen, None

    def _remembered(self, body: Mapping[str, Any]) -> BoundKey | None:
        """Return what a TPM said of a key that has signed before; None where it does not hold any more."""
        try:
            return verify_epoch(body, self._anchors.current())
        except TrustError:
            return None  # `key` says why, with the next message


def _check_first(origin: str, message: LogMessage, start: int, leaves: Leaves) -> None:
    if start == 0 and message.end and (not leaves or leaves[0][0] != 0 or leaves[0][1].kind != "epoch"):
        raise TrustError(f"{origin}: leaf 0 is not an epoch leaf", index=0)


def _hash(body: Mapping[str, Any]) -> bytes:
    return hashlib.sha256(pack(dict(body))).digest()
