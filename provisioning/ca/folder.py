"""Make an authority: its folder, its key, its certificate. The root's key need never be where an issuing one's is."""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.attest.names import check_hw_type
from gateway.errors import ConfigError, TrustError
from provisioning.ca import keyfile, token
from provisioning.ca.authority import About, Authority, digest_of, load_chain, load_key, write
from provisioning.ca.book import Book
from provisioning.ca.profiles import BACKDATED, FOREVER, Role, authority_builder, authority_name
from provisioning.ca.unlock import Unlock

ISSUING = (Role.DEVICES, Role.OPERATION)
Now = Callable[[], datetime]


def _now() -> datetime:
    return datetime.now(UTC)


def make_root(
    folder: Path,
    *,
    name: str,
    unlock: Unlock,
    key: str | None = None,
    curve: str = "p256",
    passes: int = keyfile.PASSES,
    now: Now = _now,
) -> Authority:
    """Make a root in a new folder, with an empty CRL. key: a PKCS#11 URI; a file without it. Raises ConfigError."""
    private = _make_key(folder, Role.ROOT, name=name, unlock=unlock, key=key, curve=curve, passes=passes)
    start = now().replace(microsecond=0) - BACKDATED
    public = private.public_key()
    builder = authority_builder(name=name, role=Role.ROOT, key=public, start=start, end=FOREVER, issuer=None)
    own = x509.AuthorityKeyIdentifier.from_issuer_public_key(public)
    certificate = builder.add_extension(own, critical=False).sign(private, digest_of(private))
    write(folder / "chain.pem", certificate.public_bytes(serialization.Encoding.PEM))
    root = Authority(folder, About.read(folder), private, [certificate], now=now)
    root.crl()
    return root


def make_request(
    folder: Path, *, name: str, role: Role, unlock: Unlock, key: str | None = None, curve: str = "p256"
) -> Path:
    """Make an issuing authority's key in a new folder, and the request for its certificate; return the request."""
    if role not in ISSUING:
        raise ConfigError(f"role: got {role}, want devices or operation")
    return _request(folder, name, role, _make_key(folder, role, name=name, unlock=unlock, key=key, curve=curve))


def _request(folder: Path, name: str, role: Role, private: ec.EllipticCurvePrivateKey) -> Path:
    request = x509.CertificateSigningRequestBuilder().subject_name(authority_name(name, role))
    path = folder / "ca.csr"
    write(path, request.sign(private, digest_of(private)).public_bytes(serialization.Encoding.PEM))
    return path


def sign_request(root: Authority, request: bytes, *, name: str, role: Role) -> bytes:
    """Return what an issuing authority takes back: its certificate, the root's, and the root's list, in PEM."""
    made = x509.load_der_x509_certificate(root.issue_authority(request, name=name, role=role))
    parts = [made, root.certificate]
    pem = b"".join(part.public_bytes(serialization.Encoding.PEM) for part in parts)
    try:
        return pem + (root.folder / "crl.pem").read_bytes()
    except OSError:
        return pem + root.crl()


def accept(folder: Path, bundle: bytes, *, unlock: Unlock, now: Now = _now) -> Authority:
    """Put the root's answer into an issuing authority's folder, and make its first CRL. Raises ConfigError, TrustError.

    Also takes a newer bundle, as when the root's list was renewed.
    """
    about = About.read(folder)
    return _accepted(folder, about, load_key(folder, about, unlock), bundle, now=now)


def _accepted(folder: Path, about: About, private: ec.EllipticCurvePrivateKey, bundle: bytes, *, now: Now) -> Authority:
    chain, lists = check_answer(bundle, about, private, folder)
    write(folder / "chain.pem", b"".join(one.public_bytes(serialization.Encoding.PEM) for one in chain))
    write(folder / "root-crl.pem", lists.public_bytes(serialization.Encoding.PEM))
    authority = Authority(folder, about, private, chain, now=now)
    authority.crl()
    return authority


def make_all(
    folder: Path,
    *,
    name: str,
    root_unlock: Unlock,
    unlock: Unlock,
    key: str | None = None,
    curve: str = "p256",
    passes: int = keyfile.PASSES,
    now: Now = _now,
) -> list[Authority]:
    """Make a root and both issuing authorities under one folder, as a small factory has them.

    key: a PKCS#11 URI in which `{role}` stands for the role, so that each has a label of its own. passes: of scrypt,
    for key files; fewer are for authorities that are thrown away.
    """
    if key is not None and "{role}" not in key:
        raise ConfigError("key: got one label for three keys, want {role} in it")
    label = _keyed(key, Role.ROOT)
    root = make_root(folder / "root", name=name, unlock=root_unlock, key=label, curve=curve, passes=passes, now=now)
    made = [root]
    for role in ISSUING:
        own = folder / role
        private = _make_key(own, role, name=name, unlock=unlock, key=_keyed(key, role), curve="p256", passes=passes)
        answer = sign_request(root, _request(own, name, role, private).read_bytes(), name=name, role=role)
        made.append(_accepted(own, About.read(own), private, answer, now=now))
    return made


def put_hw_type(folder: Path, hw_type: str) -> None:
    """Let the authority for devices in a folder name this type in what it issues from now on. Raises TrustError."""
    about = replace(About.read(folder), hw_type=check_hw_type(hw_type))
    write(folder / "authority.json", about.text().encode())


def trust_of(folder: Path) -> tuple[bytes, bytes]:
    """Return what peers need, in PEM: the certificates from an issuing authority up, and its list with the root's."""
    try:
        lists = (folder / "crl.pem").read_bytes()
        above = folder / "root-crl.pem"
        return (folder / "chain.pem").read_bytes(), lists + (above.read_bytes() if above.exists() else b"")
    except OSError as e:
        raise ConfigError(f"{folder}: {e}, want an authority with its certificate and list") from e


def check_answer(
    bundle: bytes, about: About, private: ec.EllipticCurvePrivateKey, folder: Path
) -> tuple[list[x509.Certificate], x509.CertificateRevocationList]:
    """Return the certificates and the list of a root's answer, when it is one to this request. Raises TrustError."""
    try:
        chain = x509.load_pem_x509_certificates(bundle)
        lists = x509.load_pem_x509_crl(bundle)
    except (ValueError, x509.InvalidVersion) as e:
        raise TrustError(f"{folder}: want PEM with the certificate, the root's, and the root's list: {e}") from e
    if len(chain) != 2 or chain[0].public_key() != private.public_key():
        raise TrustError(f"{folder}: want two certificates, the first for this authority's key")
    if chain[0].subject != authority_name(about.name, about.role):
        raise TrustError(f"{folder}: the certificate is for another name or role than {about.name!r}, {about.role}")
    above = chain[1].public_key()
    if not isinstance(above, ec.EllipticCurvePublicKey):
        raise TrustError(f"{folder}: the root has another kind of key")
    try:
        chain[0].verify_directly_issued_by(chain[1])
        chain[1].verify_directly_issued_by(chain[1])
    except (ValueError, TypeError, InvalidSignature) as e:
        raise TrustError(f"{folder}: the certificates do not follow from each other") from e
    if lists.issuer != chain[1].subject or not lists.is_signature_valid(above):
        raise TrustError(f"{folder}: the list is not the root's")
    return chain, lists


def _keyed(key: str | None, role: Role) -> str | None:
    return None if key is None else key.replace("{role}", role)


def _make_key(
    folder: Path,
    role: Role,
    *,
    name: str,
    unlock: Unlock,
    key: str | None,
    curve: str,
    passes: int = keyfile.PASSES,
) -> ec.EllipticCurvePrivateKey:
    """Make the folder and the key. A half-made folder is refused, not mended: nothing rests on it yet."""
    authority_name(name, role)
    if curve not in token.CURVES:
        raise ConfigError(f"curve: got {curve[:20]!r}, want one of {', '.join(token.CURVES)}")
    if folder.exists() and any(folder.iterdir()):
        raise ConfigError(f"{folder}: got files already, want a new or an empty folder")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as e:
        raise ConfigError(f"{folder}: {e.strerror}, want a folder that can be made") from e
    if key is not None:
        made: ec.EllipticCurvePrivateKey = token.make_key(key, unlock, curve=curve)
    else:
        made = ec.generate_private_key(token.CURVES[curve])
        pem = keyfile.encrypt(made, unlock, salt=secrets.token_bytes(16), iv=secrets.token_bytes(16), passes=passes)
        write(folder / "ca.key", pem, mode=0o600)
    write(folder / "authority.json", About(name=name, role=role, key=key or "ca.key").text().encode())
    return made


def to_pem(certificates: Sequence[bytes]) -> bytes:
    """Return certificates, given in DER, in PEM."""
    loaded = map(x509.load_der_x509_certificate, certificates)
    return b"".join(one.public_bytes(serialization.Encoding.PEM) for one in loaded)


def describe(folder: Path, *, subject: str | None = None) -> dict[str, Any]:
    """Return what an authority's folder says without its key. Raises ConfigError."""
    about, chain = About.read(folder), load_chain(folder)
    book = Book.make(folder / "issued.sqlite")
    number, _, next_s = book.newest_crl() or (0, 0, 0)
    return {
        "name": about.name,
        "role": str(about.role),
        "key": about.key,
        "subject": chain[0].subject.rfc4514_string(),
        "number": f"{chain[0].serial_number:040x}",
        "not_after": _day(int(chain[0].not_valid_after_utc.timestamp())),
        "crl_number": number,
        "crl_next_update": _day(next_s),
        "issued": [
            {
                "number": one.number,
                "kind": one.kind,
                "subject": one.subject,
                "sha256": one.sha256,
                "not_after": _day(one.end_s),
                "revoked": None if one.revoked_s is None else _day(one.revoked_s),
                "reason": one.reason,
            }
            for one in book.find(subject=subject)
        ],
    }


def _day(time_s: int) -> str:
    return datetime.fromtimestamp(time_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
