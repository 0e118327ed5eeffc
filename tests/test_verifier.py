"""provisioning/verifier: what is asked, what an answer comes to, and what survives a restart."""

import datetime as dt
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.errors import ConfigError
from gateway.model.standing import State
from hil.plant.soft_tpm import CA_END, SoftAuthority
from provisioning.cli import run
from provisioning.verifier.config import load_verifier, parse_verifier
from provisioning.verifier.store import Store
from provisioning.verifier.trust import TrustFiles
from tests.verifying import T0_S, VERIFIER_TOML, Fleet, logger, reference_text


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path)
    yield made
    made.close()


# ---- a round


def test_a_good_answer_becomes_an_affirming_result_for_the_ledger(fleet: Fleet) -> None:
    told = fleet.round()
    assert set(told) == {"gw1", "gw2"}
    result, machine = told["gw1"], fleet.machines["gw1"]
    assert (result.status, result.reason) == ("affirming", "release r1")
    assert (result.device, result.epoch, result.key) == ("WS-0000", 1, machine.key)
    assert (result.log_size, result.issued_s, result.verified_s) == (10, T0_S + 301, T0_S + 301)
    assert result.expires_s == result.issued_s + 900
    assert result.policy.startswith("reference.toml sha256:")
    assert fleet.state("gw1") == (State.TRUSTED, "release r1")
    assert fleet.events("verifier.found") == 2


def test_results_are_repeated_at_each_good_round_and_said_once(fleet: Fleet) -> None:
    """So that the ledger's clock is fed; the log tells transitions alone."""
    first, second = fleet.round()["gw1"], fleet.round()["gw1"]
    assert (second.status, second.nonce != first.nonce) == ("affirming", True)
    assert second.verified_s == (first.verified_s or 0) + 301
    assert fleet.events("verifier.found") == 2


def test_a_changed_pcr_fails_and_a_good_quote_recovers_without_a_person(fleet: Fleet) -> None:
    fleet.round()
    machine = fleet.machines["gw1"]
    good = dict(machine.device.pcrs)
    machine.device.extend(4, bytes(32))
    bad = fleet.round()["gw1"]
    assert bad.status == "contraindicated"
    assert "PCR 4" in bad.reason
    assert bad.verified_s == T0_S + 301, "when it was last good is kept"
    assert fleet.state("gw1")[0] is State.FAILED
    assert fleet.state("gw2")[0] is State.TRUSTED
    machine.device.pcrs = good
    machine.start()
    assert fleet.round()["gw1"].status == "affirming"
    assert fleet.state("gw1") == (State.TRUSTED, "release r1")


def test_silence_is_unreachable_and_not_failed(fleet: Fleet) -> None:
    fleet.round()
    fleet.pass_s(301)
    asked = fleet.ask()
    fleet.desk.take("gw2", fleet.machines["gw2"].answer(asked["gw2"]))
    assert set(fleet.told()) == {"gw2"}
    fleet.pass_s(30)
    told = fleet.told()
    assert set(told) == {"gw1"}
    assert (told["gw1"].status, told["gw1"].reason) == ("none", "no answer within 30 s")
    assert told["gw1"].verified_s == T0_S + 301
    assert fleet.state("gw1")[0] is State.UNREACHABLE
    assert fleet.desk.counts.missed == 1
    assert fleet.round()["gw1"].status == "affirming"


def test_a_gateway_that_connects_is_asked_at_once(fleet: Fleet) -> None:
    """Its empty message says that it is there; a flood of them costs one question in some seconds."""
    fleet.round()
    fleet.pass_s(20)
    for _ in range(100):
        fleet.desk.take("gw1", b"")
    assert set(fleet.ask()) == {"gw1"}
    assert fleet.ask() == {}
    assert fleet.desk.counts.hellos == 100


def test_a_challenge_that_a_gateway_was_not_there_for_is_sent_once_more(fleet: Fleet) -> None:
    """The broker keeps nothing: who connects while a round is open hears the same question, with the same deadline."""
    fleet.pass_s(301)
    asked = fleet.ask()["gw1"]
    fleet.pass_s(10)
    for _ in range(10):
        fleet.desk.take("gw1", b"")
    assert fleet.ask() == {"gw1": asked}
    fleet.desk.take("gw1", b"")
    assert fleet.ask() == {}
    fleet.desk.take("gw1", fleet.machines["gw1"].answer(asked))
    assert fleet.told()["gw1"].status == "affirming"


def test_a_device_that_starts_again_goes_forward(fleet: Fleet) -> None:
    fleet.round()
    fleet.machines["gw1"].start()
    told = fleet.round()["gw1"]
    assert (told.status, told.epoch) == ("affirming", 2)


def test_a_lost_broker_makes_nobody_unreachable(fleet: Fleet) -> None:
    fleet.round()
    fleet.pass_s(301)
    assert len(fleet.ask()) == 2
    fleet.desk.disconnected()
    fleet.pass_s(60)
    assert fleet.told() == {}
    assert len(fleet.ask()) == 2
    assert fleet.state("gw1")[0] is State.TRUSTED


def test_a_list_of_the_revoked_that_ran_out_makes_nobody_fail(fleet: Fleet) -> None:
    """It is the operator's to renew: results stop, which the ledger sees; it is said once, and ends with a new list."""
    fleet.round()
    fleet.pass_s(301)
    asked = fleet.ask()
    fleet.wall_s = CA_END.timestamp() + 1
    fleet.desk.take("gw1", fleet.machines["gw1"].answer(asked["gw1"]))
    fleet.pass_s(301)
    assert (fleet.ask(), fleet.told()) == ({}, {})
    assert (fleet.desk.counts.blind, fleet.events("verifier.blind")) == (1, 1)
    assert fleet.state("gw1")[0] is State.TRUSTED
    fleet.wall_s = T0_S + 700.0
    assert set(fleet.ask()) == {"gw1", "gw2"}
    assert fleet.desk.counts.blind == 0


def lists_of(fleet: Fleet, *crls: x509.CertificateRevocationList) -> None:
    """Let the verifier read these lists of the revoked."""
    (fleet.folder / "device-crl.pem").write_bytes(b"".join(crl.public_bytes(Encoding.PEM) for crl in crls))
    fleet.desk.refresh()


def at(seconds: float) -> dt.datetime:
    """Return the time so long after T0_S."""
    return dt.datetime.fromtimestamp(T0_S + seconds, dt.UTC)


def test_an_old_list_beside_the_new_one_blinds_nobody(fleet: Fleet) -> None:
    """Of several lists by one issuer the newest counts, in either order, also when that is the one that ran out."""
    old = fleet.authority.crl({}, made=at(-1000), until=at(-500))
    new = fleet.authority.crl({}, made=at(-600), until=at(2000))
    for crls in ((old, new), (new, old)):
        lists_of(fleet, *crls)
        assert {result.status for result in fleet.round().values()} == {"affirming"}
        assert fleet.desk.counts.blind == 0
    lists_of(fleet, fleet.authority.crl({}, made=at(-700), until=at(5000)), fleet.authority.crl({}, until=at(9000)))
    assert set(fleet.round()) == {"gw1", "gw2"}
    lists_of(fleet, fleet.authority.crl({}, made=at(-500), until=at(800)), fleet.authority.crl({}, until=at(9000)))
    fleet.pass_s(301)
    assert fleet.ask() == {}
    assert fleet.desk.counts.blind == 1


def test_an_old_root_and_its_list_beside_the_new_one_blind_nobody(fleet: Fleet) -> None:
    """Only when no root is left is nobody asked."""
    before = SoftAuthority(name="old CA", end=at(-100))
    pem = [one.root.public_bytes(Encoding.PEM) for one in (before, fleet.authority)]
    (fleet.folder / "device-ca.pem").write_bytes(b"".join(pem))
    lists_of(fleet, before.crl({}, until=at(-200), by_root=True), fleet.authority.crl({}))
    assert {result.status for result in fleet.round().values()} == {"affirming"}
    fleet.wall_s = CA_END.timestamp() + 1
    fleet.steady_s += 301
    assert fleet.ask() == {}
    said = [call.kwargs["why"] for call in fleet.said.calls if call.kwargs.get("event") == "verifier.blind"]
    assert len(said) == 1
    assert said[0].startswith("the last root ran out at ")


# ---- a clock that was wrong


def test_a_clock_that_was_far_ahead_once_spoils_nothing_once_it_is_put_right(fleet: Fleet) -> None:
    """Its ledger refused what was of a time to come; what comes now is of now, for good and for bad."""
    fleet.round()
    fleet.wall_s += 10 * 365 * 86_400
    fleet.round()
    fleet.wall_s -= 10 * 365 * 86_400
    now_s = int(fleet.wall_s)
    assert fleet.desk.records["gw1"].shown(now_s, result_s=900) is State.STALE
    for _ in range(3):
        fleet.desk.look()
    assert fleet.events("verifier.clock_put_back") == 1
    fleet.machines["gw2"].device.extend(4, bytes(32))
    told = fleet.round()
    assert [told[name].issued_s for name in ("gw1", "gw2")] == [int(fleet.wall_s)] * 2
    assert told["gw1"].verified_s == told["gw2"].verified_s == int(fleet.wall_s), "no later than this"
    assert fleet.desk.records["gw1"].shown(int(fleet.wall_s), result_s=900) is State.TRUSTED
    fleet.desk.look()
    fleet.restart()
    assert fleet.events("verifier.clock_put_back") == 0
    assert fleet.round()["gw1"].issued_s == int(fleet.wall_s)


def test_a_clock_that_steps_back_a_little_makes_no_result_older_than_the_one_before(fleet: Fleet) -> None:
    """Its ledger has taken that one, and would take the next for a replay."""
    first = fleet.round()["gw1"]
    fleet.wall_s -= 301 + 50
    assert fleet.round()["gw1"].issued_s == first.issued_s + 1


# ---- what is remembered


def test_a_restart_forgets_no_verdict_and_needs_no_reactivation(fleet: Fleet) -> None:
    fleet.round()
    fleet.machines["gw2"].device.extend(0, bytes(32))
    fleet.round()
    before = fleet.desk.records
    fleet.restart()
    assert fleet.desk.records == before
    assert fleet.state("gw2")[0] is State.FAILED
    fleet.desk.look()
    assert (fleet.desk.counts.trusted, fleet.desk.counts.failed) == (1, 1)
    fleet.pass_s(2)
    assert set(fleet.ask()) == {"gw1", "gw2"}, "all are asked soon"


def test_what_was_told_was_written_first(fleet: Fleet) -> None:
    """A verifier that is killed after settle knows what it has said, though nobody closed its database."""
    fleet.round()
    other = Store(fleet.folder / "verifier" / "verifier.db", new=False)
    assert other.read() == fleet.desk.records
    other.close()


def test_a_store_of_another_kind_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_bytes(b"not a database, but long enough to be one" * 10)
    with pytest.raises(ConfigError, match=r"x\.db"):
        Store(tmp_path / "x.db")
    with pytest.raises(ConfigError, match="got no database"):
        Store(tmp_path / "none.db", new=False)


# ---- files that change


def test_a_new_reference_is_in_force_at_once(fleet: Fleet) -> None:
    fleet.round()
    device = fleet.machines["gw1"].device
    device.extend(4, bytes(32))
    assert fleet.round()["gw1"].status == "contraindicated"
    both = reference_text(fleet.machines["gw2"].device.pcrs) + reference_text(device.pcrs, name="r2")
    (fleet.folder / "reference.toml").write_text(both)
    fleet.desk.refresh()
    told = fleet.round()
    assert (told["gw1"].reason, told["gw2"].reason) == ("release r2", "release r1")


@pytest.mark.parametrize("name", ["reference.toml", "device-crl.pem", "device-ca.pem", "verifier.toml"])
def test_a_bad_new_file_keeps_the_old_one_and_is_said(fleet: Fleet, name: str) -> None:
    fleet.round()
    path = fleet.folder / name
    good = path.read_bytes()
    path.write_bytes(b"[[release]\n-----BEGIN X509 CRL-----")
    fleet.desk.refresh()
    fleet.desk.refresh()
    assert (fleet.desk.counts.bad_files, fleet.events("verifier.file_refused")) == (1, 1)
    assert fleet.round()["gw1"].status == "affirming"
    path.write_bytes(good + b"\n")
    fleet.desk.refresh()
    assert fleet.desk.counts.bad_files == 0


def test_a_file_that_goes_away_keeps_the_old_one(fleet: Fleet) -> None:
    (fleet.folder / "device-crl.pem").unlink()
    fleet.desk.refresh()
    assert fleet.desk.counts.bad_files == 1
    assert fleet.round()["gw1"].status == "affirming"


def test_a_gateway_comes_and_goes_with_the_file(fleet: Fleet) -> None:
    """A gateway that was taken out is forgotten, marks and all; added again, it begins anew."""
    fleet.round()
    fleet.write_config(("gw2",))
    fleet.desk.refresh()
    assert set(fleet.desk.records) == {"gw2"}
    assert fleet.events("verifier.forgotten") == 1
    assert set(fleet.round()) == {"gw2"}
    fleet.write_config()
    fleet.desk.refresh()
    assert fleet.state("gw1")[0] is State.PENDING
    fleet.machines["gw1"].device.reset_count = 0
    assert fleet.round()["gw1"].status == "affirming"


def test_another_device_in_a_gateways_place_begins_anew(fleet: Fleet) -> None:
    fleet.round()
    one, two = fleet.machines["gw1"].device, fleet.machines["gw2"].device
    one.serial, two.serial = two.serial, one.serial
    fleet.write_config()
    fleet.desk.refresh()
    assert [fleet.state(name)[0] for name in ("gw1", "gw2")] == [State.PENDING, State.PENDING]


def test_another_section_wants_a_restart(fleet: Fleet) -> None:
    fleet.more = "period_s = 100"
    fleet.write_config()
    fleet.desk.refresh()
    assert fleet.events("verifier.restart_wanted") == 1


# ---- verifier.toml


GOOD = VERIFIER_TOML.format(more="", port=8883) + '[gateways.gw1]\ndevice = "WS-1"\n'


def test_paths_are_beside_the_file_and_defaults_hold() -> None:
    config = parse_verifier(GOOD, name="verifier.toml", folder=Path("/site"))
    assert (config.issuer, config.verifier.key) == ("wattseal-verifier/desk", Path("/site/desk.sign.key"))
    assert (config.verifier.period_s, config.verifier.deadline_s, config.verifier.result_s) == (300, 30, 900)
    assert config.database == Path("/site/verifier/verifier.db")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('ledger = "wattseal-ledger/ledger"', 'ledger = "ledger"', "verifier.ledger: got 'ledger', want "),
        ("[broker]", "result_s = 901\n[broker]", "verifier.result_s: got 901, want 1..900"),
        ("[broker]", "period_s = 20\n[broker]", "verifier.period_s: got 20, want more than deadline_s, 30"),
        ("[broker]", "result_s = 200\n[broker]", "verifier.result_s: got 200, want more than period_s, 300"),
        ('"WS-1"', '"a b"', "gateways.gw1.device: got 'a b', want a serial number"),
        ("[gateways.gw1]", '[gateways.gw2]\ndevice = "WS-1"\n[gateways.gw1]', "got 'WS-1', which is gw2's"),
        ("[gateways.gw1]", "[gateways.Gw1]", "got the name 'Gw1'"),
        ("[gateways.gw1]", "[gateways.gw_1]", "gateways: got 'gw_1', want"),
        ("name", "nam", "verifier.nam: got an unknown key"),
    ],
)
def test_a_mistake_in_the_file_is_said(old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_verifier(GOOD.replace(old, new, 1), name="verifier.toml", folder=Path())
    assert str(caught.value).startswith("verifier.toml: ")
    assert message in str(caught.value)


def test_a_bad_file_at_the_start_is_said_by_its_name(fleet: Fleet) -> None:
    (fleet.folder / "reference.toml").write_text("x = 1")
    with pytest.raises(ConfigError, match=r"^reference\.toml: "):
        TrustFiles(fleet.folder / "verifier.toml", logger()[0])
    (fleet.folder / "device-ca.pem").unlink()
    with pytest.raises(ConfigError, match=r"device-ca\.pem: No such file"):
        TrustFiles(fleet.folder / "verifier.toml", logger()[0])
    with pytest.raises(ConfigError, match="want a readable file"):
        load_verifier(fleet.folder / "nowhere.toml")


# ---- the command


def test_the_status_shows_states_and_when_each_was_last_good(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.wall_s = time.time() - 301  # the command has a clock of its own
    fleet.machines["gw2"].device.extend(1, bytes(32))
    fleet.round()
    file = str(fleet.folder / "verifier.toml")
    assert run(["verifier", "status", file, "--json"]) == 1
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["gateway"], row["state"]) for row in rows] == [("gw1", "TRUSTED"), ("gw2", "FAILED")]
    seen = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(fleet.desk.records["gw1"].verified_s))
    assert rows[0]["last_verified"] == seen
    assert (rows[0]["epoch"], rows[0]["reset_count"], rows[0]["device"]) == (1, 1, "WS-0000")
    assert rows[1]["last_verified"] is None
    assert "PCR 1" in rows[1]["reason"]
    assert run(["verifier", "status", file]) == 1
    out = capsys.readouterr().out
    assert out.splitlines()[0].split() == [
        "gateway",
        "device",
        "state",
        "since",
        "last",
        "verified",
        "epoch",
        "resets",
        "reason",
    ]
    assert "never" in out


def test_the_status_of_a_verifier_that_never_ran_is_an_error(fleet: Fleet, capsys: pytest.CaptureFixture[str]) -> None:
    fleet.close()
    (fleet.folder / "verifier" / "verifier.db").unlink()
    assert run(["verifier", "status", str(fleet.folder / "verifier.toml")]) == 2
    assert "got no database" in capsys.readouterr().err


def test_a_file_alone_runs_the_verifier(capsys: pytest.CaptureFixture[str]) -> None:
    """`provision verifier verifier.toml`, as `provision verifier run verifier.toml`."""
    assert run(["verifier", "nowhere.toml"]) == 2
    assert "nowhere.toml: No such file" in capsys.readouterr().err
    assert run(["verifier", "tomorrow"]) == 2
    assert "No such command" in capsys.readouterr().err
