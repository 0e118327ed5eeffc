"""A device's certificates: the path to its maker's root, time, revocation, purpose and names."""

import datetime as dt
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from gateway.attest import chain as chains
from gateway.attest.chain import AK_EKU, CLIENT_AUTH, Anchors, verify_device_chain
from gateway.attest.names import HARDWARE_MODULE_NAME, device_name, hardware_module_name, read_hardware_module_name
from gateway.errors import TrustError
from hil.plant.soft_tpm import CA_END, MODEL, NEVER, START, SoftAuthority, SoftDevice, authority_name, new_key, usage

AT_S = 1_790_000_000
AUTHORITY = SoftAuthority()
KEY = new_key()
PUBLIC = KEY.public_key()
SERIAL = "WS-0001"
GOOD = AUTHORITY.issue(PUBLIC, SERIAL)


def when(at_s: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(at_s, dt.UTC)


def refused(
    certificate: x509.Certificate, said: str, *, at_s: int = AT_S, anchors: Anchors = AUTHORITY.anchors
) -> None:
    with pytest.raises(TrustError, match=said):
        verify_device_chain(AUTHORITY.chain(certificate), anchors, at_s=at_s)


def test_a_device_is_who_its_certificate_says() -> None:
    """Serial, model, key, fingerprint and end."""
    device = verify_device_chain(AUTHORITY.chain(GOOD), AUTHORITY.anchors, at_s=AT_S)
    assert (device.serial, device.model, device.key) == (SERIAL, MODEL, PUBLIC)
    assert device.fingerprint == GOOD.fingerprint(hashes.SHA256()).hex()
    assert device.not_after_s == int(NEVER.timestamp())


def test_the_root_may_stand_in_the_chain_or_not() -> None:
    """The last certificate is an anchor, or issued by one; an issuing CA that is pinned is an anchor too."""
    root = AUTHORITY.root.public_bytes(Encoding.DER)
    whole = (*AUTHORITY.chain(GOOD), root)
    assert verify_device_chain(whole, AUTHORITY.anchors, at_s=AT_S).serial == SERIAL
    pinned = Anchors(roots=(AUTHORITY.issuing,))
    assert verify_device_chain(AUTHORITY.chain(GOOD), pinned, at_s=AT_S).serial == SERIAL
    assert verify_device_chain(AUTHORITY.chain(GOOD)[:1], pinned, at_s=AT_S).serial == SERIAL
    with pytest.raises(TrustError, match="no trust anchor"):
        verify_device_chain(whole, pinned, at_s=AT_S)


def test_a_renewed_root_of_the_same_name_does_not_hide_the_old_one() -> None:
    """Which of two anchors of one name issued it, the signature says."""
    renewed = SoftAuthority()
    assert renewed.root.subject == AUTHORITY.root.subject
    anchors = Anchors(roots=(renewed.root, AUTHORITY.root))
    assert verify_device_chain(AUTHORITY.chain(GOOD), anchors, at_s=AT_S).serial == SERIAL


def chain_of(*certificates: x509.Certificate) -> tuple[bytes, ...]:
    return tuple(one.public_bytes(Encoding.DER) for one in certificates)


@pytest.mark.parametrize(
    ("chain", "said"),
    [
        ((), "0 certificates"),
        (chain_of(*[GOOD] * 5), "5 certificates"),
        (chain_of(GOOD), "no trust anchor"),
        (chain_of(AUTHORITY.issuing, GOOD), "not an authority's"),
        (chain_of(GOOD, AUTHORITY.root), "did not issue"),
        (chain_of(GOOD, AUTHORITY.issuing, AUTHORITY.issuing), "authorities below it"),
        (chain_of(AUTHORITY.root), "an anchor is no device"),
        (chain_of(AUTHORITY.issuing), "P-256|authority's"),
        ((b"",), "DER"),
        ((b"\x30\x80\0\0",), "DER"),
        ((bytes(9000),), "at most 8192"),
    ],
)
def test_what_is_no_chain_is_refused(chain: Sequence[bytes], said: str) -> None:
    """Empty, too long, without the issuer, in the wrong order, doubled, or no certificates at all."""
    with pytest.raises(TrustError, match=said):
        verify_device_chain(chain, AUTHORITY.anchors, at_s=AT_S)


def test_a_device_of_another_maker_is_refused() -> None:
    """A root of the same name does not help: another key signed it."""
    other = SoftAuthority()
    with pytest.raises(TrustError, match="no trust anchor"):
        verify_device_chain(other.chain(other.issue(PUBLIC, SERIAL)), AUTHORITY.anchors, at_s=AT_S)
    mixed = chain_of(other.issue(PUBLIC, SERIAL), AUTHORITY.issuing)
    with pytest.raises(TrustError, match="did not issue"):
        verify_device_chain(mixed, AUTHORITY.anchors, at_s=AT_S)


def test_a_certificate_holds_from_its_first_to_its_last_second() -> None:
    """Both are told from what is before and after."""
    brief = AUTHORITY.issue(PUBLIC, SERIAL, start=when(AT_S), end=when(AT_S + 60))
    for at_s in (AT_S, AT_S + 60):
        assert verify_device_chain(AUTHORITY.chain(brief), AUTHORITY.anchors, at_s=at_s).not_after_s == AT_S + 60
    refused(brief, "not yet valid", at_s=AT_S - 1)
    refused(brief, "expired", at_s=AT_S + 61)


def test_an_authority_that_has_expired_is_refused_though_the_device_has_not() -> None:
    """Time is compared along the whole path, each time anew."""
    assert verify_device_chain(AUTHORITY.chain(GOOD), AUTHORITY.anchors, at_s=AT_S)
    refused(GOOD, "issuing: expired", at_s=int(CA_END.timestamp()) + 1)
    refused(GOOD, "not yet valid", at_s=int(START.timestamp()) - 1)


def test_a_revoked_certificate_is_refused_from_that_second_on() -> None:
    """What it signed before stays."""
    crl = AUTHORITY.crl({GOOD.serial_number: when(AT_S)})
    anchors = Anchors(roots=(AUTHORITY.root,), crls=(crl,))
    assert verify_device_chain(AUTHORITY.chain(GOOD), anchors, at_s=AT_S - 1).serial == SERIAL
    refused(GOOD, "revoked since", anchors=anchors)
    refused(GOOD, "revoked since", anchors=anchors, at_s=AT_S + 10**6)
    assert verify_device_chain(AUTHORITY.chain(GOOD), AUTHORITY.anchors, at_s=AT_S).serial == SERIAL


def test_a_key_known_to_be_lost_earlier_is_refused_from_then_on() -> None:
    """The entry's invalidity date counts, where it is before the revocation."""
    lost = x509.InvalidityDate(dt.datetime.fromtimestamp(AT_S - 1000, dt.UTC).replace(tzinfo=None))
    entry = x509.RevokedCertificateBuilder(GOOD.serial_number, when(AT_S)).add_extension(lost, critical=False).build()
    builder = x509.CertificateRevocationListBuilder(AUTHORITY.issuing.subject, START, CA_END)
    crl = builder.add_revoked_certificate(entry).sign(AUTHORITY.issuing_key, hashes.SHA256())
    anchors = Anchors(roots=(AUTHORITY.root,), crls=(crl,))
    refused(GOOD, "revoked since", anchors=anchors, at_s=AT_S - 1000)
    assert verify_device_chain(AUTHORITY.chain(GOOD), anchors, at_s=AT_S - 1001)


def test_a_revoked_issuing_authority_takes_its_devices_with_it() -> None:
    """By the root's own CRL; the devices' CRL must be there nevertheless."""
    by_root = AUTHORITY.crl({AUTHORITY.issuing.serial_number: when(AT_S)}, by_root=True)
    anchors = Anchors(roots=(AUTHORITY.root,), crls=(AUTHORITY.crl({}), by_root))
    refused(GOOD, "issuing: revoked", anchors=anchors)
    assert verify_device_chain(AUTHORITY.chain(GOOD), anchors, at_s=AT_S - 1)
    refused(GOOD, "none by CN=soft device CA issuing", anchors=Anchors(roots=(AUTHORITY.root,), crls=(by_root,)))


def test_a_crl_that_ran_out_refuses_all_and_says_so() -> None:
    """What was revoked since, nobody knows. For an earlier time it still serves."""
    crl = AUTHORITY.crl({}, until=when(AT_S))
    anchors = Anchors(roots=(AUTHORITY.root,), crls=(crl,))
    refused(GOOD, "ran out at .* fetch a newer one", anchors=anchors, at_s=AT_S + 1)
    assert verify_device_chain(AUTHORITY.chain(GOOD), anchors, at_s=AT_S)


def test_of_two_crls_the_newest_counts() -> None:
    """Whatever their order."""
    old = AUTHORITY.crl({}, made=START)
    new = AUTHORITY.crl({GOOD.serial_number: START}, made=START + dt.timedelta(days=1))
    for crls in ((old, new), (new, old)):
        refused(GOOD, "revoked", anchors=Anchors(roots=(AUTHORITY.root,), crls=crls))


def test_a_crl_that_another_signed_is_refused() -> None:
    """One with the issuer's name, by another key."""
    forged = SoftAuthority().crl({})
    refused(GOOD, "not signed by it", anchors=Anchors(roots=(AUTHORITY.root,), crls=(forged,)))


def test_a_partial_crl_is_refused() -> None:
    """A critical extension says that it is not the whole list."""
    builder = x509.CertificateRevocationListBuilder(AUTHORITY.issuing.subject, START, CA_END)
    partial = builder.add_extension(x509.DeltaCRLIndicator(1), critical=True)
    crl = partial.sign(AUTHORITY.issuing_key, hashes.SHA256())
    refused(GOOD, "partial", anchors=Anchors(roots=(AUTHORITY.root,), crls=(crl,)))


def test_remembered_paths_do_not_outlive_a_revocation() -> None:
    """The same chain, accepted a moment ago, is refused under a new CRL."""
    for _ in range(3):
        assert verify_device_chain(AUTHORITY.chain(GOOD), AUTHORITY.anchors, at_s=AT_S)
    crl = AUTHORITY.crl({GOOD.serial_number: START})
    refused(GOOD, "revoked", anchors=Anchors(roots=AUTHORITY.anchors.roots, crls=(crl,)))


@pytest.mark.parametrize(
    "purposes",
    [
        (),
        (CLIENT_AUTH,),
        (AK_EKU, CLIENT_AUTH),
        (x509.ObjectIdentifier("2.23.133.8.1"),),
        (x509.ObjectIdentifier("2.5.29.37.0"),),
    ],
)
def test_a_certificate_for_another_purpose_is_refused(purposes: Sequence[x509.ObjectIdentifier]) -> None:
    """A TLS client's, an EK's, one for anything, one that is for more, one that does not say."""
    refused(AUTHORITY.issue(PUBLIC, SERIAL, purposes=purposes), "want 2.23.133.8.3")


def test_an_idevid_is_told_from_an_attestation_key() -> None:
    """It has no extended key usage; neither passes for the other."""
    idevid = AUTHORITY.issue(PUBLIC, SERIAL, purposes=())
    found = verify_device_chain(AUTHORITY.chain(idevid), AUTHORITY.anchors, at_s=AT_S, purpose=None)
    assert found.serial == SERIAL
    with pytest.raises(TrustError, match="no such word"):
        verify_device_chain(AUTHORITY.chain(GOOD), AUTHORITY.anchors, at_s=AT_S, purpose=None)


def test_an_authority_that_is_kept_to_tls_cannot_make_devices() -> None:
    """An issuing CA with an extended key usage issues for that alone."""
    key, name = new_key(), authority_name("operation CA")
    builder = SoftAuthority._builder(name, key.public_key(), AUTHORITY.root.subject, START, CA_END)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    builder = builder.add_extension(usage("key_cert_sign"), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([CLIENT_AUTH]), critical=False)
    other = SoftAuthority(root_key=AUTHORITY.root_key, issuing_key=key)
    other.issuing = builder.sign(AUTHORITY.root_key, hashes.SHA256())
    for purposes, purpose in (((AK_EKU,), AK_EKU), ((), None)):
        certificate = other.issue(PUBLIC, SERIAL, purposes=purposes)
        with pytest.raises(TrustError, match="must not issue for"):
            verify_device_chain(other.chain(certificate), AUTHORITY.anchors, at_s=AT_S, purpose=purpose)


def test_a_key_that_is_not_for_signatures_on_p256_is_refused() -> None:
    """RSA, P-384, a key for other uses, an authority's key."""
    for key in (
        rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key(),
        ec.generate_private_key(ec.SECP384R1()).public_key(),
    ):
        refused(AUTHORITY.issue(key, SERIAL), "want a key on P-256")
    refused(AUTHORITY.issue(PUBLIC, SERIAL, uses=("key_agreement",)), "not for signatures")
    refused(AUTHORITY.issue(PUBLIC, SERIAL, uses=("digital_signature", "key_cert_sign")), "authority's")
    refused(AUTHORITY.issue(PUBLIC, SERIAL, authority=True), "authority's")


def test_a_critical_extension_that_is_not_known_is_refused() -> None:
    """Whoever wrote it wants it obeyed; one that is not critical may be passed over."""
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.32473.9"), b"\x05\x00")
    refused(AUTHORITY.issue(PUBLIC, SERIAL, extra=[(unknown, True)]), "1.3.6.1.4.1.32473.9 is critical")
    passed = AUTHORITY.issue(PUBLIC, SERIAL, extra=[(unknown, False)])
    assert verify_device_chain(AUTHORITY.chain(passed), AUTHORITY.anchors, at_s=AT_S)


def name(**texts: str | None) -> x509.Name:
    oids = {"cn": NameOID.COMMON_NAME, "number": NameOID.SERIAL_NUMBER, "ou": NameOID.ORGANIZATIONAL_UNIT_NAME}
    said = {"cn": SERIAL, "number": SERIAL, "ou": MODEL} | texts
    return x509.Name([x509.NameAttribute(oids[key], text) for key, text in said.items() if text is not None])


@pytest.mark.parametrize(
    ("subject", "module", "said"),
    [
        (name(cn="WS-0002"), None, "differ"),
        (name(number="WS-0002"), None, "differ"),
        (name(), "WS-0002", "differ"),
        (name(cn=None), None, "want one CN"),
        (name(number=None), None, "want one serialNumber"),
        (name(ou=None), None, "want one OU"),
        (x509.Name([*name(), *name()]), None, "want one CN"),
        (name(cn="WS/../1", number="WS/../1"), None, "want letters"),
        (name(ou="gw\n1"), None, "printable"),
    ],
)
def test_names_that_do_not_agree_are_refused(subject: x509.Name, module: str | None, said: str) -> None:
    """CN, serialNumber and hardwareModuleName are one serial; each stands once."""
    refused(AUTHORITY.issue(PUBLIC, SERIAL, subject=subject, module=module), said)


def test_a_hardware_module_name_is_read_back_whatever_its_type() -> None:
    """RFC 4108's form, in the DER that any tool shows."""
    made = hardware_module_name("WS-0001")
    assert made.type_id == HARDWARE_MODULE_NAME
    assert made.value.hex() == "3014" + "0609" + "2b0601040181fd5901" + "0407" + b"WS-0001".hex()
    assert read_hardware_module_name(made) == "WS-0001"
    other = x509.OtherName(HARDWARE_MODULE_NAME, made.value.replace(b"\x59\x01", b"\x59\x02"))
    assert other == hardware_module_name("WS-0001", "1.3.6.1.4.1.32473.2")
    assert read_hardware_module_name(other) == "WS-0001"
    for hw_type in ("", "1", "1.3.06", "3.1.1", "1.3.x", "1.3.6\n"):
        with pytest.raises(TrustError, match="want an object identifier"):
            hardware_module_name("WS-0001", hw_type)
    for value in (b"", b"\x30\x00", made.value + b"\0", made.value[:-1]):
        with pytest.raises(TrustError):
            read_hardware_module_name(x509.OtherName(HARDWARE_MODULE_NAME, value))
    for serial in ("", "a" * 65, "-x", "a b", "ä", "a\n"):
        with pytest.raises(TrustError, match="want letters"):
            hardware_module_name(serial)
    with pytest.raises(TrustError, match="printable"):
        device_name("WS-0001", "")


def test_anchors_are_read_from_pem() -> None:
    """Roots, and the CRLs of any of them; what is no authority is no anchor."""
    root, issuing = (one.public_bytes(Encoding.PEM) for one in (AUTHORITY.root, AUTHORITY.issuing))
    crls = b"".join(AUTHORITY.crl({}, by_root=by_root).public_bytes(Encoding.PEM) for by_root in (False, True))
    anchors = Anchors.read(root + issuing, crls)
    assert (len(anchors.roots), len(anchors.crls)) == (2, 2)
    assert verify_device_chain(AUTHORITY.chain(GOOD), anchors, at_s=AT_S).serial == SERIAL
    assert Anchors.read(root) == AUTHORITY.anchors
    for roots, lists in (
        (b"", b""),
        (b"nonsense", b""),
        (root[:-60], b""),
        (GOOD.public_bytes(Encoding.PEM), b""),
        (root, b"nonsense"),
        (root, crls[:-60].replace(b"M", b"!", 9)),
        (root, crls[:-60]),
        (root, crls * 20),
    ):
        with pytest.raises(TrustError):
            Anchors.read(roots, lists)


def test_a_chain_that_is_known_costs_nearly_nothing() -> None:
    """Parsing and signatures are remembered, by the bytes."""
    device = SoftDevice(authority=AUTHORITY)
    before = chains._path.cache_info().hits
    assert chains._path.cache_info().maxsize == 16_384
    copies = [tuple(bytes(bytearray(one)) for one in device.chain) for _ in range(3)]
    found = [verify_device_chain(one, AUTHORITY.anchors, at_s=AT_S) for one in copies]
    assert chains._path.cache_info().hits == before + 2
    assert found[0] is found[2]
    chains.forget()
    assert verify_device_chain(device.chain, AUTHORITY.anchors, at_s=AT_S) == found[0]
    assert chains._path.cache_info().currsize == 1
