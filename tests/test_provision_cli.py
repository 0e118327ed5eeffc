"""provisioning/cli: what a person at the factory is told, and by which exit code."""

import base64
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509

from gateway.attest.names import hardware_module_name
from provisioning.ca import Authority
from provisioning.cli import provision, run
from provisioning.cli.revoking import REASONS
from provisioning.registrar import Place
from tests.authorities import MODEL, NAME, PASSWORD, UNLOCK, enrol, make_factory, new_key, request
from tests.programs import Shell, commands

BIN = Path(sys.executable).parent


@pytest.fixture
def shell(capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(run, capsys)


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the file with the password of all keys."""
    path = tmp_path_factory.mktemp("words") / "word"
    path.write_text(f"{PASSWORD}\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a factory's authorities, whose keys are quickly unlocked."""
    folder = tmp_path_factory.mktemp("ca") / "ca"
    make_factory(folder)
    return folder


@pytest.fixture
def place(tmp_path: Path, shell: Shell) -> Path:
    """Give a registrar's folder with the units WS-1 and WS-2, enrolled."""
    folder = tmp_path / "registrar"
    shell.done("registrar", "init", "--registrar", folder, "--name", "acme")
    own = Place.read(folder)
    registrar = own.open()
    for serial in ("WS-1", "WS-2"):
        enrol(registrar, serial, signer=own.signer)
    registrar.close()
    return folder


def asking(path: Path) -> Path:
    """Write a request; return its file."""
    path.write_bytes(request(new_key()))
    return path


# ---- the command itself


def test_the_program_and_the_module_are_the_command() -> None:
    for command in ([BIN / "provision"], [sys.executable, "-m", "provisioning.cli"]):
        done = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout[:18]) == (0, "provision, version")


@pytest.mark.parametrize("arguments", [[], ["tomorrow"], ["ca"], ["ca", "init"], ["onboard", "WS-1"]])
def test_arguments_that_make_no_sense_exit_with_2(shell: Shell, arguments: list[str]) -> None:
    said = shell(*arguments)
    assert (said.code, said.out) == (2, "")
    assert "Usage: provision" in said.err


# ---- the authorities


def test_passwords_come_from_a_file_or_the_environment_and_never_from_an_argument(
    shell: Shell, ca: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without any, and without a terminal, the command says which it wants."""
    for name in ("WATTSEAL_CA_UNLOCK", "WATTSEAL_CA_UNLOCK_FILE"):
        monkeypatch.delenv(name, raising=False)
    for _, command in commands(provision):
        assert not {option for one in command.params for option in one.opts} & {"--password", "--pin"}
    with (tmp_path / "empty").open("w+") as nothing:
        monkeypatch.setattr("sys.stdin", nothing)
        said = shell("ca", "crl", ca / "operation")
    assert (said.code, said.out) == (2, "")
    assert "want --unlock FILE, WATTSEAL_CA_UNLOCK or WATTSEAL_CA_UNLOCK_FILE" in said.err
    monkeypatch.setenv("WATTSEAL_CA_UNLOCK", "wrong horse battery")
    said = shell("ca", "crl", ca / "operation")
    assert (said.code, "password is wrong" in said.err) == (2, True)
    assert "wrong horse" not in said.err
    monkeypatch.setenv("WATTSEAL_CA_UNLOCK", PASSWORD)
    assert "list" in shell.done("ca", "crl", ca / "operation")


def test_certificates_are_issued_shown_and_revoked(shell: Shell, ca: Path, words: Path, tmp_path: Path) -> None:
    unlock = ("--unlock", words)
    body, out = asking(tmp_path / "gw1.csr"), tmp_path / "gw1.pem"
    shell.done("ca", "issue-client", ca / "operation", body, "--gateway", "gw1", "--hours", "2", "--out", out, *unlock)
    chain = x509.load_pem_x509_certificates(out.read_bytes())
    assert [one.subject.rfc4514_string() for one in chain] == ["CN=gw1", f"CN={NAME} Operation CA,O={NAME}"]
    served = tmp_path / "broker.pem"
    hosts = ("--host", "broker.example", "--host", "192.0.2.7")
    shell.done("ca", "issue-server", ca / "operation", body, *hosts, "--days", "9", "--out", served, *unlock)
    enrolling = tmp_path / "enrol.pem"
    asks = ("--gateway", "gw1", "--enrol", "--out", enrolling, *unlock)
    shell.done("ca", "issue-client", ca / "operation", body, *asks)
    assert x509.load_pem_x509_certificates(enrolling.read_bytes())[0].subject.rfc4514_string() == "CN=enrol_gw1"
    told = json.loads(shell.done("ca", "show", ca / "operation", "--subject", "gw1", "--json"))
    assert [(one["kind"], one["revoked"]) for one in told["issued"]] == [("ldevid", None), ("enrol", None)]
    gone = ("--certificate", f"{chain[0].serial_number:x}", "--reason", "superseded")
    assert "revoked" in shell.done("ca", "revoke", ca / "operation", *gone, *unlock)
    assert "1 certificates of gw1" in shell.done(
        "ca", "revoke", ca / "operation", "--subject", "gw1", "--reason", "keyCompromise", *unlock
    )
    assert "(superseded)" in shell.done("ca", "show", ca / "operation", "--subject", "gw1")
    lists = tmp_path / "crl.pem"
    shell.done("ca", "crl", ca / "operation", "--days", "3", "--out", lists, *unlock)
    assert lists.read_text().count("BEGIN X509 CRL") == 2, "the authority's and the root's"
    assert chain[0].serial_number in [one.serial_number for one in x509.load_pem_x509_crl(lists.read_bytes())]


def test_the_broker_is_told_of_a_new_list(shell: Shell, ca: Path, words: Path, tmp_path: Path) -> None:
    """By SIGHUP to its process; a process that is not there is said."""
    listening = "import signal; signal.signal(signal.SIGHUP, lambda *_: exit(7)); print(flush=True); signal.pause()"
    with subprocess.Popen([sys.executable, "-c", listening], stdout=subprocess.PIPE) as broker:
        assert broker.stdout is not None
        broker.stdout.readline()
        arguments = ("--out", tmp_path / "crl.pem", "--reload-pid", str(broker.pid), "--unlock", words)
        shell.done("ca", "crl", ca / "operation", *arguments)
        assert broker.wait(10) == 7
    said = shell("ca", "crl", ca / "operation", *arguments)
    assert (said.code, "want the broker's process" in said.err) == (2, True)


def test_the_root_signs_where_it_is_kept(shell: Shell, words: Path, tmp_path: Path) -> None:
    """The three steps of a ceremony, as docs/authority.md has them."""
    root, here = tmp_path / "root", tmp_path / "operation"
    own = ("--root-unlock", words)
    assert "Keep" in shell("ca", "init", root, "--name", NAME, "--root", *own).err
    said = shell.done("ca", "init", here, "--name", NAME, "--issuing", "operation", "--unlock", words)
    assert "take it to the root" in said
    answer = tmp_path / "answer.pem"
    shell.done("ca", "sign", root, here / "ca.csr", "--role", "operation", "--out", answer, *own)
    assert "ready" in shell.done("ca", "accept", here, answer, "--unlock", words)
    assert json.loads(shell.done("ca", "show", here, "--json"))["role"] == "operation"
    at_once = ("--issuing", "devices", "--signed-by", root, "--unlock", words)
    shell.done("ca", "init", tmp_path / "devices", "--name", NAME, *at_once, *own)
    assert shell("ca", "init", tmp_path / "x", "--name", NAME, "--root", "--issuing", "devices").code == 2
    assert shell("ca", "init", root, "--name", NAME, "--root", *own).code == 2


def test_a_small_factory_is_made_in_one_go_and_its_keys_are_slow_to_guess(
    shell: Shell, words: Path, tmp_path: Path
) -> None:
    both = ("--unlock", words, "--root-unlock", words)
    said = shell.done("ca", "init", tmp_path / "ca", "--name", NAME, *both)
    assert [line.split(": ")[1].split(",")[0] for line in said.splitlines()] == ["root", "devices", "operation"]
    for role in ("root", "devices", "operation"):
        body = "".join((tmp_path / "ca" / role / "ca.key").read_text().splitlines()[1:-1])
        cost = bytes.fromhex("02024000020108020105")  # N 16384, r 8, p 5
        assert cost in base64.b64decode(body)


def test_a_maker_names_the_type_of_its_devices(shell: Shell, words: Path, tmp_path: Path) -> None:
    """In its own arc; what cannot be one changes nothing, and who names none is told."""
    make = ("ca", "init", tmp_path / "ca", "--name", NAME, "--unlock", words, "--root-unlock", words, "--hw-type")
    assert "want an object identifier" in shell(*make, "1.x").err
    assert "where an authority for devices is made" in shell(*make, "1.3.6", "--root").err
    assert not (tmp_path / "ca").exists()
    assert "arc for examples" not in shell(*make, "1.3.6.1.4.1.99999.1").err
    devices = Authority.open(tmp_path / "ca" / "devices", unlock=UNLOCK)
    made = x509.load_der_x509_certificate(devices.issue_ak(new_key().public_key(), serial="WS-1", model=MODEL))
    names = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert list(names) == [hardware_module_name("WS-1", "1.3.6.1.4.1.99999.1")]
    root = ("--root", "--root-unlock", words)
    assert "arc" not in shell("ca", "init", tmp_path / "root", "--name", NAME, *root).err


def test_a_place_that_cannot_be_written_is_one_line(
    shell: Shell, ca: Path, place: Path, words: Path, tmp_path: Path
) -> None:
    """A person at the factory never sees a traceback."""
    (tmp_path / "file").write_text("")
    nowhere = tmp_path / "file" / "x"
    csr = asking(tmp_path / "gw1.csr")
    own = ("--unlock", words)
    for arguments in (
        ("registrar", "verify", "--registrar", place, "--checkpoint", nowhere),
        ("registrar", "export", "WS-1", "--registrar", place, "--out", nowhere),
        ("ca", "issue-client", ca / "operation", csr, "--gateway", "gw1", "--out", nowhere, *own),
        ("ca", "crl", ca / "operation", "--out", nowhere, *own),
        ("ca", "sign", ca / "root", csr, "--role", "devices", "--out", nowhere, "--root-unlock", words),
    ):
        said = shell(*arguments)
        assert (said.code, len(said.err.splitlines())) == (2, 1), said
        assert str(nowhere) in said.err


def test_the_reasons_are_those_of_the_authority() -> None:
    from provisioning.ca import REASONS as ALL  # noqa: PLC0415

    assert set(REASONS) <= set(ALL)


# ---- a unit's life


def test_a_unit_is_onboarded_transferred_and_its_old_certificates_end(
    shell: Shell, ca: Path, place: Path, words: Path
) -> None:
    at, both = ("--registrar", place), ("--registrar", place, "--ca", ca, "--unlock", words)
    assert "onboarded" in shell.done("onboard", "WS-1", "--owner", "Acme", "--gateway", "gwt", *at)
    operation = Authority.open(ca / "operation", unlock=UNLOCK)
    operation.issue_ldevid(request(new_key()), gateway="gwt", hours=1)
    to = ("transfer", "WS-1", "--owner", "Beta", "--gateway", "gwu")
    dry = shell.done(*to, "--dry-run", *both)
    assert "would go from Acme to Beta, as gwu" in dry
    assert "would revoke ldevid" in dry
    assert operation.issued(subject="gwt")[0].revoked_s is None
    assert "1 certificates of gwt revoked" in shell.done(*to, *both)
    shown = json.loads(shell.done("show", "WS-1", "--json", *at))
    assert (shown["owner"], shown["gateway"], shown["state"]) == ("Beta", "gwu", "onboarded")
    operation.issue_ldevid(request(new_key()), gateway="gwu", hours=1)
    shell.done(*to, *both)
    assert operation.issued(subject="gwu")[0].revoked_s is None, "the command again takes nothing from the new owner"
    shell.done("onboard", "WS-2", "--owner", "Acme", "--gateway", "gwt", *at)
    said = shell("transfer", "WS-1", "--owner", "Gamma", "--gateway", "gwt", *both)
    assert (said.code, "another unit is gwt" in said.err) == (1, True)
    assert operation.issued(subject="gwu")[0].revoked_s is None, "what is refused takes nothing from anyone"


def test_a_revoked_unit_is_in_both_lists(shell: Shell, ca: Path, place: Path, words: Path) -> None:
    at, both = ("--registrar", place), ("--registrar", place, "--ca", ca, "--unlock", words)
    shell.done("onboard", "WS-1", "--owner", "Acme", "--gateway", "gwr", *at)
    devices = Authority.open(ca / "devices", unlock=UNLOCK)
    operation = Authority.open(ca / "operation", unlock=UNLOCK)
    ak = x509.load_der_x509_certificate(devices.issue_ak(new_key().public_key(), serial="WS-1", model=MODEL))
    ldevid = x509.load_der_x509_certificate(operation.issue_ldevid(request(new_key()), gateway="gwr", hours=1))
    command = ("revoke", "WS-1", "--reason", "keyCompromise")
    assert "would revoke ak" in shell.done(*command, "--dry-run", *both)
    assert json.loads(shell.done("show", "WS-1", "--json", *at))["state"] == "onboarded"
    said = shell.done(*command, *both)
    assert "WS-1: revoked (keyCompromise)" in said
    for authority, certificate in ((devices, ak), (operation, ldevid)):
        listed = x509.load_pem_x509_crl((authority.folder / "crl.pem").read_bytes())
        assert listed.get_revoked_certificate_by_serial_number(certificate.serial_number) is not None
    assert shell.done(*command, *both).count("0 certificates") == 2, "it may be said again"


def test_a_decommissioned_unit_stays_as_a_tombstone_and_takes_nothing_from_its_successor(
    shell: Shell, ca: Path, place: Path, words: Path
) -> None:
    at, both = ("--registrar", place), ("--registrar", place, "--ca", ca, "--unlock", words)
    shell.done("onboard", "WS-1", "--owner", "Acme", "--gateway", "gwd", *at)
    assert "would end" in shell.done("decommission", "WS-1", "--dry-run", *both)
    assert "WS-1: decommissioned" in shell.done("decommission", "WS-1", *both)
    shell.done("onboard", "WS-2", "--owner", "Acme", "--gateway", "gwd", *at)
    operation = Authority.open(ca / "operation", unlock=UNLOCK)
    operation.issue_ldevid(request(new_key()), gateway="gwd", hours=1)
    shell.done("decommission", "WS-1", *both)
    assert operation.issued(subject="gwd")[0].revoked_s is None, "gwd is WS-2 by now"
    said = shell("onboard", "WS-1", "--owner", "Acme", "--gateway", "gwx", *at)
    assert (said.code, said.err.count("\n")) == (1, 1)
    assert "decommissioned" in said.err
    lines = shell.done("units", *at).splitlines()
    assert [line.split(":")[0] for line in lines] == ["WS-1", "WS-2"]
    found = json.loads(shell.done("units", "--state", "decommissioned", "--json", *at))
    assert [unit["serial"] for unit in found] == ["WS-1"]


def test_a_wrong_password_changes_nothing_and_a_missing_authority_is_said(
    shell: Shell, ca: Path, place: Path, words: Path, tmp_path: Path
) -> None:
    """A script must not take it for done."""
    wrong = tmp_path / "wrong"
    wrong.write_text("wrong horse battery\n")
    wrong.chmod(0o600)
    at = ("--registrar", place)
    command = ("revoke", "WS-1", "--reason", "superseded", *at)
    assert shell(*command, "--ca", ca, "--unlock", wrong).code == 2
    assert "enrolled" in shell.done("show", "WS-1", *at)
    there = "provision ca revoke devices --subject WS-1 --reason superseded"
    dry = json.loads(shell.done(*command, "--ca", tmp_path / "elsewhere", "--dry-run", "--json"))
    assert (dry["dry_run"], dry["unit"]["state"], dry["lists"][0]["do"]) == (True, "enrolled", there)
    said = shell(*command, "--ca", tmp_path / "elsewhere")
    assert (said.code, f"Do there: {there}" in said.out) == (1, True)
    assert "got no authority for devices there" in said.err
    done = json.loads(shell.done(*command, "--ca", ca, "--unlock", words, "--json"))
    assert (done["unit"]["state"], done["lists"][0]["do"]) == ("revoked", None)


# ---- the registrar


def test_the_registrar_is_verified_exported_checked_and_rebuilt(shell: Shell, place: Path, tmp_path: Path) -> None:
    at = ("--registrar", place)
    note, out = tmp_path / "today.checkpoint", tmp_path / "WS-1"
    assert "OK: 2 units" in shell.done("registrar", "verify", "--checkpoint", note, *at)
    assert json.loads(shell.done("registrar", "verify", "--since", note, "--json", *at))["units"] == 2
    shell.done("registrar", "export", "WS-1", "--out", out, *at)
    assert sorted(path.name for path in out.iterdir()) == ["birth.leaf", "birth.note", "birth.tlog-proof"]
    key = ("--key", place / "factory.vkey")
    assert f"WS-1: OK: {MODEL}, order O-1" in shell.done("registrar", "check", out, *key)
    (out / "birth.note").write_bytes((out / "birth.note").read_bytes().replace(b"ann", b"bob"))
    assert shell("registrar", "check", out, *key).code == 1
    (place / "registrar.sqlite").unlink()
    for rest in ("-wal", "-shm"):
        (place / f"registrar.sqlite{rest}").unlink(missing_ok=True)
    assert "rebuilt from 7 leaves" in shell.done("registrar", "rebuild", *at)
    assert "OK: 2 units" in shell.done("registrar", "verify", *at)


def test_a_folder_without_a_registrar_and_an_unknown_unit_are_one_line(
    shell: Shell, place: Path, tmp_path: Path
) -> None:
    said = shell("units", "--registrar", tmp_path / "nowhere")
    assert (said.code, said.err.count("\n")) == (2, 1)
    assert "want a registrar's file: provision registrar init" in said.err
    said = shell("show", "WS-9", "--registrar", place)
    assert (said.code, said.err) == (1, "provision: unit WS-9: there is none of this serial\n")
