"""Attacks on certificates: bent, exchanged, revoked, of another time, purpose or maker."""

import datetime as dt
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.attest.chain import AK_EKU, CLIENT_AUTH, Anchors, verify_device_chain
from gateway.attest.ek import verify_ek_chain
from gateway.attest.epoch import verify_epoch
from gateway.errors import TrustError
from gateway.tlog.note import Signer
from hil.plant.soft_tpm import SoftAuthority, SoftDevice
from tests.attacks.test_attest_quotes import AT_S, AUTHORITY, DEVICE, T_NS, flips
from tests.test_attest_ek import GOOD as EK
from tests.test_attest_ek import ISSUING, ROOT, ROOT_KEY, authority

VKEY = Signer.generate("wattseal/gw1").verifier.vkey
AT = dt.datetime.fromtimestamp(AT_S, dt.UTC)
DAY = dt.timedelta(days=1)


def bound_by(certificate: x509.Certificate, anchors: Anchors = AUTHORITY.anchors) -> str:
    """Return the serial of the device that an epoch is bound to under this certificate of DEVICE's key."""
    binding = DEVICE.bind(vkey=VKEY, epoch=1, t_ns=T_NS) | {"chain": [*AUTHORITY.chain(certificate)]}
    return verify_epoch({"epoch": 1, "key": VKEY, "binding": binding}, anchors).device.serial


@pytest.mark.parametrize("place", [0, 1])
def test_a_flipped_bit_anywhere_in_a_chain_is_seen(place: int) -> None:
    """At every byte of the device's certificate, and of its issuer's."""
    good = list(DEVICE.chain)
    for bent in flips(good[place]):
        with pytest.raises(TrustError):
            verify_device_chain([*good[:place], bent, *good[place + 1 :]], AUTHORITY.anchors, at_s=AT_S)


def test_a_flipped_bit_anywhere_in_an_ek_certificate_is_seen() -> None:
    """Lenient in form never means lenient in signatures."""
    assert verify_ek_chain(EK, [ISSUING], [ROOT], at_s=AT_S).maker == "IFX"
    for bent in flips(EK):
        with pytest.raises(TrustError):
            verify_ek_chain(bent, [ISSUING], [ROOT], at_s=AT_S)
    for bent in flips(ISSUING):
        with pytest.raises(TrustError):
            verify_ek_chain(EK, [bent], [ROOT], at_s=AT_S)


def test_an_ek_of_another_makers_root_is_refused() -> None:
    """Also where that root has the pinned one's name."""
    foreign = authority("root", SoftDevice().key, "root", ROOT_KEY)
    for roots in ([foreign], []):
        with pytest.raises(TrustError, match="no root or issuing"):
            verify_ek_chain(EK, [ISSUING, ROOT], roots, at_s=AT_S)


def test_certificates_of_another_time_bind_nothing() -> None:
    """At the time that the binding itself says: expired, or not yet valid."""
    key = DEVICE.key.public_key()
    assert bound_by(AUTHORITY.issue(key, "WS-0001", start=AT - DAY, end=AT + DAY)) == "WS-0001"
    for start, end in ((AT - 2 * DAY, AT - DAY), (AT + DAY, AT + 2 * DAY)):
        with pytest.raises(TrustError, match=r"expired|not yet valid"):
            bound_by(AUTHORITY.issue(key, "WS-0001", start=start, end=end))


def test_a_revoked_device_binds_nothing() -> None:
    """From the revocation on; also for whoever verified it a moment ago."""
    certificate = DEVICE.certificate
    for since, is_refused in ((AT, True), (AT - DAY, True), (AT + DAY, False)):
        crl = AUTHORITY.crl({certificate.serial_number: since})
        anchors = Anchors(roots=(AUTHORITY.root,), crls=(crl,))
        assert bound_by(certificate) == "WS-0001"
        if is_refused:
            with pytest.raises(TrustError, match="revoked"):
                bound_by(certificate, anchors)
        else:
            assert bound_by(certificate, anchors) == "WS-0001"


@pytest.mark.parametrize("purposes", [(), (CLIENT_AUTH,), (AK_EKU, CLIENT_AUTH)])
def test_a_tls_or_idevid_certificate_of_the_same_key_binds_nothing(purposes: Sequence[x509.ObjectIdentifier]) -> None:
    """A certificate is for what it says, and for that alone."""
    with pytest.raises(TrustError, match=r"want 2\.23\.133\.8\.3"):
        bound_by(AUTHORITY.issue(DEVICE.key.public_key(), "WS-0001", purposes=purposes))


def test_a_certificate_with_two_names_binds_nothing() -> None:
    """A subject of one device, and the hardwareModuleName of another."""
    with pytest.raises(TrustError, match="differ"):
        bound_by(AUTHORITY.issue(DEVICE.key.public_key(), "WS-0001", module="WS-0002"))


def test_a_device_does_not_make_devices() -> None:
    """A chain through another device's certificate, signed by its key."""
    middle = SoftAuthority(root_key=AUTHORITY.root_key, issuing_key=DEVICE.key)
    middle.issuing = DEVICE.certificate
    forged = middle.issue(SoftDevice().key.public_key(), "WS-6666")
    chain = [one.public_bytes(Encoding.DER) for one in (forged, DEVICE.certificate, AUTHORITY.issuing)]
    with pytest.raises(TrustError, match="not an authority's"):
        verify_device_chain(chain, AUTHORITY.anchors, at_s=AT_S)


def test_an_issuing_authority_does_not_make_authorities() -> None:
    """Its certificate says that none may stand below it."""
    rogue_key = SoftDevice().key
    rogue = AUTHORITY.issue(
        rogue_key.public_key(),
        "WS-6666",
        authority=True,
        uses=("digital_signature", "key_cert_sign"),
    )
    middle = SoftAuthority(root_key=AUTHORITY.root_key, issuing_key=rogue_key)
    middle.issuing = rogue
    forged = middle.issue(SoftDevice().key.public_key(), "WS-6667")
    chain = [one.public_bytes(Encoding.DER) for one in (forged, rogue, AUTHORITY.issuing)]
    with pytest.raises(TrustError, match="0 authorities below it"):
        verify_device_chain(chain, AUTHORITY.anchors, at_s=AT_S)


@settings(max_examples=300)
@given(
    place=st.integers(min_value=0, max_value=1),
    at=st.integers(min_value=0, max_value=2000),
    cut=st.integers(min_value=0, max_value=8),
    value=st.binary(max_size=8),
)
def test_a_bent_chain_is_refused_and_nothing_else_happens(place: int, at: int, cut: int, value: bytes) -> None:
    """Bytes cut out and put in anywhere."""
    good = list(DEVICE.chain)
    start = at % len(good[place])
    bent = good[place][:start] + value + good[place][start + cut :]
    if bent == good[place]:
        return
    with pytest.raises(TrustError):
        verify_device_chain([*good[:place], bent, *good[place + 1 :]], AUTHORITY.anchors, at_s=AT_S)
