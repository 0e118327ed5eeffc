"""north/pki.py: what each certificate and key may be used for, and what is refused."""

import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from gateway.errors import ConfigError
from gateway.north.pki import make_dev_ca, revoke
from gateway.tlog.note import SignatureKind, Signer, Verifier

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def made(folder: Path, **changes: object) -> list[Path]:
    wanted = {"gateways": ["gw1", "gw2"], "ledger": "ledger", "hosts": ["broker.plant.example", "192.0.2.7"]}
    return make_dev_ca(folder, **{**wanted, "now": NOW, **changes})  # type: ignore[arg-type]


def certificate(folder: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate((folder / f"{name}.pem").read_bytes())


def purposes(found: x509.Certificate) -> list[x509.ObjectIdentifier]:
    return list(found.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)


def test_all_files_are_made_and_named_in_the_answer(tmp_path: Path) -> None:
    """The answer is exactly what stands in the folder afterwards."""
    folder = tmp_path / "pki"
    files = made(folder)
    parties = ["ca", "broker", "gw1", "gw2", "ledger"]
    expected = {f"{party}.{kind}" for party in parties for kind in ("pem", "key")}
    expected |= {"gw1.epoch.key", "gw2.epoch.key", "gw1.vkey", "gw2.vkey", "crl.pem"}
    expected |= {"ledger.sign.key", "ledger.vkey", "ledger.note.vkey"}
    assert {path.name for path in files} == expected == {path.name for path in folder.iterdir()}


def test_keys_are_their_owners_alone(tmp_path: Path) -> None:
    """Each private key has mode 0600, and the folder 0700, even where it stood open before."""
    folder = tmp_path / "pki"
    folder.mkdir(mode=0o755)
    keys = [path for path in made(folder) if path.suffix == ".key"]
    assert len(keys) == 8
    assert {stat.S_IMODE(path.stat().st_mode) for path in keys} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_the_broker_may_serve_only_and_a_client_may_only_connect(tmp_path: Path) -> None:
    """One purpose a certificate; the common name is the party's."""
    made(tmp_path)
    assert purposes(certificate(tmp_path, "broker")) == [ExtendedKeyUsageOID.SERVER_AUTH]
    for name in ("gw1", "gw2", "ledger"):
        found = certificate(tmp_path, name)
        assert purposes(found) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        assert [part.value for part in found.subject.get_attributes_for_oid(NameOID.COMMON_NAME)] == [name]
        assert not found.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        usage = found.extensions.get_extension_for_class(x509.KeyUsage)
        assert usage.critical
        assert usage.value.digital_signature
        assert not usage.value.key_cert_sign


def test_a_strict_verifier_takes_the_broker_under_each_of_its_names(tmp_path: Path) -> None:
    """The chain passes the Web PKI rules of cryptography's own verifier; another name does not."""
    made(tmp_path)
    builder = PolicyBuilder().store(Store([certificate(tmp_path, "ca")])).time(NOW)
    broker = certificate(tmp_path, "broker")
    builder.build_server_verifier(x509.DNSName("broker.plant.example")).verify(broker, [])
    with pytest.raises(VerificationError):
        builder.build_server_verifier(x509.DNSName("other.plant.example")).verify(broker, [])
    with pytest.raises(VerificationError):
        builder.build_server_verifier(x509.DNSName("gw1")).verify(certificate(tmp_path, "gw1"), [])
    builder.build_client_verifier().verify(certificate(tmp_path, "gw1"), [])
    names = broker.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(address) for address in names.get_values_for_type(x509.IPAddress)] == ["192.0.2.7"]


def test_certificates_end_after_ninety_days(tmp_path: Path) -> None:
    """No certificate lives longer than its authority, and none longer than 90 days from now."""
    made(tmp_path)
    ends = {certificate(tmp_path, name).not_valid_after_utc for name in ("ca", "broker", "gw1", "ledger")}
    assert ends == {NOW + timedelta(days=90)}
    assert certificate(tmp_path, "gw1").not_valid_before_utc < NOW


def test_the_authority_signs_no_further_authority(tmp_path: Path) -> None:
    """Its path length is zero, and its key signs certificates and revocation lists alone."""
    made(tmp_path)
    extensions = certificate(tmp_path, "ca").extensions
    constraints = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (constraints.critical, constraints.value.ca, constraints.value.path_length) == (True, True, 0)
    usage = extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)


def test_signing_keys_fit_their_public_keys_and_names(tmp_path: Path) -> None:
    """A gateway's key is named after its log; the ledger's serves as note key and as cosigner."""
    made(tmp_path)

    def text(name: str) -> str:
        return (tmp_path / name).read_text()

    epoch = Signer.from_text(text("gw1.epoch.key"))
    assert epoch.name == "wattseal/gw1"
    assert Verifier.from_vkey(text("gw1.vkey").strip()) == epoch.verifier
    ledger = Signer.from_text(text("ledger.sign.key"))
    assert ledger.name == "wattseal-ledger/ledger"
    assert Verifier.from_vkey(text("ledger.note.vkey").strip()) == ledger.verifier
    witness = Verifier.from_vkey(text("ledger.vkey").strip())
    assert witness == ledger.cosigner().verifier
    assert witness.kind is SignatureKind.COSIGNATURE
    assert text("gw1.epoch.key") != text("gw2.epoch.key")


def test_what_stands_is_not_overwritten_unless_forced(tmp_path: Path) -> None:
    """A second run fails and changes nothing; with force it makes everything anew."""
    made(tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ConfigError, match=r"got ca\.pem already"):
        made(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    made(tmp_path, force=True)
    assert all(path.read_bytes() != before[path.name] for path in tmp_path.iterdir())


def test_a_link_in_the_folder_is_not_followed(tmp_path: Path) -> None:
    """A symbolic link under a key's name is replaced, and what it points to stays as it was."""
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    folder = tmp_path / "pki"
    folder.mkdir()
    (folder / "gw1.key").symlink_to(victim)
    with pytest.raises(ConfigError, match=r"got gw1\.key already"):
        made(folder)
    made(folder, force=True)
    assert victim.read_text() == "untouched"
    assert not (folder / "gw1.key").is_symlink()


@pytest.mark.parametrize(
    "name",
    [
        "",
        "GW1",
        "gw_1",
        "-gw",
        "gw/1",
        "gw+",
        "#",
        "+",
        "$SYS",
        "../gw",
        "gw 1",
        "gw\n",
        "a" * 64,
        "gé",
        "ca",
        "broker",
    ],
)
def test_a_name_that_is_no_safe_topic_level_is_refused(tmp_path: Path, name: str) -> None:
    """Wildcards, separators, paths and our own file names are no gateway's name, nor a ledger's."""
    with pytest.raises(ConfigError, match="names: got"):
        made(tmp_path / "a", gateways=["gw1", name])
    with pytest.raises(ConfigError, match="names: got"):
        made(tmp_path / "b", ledger=name)
    assert not (tmp_path / "a").exists()


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    """A gateway that is called like the ledger would share its access."""
    for changes in ({"gateways": ["gw1", "gw1"]}, {"gateways": ["ledger"]}):
        with pytest.raises(ConfigError, match="want each name once"):
            made(tmp_path, **changes)


@pytest.mark.parametrize("host", ["", "a b", "-x", "x..y", "*.plant.example", "x\n"])
def test_a_host_that_is_no_name_or_address_is_refused(tmp_path: Path, host: str) -> None:
    """Wildcards too: the broker has one name."""
    with pytest.raises(ConfigError, match="hosts: got"):
        made(tmp_path, hosts=[host])


def test_a_revoked_party_stands_in_the_list(tmp_path: Path) -> None:
    """The list holds just the revoked one, and the authority signed it."""
    made(tmp_path)
    crl = x509.load_pem_x509_crl(revoke(tmp_path, ["gw2"], now=NOW + timedelta(days=1)).read_bytes())
    assert crl.get_revoked_certificate_by_serial_number(certificate(tmp_path, "gw2").serial_number) is not None
    assert crl.get_revoked_certificate_by_serial_number(certificate(tmp_path, "gw1").serial_number) is None
    assert crl.is_signature_valid(certificate(tmp_path, "ca").public_key())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no usable authority"):
        revoke(tmp_path, ["gw3"])
