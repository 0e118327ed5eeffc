"""enrolment/enrolee.py and cli/enrol.py: a unit does what is on a short list, and keeps its secrets."""

import json
import os
import secrets
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.app.enrolment.enrolee import Enrolee
from gateway.app.enrolment.identity import ANCHORS, GIVEN, Identity
from gateway.app.enrolment.lines import hardware_serial, serve
from gateway.attest.birth import MAX_BIRTH, Birth, read_birth, sign_birth
from gateway.codec import enrol_lines as lines
from gateway.codec.enrol_lines import NONCE_BYTES, pack_line, read_line, to_text
from gateway.errors import ConfigError, TrustError
from gateway.tlog.note import Signer
from gateway.tpm import Tpm
from tests.stations import FACTORY, IMAGE, IMAGE_SHA256, VERIFIER

WATTSEAL = Path(sys.executable).parent / "wattseal"


class Unit:
    """An enrolee, and the questions to it."""

    def __init__(self, tcti: str, folder: Path, *, serial: str = "WS-1") -> None:
        self.tpm = Tpm.open(tcti)
        self.identity = Identity(folder / "identity")
        image = folder / "image"
        image.write_bytes(IMAGE)
        with self.identity.taken():
            pass
        about = {"version": "1"}
        self.enrolee = Enrolee(tpm=self.tpm, identity=self.identity, image=image, serial=serial, about=about)
        self.count = 0

    def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Return the whole reply."""
        self.count += 1
        reply = self.enrolee.answer(pack_line({"id": f"t-{self.count}", "op": op, "args": arguments}).strip())
        assert reply is not None
        said = read_line(reply.strip())
        assert said is not None
        return said

    def known(self, serial: str = "WS-1") -> Self:
        """Identify it first."""
        assert "ok" in self.ask("identify", serial=serial, order="WO-1")
        return self


@pytest.fixture
def unit(tcti: str, tmp_path: Path) -> Iterator[Unit]:
    made = Unit(tcti, tmp_path)
    yield made
    made.tpm.close()


def nonce() -> str:
    return to_text(secrets.token_bytes(NONCE_BYTES))


def test_a_unit_says_who_it_is_and_nothing_else_before_it_is_asked_for_by_name(unit: Unit) -> None:
    said = unit.ask("hello")["ok"]
    assert (said["serial"], said["enrolled"], said["protocol"]) == ("WS-1", False, 1)
    assert said["about"]["manufacturer"]
    for op, arguments in (("image", {}), ("ak", {}), ("certify", {"nonce": nonce()})):
        assert "identify first" in unit.ask(op, **arguments)["refused"]


def test_a_unit_refuses_the_serial_of_another(unit: Unit) -> None:
    assert "this unit is WS-1" in unit.ask("identify", serial="WS-2", order="WO-1")["refused"]


def test_a_board_without_a_serial_takes_one_and_holds_to_it(tcti: str, tmp_path: Path) -> None:
    unit = Unit(tcti, tmp_path, serial="").known("WS-7")
    assert unit.ask("hello")["ok"]["serial"] == "WS-7"
    assert "this unit is WS-7" in unit.ask("identify", serial="WS-8", order="WO-1")["refused"]
    unit.tpm.close()


def test_a_unit_hashes_its_image(unit: Unit) -> None:
    assert unit.known().ask("image")["ok"] == {"sha256": IMAGE_SHA256, "bytes": len(IMAGE)}


@pytest.mark.parametrize(
    ("op", "arguments", "why"),
    [
        ("shell", {}, "want one of"),
        ("image", {"path": "/etc/shadow"}, "want just nothing"),
        ("ek", {"kind": "rsa9"}, "want one of"),
        ("certify", {"nonce": "AAAA"}, "want 32 to 32"),
        ("certify", {"nonce": "*"}, "base64"),
        ("quote", {"serial": "WS-1", "nonce": to_text(bytes(32)), "pcrs": [24]}, "indices"),
        ("quote", {"serial": "WS-2", "nonce": to_text(bytes(32)), "pcrs": [0]}, "this unit is WS-1"),
        ("floor", {"index": 0x01805753, "value": 10**9, "nonce": to_text(bytes(32))}, "whole number"),
        ("floor", {"index": 0x01C00002, "value": 1, "nonce": to_text(bytes(32))}, ""),
        ("install", {"../../etc/passwd": to_text(b"x")}, "want just"),
        ("challenge", {"note": to_text(b"x")}, "no verifier key"),
    ],
)
def test_a_unit_refuses_what_is_not_on_its_list(unit: Unit, op: str, arguments: dict[str, Any], why: str) -> None:
    assert why in unit.known().ask(op, **arguments)["refused"]


def test_a_nonce_serves_once(unit: Unit) -> None:
    used = nonce()
    assert "ok" in unit.known().ask("quote", serial="WS-1", nonce=used, pcrs=[0])
    assert "used before" in unit.ask("quote", serial="WS-1", nonce=used, pcrs=[0])["refused"]


def test_a_unit_that_was_begun_many_times_takes_fresh_nonces_still(unit: Unit) -> None:
    """On a serial line one process hears every try of the station."""
    unit.known()
    for _ in range(70):
        assert "ok" in unit.ask("quote", serial="WS-1", nonce=nonce(), pcrs=[0])


def test_anchors_that_fit_no_line_are_refused_and_the_unit_goes_on(unit: Unit) -> None:
    unit.known()
    empty = dict.fromkeys(ANCHORS)
    replies = [unit.ask("install", **(empty | {name: to_text(bytes(16_000))})) for name in ANCHORS]
    assert ["ok" in one for one in replies] == [True, True, True, False]
    assert "too long" in replies[-1]["refused"]
    assert "ok" in unit.ask("ak")


def test_a_link_in_the_identity_folder_gives_nothing_away(unit: Unit, tmp_path: Path) -> None:
    """What is installed is read back to the station: it must be the unit's own file."""
    (tmp_path / "shadow").write_text("root:secret")
    unit.known().identity.path("ledger.vkey").symlink_to(tmp_path / "shadow")
    said = unit.ask("install", **dict.fromkeys(ANCHORS))
    assert "refused" in said
    assert to_text(b"root:secret") not in json.dumps(said)


def test_a_question_that_comes_twice_is_answered_as_before_and_not_done_again(unit: Unit) -> None:
    unit.known()
    line = pack_line({"id": "x-1", "op": "certify", "args": {"nonce": nonce()}}).strip()
    first = unit.enrolee.answer(line)
    assert first == unit.enrolee.answer(line)


def test_the_key_is_made_once_for_its_owner_alone_and_never_shown(unit: Unit) -> None:
    unit.known()
    publics = {unit.ask("certify", nonce=nonce())["ok"]["public"] for _ in range(2)}
    assert len(publics) == 1
    path = unit.identity.path("idevid.key")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    shown = json.dumps([unit.ask("hello"), unit.ask("request", model="WS-100"), unit.ask("ak")])
    assert path.read_text().splitlines()[1] not in shown


def test_what_is_installed_is_read_back_from_the_disk(unit: Unit) -> None:
    unit.known()
    empty = dict.fromkeys(("device-ca.pem", "verifier.vkey", "ledger.vkey", "factory.vkey"))
    said = unit.ask("install", **(empty | {"verifier.vkey": to_text(b"one")}))
    assert said["ok"]["verifier.vkey"] == to_text(b"one")
    assert stat.S_IMODE(unit.identity.path("verifier.vkey").stat().st_mode) == 0o644
    assert not list(unit.identity.path("").glob("*.new"))


def test_the_counter_is_raised_to_the_floor_and_never_lowered(unit: Unit) -> None:
    unit.known()
    for value in (3, 1, 3):
        assert "ok" in unit.ask("floor", index=0x01805753, value=value, nonce=nonce())
        assert unit.tpm.counter_read(0x01805753) == 3


def test_an_enrolled_unit_refuses_all_but_hello_until_a_factory_reset(unit: Unit) -> None:
    unit.known()
    files = {name: to_text(name.encode()) for name in GIVEN}
    assert "ok" in unit.ask("finish", **files)
    assert "ok" in unit.ask("finish", **files), "the same again, as after a reply that got lost"
    assert "factory reset" in unit.ask("finish", **(files | {"birth.note": to_text(b"other")}))["refused"]
    for op in ("image", "ak", "certify", "install"):
        arguments = {"nonce": nonce()} if op == "certify" else {}
        assert "refused" in unit.ask(op, **arguments)
    assert "factory reset" in unit.ask("ak")["refused"]
    assert unit.ask("hello")["ok"]["enrolled"] is True


def test_a_cut_before_the_marker_leaves_a_unit_that_can_be_enrolled(unit: Unit) -> None:
    unit.known()
    for name in GIVEN:
        unit.identity.write(name, b"half")
    assert unit.ask("hello")["ok"]["enrolled"] is False
    assert "ok" in unit.ask("finish", **{name: to_text(b"whole") for name in GIVEN})


def test_two_enrols_at_once_are_refused(unit: Unit) -> None:
    with unit.identity.taken(), pytest.raises(ConfigError, match="another"), unit.identity.taken():
        pass


@given(st.binary(max_size=300))
@settings(max_examples=200)
def test_no_line_is_more_than_noise_or_an_object_with_an_id(line: bytes) -> None:
    try:
        said = read_line(line)
    except TrustError:
        return
    assert said is None or isinstance(said["id"], str)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
_ARGUMENTS = st.dictionaries(
    st.sampled_from(["serial", "nonce", "kind", "pcrs", "index", "value", "note", "model", "id_object", "secret"]),
    _JSON | st.just(to_text(bytes(32))) | st.just("rsa2048") | st.just([0]),
    max_size=4,
)


@given(
    st.sampled_from(["hello", "identify", "activate", "quote", "floor", "install", "finish", "challenge", "x"]),
    _ARGUMENTS | _JSON,
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_asked_has_one_bounded_reply(unit: Unit, op: str, arguments: Any) -> None:
    unit.count += 1
    reply = unit.enrolee.answer(pack_line({"id": f"f-{unit.count}", "op": op, "args": arguments}).strip())
    assert reply is not None
    assert len(reply) <= lines.MAX_LINE


def test_noise_before_a_line_and_an_echo_of_a_reply_do_no_harm(unit: Unit) -> None:
    asked = pack_line({"id": "n-1", "op": "hello", "args": {}}).strip()
    reply = unit.enrolee.answer(b"\xff\x00login: " + asked)
    assert reply is not None
    assert unit.enrolee.answer(reply.strip()) is None
    assert unit.enrolee.answer(asked[:-1]) is None
    assert unit.enrolee.answer(asked.replace(b"hello", b"hallo")) is None


def test_a_line_without_an_end_is_dropped_in_bounded_memory() -> None:
    asked: list[bytes] = []
    source, sink = os.pipe()
    out, in_ = os.pipe()
    pid = os.fork()
    if not pid:
        for _ in range(64):
            os.write(sink, b"x" * 8192)
        os.write(sink, b"tail\nnext\n")
        os._exit(0)
    os.close(sink)

    def keep(line: bytes) -> None:
        asked.append(line)

    serve(keep, source, in_, is_done=lambda: False)
    os.waitpid(pid, 0)
    for handle in (source, out, in_):
        os.close(handle)
    assert asked == [b"next"]


@pytest.mark.parametrize("said", ["", "None", "To Be Filled By O.E.M.\n", "Default string"])
def test_a_board_that_was_never_given_a_serial_has_none(tmp_path: Path, said: str) -> None:
    (tmp_path / "serial").write_text(said)
    assert hardware_serial(tmp_path / "serial") == ""
    assert hardware_serial(tmp_path / "nothing") == ""


def test_the_command_answers_lines_and_ends_when_the_station_hangs_up(tcti: str, tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(IMAGE)
    (tmp_path / "serial").write_text("WS-9\n")
    paths = ["--identity", tmp_path / "id", "--image", tmp_path / "image", "--serial-file", tmp_path / "serial"]
    command = [str(part) for part in (WATTSEAL, "enrol", *paths, "--tcti", tcti)]
    asked = pack_line({"id": "a-1", "op": "hello", "args": {}}) + b"noise\n"
    done = subprocess.run(command, input=asked, capture_output=True, timeout=60, check=False)
    said = read_line(done.stdout.strip())
    assert said is not None
    assert said["ok"]["serial"] == "WS-9"
    assert done.returncode == 2
    assert b"hung up" in done.stderr
    assert done.stderr.count(b"\n") == 1


def birth(**changes: Any) -> Birth:
    said: dict[str, Any] = {
        "serial": "WS-1",
        "model": "WS-100",
        "order": "WO-17",
        "operator": "Zoë Smith",
        "station": "line-1",
        "image_sha256": IMAGE_SHA256,
        "ek_certificate": b"der",
        "ek_remarks": ("padding",),
        "ak_name": bytes(34),
        "ak_certificate_sha256": "ab" * 32,
        "idevid_sha256": "cd" * 32,
        "golden": {0: bytes(32), 11: bytes(32)},
        "nv_index": 0x01805753,
        "nv_value": 3,
        "made_s": 1_800_000_000,
    }
    return Birth(**(said | changes))


def test_a_birth_record_reads_as_it_was_signed() -> None:
    note = sign_birth(birth(), FACTORY)
    assert read_birth(note, verifier=FACTORY.verifier) == birth()
    assert note == sign_birth(birth(), FACTORY), "the same record has the same bytes"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("WS-1", "WS-2"),
        ('"value":3', '"value":2'),
    ],
)
def test_a_changed_birth_record_is_refused(old: str, new: str) -> None:
    note = sign_birth(birth(), FACTORY)
    with pytest.raises(TrustError):
        read_birth(note.replace(old.encode(), new.encode(), 1), verifier=FACTORY.verifier)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"value":3', '"value": 3'),
        ('"value":3', '"value":true'),
        ('"value":3', '"value":3.0'),
        ('{"index"', '{"x":1,"index"'),
        ("wattseal-birth/v1", "wattseal-birth/v2"),
        ('"11":"00', '"24":"00'),
        ('Z"', '"'),
    ],
)
def test_a_birth_record_in_another_form_is_refused_though_it_is_signed(old: str, new: str) -> None:
    with pytest.raises(TrustError):
        read_birth(FACTORY.sign_note(birth().text.replace(old, new, 1)), verifier=FACTORY.verifier)


def test_a_birth_record_by_another_factory_or_too_long_is_refused() -> None:
    note = sign_birth(birth(), FACTORY)
    with pytest.raises(TrustError):
        read_birth(note, verifier=VERIFIER.verifier)
    with pytest.raises(TrustError):
        read_birth(sign_birth(birth(), Signer.generate(FACTORY.name)), verifier=FACTORY.verifier)
    with pytest.raises(TrustError, match="at most"):
        read_birth(note + b"x" * MAX_BIRTH, verifier=FACTORY.verifier)
    wrongs: list[dict[str, Any]] = [{"operator": "a\nb"}, {"golden": {}}, {"ak_name": b"x"}, {"serial": ""}]
    for wrong in wrongs:
        with pytest.raises(TrustError):
            sign_birth(birth(**wrong), FACTORY)


@given(st.text(max_size=300))
def test_any_other_signed_text_is_no_birth_record(text: str) -> None:
    plain = "".join(c for c in text if c.isprintable()) + "\n"
    with pytest.raises(TrustError):
        read_birth(FACTORY.sign_note(f"wattseal-birth/v1\n{plain}"), verifier=FACTORY.verifier)
