"""Endorsement key certificates: as makers write them, with their flaws, up to the maker's root."""

import datetime as dt
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.attest.der import BITS, INTEGER, SEQUENCE, children, encode, read_whole
from gateway.attest.ek import EK_EKU, Ek, check_ek_public, verify_ek_chain
from gateway.attest.lenient import read_certificate
from gateway.errors import TrustError
from gateway.tpm import Tpm
from hil.plant.soft_tpm import CA_END, NEVER, START, SoftDevice, authority_name, new_key, usage
from tests.test_credential import rsa_ek
from tests.tpms import make_state, running_tpm

AT_S = 1_790_000_000
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
ROOT_KEY, ISSUING_KEY = new_key(), new_key()
TPM_NAMES = {"2.23.133.2.1": "id:49465800", "2.23.133.2.2": "SLB9670", "2.23.133.2.3": "id:0783"}
Edit = Callable[[list[bytes]], list[bytes]]


def tpm_name() -> x509.SubjectAlternativeName:
    parts = [x509.NameAttribute(x509.ObjectIdentifier(oid), text) for oid, text in TPM_NAMES.items()]
    return x509.SubjectAlternativeName([x509.DirectoryName(x509.Name(parts))])


def authority(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    signer: ec.EllipticCurvePrivateKey,
    *,
    path_length: int | None = None,
    ca: bool = True,
    may: tuple[str, ...] = ("key_cert_sign",),
    end: dt.datetime = CA_END,
    critical: bool = False,
) -> bytes:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.32473.9"), b"\x05\x00")
    builder = x509.CertificateBuilder(authority_name(issuer), authority_name(name), key.public_key(), 7, START, end)
    builder = builder.add_extension(
        x509.BasicConstraints(ca=ca, path_length=path_length if ca else None), critical=True
    )
    builder = builder.add_extension(usage(*may), critical=True).add_extension(unknown, critical=critical)
    return builder.sign(signer, hashes.SHA256()).public_bytes(Encoding.DER)


def ek_certificate(
    *,
    key: rsa.RSAPublicKey | ec.EllipticCurvePublicKey | None = None,
    signer: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey = ISSUING_KEY,
    extensions: tuple[tuple[x509.ExtensionType, bool], ...] | None = None,
    start: dt.datetime = START,
    end: dt.datetime = NEVER,
    digest: hashes.SHA256 | hashes.SHA384 | None = None,
    pss: bool = False,
) -> bytes:
    said = extensions or (
        (tpm_name(), True),
        (x509.ExtendedKeyUsage([EK_EKU]), False),
        (usage("key_encipherment"), True),
        (x509.BasicConstraints(ca=False, path_length=None), True),
    )
    builder = x509.CertificateBuilder(
        authority_name("issuing"), x509.Name([]), key or RSA_KEY.public_key(), 0x1234, start, end
    )
    for extension, critical in said:
        builder = builder.add_extension(extension, critical=critical)
    rsa_padding = padding.PSS(padding.MGF1(hashes.SHA256()), 32) if pss else None
    return builder.sign(signer, digest or hashes.SHA256(), rsa_padding=rsa_padding).public_bytes(Encoding.DER)


ROOT = authority("root", ROOT_KEY, "root", ROOT_KEY)
ISSUING = authority("issuing", ISSUING_KEY, "root", ROOT_KEY, path_length=0)
GOOD = ek_certificate()


def verify(
    ek: bytes, *, issuing: tuple[bytes, ...] = (ISSUING,), roots: tuple[bytes, ...] = (ROOT,), at_s: int = AT_S
) -> Ek:
    return verify_ek_chain(ek, issuing, roots, at_s=at_s)


def bent(der: bytes, edit: Edit, key: ec.EllipticCurvePrivateKey = ISSUING_KEY) -> bytes:
    """Change the parts of a certificate's signed half, and sign it again: as a maker with a flaw would."""
    signed, algorithm, _ = children(read_whole(der, SEQUENCE))
    body = encode(SEQUENCE, b"".join(edit([part.raw for part in children(signed)])))
    signature = key.sign(body, ec.ECDSA(hashes.SHA256()))
    return encode(SEQUENCE, body + algorithm.raw + encode(BITS, b"\0" + signature))


def with_serial(content: bytes) -> Edit:
    return lambda parts: [parts[0], encode(INTEGER, content), *parts[2:]]


def replaced(old: bytes, new: bytes) -> Edit:
    """Replace bytes of the same length."""
    assert len(old) == len(new)
    return lambda parts: [part.replace(old, new) for part in parts]


def without(parts: list[bytes]) -> list[bytes]:
    """Leave out the version and the extensions: a certificate of X.509's first version."""
    return parts[1:-1]


@pytest.fixture(scope="module")
def tpm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tpm, list[bytes]]]:
    folder: Path = tmp_path_factory.mktemp("t")
    state = make_state(folder)
    pems = [x509.load_pem_x509_certificate(path.read_bytes()) for path in sorted((folder / "ca").glob("*cert.pem"))]
    pems.sort(key=lambda one: one.issuer != one.subject)
    with running_tpm(state, folder) as tcti, Tpm.open(tcti) as opened:
        yield opened, [one.public_bytes(Encoding.DER) for one in pems]


@pytest.mark.parametrize("kind", ["rsa2048", "p384"])
def test_the_certificates_of_swtpm_verify_up_to_its_root(tpm: tuple[Tpm, list[bytes]], kind: str) -> None:
    """And the key that they are about is the TPM's. Without the authority between or under another root they do not."""
    opened, (root, issuing) = tpm
    ek, now = opened.ek_certificate(kind), int(time.time())
    assert ek is not None
    found = verify_ek_chain(ek, [issuing], [root], at_s=now)
    assert (found.maker, found.model, found.remarks) == ("id:00001014", "swtpm", ())
    assert check_ek_public(found, opened.ek_public(kind)).is_restricted_decrypt
    with pytest.raises(TrustError, match="not the one in its certificate"):
        check_ek_public(found, opened.ek_public("p256"))
    for between, roots in (([], [root]), ([issuing], []), ([issuing, root], [ROOT])):
        with pytest.raises(TrustError, match="no root or issuing authority"):
            verify_ek_chain(ek, between, roots, at_s=now)


def test_an_ek_says_who_made_the_tpm() -> None:
    """Maker in letters, model, version, serial; nothing to remark."""
    found = verify(GOOD)
    assert (found.maker, found.model, found.version, found.serial) == ("IFX", "SLB9670", "id:0783", "1234")
    assert (found.key, found.certificate, found.remarks) == (RSA_KEY.public_key(), GOOD, ())
    curve = ek_certificate(key=new_key().public_key(), extensions=((tpm_name(), True), (usage("key_agreement"), True)))
    assert verify(curve).remarks == ("EK certificate: it has no extended key usage",)


OAEP = replaced(bytes.fromhex("06092a864886f70d010101"), bytes.fromhex("06092a864886f70d010107"))
LOOSE_BOOLEAN = replaced(bytes.fromhex("0603551d130101ff"), bytes.fromhex("0603551d13010101"))


@pytest.mark.parametrize(
    ("ek", "remark"),
    [
        (GOOD + bytes(700), "700 bytes of padding"),
        (GOOD + b"\xff" * 700, "700 bytes of padding"),
        (b"\x10\x01\x00" + len(GOOD).to_bytes(2, "big") + GOOD + b"\xff" * 9, "header of TPM 1.2"),
        (bent(GOOD, with_serial(b"\xf0\x12")), "negative"),
        (bent(GOOD, with_serial(b"\x00\x00\x12\x34")), "not minimally encoded"),
        (bent(GOOD, with_serial(b"\x41" * 30)), "longer than 20"),
        (bent(GOOD, with_serial(b"\x00")), "is zero"),
        (bent(GOOD, OAEP), "RSAES-OAEP"),
        (bent(GOOD, LOOSE_BOOLEAN), "not in DER"),
        (
            ek_certificate(extensions=((tpm_name(), False), (usage("digital_signature"), True))),
            "not an endorsement key's",
        ),
        (ek_certificate(extensions=((tpm_name(), False),)), "no key usage"),
        (ek_certificate(extensions=((x509.ExtendedKeyUsage([EK_EKU]), True),)), "does not name the TPM's maker"),
        (
            ek_certificate(extensions=((x509.UnrecognizedExtension(NameOID.PSEUDONYM, b"\x05\x00"), True),)),
            "extension 2.5.4.65 is critical",
        ),
    ],
)
def test_a_flaw_that_makers_are_known_for_is_accepted_and_named(ek: bytes, remark: str) -> None:
    """Each of them has kept somebody's real TPM out."""
    found = verify(ek)
    assert any(remark in one for one in found.remarks), found.remarks
    assert found.key == RSA_KEY.public_key()


def test_a_name_written_in_another_string_type_is_the_same_name() -> None:
    """PrintableString in the authority's certificate, UTF8String in the EK's."""
    old, new = b"\x0c\x07issuing", b"\x13\x07issuing"
    assert old in GOOD
    assert verify(bent(GOOD, replaced(old, new))).maker == "IFX"


def test_a_maker_may_nest_the_tpms_names_as_it_likes() -> None:
    """All three in one set, as some do, instead of one set each."""
    one_by_one = tpm_name().public_bytes()
    parts = [x509.NameAttribute(x509.ObjectIdentifier(oid), text) for oid, text in TPM_NAMES.items()]
    one_set = x509.Name([x509.RelativeDistinguishedName(parts)])
    nested = x509.SubjectAlternativeName([x509.DirectoryName(one_set)])
    assert nested.public_bytes() != one_by_one
    found = verify(ek_certificate(extensions=((nested, True), (usage("key_encipherment"), True))))
    assert (found.maker, found.model, found.version) == ("IFX", "SLB9670", "id:0783")


def test_flaws_of_the_authorities_are_named_too() -> None:
    """As of one whose serial number is padded: STMicroelectronics' first one is of that kind."""
    issuing = bent(ISSUING, with_serial(b"\0\0\0\1"), ROOT_KEY)
    assert verify(GOOD, issuing=(issuing,)).remarks == (
        "EK authority 'issuing': its serial number is not minimally encoded",
    )


def test_rsa_authorities_sign_with_either_padding() -> None:
    """PKCS #1 v1.5 and PSS; never over SHA-1."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    builder = x509.CertificateBuilder(
        authority_name("issuing"), authority_name("issuing"), key.public_key(), 7, START, CA_END
    )
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    root = builder.sign(key, hashes.SHA384()).public_bytes(Encoding.DER)
    for ek in (ek_certificate(signer=key), ek_certificate(signer=key, digest=hashes.SHA384())):
        assert verify(ek, issuing=(), roots=(root,)).maker == "IFX"
    assert verify(ek_certificate(signer=key, pss=True), issuing=(), roots=(root,)).maker == "IFX"
    signed, algorithm, _ = children(read_whole(ek_certificate(signer=key), SEQUENCE))
    old, new = (bytes.fromhex(f"06092a864886f70d0101{last}") for last in ("0b", "05"))
    body = signed.raw.replace(old, new)
    signature = key.sign(body, padding.PKCS1v15(), hashes.SHA1())
    with pytest.raises(TrustError, match="no root"):
        verify(
            encode(SEQUENCE, body + algorithm.raw.replace(old, new) + encode(BITS, b"\0" + signature)),
            issuing=(),
            roots=(root,),
        )
    other = ek_certificate(signer=rsa.generate_private_key(public_exponent=65537, key_size=2048), pss=True)
    with pytest.raises(TrustError, match="no root"):
        verify(other, issuing=(), roots=(root,))


SHA1 = replaced(bytes.fromhex("06082a8648ce3d040302"), bytes.fromhex("06082a8648ce3d040301"))


@pytest.mark.parametrize(
    ("ek", "said"),
    [
        (GOOD[:-1] + bytes([GOOD[-1] ^ 1]), "no root or issuing"),
        (bent(GOOD, with_serial(b"\1"), ROOT_KEY), "no root or issuing"),
        (bent(GOOD, SHA1), "algorithm differ"),
        (GOOD + b"\0\1", "not padding"),
        (ek_certificate(end=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)), "expired"),
        (ek_certificate(start=dt.datetime(2040, 1, 1, tzinfo=dt.UTC)), "not yet valid"),
        (
            ek_certificate(extensions=((x509.ExtendedKeyUsage([x509.ObjectIdentifier("2.23.133.8.3")]), False),)),
            "not for an EK",
        ),
        (ek_certificate(extensions=((x509.BasicConstraints(ca=True, path_length=None), True),)), "authority's"),
        (ek_certificate(key=rsa.generate_private_key(public_exponent=65537, key_size=1024).public_key()), "too short"),
        (ISSUING, "authority's"),
        (b"", "cut short"),
        (bytes(9000), "at most 8192"),
    ],
)
def test_what_is_wrong_with_an_ek_certificate_is_refused(ek: bytes, said: str) -> None:
    """Signature, time, purpose, an authority's, a short key: nothing is taken lightly here."""
    with pytest.raises(TrustError, match=said):
        verify(ek)


@pytest.mark.parametrize(
    ("issuing", "said"),
    [
        (authority("issuing", ISSUING_KEY, "root", ROOT_KEY, ca=False), "not an authority's"),
        (authority("issuing", ISSUING_KEY, "root", ROOT_KEY, may=("digital_signature",)), "must not sign certificates"),
        (authority("issuing", ISSUING_KEY, "root", ROOT_KEY, critical=True), "is critical"),
        (authority("issuing", ISSUING_KEY, "root", ROOT_KEY, end=dt.datetime(2026, 1, 1, tzinfo=dt.UTC)), "expired"),
        (authority("issuing", ISSUING_KEY, "root", new_key()), "no root or issuing"),
        (authority("issuing", new_key(), "root", ROOT_KEY), "no root or issuing"),
        (authority("another", ISSUING_KEY, "root", ROOT_KEY), "no root or issuing"),
        (bent(ISSUING, without, ROOT_KEY), "not an authority's"),
    ],
)
def test_who_must_not_issue_is_refused(issuing: bytes, said: str) -> None:
    """No authority, one for something else, expired, or of another maker."""
    with pytest.raises(TrustError, match=said):
        verify(GOOD, issuing=(issuing,))


def test_a_pinned_root_may_be_of_the_first_version() -> None:
    """It is trusted as it stands; only one that is pinned."""
    old = bent(ROOT, without, ROOT_KEY)
    assert verify(GOOD, roots=(old,)).maker == "IFX"


def test_paths_have_an_end() -> None:
    """Authorities that issue each other, a path longer than it says, one too many."""
    loop = (authority("issuing", ISSUING_KEY, "b", new_key()), authority("a", ISSUING_KEY, "issuing", ISSUING_KEY))
    with pytest.raises(TrustError, match="no root or issuing"):
        verify(GOOD, issuing=loop)
    other = new_key()
    ring = (authority("issuing", ISSUING_KEY, "b", other), authority("b", other, "issuing", ISSUING_KEY))
    with pytest.raises(TrustError, match="too long"):
        verify(GOOD, issuing=ring)
    short = authority("middle", other, "root", ROOT_KEY, path_length=0)
    with pytest.raises(TrustError, match="it allows 0 authorities"):
        verify(GOOD, issuing=(authority("issuing", ISSUING_KEY, "middle", other), short))
    with pytest.raises(TrustError, match="more than 64"):
        verify(GOOD, issuing=(ISSUING,) * 64)


def test_an_ek_that_signs_is_none() -> None:
    """The certified key must be a restricted decryption key in the TPM."""
    found = verify(GOOD)
    assert check_ek_public(found, rsa_ek(RSA_KEY.public_key())).symmetric_bits == 128
    with pytest.raises(TrustError, match="not of an endorsement key's kind"):
        check_ek_public(found, rsa_ek(RSA_KEY.public_key(), attributes="00050072"))
    with pytest.raises(TrustError, match="not the one"):
        check_ek_public(found, SoftDevice().ak_public)


@settings(max_examples=300)
@given(place=st.integers(min_value=0, max_value=len(GOOD) - 1), value=st.binary(min_size=1, max_size=5))
def test_a_certificate_bent_by_its_own_maker_is_read_or_refused(place: int, value: bytes) -> None:
    """Whatever stands in it, no other error comes out; nothing here checks a signature first."""
    try:
        read_certificate(GOOD[:place] + value + GOOD[place + len(value) :])
    except TrustError:
        return


@given(blob=st.binary(max_size=200))
def test_any_bytes_are_a_certificate_or_refused(blob: bytes) -> None:
    """The DER reader takes bytes from a stranger."""
    with pytest.raises(TrustError):
        read_certificate(blob)
