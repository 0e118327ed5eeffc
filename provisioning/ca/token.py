"""An authority's key in a PKCS#11 token, as a key that cryptography's builders sign with.

Its address is a URI (RFC 7512): `pkcs11:token=NAME;object=LABEL?module-path=/usr/lib/softhsm/libsofthsm2.so`. The PIN
is never part of it. The key is made in the token and cannot leave it.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn, Self
from urllib.parse import unquote

import pkcs11
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed, encode_dss_signature
from pkcs11.util.ec import encode_ec_public_key, encode_named_curve_parameters

from gateway.errors import ConfigError
from provisioning.ca.unlock import Unlock

CURVES: dict[str, ec.EllipticCurve] = {"p256": ec.SECP256R1(), "p384": ec.SECP384R1()}
_URI = re.compile(r"pkcs11:token=([^;?&]{1,96});object=([^;?&]{1,96})\?module-path=(/[^;?&]{1,250})")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenAddress:
    """Which key of which token, by which library."""

    token: str
    label: str
    module: str

    @classmethod
    def parse(cls, uri: str) -> Self:
        """Return what a URI says. Raises ConfigError."""
        found = _URI.fullmatch(uri)
        if found is None:
            got = "a PIN in it" if "pin-" in uri else repr(uri[:80])  # which is shown to nobody
            raise ConfigError(f"key: got {got}, want pkcs11:token=NAME;object=LABEL?module-path=/PATH")
        token, label, module = map(unquote, found.groups())
        return cls(token=token, label=label, module=module)


_LOGIN = threading.RLock()
"""PKCS#11 knows one login per process and token: so one thread at a time, and no session outlives its use."""


@contextmanager
def _session(address: TokenAddress, unlock: Unlock) -> Iterator[pkcs11.Session]:
    """Give a session of its own, logged in. Raises ConfigError for whatever the token or its library refuses."""
    with _LOGIN:
        try:
            token = pkcs11.lib(address.module).get_token(token_label=address.token)
            with token.open(user_pin=unlock.secret, rw=True) as session:
                yield session
        except (pkcs11.PKCS11Error, RuntimeError) as e:  # RuntimeError: a library that cannot be loaded
            said = str(e) or type(e).__name__
            raise ConfigError(f"pkcs11: token {address.token!r}, key {address.label!r}: {said}") from e


def make_key(uri: str, unlock: Unlock, *, curve: str) -> "TokenKey":
    """Make a key in the token. Raises ConfigError, also where one of that label stands already."""
    address = TokenAddress.parse(uri)
    with _session(address, unlock) as session:
        if list(session.get_objects({pkcs11.Attribute.LABEL: address.label})):
            raise ConfigError(f"pkcs11: token {address.token!r} has a key {address.label!r} already, want a new label")
        named = encode_named_curve_parameters(CURVES[curve].name)
        domain = session.create_domain_parameters(pkcs11.KeyType.EC, {pkcs11.Attribute.EC_PARAMS: named}, local=True)
        domain.generate_keypair(
            store=True,
            label=address.label,
            capabilities=pkcs11.MechanismFlag.SIGN | pkcs11.MechanismFlag.VERIFY,
            private_template={pkcs11.Attribute.SENSITIVE: True, pkcs11.Attribute.EXTRACTABLE: False},
        )
    return open_key(uri, unlock)


def open_key(uri: str, unlock: Unlock) -> "TokenKey":
    """Return a token's key. Raises ConfigError: no such token, no such key, a wrong PIN."""
    address = TokenAddress.parse(uri)
    with _session(address, unlock) as session:
        session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=address.label)
        public = session.get_key(object_class=pkcs11.ObjectClass.PUBLIC_KEY, label=address.label)
        if not isinstance(public, pkcs11.PublicKey):
            raise ConfigError(f"pkcs11: key {address.label!r}: got no public key beside it")
        loaded = serialization.load_der_public_key(encode_ec_public_key(public))
    if not isinstance(loaded, ec.EllipticCurvePublicKey):
        raise ConfigError(f"pkcs11: key {address.label!r}: got another kind of key, want P-256 or P-384")
    return TokenKey(address, unlock, loaded)


class TokenKey(ec.EllipticCurvePrivateKey):
    """A private key that stays in its token. Signing is all that it can do."""

    def __init__(self, address: TokenAddress, unlock: Unlock, public: ec.EllipticCurvePublicKey) -> None:
        self._address, self._unlock, self._public = address, unlock, public

    def sign(self, data: Any, signature_algorithm: ec.EllipticCurveSignatureAlgorithm) -> bytes:
        """Return the signature in DER. Raises ConfigError when the token does not give one."""
        algorithm = signature_algorithm.algorithm
        digest = bytes(data)
        if not isinstance(algorithm, Prehashed):
            running = hashes.Hash(algorithm)
            running.update(digest)
            digest = running.finalize()
        with _session(self._address, self._unlock) as session:
            # Any: whether a key can sign is known when it is there, and the stubs cannot say it.
            private: Any = session.get_key(object_class=pkcs11.ObjectClass.PRIVATE_KEY, label=self._address.label)
            raw: bytes = private.sign(digest, mechanism=pkcs11.Mechanism.ECDSA)
        half = len(raw) // 2
        return encode_dss_signature(int.from_bytes(raw[:half], "big"), int.from_bytes(raw[half:], "big"))

    def public_key(self) -> ec.EllipticCurvePublicKey:
        """Return the public key."""
        return self._public

    @property
    def curve(self) -> ec.EllipticCurve:
        """The curve."""
        return self._public.curve

    @property
    def key_size(self) -> int:
        """Bits of the curve."""
        return self._public.key_size

    def exchange(self, algorithm: ec.ECDH, peer_public_key: ec.EllipticCurvePublicKey) -> NoReturn:
        """Refuse: the key only signs."""
        raise NotImplementedError(algorithm, peer_public_key)

    def private_numbers(self) -> NoReturn:
        """Refuse: the key does not leave its token."""
        raise NotImplementedError

    def private_bytes(
        self,
        encoding: serialization.Encoding,
        format: serialization.PrivateFormat,  # noqa: A002 - the name is cryptography's
        encryption_algorithm: serialization.KeySerializationEncryption,
    ) -> NoReturn:
        """Refuse: the key does not leave its token."""
        raise NotImplementedError(encoding, format, encryption_algorithm)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        return self
