"""gateway/drivers/opcua_trust: whose certificate is taken, and how each refusal says its fix."""

import ipaddress
import os
import stat
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.drivers.opcua_cert import parse, thumbprint_of
from gateway.drivers.opcua_trust import MOST_REJECTED, TrustList, make_own, own_identity
from gateway.errors import ConfigError, DeviceError

PAGE = (Path(__file__).parent.parent / "docs" / "opcua.md").read_text("utf-8")
NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
URI = "urn:server:maker:line"
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
WEAK_KEY = rsa.generate_private_key(public_exponent=65537, key_size=1024)
HOSTS = (x509.DNSName("Line3.example"), x509.IPAddress(ipaddress.ip_address("192.0.2.7")))


def usage(*, sign: bool = True, encipher: bool = True) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=sign,
        content_commitment=True,
        key_encipherment=encipher,
        data_encipherment=encipher,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


def server(
    *,
    name: str = "Line 3",
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey = KEY,
    uris: tuple[str, ...] = (URI,),
    hosts: tuple[x509.GeneralName, ...] = HOSTS,
    start: datetime = NOW - timedelta(days=1),
    end: datetime = NOW + timedelta(days=1),
    usages: x509.KeyUsage | None = None,
    purpose: x509.ObjectIdentifier | None = ExtendedKeyUsageOID.SERVER_AUTH,
) -> bytes:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
    )
    names = [*map(x509.UniformResourceIdentifier, uris), *hosts]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if usages is not None:
        builder = builder.add_extension(usages, critical=True)
    if purpose is not None:
        builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), critical=False)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.DER)


@pytest.fixture
def trust(tmp_path: Path) -> TrustList:
    (tmp_path / "trusted").mkdir()
    return trust_in(tmp_path)


def trust_in(folder: Path, now: Callable[[], datetime] = lambda: NOW) -> TrustList:
    return TrustList(trusted=folder / "trusted", rejected=folder / "rejected", now=now)


def refusal(trust: TrustList, der: bytes, *, uri: str = URI, host: str = "192.0.2.7") -> str:
    with pytest.raises(DeviceError) as caught:
        trust.check(der, uri=uri, host=host)
    text = str(caught.value)
    assert "\n" not in text, "one line"
    return text


def test_an_unknown_certificate_is_refused_kept_and_taken_once_a_person_trusts_it(
    trust: TrustList, tmp_path: Path
) -> None:
    der = server()
    text = refusal(trust, der)
    thumbprint = thumbprint_of(der)
    assert text == (
        f"server certificate {thumbprint} of CN=Line 3 is not trusted: compare the thumbprint at the server, then "
        f"`wattseal opcua trust gateway.toml {thumbprint}`"
    )
    kept = tmp_path / "rejected" / f"{thumbprint}.der"
    assert kept.read_bytes() == der
    path, known = trust.accept(thumbprint)
    assert (path.name, known.der) == (f"{thumbprint}.der", der)
    assert not kept.exists()
    trust.check(der, uri=URI, host="192.0.2.7")
    assert trust.accept(thumbprint)[0] == path, "twice does no harm"
    trust.remove(thumbprint)
    assert "is not trusted" in refusal(trust, der)


@pytest.mark.parametrize("host", ["192.0.2.7", "line3.example", "LINE3.EXAMPLE."])
def test_each_host_of_a_trusted_certificate_will_do(trust: TrustList, tmp_path: Path, host: str) -> None:
    der = server(usages=usage())
    (tmp_path / "trusted" / "line 3.der").write_bytes(der)
    trust.check(der, uri=URI, host=host)


def test_a_pem_in_the_trusted_folder_and_a_chain_from_the_server_are_understood(
    trust: TrustList, tmp_path: Path
) -> None:
    der = server()
    pem = x509.load_der_x509_certificate(der).public_bytes(serialization.Encoding.PEM)
    (tmp_path / "trusted" / "a.pem").write_bytes(pem)
    (tmp_path / "trusted" / "notes.txt").write_text("bought in 2024")
    trust.check(der + server(name="issuer"), uri=URI, host="192.0.2.7")


WRONG = {
    "expired on": server(end=NOW - timedelta(hours=1)),
    "is not valid before": server(start=NOW + timedelta(hours=1)),
    "is for the ApplicationUri": server(uris=("urn:server:another",)),
    "URIs in its subject's alternative names": server(uris=()),
    "is for the hosts": server(hosts=(x509.DNSName("other.example"),)),
    "has a key of": server(key=WEAK_KEY),
    "may not be used by a server": server(usages=usage(encipher=False)),
}


@pytest.mark.parametrize(("message", "der"), WRONG.items(), ids=list(WRONG))
def test_each_fault_of_a_trusted_certificate_says_its_fix(
    trust: TrustList, tmp_path: Path, message: str, der: bytes
) -> None:
    (tmp_path / "trusted" / "a.der").write_bytes(der)
    text = refusal(trust, der)
    assert text.startswith(f"server certificate {thumbprint_of(der)} of CN=Line 3 ")
    assert message in text
    assert ": " in text.partition(message)[2], "the fix follows"
    assert f"| {message} |" in PAGE
    assert not (tmp_path / "rejected").exists(), "it is trusted: there is nothing to decide"


@pytest.mark.parametrize(
    ("der", "message"),
    [
        (server(key=ec.generate_private_key(ec.SECP256R1())), "another kind than RSA"),
        (server(usages=usage(sign=False)), "may not be used by a server"),
        (server(purpose=ExtendedKeyUsageOID.CLIENT_AUTH), "may not be used by a server"),
        (server(uris=(URI, "urn:server:another")), "has 2 URIs"),
        (server(uris=(), hosts=()), "has 0 URIs"),
    ],
)
def test_other_kinds_of_wrong_keys_usages_and_names_are_refused(
    trust: TrustList, tmp_path: Path, der: bytes, message: str
) -> None:
    (tmp_path / "trusted" / "a.der").write_bytes(der)
    assert message in refusal(trust, der)


def test_a_certificate_with_another_key_but_the_same_names_is_another_certificate(
    trust: TrustList, tmp_path: Path
) -> None:
    (tmp_path / "trusted" / "a.der").write_bytes(server())
    assert "is not trusted" in refusal(trust, server(key=OTHER_KEY))


def test_only_the_newest_rejected_certificates_are_kept(trust: TrustList, tmp_path: Path) -> None:
    """A server that shows another one each time fills no disk."""
    key = ec.generate_private_key(ec.SECP256R1())
    ders = [server(name=f"n{i}", key=key) for i in range(MOST_REJECTED + 5)]
    for number, der in enumerate(ders):
        refusal(trust, der)
        os.utime(tmp_path / "rejected" / f"{thumbprint_of(der)}.der", ns=(number * 10**9,) * 2)
    kept = {path.stem for path in (tmp_path / "rejected").iterdir()}
    assert kept == {thumbprint_of(der) for der in ders[-MOST_REJECTED:]}


def test_a_folder_that_cannot_be_written_is_said_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "rejected").write_text("a file, not a folder")
    text = refusal(trust_in(tmp_path), server())
    assert "could not be kept" in text
    assert "wattseal opcua trust" in text


def test_a_stranger_s_names_cannot_write_to_the_terminal(trust: TrustList) -> None:
    text = refusal(trust, server(name="evil\x1b[2J\nserver certificate is trusted"))
    assert "\x1b" not in text


SOUND = server()


def server_cut(at: int, change: int) -> bytes:
    """Return a certificate with one byte changed."""
    at %= len(SOUND)
    return SOUND[:at] + bytes([SOUND[at] ^ change]) + SOUND[at + 1 :]


@pytest.mark.filterwarnings("ignore::cryptography.utils.CryptographyDeprecationWarning")
@settings(max_examples=100, deadline=None)
@given(st.one_of(st.binary(max_size=300), st.builds(server_cut, st.integers(0, 900), st.integers(1, 255))))
def test_no_bytes_of_a_server_do_more_than_be_refused(der: bytes) -> None:
    trust = TrustList(trusted=Path("/nonexistent/t"), rejected=Path("/proc/nonexistent/r"))
    with pytest.raises(DeviceError):
        trust.check(der, uri=URI, host="192.0.2.7")


@pytest.mark.parametrize(
    ("thumbprint", "message"),
    [("12ab", "want all of its 40"), ("0" * 40, "which is not in")],
)
def test_a_thumbprint_that_is_short_or_unknown_is_refused(trust: TrustList, thumbprint: str, message: str) -> None:
    for command in (trust.accept, trust.remove):
        with pytest.raises(ConfigError, match=message):
            command(thumbprint)


def test_thumbprints_may_be_given_as_other_tools_print_them(trust: TrustList) -> None:
    der = server()
    refusal(trust, der)
    plain = thumbprint_of(der)
    assert trust.accept(":".join(plain[i : i + 2] for i in range(0, 40, 2)).upper())[1].der == der


def test_our_own_certificate_says_what_opc_ua_wants(tmp_path: Path) -> None:
    """OPC 10000-6, 6.2.2: one URI, key usages, and a key that its owner alone may read."""
    cert, key = tmp_path / "opcua" / "own.der", tmp_path / "opcua" / "own.key.pem"
    made = make_own(cert, key, gateway="gw1", hosts=["edge.example", "192.0.2.5"])
    found = x509.load_der_x509_certificate(cert.read_bytes())
    assert made.uris == ("urn:edge.example:wattseal:gw1",)
    assert made.hosts == ("edge.example", "192.0.2.5")
    assert made.key_bits >= 2048
    found_usage = found.extensions.get_extension_for_class(x509.KeyUsage).value
    assert found_usage.digital_signature
    assert found_usage.content_commitment
    assert found_usage.key_encipherment
    assert found_usage.data_encipherment
    assert found_usage.key_cert_sign, "it signs itself"
    assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    purposes = found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(purposes) == [ExtendedKeyUsageOID.CLIENT_AUTH]
    found.verify_directly_issued_by(found)
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert own_identity(cert, key).uri == made.uris[0]
    assert {path.name for path in cert.parent.iterdir()} == {"own.der", "own.key.pem"}


def test_an_own_certificate_is_not_overwritten_by_chance(tmp_path: Path) -> None:
    cert, key = tmp_path / "own.pem", tmp_path / "own.key.pem"
    make_own(cert, key, gateway="gw1", hosts=["a"])
    before = cert.read_bytes(), key.read_bytes()
    with pytest.raises(ConfigError, match="--force"):
        make_own(cert, key, gateway="gw1", hosts=["a"])
    assert (cert.read_bytes(), key.read_bytes()) == before
    make_own(cert, key, gateway="gw1", hosts=["a"], force=True)
    assert parse(cert.read_bytes()).der != parse(before[0]).der
    assert own_identity(cert, key).uri == "urn:a:wattseal:gw1"


def test_an_own_certificate_that_cannot_be_used_names_the_command(tmp_path: Path) -> None:
    cert, key = tmp_path / "own.der", tmp_path / "own.key.pem"
    with pytest.raises(ConfigError, match="wattseal opcua own"):
        own_identity(cert, key)
    make_own(cert, key, gateway="gw1", hosts=["a"])
    make_own(tmp_path / "x.der", tmp_path / "x.pem", gateway="gw1", hosts=["a"])
    with pytest.raises(ConfigError, match="got a key that is not that of"):
        own_identity(cert, tmp_path / "x.pem")
    key.write_text("nothing")
    with pytest.raises(ConfigError, match="got no usable key"):
        own_identity(cert, key)
    cert.write_text("nothing")
    with pytest.raises(ConfigError, match="got no certificate"):
        own_identity(cert, key)


@pytest.mark.parametrize("hosts", [(), ("a_b c",), ("-x",)])
def test_hosts_that_are_none_are_refused_before_anything_is_written(tmp_path: Path, hosts: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match="hosts"):
        make_own(tmp_path / "c", tmp_path / "k", gateway="gw1", hosts=hosts)
    assert list(tmp_path.iterdir()) == []
