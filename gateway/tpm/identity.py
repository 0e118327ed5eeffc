"""Who a TPM is: the maker's endorsement keys, our attestation key, and keys under the storage root key."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.errors import ConfigError, TrustError
from gateway.tpm import nv
from gateway.tpm.keys import KeyBlob
from gateway.tpm.templates import AK, EK_KINDS, EK_PROFILES, SRK, EkProfile

if TYPE_CHECKING:
    from gateway.tpm.commands import Commands
    from gateway.tpm.context import Handle

OWNER_HIERARCHY = 0x40000001
PERSISTENT_SRK = 0x81000001
"""Where TCG's Provisioning Guidance (7.8) puts a storage root key."""

_OWNER, _ENDORSEMENT = "owner", "endorsement"


def profile(commands: "Commands", kind: str) -> EkProfile:
    """Return which template makes the EK of this kind in this TPM. Raises ConfigError for a kind that there is not."""
    if kind not in EK_PROFILES:
        raise ConfigError(f"EK: got kind {kind!r}, want {', '.join(EK_KINDS)}")
    profiles = EK_PROFILES[kind]
    found = next((one for one in profiles if commands.nv_public(one.certificate) is not None), profiles[0])
    return replace(found, public=_by_maker(commands, found))


def ek_certificate(commands: "Commands", kind: str) -> bytes | None:
    """Return the EK's certificate in DER, without what a maker may have filled the index up with."""
    stored = nv.content(commands, profile(commands, kind).certificate)
    if stored is None or not stored.startswith(b"\x30\x82"):
        return stored or None
    return stored[: 4 + int.from_bytes(stored[2:4], "big")]


@contextmanager
def ek(commands: "Commands", kind: str) -> Iterator["Handle"]:
    """Give the EK."""
    with commands.primary(_ENDORSEMENT, profile(commands, kind).public) as key:
        yield key


@contextmanager
def ak(commands: "Commands") -> Iterator["Handle"]:
    """Give the AK."""
    with commands.primary(_ENDORSEMENT, AK) as key:
        yield key


def activate(commands: "Commands", kind: str, id_object: bytes, secret: bytes) -> bytes:
    """Return what a credential holds."""
    found = profile(commands, kind)
    with commands.primary(_ENDORSEMENT, found.public) as key, ak(commands) as ours:
        if not found.needs_policy:
            return commands.activate(ours, key, id_object, secret, session=None)
        with commands.session(is_policy=True) as session:
            commands.policy_endorsement(session)
            return commands.activate(ours, key, id_object, secret, session=session)


@contextmanager
def srk(commands: "Commands", handle: int | None = None) -> Iterator[tuple["Handle", int]]:
    """Give a storage key, and the handle that a key file names it by.

    handle: as such a file says; None for the persistent one where there is one, else the standard primary.
    """
    if handle is None:
        handle = PERSISTENT_SRK if PERSISTENT_SRK in commands.handles(PERSISTENT_SRK)[:1] else OWNER_HIERARCHY
    if handle == OWNER_HIERARCHY:
        with commands.primary(_OWNER, SRK) as key:
            yield key, handle
    elif handle >> 24 == 0x81:
        with commands.persistent(handle) as key:
            yield key, handle
    else:
        raise TrustError(f"key file: got parent 0x{handle:08x}, want 0x40000001 or a persistent handle")


@contextmanager
def loaded(commands: "Commands", key: KeyBlob) -> Iterator["Handle"]:
    """Give a key of a file. Raises TrustError when it was made in another TPM."""
    with srk(commands, key.parent) as (parent, _), commands.load(parent, key.public, key.private) as found:
        yield found


def _by_maker(commands: "Commands", found: EkProfile) -> bytes:
    """Return the template, with what the maker stored for it (EK credential profile, 2.2.1.4)."""
    template = (nv.content(commands, found.template) if found.template else None) or found.public
    nonce = (nv.content(commands, found.nonce) if found.nonce else None) or b""
    is_rsa = template[:2] == b"\x00\x01"
    room, after = (256, 0) if is_rsa else (32, 34)
    if not nonce or len(nonce) > room:
        return template
    end = len(template) - after
    return template[: end - room] + nonce.ljust(room, b"\0") + template[end:]
