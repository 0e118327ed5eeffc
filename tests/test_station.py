"""provisioning/station: from a board to a device, over every way to a unit, through every interruption."""

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.app.enrolment.identity import ANCHORS, GIVEN
from gateway.attest.birth import read_birth
from gateway.attest.chain import Anchors, verify_device_chain
from gateway.codec.enrol_lines import pack_line, to_text
from gateway.errors import ConfigError, LinkError, LogError, TrustError
from gateway.tpm.keys import KeyBlob, p256_key
from provisioning.cli import run
from provisioning.cli.station import _enrol
from provisioning.registrar.checking import Held, verify
from provisioning.registrar.evidence import verify_evidence
from provisioning.registrar.place import Place
from provisioning.station.batch import Outcome, read_units, run_batch, summary
from provisioning.station.books import Books
from provisioning.station.enrolment import STEPS, StepError, Way
from provisioning.station.link import Transport
from provisioning.station.maker import new_tpm, running_tpm, store_certificate
from provisioning.station.order import Order
from provisioning.station.settings import Settings, parse_station
from provisioning.station.station import Station
from provisioning.station.transport import connect
from tests.station_site import BIN, STATION, board_tpm, make_site, unit_command
from tests.stations import FACTORY, IMAGE_SHA256, MAKER, Answer, Plant, honest, order_of, plant_in

OPERATIONS = (
    *("hello", "identify", "image", "ek", "ak", "activate", "certify", "request", "install", "floor", "quote"),
    *("challenge", "finish"),
)


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    with plant_in(tmp_path) as made:
        yield made


def births(plant: Plant, serial: str) -> int:
    """Return how many birth records of a unit the factory's log holds."""
    with plant.registrar.session() as log:
        return sum(f"birth/{serial}".encode() in leaf for _, leaf in log.leaves(0))


def certificates(plant: Plant, serial: str) -> list[str]:
    """Return the kinds of what the authority issued for a unit."""
    return sorted(one.kind for one in plant.authority.issued(subject=serial))


def is_whole(plant: Plant, serial: str) -> bool:
    """Whether a unit is enrolled, on both sides, with one certificate of each kind and one birth record."""
    unit, identity = plant.registrar.unit(serial), plant.identity(serial)
    assert unit.birth is not None
    assert identity.read("birth.note") == unit.birth
    assert identity.is_enrolled
    return unit.state == "enrolled" and certificates(plant, serial) == ["ak", "idevid"] and births(plant, serial) == 1


def test_a_unit_leaves_the_station_with_all_that_it_needs(plant: Plant) -> None:
    """Its chains lead to the device authority, and the birth record says what the factory saw."""
    enrolled = plant.enrol("WS-1")
    identity = plant.identity("WS-1")
    assert all(identity.read(name) for name in (*ANCHORS, *GIVEN))
    anchors = Anchors.read(identity.read("device-ca.pem") or b"")
    chain = [one.der for one in plant.authority.issued(subject="WS-1") if one.kind == "ak"]
    device = verify_device_chain((*chain, *plant.authority.chain), anchors, at_s=int(time.time()))
    assert (device.serial, device.model) == ("WS-1", "WS-100")
    birth = enrolled.record.birth
    assert birth == read_birth(identity.read("birth.note") or b"", verifier=FACTORY.verifier)
    assert (birth.order, birth.operator, birth.station) == ("WO-17", "A. Smith", "line-1")
    assert (birth.image_sha256, birth.nv_value, set(birth.golden)) == (IMAGE_SHA256, 3, {0, 1, 2, 3, 7})
    assert birth.ak_certificate_sha256 == device.fingerprint
    assert enrolled.label == plant.folder / "labels" / "WS-1.svg"
    assert enrolled.record.sha256[:16] in enrolled.label.read_text()
    assert list(enrolled.seconds) == list(STEPS)
    assert set(plant.registrar.unit("WS-1").steps) >= {"image", "ek", "activate", "certify", "floor", "quote", "refuse"}
    assert is_whole(plant, "WS-1")


def test_a_unit_that_is_done_is_left_as_it_is(plant: Plant) -> None:
    first = plant.enrol("WS-1")
    size = plant.registrar.unit("WS-1").leaves
    again = plant.enrol("WS-1")
    assert (again.way, again.record) == (Way.ALREADY, first.record)
    assert plant.registrar.unit("WS-1").leaves == size
    assert is_whole(plant, "WS-1")


CUTS = [(cut, when) for cut in OPERATIONS for when in ("before", "after")]
QUICK = {("activate", "after"), ("request", "before"), ("finish", "before"), ("finish", "after")}


@pytest.mark.parametrize(
    ("cut", "when"), [pytest.param(*one, marks=() if one in QUICK else pytest.mark.slow) for one in CUTS]
)
def test_an_enrolment_that_is_cut_goes_on_and_nothing_is_there_twice(plant: Plant, cut: str, when: str) -> None:
    """The unit loses power before it does what it is asked, or just after, with the answer lost; it begins anew."""

    def dies(op: str, _: dict[str, Any], answer: Answer, line: bytes) -> bytes | None:
        if op == cut:
            if when == "after":
                answer(line)
            raise LinkError("the unit hung up")
        return pack_line(honest(answer, line))

    plant.twists["WS-1"] = dies
    with pytest.raises(StepError, match="hung up"):
        plant.enrol("WS-1")
    identity = plant.identity("WS-1")
    if cut != "finish":
        assert not any(identity.read(name) for name in GIVEN), "no certificate is given out before the end"
    plant.twists.pop("WS-1")
    plant.enrol("WS-1")
    assert is_whole(plant, "WS-1")


def outcome_of(station: Station, serial: str = "WS-1", **changes: str) -> Outcome:
    """Return how a batch of one unit ended."""
    orders = [order_of(serial, **changes)]
    (found,) = run_batch(station, orders, jobs=1, told=lambda _, __: None, done=lambda _: None)
    return found


def idevids(plant: Plant) -> list[str | None]:
    """Return why each IDevID of WS-1 was revoked, None for one that holds; oldest first."""
    return [one.reason for one in plant.authority.issued(subject="WS-1") if one.kind == "idevid"]


def assert_usable(plant: Plant) -> None:
    """Assert that the key in the unit's folder is the one of the IDevID in it, which the registrar knows."""
    identity = plant.identity("WS-1")
    chain = x509.load_pem_x509_certificates(identity.read("idevid-chain.pem") or b"")
    key = KeyBlob.from_pem((identity.read("idevid.key") or b"").decode())
    assert chain[0].public_key() == p256_key(key.public)
    sha256 = hashlib.sha256(chain[0].public_bytes(Encoding.DER)).hexdigest()
    assert plant.registrar.unit("WS-1").certificates["idevid"] == sha256


def test_a_factory_reset_unit_is_noticed_and_gets_its_files_again_with_an_idevid_that_it_can_use(plant: Plant) -> None:
    """The key of the first one is gone for ever: it is revoked, and the log says so. No second birth record is made."""
    first = plant.enrol("WS-1")
    shutil.rmtree(plant.boards / "WS-1" / "identity")
    found = outcome_of(plant.station)
    assert (found.way, found.birth_sha256) == (Way.RENEWED, first.record.sha256)
    identity = plant.identity("WS-1")
    assert identity.is_enrolled
    assert all(identity.read(name) for name in (*ANCHORS, *GIVEN))
    assert_usable(plant)
    assert idevids(plant) == ["superseded", None]
    (old, _) = (one for one in plant.authority.issued(subject="WS-1") if one.kind == "idevid")
    listed = x509.load_pem_x509_crl((plant.authority.folder / "crl.pem").read_bytes())
    assert listed.get_revoked_certificate_by_serial_number(int(old.number, 16))
    assert births(plant, "WS-1") == 1
    with plant.registrar.session() as log:
        assert sum(b"unit.renewed" in leaf for _, leaf in log.leaves(0)) == 1
    assert held(plant).quotes == 1
    assert outcome_of(plant.station).way is Way.ALREADY


def test_a_unit_that_still_has_its_key_keeps_its_idevid(plant: Plant) -> None:
    plant.enrol("WS-1")
    plant.identity("WS-1").path("enrolled").unlink()
    assert outcome_of(plant.station).way is Way.AGAIN
    assert_usable(plant)
    assert is_whole(plant, "WS-1")


def test_a_renewal_that_is_cut_goes_on_and_one_idevid_holds(plant: Plant) -> None:
    plant.enrol("WS-1")
    shutil.rmtree(plant.boards / "WS-1" / "identity")

    def dies(op: str, _: dict[str, Any], answer: Answer, line: bytes) -> bytes | None:
        if op == "finish":
            raise LinkError("the unit hung up")
        return pack_line(honest(answer, line))

    plant.twists["WS-1"] = dies
    assert outcome_of(plant.station).step == "deliver"
    plant.twists.clear()
    assert outcome_of(plant.station).way is Way.AGAIN
    assert_usable(plant)
    assert idevids(plant).count(None) == 1
    assert len(idevids(plant)) == 2


def test_a_unit_that_is_done_and_off_the_bench_is_said_to_be_silent(plant: Plant) -> None:
    """The registrar and the label know it as done, and no more is claimed; without its label it is a failure."""
    plant.enrol("WS-1")

    def gone(_: str) -> Transport:
        raise LinkError("no route to host")

    station = replace(plant.station, connect=gone)
    found = outcome_of(station)
    assert (found.way, found.why) == (Way.SILENT, "connect: no route to host")
    assert found.fields()["silence"] == found.why
    (plant.folder / "labels" / "WS-1.svg").unlink()
    assert (outcome_of(station).way, outcome_of(station).step) == (None, "connect")
    assert outcome_of(plant.station).way is Way.AGAIN
    assert (plant.folder / "labels" / "WS-1.svg").exists()


def held(plant: Plant) -> Held:
    """Return what `provision registrar verify` finds."""
    return verify(f"sqlite:///{plant.folder / 'registrar.db'}", log=plant.folder / "log", signer=FACTORY)


class Careless(Books):
    """Books that keep one answer of the TPM wrongly. wrong: which step, and what of it."""

    wrong = ("", "", "")

    def record(self, serial: str, name: str, said: Mapping[str, str]) -> None:
        """Keep it, or a wrong one."""
        step, key, value = self.wrong
        super().record(serial, name, {**said, key: value} if name == step else said)


@pytest.mark.parametrize(
    ("step", "key", "why"),
    [
        ("quote", "nonce", "unit WS-1: quote: attest: it answers another question"),
        ("floor", "nonce", "unit WS-1: floor: attest: it answers another question"),
        ("certify", "nonce", "unit WS-1: certify: attest: it answers another question"),
        ("certify", "name", "unit WS-1: certify: the TPM vouches for another key"),
        ("quote", "signature", "unit WS-1: quote: "),
        ("activate", "public", "unit WS-1: quote: "),
    ],
)
def test_what_the_tpm_signed_at_the_station_is_kept_and_checked_again(
    plant: Plant, step: str, key: str, why: str
) -> None:
    """The golden quote, the certified key and the counter: by the AK that the registrar has."""
    station = plant.station
    books = Careless(registrar=plant.registrar, authority=plant.authority, factory=FACTORY)
    books.wrong = step, key, to_text(bytes(32))
    replace(station, books=books).enrol(order_of("WS-1"))
    with pytest.raises(TrustError, match=why):
        held(plant)


def test_a_good_golden_quote_verifies_by_the_registrar_alone(plant: Plant) -> None:
    enrolled = plant.enrol("WS-1")
    assert held(plant).quotes == 1
    unit, birth = plant.registrar.unit("WS-1"), enrolled.record.birth
    verify_evidence(unit, birth)
    with pytest.raises(TrustError, match="quote: the PCRs had other values"):
        verify_evidence(unit, replace(birth, golden=dict.fromkeys(birth.golden, bytes(32)) | {0: b"x" * 32}))
    with pytest.raises(TrustError, match="floor: got 0x01805753 at 3, want 0x01805753 at 4"):
        verify_evidence(unit, replace(birth, nv_value=4))
    with pytest.raises(TrustError, match="floor: got no 'floor'"):
        verify_evidence(replace(unit, steps={"activate": unit.steps["activate"], "quote": unit.steps["quote"]}), birth)


class Unreadable(Books):
    """Books whose database cannot be used."""

    def recorded(self, serial: str) -> NoReturn:
        """Raise ConfigError."""
        raise ConfigError(f"database: no room for {serial}, want more")


def test_a_failure_in_the_books_sends_nobody_to_the_cable(plant: Plant) -> None:
    books = Unreadable(registrar=plant.registrar, authority=plant.authority, factory=FACTORY)
    found = outcome_of(replace(plant.station, books=books))
    assert (found.step, found.why) == ("registrar", "database: no room for WS-1, want more")
    assert "registrar" in found.mend
    assert "cable" not in found.mend


def test_a_units_time_is_its_steps_without_the_wait_for_it(plant: Plant) -> None:
    def slow(address: str) -> Transport:
        time.sleep(1.5)
        return plant.connect(address)

    found = outcome_of(replace(plant.station, connect=slow))
    assert found.steps["connect"] >= 1.5
    assert found.seconds == pytest.approx(sum(found.steps.values()) - found.steps["connect"])
    plant.images["WS-2"] = b"wrong"
    failed = outcome_of(plant.station, "WS-2")
    assert failed.seconds == pytest.approx(sum(failed.steps.values()) - failed.steps["connect"])
    assert list(failed.steps)[-1] == failed.step == "image"


def test_what_a_lenient_station_took_is_said_where_people_and_scripts_look(
    plant: Plant, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = plant.boards / "WS-1" / "t"
    public = new_tpm(folder, None)
    with running_tpm(folder) as tcti:
        store_certificate(tcti, MAKER.certify(public, has_purpose=False), folder=folder)
    for line in ("1/1 WS-1: enrolled in ", "1/1 WS-1: was enrolled before; "):
        assert _enrol(plant.station, iter([order_of("WS-1")]), count=1, jobs=1, as_json=False) == 0
        said = capsys.readouterr().err
        assert line in said
        assert "; EK certificate: it has no extended key usage" in said
    assert _enrol(plant.station, iter([order_of("WS-1")]), count=1, jobs=1, as_json=True) == 0
    (unit,) = json.loads(capsys.readouterr().out)["units"]
    birth = plant.registrar.unit("WS-1").birth or b""
    assert unit["ek_remarks"] == ["EK certificate: it has no extended key usage"]
    assert unit["birth_sha256"] == hashlib.sha256(birth).hexdigest()
    assert unit["ak_fingerprint"] == read_birth(birth, verifier=FACTORY.verifier).ak_certificate_sha256
    assert unit["label"] == str(plant.folder / "labels" / "WS-1.svg")


@pytest.mark.parametrize("as_json", [True, False])
def test_an_error_that_ends_a_batch_does_not_swallow_what_was_done(
    plant: Plant, capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    class Broken(Books):
        def begin(self, order: Order) -> None:
            if order.serial == "WS-2":
                raise LogError("the log cannot be trusted")
            super().begin(order)

    books = Broken(registrar=plant.registrar, authority=plant.authority, factory=FACTORY)
    orders = iter([order_of("WS-1"), order_of("WS-2"), order_of("WS-3")])
    with pytest.raises(LogError):
        _enrol(replace(plant.station, books=books), orders, count=3, jobs=1, as_json=as_json)
    said = capsys.readouterr().out
    if as_json:
        found = json.loads(said)
        assert (found["interrupted"], [one["serial"] for one in found["units"]]) == (True, ["WS-1"])
    else:
        assert said.startswith("interrupted: 1 of 3 units are enrolled")
        assert "run the same command again" in said


def test_a_revoked_unit_is_not_enrolled_again(plant: Plant) -> None:
    plant.enrol("WS-1")
    plant.registrar.revoke("WS-1", "keyCompromise")
    with pytest.raises(StepError, match="revoked"):
        plant.enrol("WS-1")


def test_a_unit_that_fails_stops_no_other(plant: Plant) -> None:
    plant.images["WS-2"] = b"wrong"
    orders = [order_of(f"WS-{number}") for number in (1, 2, 3)]
    seen: list[Outcome] = []
    found = run_batch(plant.station, orders, jobs=2, told=lambda _, __: None, done=seen.append)
    assert seen == found
    assert {one.serial: one.is_ok for one in found} == {"WS-1": True, "WS-2": False, "WS-3": True}
    plant.images.clear()
    again = run_batch(plant.station, orders, jobs=1, told=lambda _, __: None, done=seen.append)
    ways = {one.serial: one.way for one in again}
    assert ways == {"WS-1": Way.ALREADY, "WS-2": Way.ENROLLED, "WS-3": Way.ALREADY}
    said = summary(again, total_s=1.0)
    assert (said["ok"], said["failed"], said["units"][0]["way"]) == (3, 0, "already")
    assert said["per_unit_s"]["median"] == round(again[1].seconds, 4)


def test_a_bug_ends_the_batch_and_is_seen(plant: Plant) -> None:
    def breaks(_: str) -> Transport:
        raise ZeroDivisionError

    station = replace(plant.station, connect=breaks)
    with pytest.raises(ZeroDivisionError):
        run_batch(station, [order_of("WS-1")], jobs=2, told=lambda _, __: None, done=lambda _: None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("serial\nWS-1\n", "want serial, address"),
        ("serial,address,colour\nWS-1,local,red\n", "want serial, address"),
        ("serial,address\nWS-1,local,x\n", "line 2: got another number of columns"),
        ("serial,address\nWS 1,local\n", "line 2: serial: got 'WS 1'"),
        ("serial,address\nWS-1,\n", "line 2: address: got nothing"),
        ("serial,address,model\nWS-1,a,\x1b[2J\n", "line 2: model"),
        ("serial,address,model\nWS-1,a," + "x" * 65 + "\n", "line 2: model"),
        ("serial,address,order\nWS-1,a,Bestellung \u00fc\n", "line 2: order: want 1 to 200 printable"),
        ("serial,address\n../x,a\n", "line 2: serial: got '../x'"),
        ("serial,address\nWS-1,a\nws-1,b\n", "serial: got ws-1 twice"),
        ("serial,address\nWS-1,a\nWS-2,a\n", "address: got a twice"),
        ("serial,address,image_sha256\nWS-1,a,12\n", "64 hexadecimal digits"),
        ("\x00", "want a CSV file|want serial"),
    ],
)
def test_a_list_of_units_that_is_wrong_is_refused_with_its_line(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "units.csv").write_text(text)
    with pytest.raises(ConfigError, match=why):
        read_units(tmp_path / "units.csv", default=order_of("", address=""))


def test_a_list_of_units_may_say_model_order_and_image(tmp_path: Path) -> None:
    (tmp_path / "units.csv").write_text("\ufeffserial,address,model,order\nWS-1,local,WS-200,\n")
    (order,) = read_units(tmp_path / "units.csv", default=order_of("", address=""))
    assert (order.model, order.order, order.image_sha256) == ("WS-200", "WO-17", IMAGE_SHA256)


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('name = "line-1"', 'name = "Line 1"', "station.toml: station.name"),
        ('model = "WS-100"', "", "station.model: got nothing"),
        ("timeout_s = 20", "timeout_s = 0", "unit.timeout_s"),
        ("[ek]", '[ek]\npolicy = "lax"', "one of lenient, strict"),
        ("[ek]", "[quote]\npcrs = [7, 1]\n[ek]", "want each index once, in order"),
        ("[ek]", "[floor]\nindex = 1\n[ek]", "floor.index"),
        ("[ek]", "[eek]", "unknown section"),
    ],
)
def test_a_mistake_in_station_toml_says_where_got_and_want(old: str, new: str, why: str) -> None:
    text = STATION.format(image=IMAGE_SHA256, command='"x"', unit="", timeout_s=20)
    assert parse_station(text, name="station.toml", folder=Path("/f")).ca.folder == Path("/f/ca/devices")
    with pytest.raises(ConfigError, match=why):
        parse_station(text.replace(old, new, 1), name="station.toml", folder=Path("/f"))


@pytest.mark.parametrize("address", ["", "http://x", "ssh://-oProxyCommand=x", "ssh://h:99999", "serial:", "tcp://h:1"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match="address"):
        connect(address, command=["true"], ssh=[])


# ---- through the command line


def test_a_unit_is_enrolled_by_the_command_and_then_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with running_tpm(board_tpm(tmp_path / "t")) as tcti:
        command = unit_command(tmp_path / "unit", tcti, "WS-1")
        config = make_site(tmp_path, command)
        assert run(["station", "--config", str(config), "WS-1", "--json"]) == 0
        said = json.loads(capsys.readouterr().out)
        assert (said["ok"], said["failed"], [one["serial"] for one in said["units"]]) == (1, 0, ["WS-1"])
        assert said["per_unit_s"]["median"] == said["units"][0]["seconds"] > 0
        assert run(["station", "--config", str(config), "WS-1"]) == 0
        assert "WS-1: was enrolled before" in capsys.readouterr().err
        assert run(["registrar", "verify", "--registrar", str(tmp_path / "registrar"), "--json"]) == 0
        assert json.loads(capsys.readouterr().out)["golden_quotes"] == 1
        assert run(["station", "--config", str(config), "WS-2"]) == 1
        said_text = capsys.readouterr().out
        assert "WS-2: FAILED at hello: " in said_text
        assert "run the same command again" in said_text
        done = subprocess.run(command, input=b"", capture_output=True, timeout=60, check=False)
        assert done.returncode == 0
    assert run(["label", "--config", str(config), "WS-1", "--format", "pdf"]) == 0
    assert Path(capsys.readouterr().out.strip()).read_bytes().startswith(b"%PDF")
    assert run(["label", "--config", str(config), "WS-7"]) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["station"],
        ["station", "WS-1"],
        ["station", "--simulate", "1", "WS-1"],
        ["station", "--simulate", "0"],
        ["station", "--simulate", "1", "--config", "station.toml"],
        ["station", "--simulate", "1", "--seed", "../x"],
        ["station", "--config", "/nothing/station.toml", "WS-1"],
        ["label", "WS-1"],
    ],
)
def test_arguments_that_make_no_sense_exit_with_2(arguments: list[str]) -> None:
    assert run(arguments) == 2


@pytest.fixture
def short() -> Iterator[Path]:
    """Give a folder whose name leaves room for a socket's."""
    with tempfile.TemporaryDirectory(prefix="wt-", dir="/tmp") as folder:
        yield Path(folder)


def test_a_simulation_prints_times_and_leaves_nothing_behind(short: Path) -> None:
    command = [str(BIN / "provision"), "station", "--simulate", "2", "--jobs", "2", "--seed", "t1", "--json"]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, check=False, env={"TMPDIR": str(short), "PATH": PATH}
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert sorted(one["serial"] for one in said["units"]) == [f"SIM-t1-{number:05d}" for number in (1, 2)]
    assert all(one["ok"] and list(one["steps"]) == list(STEPS) for one in said["units"])
    assert said["per_unit_s"]["median"] <= said["per_unit_s"]["p95"] <= said["total_s"]
    assert list(short.iterdir()) == []
    assert not _tpms(short)


PATH = f"{BIN}:/usr/bin:/bin:/usr/sbin"


def _tpms(folder: Path) -> list[str]:
    """Return the TPMs that still run on a folder."""
    found = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in found.splitlines() if "swtpm" in line and str(folder) in line]


@pytest.mark.slow
def test_a_station_that_is_killed_at_any_moment_goes_on(tmp_path: Path) -> None:
    """By SIGKILL, at ever later moments of one unit's enrolment, until it is through."""
    with running_tpm(board_tpm(tmp_path / "t")) as tcti:
        config = make_site(tmp_path, unit_command(tmp_path / "unit", tcti, "WS-1"))
        command = [str(BIN / "provision"), "station", "--config", str(config), "WS-1"]
        wait_s, kills = 0.8, 0
        while True:
            process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                assert process.wait(wait_s) == 0
                break
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                kills += 1
                wait_s += 0.45
                assert kills < 40
    assert kills >= 2
    registrar = Place.read(tmp_path / "registrar").open()
    unit = registrar.unit("WS-1")
    with registrar.session() as log:
        assert sum(b"birth/WS-1" in leaf for _, leaf in log.leaves(0)) == 1
    registrar.close()
    assert unit.birth is not None
    kept = (tmp_path / "unit" / "identity" / "enrolled").read_text().strip()
    assert kept == hashlib.sha256(unit.birth).hexdigest()


@pytest.mark.slow
def test_a_station_that_is_told_to_end_finishes_its_units_and_cleans_up(short: Path) -> None:
    command = [str(BIN / "provision"), "station", "--simulate", "50", "--jobs", "2"]
    env = {"TMPDIR": str(short), "PATH": PATH}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env)
    assert process.stderr is not None
    assert "enrolled in" in process.stderr.readline()
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert list(short.iterdir()) == []
    assert not _tpms(short)


def test_a_station_that_is_interrupted_says_what_it_did(short: Path) -> None:
    """By Ctrl-C, which a terminal sends to all that runs there: the units under way end all the same."""
    command = [str(BIN / "provision"), "station", "--simulate", "50", "--jobs", "2", "--json"]
    env = {"TMPDIR": str(short), "PATH": PATH}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env, start_new_session=True)
    end_s = time.monotonic() + 60
    while not list(short.glob("ws-*/labels/*.svg")) and time.monotonic() < end_s:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    said = json.loads(process.communicate(timeout=60)[0])
    assert process.returncode == 130
    assert said["interrupted"] is True
    assert said["ok"] == len(said["units"]) >= 1
    assert said["failed"] == 0
    assert list(short.iterdir()) == []


@pytest.mark.slow
def test_a_simulated_killed_station_takes_its_tpms_along(short: Path) -> None:
    command = [str(BIN / "provision"), "station", "--simulate", "50", "--jobs", "2", "--json"]
    env = {"TMPDIR": str(short), "PATH": PATH}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    end_s = time.monotonic() + 30
    while not _tpms(short) and time.monotonic() < end_s:
        time.sleep(0.05)
    assert _tpms(short)
    process.kill()
    process.wait()
    while _tpms(short) and time.monotonic() < end_s:
        time.sleep(0.05)
    assert not _tpms(short)


@pytest.mark.soak
@pytest.mark.timeout(7200)
def test_a_thousand_units_are_enrolled_unattended(short: Path) -> None:
    """In bounded memory: no more than 250 MB, and no more processes than jobs."""
    script = (
        "import resource, sys; from provisioning.cli import run; code = run(sys.argv[1:]);"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    command = [str(BIN / "python"), "-c", script, "station", "--simulate", "1000", "--json"]
    env = {"TMPDIR": str(short), "PATH": PATH}
    done = subprocess.run(command, capture_output=True, text=True, timeout=7000, check=False, env=env)
    assert done.returncode == 0, done.stdout[-2000:]
    said = json.loads(done.stdout)
    assert said["ok"] == 1000
    assert int(done.stderr.splitlines()[-1]) < 250_000
    print({"total_s": said["total_s"], **said["per_unit_s"]})  # noqa: T201 - a soak's figures


# ---- the docs

PAGE = Path(__file__).parent.parent / "docs" / "provisioning.md"


def test_the_page_shows_a_station_toml_that_parses_and_names_every_key() -> None:
    text = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)[0]
    settings = parse_station(text, name="station.toml", folder=Path("/f"))
    for section in msgspec.structs.fields(Settings):
        assert f"[{section.name}]" in text
        for key in msgspec.structs.fields(section.type):
            assert re.search(rf"^{key.name} = ", text, re.MULTILINE), f"{section.name}.{key.name}"
    assert settings.quote.pcrs == (*range(10), 11, 14)


def test_the_page_names_every_step_and_every_operation() -> None:
    text = PAGE.read_text("utf-8")
    assert not [name for name in (*STEPS, *OPERATIONS, *ANCHORS, *GIVEN) if f"`{name}`" not in text]


@pytest.mark.slow
def test_an_operator_gets_through_the_page(tmp_path: Path, short: Path) -> None:
    """Run the commands of its first part as they stand there; the unit is on this machine."""
    text = PAGE.read_text("utf-8").partition("## Set a station up")[0]
    (block,) = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    with running_tpm(board_tpm(short / "t")) as tcti:
        make_site(tmp_path, unit_command(tmp_path / "unit", tcti, "WS-0001"))
        (tmp_path / "units.csv").write_text("serial,address\nWS-0001,local\n")
        for line in block.splitlines():
            command = (
                line.partition("  #")[0].replace("ssh://root@192.0.2.7", "local").replace("simulate 3", "simulate 1")
            )
            done = subprocess.run(
                ["sh", "-c", command],
                cwd=tmp_path,
                env={"PATH": PATH, "TMPDIR": str(short)},
                capture_output=True,
                text=True,
                timeout=100,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    assert (tmp_path / "labels" / "WS-0001.pdf").exists()
