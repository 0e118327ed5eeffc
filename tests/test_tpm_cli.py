"""gateway/cli/tpm.py and gateway/tpm/selftest.py: what an operator is told of the TPM, and when it fails."""

import json
import subprocess

import pytest

from gateway.cli import run
from gateway.tpm import Tpm
from tests.test_tpm import tool


def test_the_self_test_says_what_was_tried_and_how_long_it_took(tcti: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One JSON object; each check has its time in milliseconds."""
    assert run(["tpm", "self-test", "--tcti", tcti, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["is_good"]
    assert said["ek_kinds"] == ["rsa2048", "p384"]
    assert said["facts"]["manufacturer"] == "IBM"
    names = [check["name"] for check in said["checks"]]
    assert names == ["EK rsa2048", "EK p384", "AK", "PCR read", "quote", "key", "seal", "nothing left"]
    assert all(0 < check["took_ms"] < 60_000 for check in said["checks"])


def test_the_self_test_reads_well(tcti: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for the TPM, and one for each check."""
    assert run(["tpm", "self-test", "--tcti", tcti]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("EK certificates: rsa2048, p384")
    assert all(line.startswith("ok  ") for line in lines[1:])


def test_the_self_test_finds_a_certificate_of_another_tpm(tcti: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A certificate in NV that is not for this TPM's key fails the check, and the exit code says so.

    What some makers fill the index up with is left out.
    """
    with Tpm.open(tcti) as tpm:
        der = tpm.ek_certificate("p384")
    assert der is not None
    attributes = "ownerread|ownerwrite|authread|authwrite"
    tool(tcti, "tpm2_nvdefine", "0x1C0000A", "-C", "o", "-s", str(len(der) + 30), "-a", attributes)
    write = ["tpm2_nvwrite", "0x1C0000A", "-C", "o", "-i", "-", "-T", tcti]
    subprocess.run(write, input=der + b"\xff" * 30, check=True, timeout=30, capture_output=True)
    with Tpm.open(tcti) as tpm:
        assert tpm.ek_certificate("p256") == der
    assert run(["tpm", "self-test", "--tcti", tcti]) == 1
    said = capsys.readouterr()
    assert "FAIL EK p256" in said.out
    assert "certificate is for another key" in said.out
    assert "the TPM fails 1 of 9 checks" in said.err


def test_show_tells_what_the_tpm_is(tcti: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Text and JSON agree on the attestation key's name."""
    assert run(["tpm", "show", "--tcti", tcti, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert set(said["ek_certificates"]) == {"rsa2048", "p384"}
    assert len(said["pcrs"]) == 24
    assert run(["tpm", "show", "--tcti", tcti]) == 0
    text = capsys.readouterr().out
    assert said["ak_name"] in text
    assert "EK p256       no certificate" in text


def test_no_tpm_is_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    """An operator edits something: the message says what."""
    assert run(["tpm", "self-test", "--tcti", "swtpm:path=/nowhere"]) == 2
    assert "want a TPM that answers there" in capsys.readouterr().err
