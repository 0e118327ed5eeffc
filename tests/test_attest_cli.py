"""`wattseal attest`: event logs, reference values and evidence, looked at offline."""

import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.attest.appraisal import appraise
from gateway.attest.birth import Birth, sign_birth
from gateway.attest.eventlog import replay
from gateway.attest.evidence import Claims, Evidence, qualifying
from gateway.attest.references import parse_references
from gateway.attest.structures import parse_public
from gateway.cli import run
from gateway.tlog.note import Signer
from gateway.tpm import Tpm
from hil.plant.soft_tpm import MODEL, SoftDevice
from tests.appraising import AUTHORITY, KEY, LOG, QUESTION, booted, evidence_of, sha256, verified
from tests.event_logs import OFF, ON, boot_log
from tests.programs import Shell
from tests.reference_files import NOW_S, references, release, rule
from tests.test_cli import one_line

FACTORY = Signer.generate("wattseal-factory/one")


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(run, capsys)


@pytest.fixture
def bench(tmp_path: Path) -> Path:
    """Return a folder with a log, evidence of the device that wrote it, its maker's roots, and a birth record."""
    device = booted()
    (tmp_path / "log.bin").write_bytes(LOG)
    (tmp_path / "gw1.evidence").write_bytes(evidence_of(device))
    (tmp_path / "roots.pem").write_bytes(AUTHORITY.root.public_bytes(Encoding.PEM))
    (tmp_path / "factory.vkey").write_text(FACTORY.verifier.vkey + "\n")
    (tmp_path / "birth").write_bytes(sign_birth(birth_of(device), FACTORY))
    return tmp_path


def birth_of(device: SoftDevice) -> Birth:
    return Birth(
        serial=device.serial,
        model=MODEL,
        order="o1",
        operator="ada",
        station="s1",
        image_sha256="0" * 64,
        ek_certificate=b"DER",
        ek_remarks=(),
        ak_name=b"\x00\x0b" + bytes(32),
        ak_certificate_sha256="0" * 64,
        idevid_sha256="0" * 64,
        golden=device.pcrs,
        nv_index=0x01800001,
        nv_value=4,
        made_s=QUESTION.issued_s,
    )


def test_events_shows_a_log_and_the_pcrs_that_it_makes(shell: Shell, bench: Path) -> None:
    said = shell("attest", "events", bench / "log.bin")
    assert said.code == 0
    assert "* EV_EFI_VARIABLE_DRIVER_CONFIG (53 bytes)" in said.out
    assert f"PCR  4 {replay(LOG).pcrs[4].hex()}" in said.out
    row = json.loads(shell("attest", "events", bench / "log.bin", "--json").out)
    assert row["pcrs"] == {str(index): value.hex() for index, value in replay(LOG).pcrs.items()}
    assert row["events"][1] == {
        "number": 2,
        "pcr": 0,
        "type": "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
        "sha256": sha256(b"firmware").hex(),
        "size": 21,
        "data_measured": False,
    }


def test_a_log_that_is_cut_off_is_told_on_one_line(shell: Shell, bench: Path) -> None:
    (bench / "log.bin").write_bytes(LOG[:-3])
    said = shell("attest", "events", bench / "log.bin")
    assert (said.code, said.out) == (1, "")
    assert "event 12" in one_line(said.err)
    assert shell("attest", "events", bench / "none").code == 2


def test_a_release_made_from_a_golden_unit_affirms_it_and_not_another(shell: Shell, bench: Path) -> None:
    ca = ("--device-ca", bench / "roots.pem")
    made = shell("attest", "reference", "r1", "--evidence", bench / "gw1.evidence", *ca)
    assert made.code == 0
    (bench / "reference.toml").write_text(made.out)
    by = ("--reference", bench / "reference.toml", *ca)
    said = shell("attest", "appraise", bench / "gw1.evidence", *by)
    assert (said.code, said.out.splitlines()[0]) == (0, "AFFIRMING: release r1")
    assert "not checked: whether it answers a challenge" in said.out
    changed = booted()
    changed.extend(4, sha256(b"x"))
    (bench / "gw2.evidence").write_bytes(evidence_of(changed, event_log=b""))
    said = shell("attest", "appraise", bench / "gw2.evidence", *by, "--json", "--nonce", QUESTION.nonce.hex())
    row = json.loads(said.out)
    assert (said.code, row["status"], row["nonce_checked"]) == (1, "contraindicated", True)
    assert row["reason"].startswith("no release fits; the nearest is r1: PCR 4: got ")
    said = shell("attest", "appraise", bench / "gw1.evidence", *by, "--at", "2020-06-01")
    assert said.out.startswith("CONTRAINDICATED: release r1 begins on ")


def test_evidence_for_another_challenge_or_of_another_maker_is_refused(shell: Shell, bench: Path) -> None:
    (bench / "reference.toml").write_text(
        shell("attest", "reference", "r1", "--model", MODEL, "--log", bench / "log.bin").out
    )
    by = ("--reference", bench / "reference.toml")
    said = shell("attest", "appraise", bench / "gw1.evidence", *by, "--device-ca", bench / "roots.pem", "--nonce", "00")
    assert (said.code, said.out) == (1, "")
    assert one_line(said.err).startswith("wattseal: ")
    (bench / "other.pem").write_bytes(SoftDevice().authority.root.public_bytes(Encoding.PEM))
    assert shell("attest", "appraise", bench / "gw1.evidence", *by, "--device-ca", bench / "other.pem").code == 1
    assert "--device-ca: got nothing" in one_line(shell("attest", "appraise", bench / "gw1.evidence", *by).err)


def test_several_golden_units_give_a_pcr_several_values(shell: Shell, bench: Path) -> None:
    second = booted()
    second.pcrs[4] = sha256(b"another kernel")
    (bench / "second").write_bytes(sign_birth(birth_of(second), FACTORY))
    said = shell(
        *("attest", "reference", "r1", "--birth", bench / "birth", "--birth", bench / "second"),
        *("--factory", bench / "factory.vkey", "--pcrs", "0,4", "--version", "1.4.0"),
        *("--from", "2026-11-01", "--until", "2027-02-01"),
    )
    (release,) = parse_references(said.out, name="made").releases
    assert {index: len(values) for index, values in release.pcrs.items()} == {0: 1, 4: 2}
    assert (release.model, release.version, dict(release.counters)) == (MODEL, "1.4.0", {0x01800001: 4})
    assert 'from = 2026-11-01T00:00:00Z\nuntil = 2027-02-01T00:00:00Z\nversion = "1.4.0"\n' in said.out


def test_secure_boot_is_made_a_rule_only_where_it_is_on(shell: Shell, bench: Path) -> None:
    arguments = ("attest", "reference", "r1", "--model", MODEL, "--log", bench / "log.bin", "--pcrs", "0,7")
    said = shell(*arguments, "--secure-boot")
    (release,) = parse_references(said.out, name="made").releases
    assert [(rule.rule, rule.about) for rule in release.events] == [
        ("required", "secure boot on"),
        ("forbidden", "secure boot off"),
    ]
    assert release.events[1].digests == {sha256(OFF)}
    (bench / "log.bin").write_bytes(boot_log(secure_boot=OFF))
    said = shell(*arguments, "--secure-boot")
    assert (said.code, said.out) == (1, "")
    assert "PCR 7 does not say that secure boot is on" in one_line(said.err)


def test_arguments_that_make_no_release_exit_with_2(shell: Shell, bench: Path) -> None:
    log = ("--log", bench / "log.bin")
    for arguments in (
        (),
        log,
        ("--model", MODEL, *log, "--pcrs", "0,12"),
        ("--model", MODEL, *log, "--pcrs", "x"),
        ("--model", "a\nb", *log),
        ("--model", MODEL, *log, "--from", "soon"),
        ("--model", MODEL, *log, "--from", "2026-11-02", "--until", "2026-11-01"),
        ("--birth", bench / "birth"),
        ("--evidence", bench / "gw1.evidence"),
        ("--evidence", bench / "gw1.evidence", "--device-ca", bench / "roots.pem", "--secure-boot"),
    ):
        said = shell("attest", "reference", "r1", *arguments)
        assert (said.code, said.out) == (2, ""), arguments


def evidence_by(tpm: Tpm, *, counter: int) -> bytes:
    """Return packed evidence of a real TPM interface, with LOG beside it."""
    key = parse_public(tpm.ak_public()).key
    claims = Claims(
        gateway="gw1", nonce=QUESTION.nonce, epoch=1, key=KEY, log_size=0, bound=b"", about={"tls": "tpm"}
    ).pack()
    said = qualifying(QUESTION.nonce, claims)
    quoted = tpm.quote(said, range(8))
    return Evidence(
        claims=claims,
        attest=quoted.attest,
        signature=quoted.signature,
        pcrs=quoted.pcrs,
        chain=AUTHORITY.chain(AUTHORITY.issue(key, "WS-0001")),
        event_log=LOG,
        counters=(tpm.counter_certify(counter, said),),
    ).pack()


def test_a_tpm_that_a_boot_has_extended_is_affirmed_until_it_drifts(tcti: str) -> None:
    """Against swtpm: what the replay makes of a log is what a TPM makes of the same events."""
    counter = 0x01800001
    rules = rule("required", 7, sha256(ON)) + rule("forbidden", 7, sha256(OFF))
    floor = f"[release.counters]\n0x{counter:08x} = 1\n"
    values = references(release(dict(replay(LOG).pcrs), more='tls = ["tpm"]', tables=floor + rules))
    with Tpm.open(tcti) as tpm:
        for event in replay(LOG).events:
            tpm.extend(event.pcr, event.sha256)
        tpm.counter_define(counter)
        tpm.counter_increment(counter)
        found = appraise(verified(evidence_by(tpm, counter=counter)), values, now_s=NOW_S)
        assert (found.status, found.reason) == ("affirming", "release r1")
        tpm.extend(4, sha256(b"loaded later"))
        found = appraise(verified(evidence_by(tpm, counter=counter)), values, now_s=NOW_S)
        assert found.status == "contraindicated"
        assert "the event log does not replay to the quoted PCR 4" in found.reason
