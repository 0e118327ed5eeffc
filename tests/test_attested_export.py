"""What an auditor finds out about the device behind a gateway's key, offline; and what is said if nobody asks."""

import datetime as dt
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.app.handover import Wish, export_to, gather
from gateway.attest.birth import Birth, sign_birth
from gateway.attest.chain import Anchors
from gateway.carbon.audit.devices import DeviceTrust
from gateway.carbon.audit.verify import verify
from gateway.cli import run as main
from gateway.cli import wattseal
from gateway.errors import ConfigError, TrustError
from gateway.tlog.note import Signer
from gateway.tpm import Tpm
from hil.plant.soft_tpm import SoftAuthority
from tests.relying import AUTHORITY, DEVICE, Site, site

FACTORY = Signer.generate("wattseal-factory/acme")
TRUST = DeviceTrust(anchors=AUTHORITY.anchors)
FINGERPRINT = hashlib.sha256(DEVICE.chain[0]).hexdigest()


@pytest.fixture(scope="module")
def hall(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    made = site(tmp_path_factory.mktemp("attested"), memory=False)
    made.run(3)
    (made.folder / "ledger.toml").write_text(made.toml)
    yield made
    made.ledger.close()


@pytest.fixture(scope="module")
def files(hall: Site) -> dict[str, bytes]:
    return gather(hall.config, Wish())


@pytest.fixture
def ek(tpm_state: Path, tcti: str) -> tuple[bytes, list[bytes]]:
    """Give a real endorsement key certificate, and its maker's authorities."""
    found = sorted((tpm_state.parent / "ca").glob("*cert.pem"))
    pems = [x509.load_pem_x509_certificate(path.read_bytes()) for path in found]
    with Tpm.open(tcti) as opened:
        certificate = opened.ek_certificate("rsa2048")
    assert certificate is not None
    return certificate, [one.public_bytes(Encoding.DER) for one in pems]


def birth(ek_certificate: bytes, **more: Any) -> bytes:
    """Return DEVICE's birth record."""
    said: dict[str, Any] = {
        "serial": DEVICE.serial,
        "model": "wattseal-gw",
        "order": "O-1",
        "operator": "ann",
        "station": "bench-1",
        "image_sha256": "00" * 32,
        "ek_certificate": ek_certificate,
        "ek_remarks": (),
        "ak_name": b"\0\x0b" + bytes(32),
        "ak_certificate_sha256": FINGERPRINT,
        "idevid_sha256": "11" * 32,
        "golden": {0: bytes(32)},
        "nv_index": 0x01500001,
        "nv_value": 1,
        "made_s": int(dt.datetime.now(dt.UTC).timestamp()),
    }
    return sign_birth(Birth(**(said | more)), FACTORY)


def crl(at_s: float) -> Anchors:
    """Return anchors whose list has DEVICE revoked at a time."""
    when = dt.datetime.fromtimestamp(at_s, dt.UTC)
    made = AUTHORITY.crl({DEVICE.certificate.serial_number: when})
    return Anchors(roots=(AUTHORITY.root,), crls=(made,))


def test_without_the_authority_a_device_is_claimed_and_not_checked(files: dict[str, bytes]) -> None:
    verdict = verify(files)
    (log,) = verdict.gateways
    assert (log.binding, log.device, log.epoch) == ("tpm2-quote", None, 1)
    assert verdict.claimed == ("wattseal/gw1",)
    assert verdict.unattested == ("wattseal-ledger/ledger",)


def test_with_the_authority_the_device_behind_the_key_is_named(files: dict[str, bytes]) -> None:
    verdict = verify(files, devices=TRUST)
    device = verdict.gateways[0].device
    assert device is not None
    assert (device.serial, device.fingerprint, device.epoch) == (DEVICE.serial, FINGERPRINT, 1)
    assert device.pcrs == tuple(range(8))
    assert device.pcr_sha256 == hashlib.sha256(b"".join(DEVICE.pcrs[index] for index in range(8))).hexdigest()
    assert (device.reset_count, device.tpm) == (1, None)
    assert verdict.claimed == ()


def test_another_authority_s_word_is_refused(files: dict[str, bytes]) -> None:
    with pytest.raises(TrustError, match=r"gateways/gw1/leaves\.jsonl: epoch 1: "):
        verify(files, devices=DeviceTrust(anchors=SoftAuthority(name="another").anchors))


def test_a_device_revoked_before_the_receipt_is_refused_and_after_it_is_not(
    files: dict[str, bytes],
) -> None:
    """By the ledger's clock: a device out of hand may have set its own."""
    receipt_s = verify(files).gateways[0].receipt_s
    assert receipt_s is not None
    with pytest.raises(TrustError, match="revoked"):
        verify(files, devices=DeviceTrust(anchors=crl(receipt_s)))
    assert verify(files, devices=DeviceTrust(anchors=crl(receipt_s + 1))).claimed == ()


def test_a_birth_record_leads_on_to_the_tpm_s_maker(files: dict[str, bytes], ek: tuple[bytes, list[bytes]]) -> None:
    certificate, roots = ek
    trust = DeviceTrust(
        anchors=AUTHORITY.anchors,
        births=(birth(certificate),),
        factory=FACTORY.verifier,
        ek_roots=tuple(roots),
    )
    device = verify(files, devices=trust).gateways[0].device
    assert device is not None
    assert device.tpm is not None
    assert device.tpm.maker == "id:00001014"


def test_a_birth_record_that_does_not_fit_is_refused(files: dict[str, bytes], ek: tuple[bytes, list[bytes]]) -> None:
    """Of another key, of another device, missing, changed, by another factory, or of a TPM of an unknown maker."""
    certificate, roots = ek
    good = birth(certificate)
    stranger = SoftAuthority(name="no TPM maker").root.public_bytes(Encoding.DER)
    for births, factory, ek_roots, why in [
        ([birth(certificate, ak_certificate_sha256="22" * 32)], FACTORY, roots, "born with the attestation key 2222"),
        ([birth(certificate, serial="WS-0002")], FACTORY, roots, "got 0 birth records, want one"),
        ([good, good], FACTORY, roots, "got 2 birth records, want one"),
        ([good.replace(b"ann", b"bob")], FACTORY, roots, "signature"),
        ([good], Signer.generate(FACTORY.name), roots, "no known key signed"),
        ([good], FACTORY, [stranger], "no root or issuing authority"),
    ]:
        trust = DeviceTrust(
            anchors=AUTHORITY.anchors, births=tuple(births), factory=factory.verifier, ek_roots=tuple(ek_roots)
        )
        with pytest.raises(TrustError, match=why):
            verify(files, devices=trust)


def test_an_export_in_the_middle_of_a_backlog_says_what_it_waits_for(tmp_path: Path) -> None:
    """The newest receipt is on a checkpoint of a key whose leaf has not come: nobody could check that yet."""
    made = site(tmp_path, memory=False)
    made.run(2)
    held = len(made.leaves)
    made.note()
    made.boot()
    made.note()
    later, made.leaves = made.leaves, made.leaves[: held + 1]
    made.give()
    with pytest.raises(ConfigError, match="the leaf that announces the key of its newest checkpoint has not come yet"):
        gather(made.config, Wish())
    made.leaves = later
    made.give()
    assert verify(gather(made.config, Wish()), devices=TRUST).gateways[0].epoch == 2
    made.ledger.close()


# ---- the command


def run(*arguments: object) -> str:
    """Run the command; return what it prints."""
    found = CliRunner().invoke(wattseal, [str(one) for one in arguments])
    assert found.exit_code == 0, found.output
    return found.output


def test_the_command_says_loudly_what_nobody_vouches_for(hall: Site, tmp_path: Path) -> None:
    export_to(tmp_path / "export", hall.config, Wish())
    said = run("verify", tmp_path / "export")
    assert "CLAIMED, NOT CHECKED: a TPM vouches for the keys of wattseal/gw1. Give --device-ca." in said
    assert "UNATTESTED: no TPM vouches for the keys of wattseal-ledger/ledger." in said


def renamed(root: x509.Certificate) -> x509.Certificate:
    """Return somebody else's certificate by the name of a root."""
    key, other = ec.generate_private_key(ec.SECP256R1()), SoftAuthority(name="no TPM maker").root
    made = x509.CertificateBuilder(issuer_name=root.subject, subject_name=root.subject, public_key=key.public_key())
    made = made.serial_number(1).not_valid_before(root.not_valid_before_utc).not_valid_after(root.not_valid_after_utc)
    for extension in other.extensions:
        made = made.add_extension(extension.value, critical=extension.critical)
    return made.sign(key, hashes.SHA256())


def test_the_command_checks_from_the_leaf_to_the_maker(
    hall: Site, tmp_path: Path, ek: tuple[bytes, list[bytes]]
) -> None:
    export_to(tmp_path / "export", hall.config, Wish())
    (tmp_path / "roots.pem").write_bytes(AUTHORITY.root.public_bytes(Encoding.PEM))
    (tmp_path / "crl.pem").write_bytes(AUTHORITY.crl({}).public_bytes(Encoding.PEM))
    (tmp_path / "birth.note").write_bytes(birth(ek[0]))
    (tmp_path / "factory.vkey").write_text(FACTORY.verifier.vkey + "\n")
    pems = [x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in ek[1]]
    (tmp_path / "maker.pem").write_bytes(b"".join(pems))
    checked = ("verify", tmp_path / "export", "--device-ca", tmp_path / "roots.pem", "--crl", tmp_path / "crl.pem")
    said = run(*checked)
    assert f"tpm2-quote: device {DEVICE.serial} (wattseal-gw), epoch 1" in said
    assert f"attestation key's certificate SHA-256 {FINGERPRINT}" in said
    assert "CLAIMED" not in said
    births = ("--birth", tmp_path / "birth.note", "--factory", tmp_path / "factory.vkey")
    said = run(*checked, *births, "--ek-root", tmp_path / "maker.pem")
    assert "TPM of id:00001014" in said
    found = json.loads(run(*checked, *births, "--ek-root", tmp_path / "maker.pem", "--json"))
    assert found["claimed"] == []
    assert found["keys"][1]["device"]["tpm"]["maker"] == "id:00001014"
    assert main([*map(str, (*checked, *births))]) == 2
    between, root = (x509.load_pem_x509_certificate(pem) for pem in pems)
    assert between.issuer == root.subject == root.issuer
    for pem in (renamed(root).public_bytes(Encoding.PEM), b""):  # the root's name, and no root: both are refused
        (tmp_path / "maker.pem").write_bytes(pems[0] + pem)
        assert main([*map(str, (*checked, *births, "--ek-root", tmp_path / "maker.pem"))]) != 0
    assert main(["verify", str(tmp_path / "export"), "--crl", str(tmp_path / "crl.pem")]) == 2
