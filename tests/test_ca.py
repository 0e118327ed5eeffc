"""provisioning/ca: what its certificates and lists are, as openssl and our own verifier see them."""

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.attest.chain import CLIENT_AUTH, Anchors, verify_device_chain
from gateway.errors import ConfigError, TrustError
from provisioning.ca import (
    Authority,
    Kind,
    Role,
    Unlock,
    accept,
    keyfile,
    make_request,
    make_root,
    sign_request,
    trust_of,
)
from provisioning.ca.authority import About
from provisioning.ca.folder import check_answer
from provisioning.ca.requests import read_request
from tests.authorities import (
    MODEL,
    NAME,
    PASSWORD,
    UNLOCK,
    Clock,
    key_pem,
    make_factory,
    new_key,
    openssl_says,
    pem,
    request,
)

Factory = tuple[Authority, Authority, Authority]


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Factory:
    return make_factory(tmp_path_factory.mktemp("factory"))


@pytest.fixture(scope="module")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give a root of the same name, that somebody else made."""
    return make_root(tmp_path_factory.mktemp("foreign") / "root", name=NAME, unlock=UNLOCK, passes=1)


def loaded(der: bytes) -> x509.Certificate:
    return x509.load_der_x509_certificate(der)


def now_s() -> int:
    return int(datetime.now(UTC).timestamp())


def anchors(authority: Authority) -> Anchors:
    return Anchors.read(pem(authority.chain[-1]), trust_of(authority.folder)[1])


# ---- what is issued


def test_openssl_accepts_what_is_issued_strictly_and_with_lists_of_both_tiers(factory: Factory, tmp_path: Path) -> None:
    _, devices, operation = factory
    key = new_key()
    ak = devices.issue_ak(key.public_key(), serial="WS-1", model=MODEL)
    idevid = devices.issue_idevid(request(new_key()), serial="WS-1", model=MODEL)
    ldevid = operation.issue_ldevid(request(new_key()), gateway="gw1", hours=24)
    server = operation.issue_server(request(new_key()), hosts=["broker.example", "192.0.2.7"], days=90)
    assert openssl_says(ak, devices, tmp_path) == "OK"
    assert openssl_says(idevid, devices, tmp_path) == "OK"
    assert openssl_says(ldevid, operation, tmp_path, "-purpose", "sslclient") == "OK"
    serving = ("-purpose", "sslserver", "-verify_hostname", "broker.example")
    assert openssl_says(server, operation, tmp_path, *serving) == "OK"
    assert openssl_says(server, operation, tmp_path, "-verify_ip", "192.0.2.7") == "OK"


def test_a_certificate_serves_no_other_purpose(factory: Factory, tmp_path: Path) -> None:
    """An AK, an IDevID and a server's certificate connect nowhere, and no client's certificate serves."""
    _, devices, operation = factory
    ak = devices.issue_ak(new_key().public_key(), serial="WS-1", model=MODEL)
    idevid = devices.issue_idevid(request(new_key()), serial="WS-1", model=MODEL)
    server = operation.issue_server(request(new_key()), hosts=["broker"], days=1)
    ldevid = operation.issue_ldevid(request(new_key()), gateway="gw1", hours=1)
    for certificate, authority, purpose in (
        (ak, devices, "sslclient"),
        (ak, devices, "sslserver"),
        (idevid, devices, "sslclient"),
        (server, operation, "sslclient"),
        (ldevid, operation, "sslserver"),
    ):
        said = openssl_says(certificate, authority, tmp_path, "-purpose", purpose)
        assert "unsuitable certificate purpose" in said


def test_our_own_verifier_accepts_the_attestation_key(factory: Factory) -> None:
    _, devices, _ = factory
    key = new_key()
    ak = devices.issue_ak(key.public_key(), serial="WS-77", model=MODEL)
    device = verify_device_chain([ak, *devices.chain], anchors(devices), at_s=now_s())
    assert (device.serial, device.model) == ("WS-77", MODEL)
    assert device.key == key.public_key()
    assert device.not_after_s == 253_402_300_799, "99991231235959Z: it has no end"


def test_our_own_verifier_refuses_what_is_no_attestation_key(factory: Factory) -> None:
    """Nor does a gateway's certificate, or one of the other authority, stand for a device."""
    _, devices, operation = factory
    idevid = devices.issue_idevid(request(new_key()), serial="WS-1", model=MODEL)
    ldevid = operation.issue_ldevid(request(new_key()), gateway="gw1", hours=24)
    for chain in ([idevid, *devices.chain], [ldevid, *operation.chain], [*devices.chain]):
        with pytest.raises(TrustError):
            verify_device_chain(chain, anchors(devices), at_s=now_s())
    with pytest.raises(TrustError):
        verify_device_chain([idevid, *devices.chain], anchors(devices), at_s=now_s(), purpose=CLIENT_AUTH)


def test_a_foreign_root_vouches_for_nothing(factory: Factory, foreign: Authority) -> None:
    _, devices, _ = factory
    ak = devices.issue_ak(new_key().public_key(), serial="WS-1", model=MODEL)
    with pytest.raises(TrustError):
        verify_device_chain([ak, *devices.chain], Anchors.read(pem(foreign.chain[0])), at_s=now_s())


def test_serial_numbers_are_random_and_positive(factory: Factory) -> None:
    """159 bits of chance: no two alike, and none that tells how many there are."""
    _, _, operation = factory
    body = request(new_key())
    numbers = {loaded(operation.issue_ldevid(body, gateway="gw1", hours=1)).serial_number for _ in range(20)}
    assert len(numbers) == 20
    assert all(0 < number < 1 << 159 for number in numbers)
    assert max(numbers) > 1 << 150


def test_a_gateways_certificate_lasts_as_long_as_it_was_given(factory: Factory) -> None:
    _, _, operation = factory
    made = loaded(operation.issue_ldevid(request(new_key()), gateway="gw1", hours=0.5))
    left = made.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(minutes=29) < left <= timedelta(minutes=30)
    assert made.subject.rfc4514_string() == "CN=gw1"
    asking = loaded(operation.issue_ldevid(request(new_key()), gateway="gw1", hours=24 * 365, enrol=True))
    assert asking.subject.rfc4514_string() == "CN=enrol_gw1"


# ---- requests


def test_of_a_request_only_the_key_counts(factory: Factory) -> None:
    """A request that asks to be another gateway, or an authority, gets what the caller says."""
    _, _, operation = factory
    key = new_key()
    made = loaded(operation.issue_ldevid(request(key, "ledger"), gateway="gw1", hours=1))
    assert made.subject.rfc4514_string() == "CN=gw1"
    assert made.public_key() == key.public_key()
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def test_a_request_without_its_private_key_is_refused(factory: Factory) -> None:
    """One whose signature is another key's, as when somebody certifies a key that is not theirs."""
    _, devices, operation = factory
    body = bytearray(request(new_key()))
    body[-1] ^= 1
    with pytest.raises(TrustError, match="request"):
        operation.issue_ldevid(bytes(body), gateway="gw1", hours=1)
    with pytest.raises(TrustError, match="request"):
        devices.issue_idevid(bytes(body), serial="WS-1", model=MODEL)


def test_only_keys_on_p_256_are_certified(factory: Factory) -> None:
    _, devices, operation = factory
    other = ec.generate_private_key(ec.SECP384R1())
    with pytest.raises(TrustError, match="secp256r1"):
        operation.issue_ldevid(request(other), gateway="gw1", hours=1)
    with pytest.raises(TrustError, match="secp256r1"):
        devices.issue_ak(other.public_key(), serial="WS-1", model=MODEL)
    rsa_key = rsa.generate_private_key(65537, 2048)
    body = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(rsa_key, hashes.SHA256())
    with pytest.raises(TrustError, match="secp256r1"):
        operation.issue_ldevid(body.public_bytes(serialization.Encoding.DER), gateway="gw1", hours=1)


@settings(max_examples=60)
@given(st.data())
def test_any_damaged_request_is_refused_as_such(data: st.DataObject) -> None:
    body = bytearray(_REQUEST)
    place = data.draw(st.integers(0, len(body) - 1))
    body[place] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(body)))
    for damaged in (bytes(body), bytes(_REQUEST[:cut]) + b"x", data.draw(st.binary(max_size=200))):
        with pytest.raises(TrustError):
            read_request(damaged)


_REQUEST = request(new_key())


def test_a_request_of_no_version_is_refused_and_stops_no_service() -> None:
    """A library raises what is no ValueError: it would have ended the verifier, and a station's whole batch."""
    at = _REQUEST.index(b"\x02\x01\x00") + 2
    with pytest.raises(TrustError, match="no certificate request"):
        read_request(_REQUEST[:at] + b"\x01" + _REQUEST[at + 1 :])


@pytest.mark.parametrize("gateway", ["", "GW1", "a/b", "#", "+", "gw_1", "x" * 64, "broker", "agents", "gw1\n"])
def test_a_name_that_could_reach_further_is_refused(factory: Factory, gateway: str) -> None:
    """It becomes a topic level and a line of an access list."""
    with pytest.raises(ConfigError, match="gateway"):
        factory[2].issue_ldevid(_REQUEST, gateway=gateway, hours=1)


@pytest.mark.parametrize("serial", ["", "a b", "a/b", "-a", "x" * 65, "WS\n1", "ä"])
def test_a_serial_that_is_none_is_refused(factory: Factory, serial: str) -> None:
    with pytest.raises(TrustError, match="serial"):
        factory[1].issue_ak(new_key().public_key(), serial=serial, model=MODEL)


def test_limits_are_kept(factory: Factory) -> None:
    _, _, operation = factory
    for hours in (0, -1, 10_000):
        with pytest.raises(ConfigError, match="hours"):
            operation.issue_ldevid(_REQUEST, gateway="gw1", hours=hours)
    with pytest.raises(ConfigError, match="days"):
        operation.issue_server(_REQUEST, hosts=["a"], days=400)
    for host in ("", "-a", "a b", "*.example", "x" * 300):
        with pytest.raises(ConfigError, match="host"):
            operation.issue_server(_REQUEST, hosts=[host], days=1)


def test_each_authority_signs_only_what_it_is_for(factory: Factory) -> None:
    root, devices, operation = factory
    with pytest.raises(ConfigError, match="want the one for devices"):
        operation.issue_ak(new_key().public_key(), serial="WS-1", model=MODEL)
    with pytest.raises(ConfigError, match="want the one for operation"):
        devices.issue_ldevid(_REQUEST, gateway="gw1", hours=1)
    with pytest.raises(ConfigError, match="want the one for operation"):
        root.issue_server(_REQUEST, hosts=["a"], days=1)
    with pytest.raises(ConfigError, match="want the one for root"):
        devices.issue_authority(_REQUEST, name=NAME, role=Role.OPERATION)


# ---- revocation


def test_what_is_revoked_is_refused_from_the_next_list_on(factory: Factory, tmp_path: Path) -> None:
    _, devices, operation = factory
    ldevid = operation.issue_ldevid(request(new_key()), gateway="gw9", hours=24)
    other = operation.issue_ldevid(request(new_key()), gateway="gw10", hours=24)
    operation.revoke(loaded(ldevid).serial_number, "keyCompromise")
    assert openssl_says(ldevid, operation, tmp_path) == "OK", "no list says so yet"
    operation.crl()
    assert "certificate revoked" in openssl_says(ldevid, operation, tmp_path)
    assert openssl_says(other, operation, tmp_path) == "OK"
    ak = devices.issue_ak(new_key().public_key(), serial="WS-9", model=MODEL)
    before_s = now_s() - 60
    assert [one.kind for one in devices.revoke_subject("WS-9", "cessationOfOperation")] == [Kind.AK]
    devices.crl()
    with pytest.raises(TrustError, match="revoked"):
        verify_device_chain([ak, *devices.chain], anchors(devices), at_s=now_s() + 1)
    # What it sealed before stays what it was.
    assert verify_device_chain([ak, *devices.chain], anchors(devices), at_s=before_s).serial == "WS-9"
    assert devices.revoke_subject("WS-9", "keyCompromise") == [], "once is enough"


def test_a_list_has_a_number_reasons_and_an_issuer_and_is_always_newer(factory: Factory) -> None:
    """Of two lists with one date OpenSSL keeps the first, so no two have one, however quickly they are made."""
    _, _, operation = factory
    for reason in ("keyCompromise", "unspecified"):
        made = operation.issue_ldevid(request(new_key()), gateway=f"r-{reason.lower()}", hours=1)
        operation.revoke(f"{loaded(made).serial_number:x}", reason)
    lists = [x509.load_pem_x509_crl(operation.crl(days=2)) for _ in range(3)]
    numbers = [one.extensions.get_extension_for_class(x509.CRLNumber).value.crl_number for one in lists]
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]
    dates = [one.last_update_utc for one in lists]
    assert dates == sorted(set(dates))
    identifier = lists[0].extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    own = operation.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert identifier.key_identifier == own.digest
    reasons = [entry.extensions for entry in lists[-1]]
    assert any(len(one) == 0 for one in reasons), "unspecified is left out (RFC 5280, 5.3.1)"
    assert any(len(one) == 1 for one in reasons)
    until = lists[-1].next_update_utc
    assert until is not None
    assert timedelta(days=1, hours=23) < until - datetime.now(UTC) <= timedelta(days=2)


def test_of_two_lists_made_at_once_the_newer_stays(factory: Factory) -> None:
    """Else the older one, which lacks the newest revocation, could be written last."""
    _, _, operation = factory
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: operation.crl(), range(12)))
    numbers = [number_of(one) for one in made]
    assert len(set(numbers)) == len(numbers)
    assert number_of((operation.folder / "crl.pem").read_bytes()) == max(numbers)


def number_of(crl: bytes) -> int:
    return x509.load_pem_x509_crl(crl).extensions.get_extension_for_class(x509.CRLNumber).value.crl_number


def test_a_clock_that_was_in_the_future_is_said_and_no_list_of_tomorrow_is_made(tmp_path: Path) -> None:
    """No peer takes a list that is not valid yet: the broker would refuse everybody, and nobody would know why."""
    clock = Clock()
    root = make_root(tmp_path / "root", name=NAME, unlock=UNLOCK, passes=1, now=clock)
    clock.time += timedelta(days=30)
    ahead = root.crl()
    clock.time -= timedelta(days=30)
    with pytest.raises(ConfigError, match="want the clock set right"):
        root.crl()
    assert (tmp_path / "root" / "crl.pem").read_bytes() == ahead


@pytest.mark.parametrize("umask", [0o077, 0o000])
def test_a_list_can_be_read_and_a_key_cannot_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    """The broker is another user; a hardened host has umask 077."""
    before = os.umask(umask)
    try:
        make_root(tmp_path / "root", name=NAME, unlock=UNLOCK, passes=1)
    finally:
        os.umask(before)
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "root").iterdir()}
    assert (modes["crl.pem"], modes["chain.pem"]) == (0o644, 0o644)
    assert (modes["ca.key"], modes["issued.sqlite"], modes["crl.turn"]) == (0o600, 0o600, 0o600)


def test_a_list_that_ran_out_refuses_everybody(factory: Factory, tmp_path: Path) -> None:
    """That is meant so: who keeps new lists away must not keep a revoked device in."""
    _, _, operation = factory
    ldevid = operation.issue_ldevid(request(new_key()), gateway="gw1", hours=24 * 30)
    operation.crl(days=1)
    later = str(now_s() + 3 * 86_400)
    assert "CRL has expired" in openssl_says(ldevid, operation, tmp_path, "-attime", later)
    operation.crl()


def test_an_expired_certificate_is_refused_and_leaves_the_list_later(tmp_path: Path, factory: Factory) -> None:
    clock = Clock()
    shutil.copytree(factory[2].folder, tmp_path / "operation")  # whose lists are of the future by the end
    operation = Authority.open(tmp_path / "operation", unlock=UNLOCK, now=clock)
    ldevid = operation.issue_ldevid(request(new_key()), gateway="gw-old", hours=1)
    later = str(now_s() + 7200)
    assert "certificate has expired" in openssl_says(ldevid, operation, tmp_path, "-attime", later)
    operation.revoke_subject("gw-old", "superseded")
    number = loaded(ldevid).serial_number
    assert x509.load_pem_x509_crl(operation.crl()).get_revoked_certificate_by_serial_number(number)
    clock.time += timedelta(days=40)
    assert x509.load_pem_x509_crl(operation.crl()).get_revoked_certificate_by_serial_number(number) is None
    with pytest.raises(ConfigError, match="reason"):
        operation.revoke(number, "because")
    with pytest.raises(ConfigError, match="want one that"):
        operation.revoke(1234, "superseded")


# ---- keys


def test_the_key_file_is_encrypted_by_scrypt_and_openssl_reads_it(factory: Factory) -> None:
    path = factory[1].folder / "ca.key"
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    told = subprocess.run(["openssl", "asn1parse", "-in", path], capture_output=True, text=True, check=True).stdout
    assert "scrypt" in told
    assert "aes-256-cbc" in told
    command = ["openssl", "pkey", "-in", str(path), "-passin", "env:WORD", "-noout"]
    for word, code in ((PASSWORD, 0), ("wrong horse battery", 1)):
        assert subprocess.run(command, env={"WORD": word}, capture_output=True, check=False).returncode == code


def test_a_wrong_password_an_open_key_and_an_unencrypted_one_are_refused(factory: Factory, tmp_path: Path) -> None:
    folder = factory[1].folder
    with pytest.raises(ConfigError, match="password is wrong"):
        Authority.open(folder, unlock=Unlock(secret="wrong horse battery"))
    copy = tmp_path / "copy"
    copy.mkdir()
    for name in ("authority.json", "chain.pem", "ca.key"):
        (copy / name).write_bytes((folder / name).read_bytes())
    (copy / "ca.key").chmod(0o644)
    with pytest.raises(ConfigError, match="0600"):
        Authority.open(copy, unlock=UNLOCK)
    (copy / "ca.key").write_bytes(key_pem(new_key()))
    (copy / "ca.key").chmod(0o600)
    with pytest.raises(ConfigError, match="not encrypted"):
        Authority.open(copy, unlock=UNLOCK)


def test_there_is_no_short_and_no_default_password(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 12"):
        make_root(tmp_path / "root", name=NAME, unlock=Unlock(secret="short"))
    with pytest.raises(ConfigError, match="unlock"):
        Unlock(secret="")
    assert PASSWORD not in repr(UNLOCK)


def test_a_password_file_is_its_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / "word"
    path.write_text(f"{PASSWORD}\n")
    path.chmod(0o644)
    with pytest.raises(ConfigError, match="0600"):
        Unlock.read(path)
    path.chmod(0o600)
    assert Unlock.read(path) == UNLOCK
    assert Unlock.find({"WATTSEAL_CA_UNLOCK_FILE": str(path)}) == UNLOCK
    assert Unlock.find({"WATTSEAL_CA_UNLOCK": PASSWORD}) == UNLOCK
    assert Unlock.find({}) is None
    link = tmp_path / "link"
    link.symlink_to(path)
    with pytest.raises(ConfigError, match="want a readable file"):
        Unlock.read(link)


# ---- the ceremony


def test_the_root_can_stay_where_it_is(tmp_path: Path) -> None:
    """A request goes in, an answer comes out: neither key is ever where the other one is."""
    away, here = tmp_path / "away", tmp_path / "here"
    root = make_root(away, name=NAME, unlock=UNLOCK, curve="p384")
    mine = Unlock(secret="another word of mine")
    carried = make_request(here, name=NAME, role=Role.DEVICES, unlock=mine).read_bytes()
    answer = sign_request(root, carried, name=NAME, role=Role.DEVICES)
    with pytest.raises(ConfigError, match="provision ca accept"):
        Authority.open(here, unlock=mine)
    accept(here, answer, unlock=mine)
    devices = Authority.open(here, unlock=mine)
    ak = devices.issue_ak(new_key().public_key(), serial="WS-1", model=MODEL)
    assert openssl_says(ak, devices, tmp_path) == "OK"
    assert verify_device_chain([ak, *devices.chain], anchors(devices), at_s=now_s()).serial == "WS-1"
    assert {path.name for path in away.iterdir()}.isdisjoint({"ca.csr", "root-crl.pem"})


def test_an_answer_that_is_not_for_this_authority_is_refused(
    tmp_path: Path, factory: Factory, foreign: Authority
) -> None:
    """Not for another key, name or role; not by somebody who only calls himself the root."""
    root = factory[0]
    here = tmp_path / "here"
    own = make_request(here, name=NAME, role=Role.OPERATION, unlock=UNLOCK).read_bytes()
    good = sign_request(root, own, name=NAME, role=Role.OPERATION)
    mixed = x509.load_pem_x509_certificates(good)[0].public_bytes(serialization.Encoding.PEM)
    mixed += pem(foreign.chain[0]) + foreign.crl()
    private = keyfile.decrypt((here / "ca.key").read_bytes(), UNLOCK, "ca.key")
    about = About.read(here)
    for answer in (
        sign_request(root, request(new_key()), name=NAME, role=Role.OPERATION),
        sign_request(root, own, name=NAME, role=Role.DEVICES),
        sign_request(root, own, name="Somebody", role=Role.OPERATION),
        good.replace((root.folder / "crl.pem").read_bytes(), foreign.crl()),
        mixed,
        b"nothing",
        pem(root.chain[0]),
    ):
        with pytest.raises(TrustError):
            check_answer(answer, about, private, here)
    assert accept(here, good, unlock=UNLOCK).about.role is Role.OPERATION


def test_a_revoked_issuing_authority_takes_all_its_certificates_with_it(tmp_path: Path) -> None:
    """The root's next list is enough, once it is carried to those who check."""
    root, devices, _ = make_factory(tmp_path / "factory")
    ak = devices.issue_ak(new_key().public_key(), serial="WS-1", model=MODEL)
    root.revoke(devices.certificate.serial_number, "cACompromise")
    (devices.folder / "root-crl.pem").write_bytes(root.crl())
    assert "certificate revoked" in openssl_says(ak, devices, tmp_path)
    with pytest.raises(TrustError, match="revoked"):
        verify_device_chain([ak, *devices.chain], anchors(devices), at_s=now_s() + 1)


def test_no_authority_is_written_over(factory: Factory) -> None:
    with pytest.raises(ConfigError, match="files already"):
        make_root(factory[0].folder, name=NAME, unlock=UNLOCK)


def test_issuing_names_the_organisation(factory: Factory) -> None:
    subject = factory[1].certificate.subject
    assert subject.get_attributes_for_oid(NameOID.ORGANIZATION_NAME)[0].value == NAME
