"""Attacks on enrolment: a unit that is not what it says is not enrolled, and gets no certificate."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.app.enrolment.identity import AK_CHAIN, IDEVID_CHAIN
from gateway.attest.birth import read_birth
from gateway.codec.enrol_lines import pack_line, read_line, to_text
from gateway.errors import LinkError, TrustError
from gateway.tlog.note import Signer
from provisioning.station.batch import run_batch
from provisioning.station.enrolment import StepError
from provisioning.station.link import Link
from provisioning.station.maker import Maker, new_tpm, now, open_tpm, running_tpm, store_certificate
from provisioning.station.order import STRICT
from provisioning.station.transport import Direct
from tests.stations import FACTORY, MAKER, Answer, Plant, Twist, honest, instead, order_of, plant_in


@pytest.fixture
def plant(tmp_path: Path) -> Iterator[Plant]:
    with plant_in(tmp_path) as made:
        yield made


def refused(plant: Plant, serial: str, *, address: str | None = None, step: str, why: str) -> StepError:
    """Assert that a unit is refused at a step, that it has no certificate, and that the registrar has no such unit."""
    with pytest.raises(StepError, match=why) as caught:
        plant.enrol(serial, address=address or serial)
    assert caught.value.step == step
    assert serial in str(caught.value)
    assert caught.value.mend in str(caught.value)
    identity = plant.identity(address or serial)
    assert identity.read(AK_CHAIN) is identity.read(IDEVID_CHAIN) is None
    assert not identity.is_enrolled
    return caught.value


def other_tpm(plant: Plant, name: str) -> Path:
    """Make another TPM of the same maker; return its folder."""
    new_tpm(plant.boards / name / "t", MAKER)
    return plant.boards / name / "t"


def test_an_attestation_key_of_another_tpm_is_refused(plant: Plant) -> None:
    with running_tpm(other_tpm(plant, "stolen")) as tcti, open_tpm(tcti) as tpm:
        foreign = to_text(tpm.ak_public())
    plant.twists["WS-1"] = instead("ak", lambda _: {"public": foreign})
    refused(plant, "WS-1", step="activate", why="the unit refuses")


def test_a_unit_that_guesses_the_credential_is_refused(plant: Plant) -> None:
    with running_tpm(other_tpm(plant, "stolen")) as tcti, open_tpm(tcti) as tpm:
        foreign = to_text(tpm.ak_public())

    def guesses(op: str, _: dict[str, Any], answer: Answer, line: bytes) -> bytes | None:
        said = honest(answer, line)
        replies = {"ak": {"public": foreign}, "activate": {"proof": to_text(bytes(32))}}
        return pack_line({"id": said["id"], "ok": replies[op]} if op in replies else said)

    plant.twists["WS-1"] = guesses
    refused(plant, "WS-1", step="activate", why="does not hold this attestation key")


def test_the_ek_certificate_of_another_unit_is_refused(plant: Plant) -> None:
    with running_tpm(other_tpm(plant, "other")) as tcti, open_tpm(tcti) as tpm:
        stolen, public = to_text(tpm.ek_certificate("rsa2048") or b""), to_text(tpm.ek_public("rsa2048"))
    plant.twists["WS-1"] = instead("ek", lambda ok: {**ok, "certificate": stolen})
    refused(plant, "WS-1", step="ek", why="not the one in its certificate")
    plant.twists["WS-1"] = instead("ek", lambda _: {"certificate": stolen, "public": public})
    refused(plant, "WS-1", step="activate", why="the unit refuses")


def board(plant: Plant, serial: str, certificate: bytes | None, *, maker: Maker | None = None, days: int = 0) -> None:
    """Make a board whose TPM has this EK certificate; or one by this maker, that ends in so many days."""
    folder = plant.boards / serial / "t"
    public = new_tpm(folder, None)
    with running_tpm(folder) as tcti:
        made = certificate if maker is None else maker.certify(public, days=days)
        if made is not None:
            store_certificate(tcti, made, folder=folder)


def test_a_tpm_of_an_unknown_maker_is_refused(plant: Plant) -> None:
    board(plant, "WS-1", None, maker=Maker("Test TPM Maker", now=now()), days=100)
    refused(plant, "WS-1", step="ek", why="no root or issuing authority")


def test_an_expired_ek_certificate_is_refused(plant: Plant) -> None:
    board(plant, "WS-1", None, maker=MAKER, days=-2)
    refused(plant, "WS-1", step="ek", why="expired")


def test_a_tpm_without_an_ek_certificate_is_refused(plant: Plant) -> None:
    board(plant, "WS-1", None)
    refused(plant, "WS-1", step="ek", why="without an EK certificate")


def test_a_strict_station_refuses_what_a_lenient_one_takes_and_remarks(plant: Plant) -> None:
    folder = plant.boards / "WS-1" / "t"
    public = new_tpm(folder, None)
    with running_tpm(folder) as tcti:
        store_certificate(tcti, MAKER.certify(public, has_purpose=False), folder=folder)
    station = plant.station
    object.__setattr__(station.policy, "ek_policy", STRICT)
    with pytest.raises(StepError, match="strays from the norm"):
        station.enrol(order_of("WS-1"))
    enrolled = plant.enrol("WS-1")
    assert read_birth(enrolled.record.note, verifier=FACTORY.verifier).ek_remarks


def test_a_tpm_that_is_swapped_between_two_runs_is_refused(plant: Plant) -> None:
    plant.images["WS-1"] = b"x"
    plant.twists["WS-1"] = instead("certify", lambda _: {})
    plant.images.pop("WS-1")
    refused(plant, "WS-1", step="certify", why="want just")
    plant.twists.pop("WS-1")
    shutil.rmtree(plant.boards / "WS-1" / "t")
    refused(plant, "WS-1", step="ak", why="another TPM answers")


def test_a_tpm_that_is_swapped_between_two_steps_is_refused(plant: Plant) -> None:
    """The unit shows one TPM up to the activation, and another, of the same maker, from then on."""
    folder = other_tpm(plant, "second")
    with running_tpm(folder) as tcti, open_tpm(tcti) as second:

        def swaps(op: str, arguments: dict[str, Any], answer: Answer, line: bytes) -> bytes | None:
            said = honest(answer, line)
            if op == "quote":
                quoted = second.quote(_bytes(arguments["nonce"]), arguments["pcrs"])
                pcrs = [[index, value.hex()] for index, value in sorted(quoted.pcrs.items())]
                ok = {"attest": to_text(quoted.attest), "signature": to_text(quoted.signature), "pcrs": pcrs}
                return pack_line({"id": said["id"], "ok": ok})
            return pack_line(said)

        plant.twists["WS-1"] = swaps
        refused(plant, "WS-1", step="quote", why="not signed by this attestation key")


def _id(line: bytes) -> str:
    said = read_line(line)
    assert said is not None
    return str(said["id"])


def _bytes(text: str) -> bytes:
    import base64  # noqa: PLC0415 - of one line

    return base64.b64decode(text)


def test_a_cloned_disk_on_another_tpm_is_refused(plant: Plant) -> None:
    """With an identity from before its enrolment, the clone cannot use the key; with one from after, it is closed."""
    plant.twists["WS-1"] = instead("request", lambda _: {})
    refused(plant, "WS-1", step="idevid", why="want just")
    shutil.copytree(plant.boards / "WS-1" / "identity", plant.boards / "clone" / "identity")
    plant.serials["clone"] = "WS-1"
    refused(plant, "WS-1", address="clone", step="ak", why="another TPM answers")
    plant.serials["clone"] = "WS-2"
    refused(plant, "WS-2", address="clone", step="certify", why="the unit refuses: .*TPM")
    plant.twists.pop("WS-1")
    plant.enrol("WS-1")
    shutil.rmtree(plant.boards / "clone" / "identity")
    shutil.copytree(plant.boards / "WS-1" / "identity", plant.boards / "clone" / "identity")
    with pytest.raises(StepError, match="enrolled elsewhere"):
        plant.enrol("WS-3", address="clone")


def test_two_units_with_one_serial_are_refused(plant: Plant) -> None:
    first = plant.enrol("WS-1")
    plant.serials["twin"] = "WS-1"
    refused(plant, "WS-1", address="twin", step="ak", why="two units with one serial")
    assert plant.registrar.unit("WS-1").birth == first.record.note


def test_a_copy_of_an_enrolled_disk_on_another_board_of_its_serial_is_refused(plant: Plant) -> None:
    """The birth record is public: that it is there proves nothing. Nor does the EK certificate of the true board."""
    plant.enrol("WS-1")
    shutil.copytree(plant.boards / "WS-1" / "identity", plant.boards / "copy" / "identity")
    plant.serials["copy"] = "WS-1"
    with running_tpm(plant.boards / "WS-1" / "t") as tcti, open_tpm(tcti) as tpm:
        true = {
            "certificate": to_text(tpm.ek_certificate("rsa2048") or b""),
            "public": to_text(tpm.ek_public("rsa2048")),
        }
    tries: dict[str, Twist] = {
        "two units with one serial": instead("ek", lambda ok: ok),
        "not the one in its EK certificate": instead("ek", lambda ok: {**ok, "certificate": true["certificate"]}),
        "the unit refuses": instead("ek", lambda _: true),
    }
    orders = [order_of("WS-1", address="copy")]
    for why, twist in tries.items():
        plant.twists["copy"] = twist
        (found,) = run_batch(plant.station, orders, jobs=1, told=lambda _, __: None, done=lambda _: None)
        assert (found.is_ok, found.step) == (False, "ak")
        assert why in found.why


def test_one_tpm_under_two_serials_is_refused(plant: Plant) -> None:
    plant.enrol("WS-1")
    shutil.copytree(plant.boards / "WS-1" / "t", plant.boards / "WS-2" / "t")
    refused(plant, "WS-2", step="activate", why="another unit has this (EK|AK)")
    assert plant.authority.issued(subject="WS-2") == []


def test_another_unit_than_the_order_means_is_refused(plant: Plant) -> None:
    plant.serials["board"] = "WS-9"
    refused(plant, "WS-1", address="board", step="identify", why="this unit is WS-9")


def test_another_image_than_the_orders_is_refused(plant: Plant) -> None:
    plant.images["WS-1"] = b"older image"
    error = refused(plant, "WS-1", step="image", why="got an image of 11 bytes.*want")
    assert "write the order's image" in error.mend


@pytest.mark.parametrize(
    ("operation", "why"),
    [
        ("activate", "does not hold this attestation key"),
        ("certify", "answers another question"),
        ("floor", "answers another question"),
        ("quote", "answers another question"),
    ],
)
def test_answers_of_an_earlier_session_are_refused(plant: Plant, operation: str, why: str) -> None:
    """A board plays back what it truly said in a session that was cut: but to another nonce."""
    kept: list[dict[str, Any]] = []

    def first(op: str, _: dict[str, Any], answer: Answer, line: bytes) -> bytes | None:
        if kept:
            return pack_line({"id": _id(line), "refused": "power lost"})
        said = honest(answer, line)
        if op == operation:
            kept.append(said)
        return pack_line(said)

    def again(op: str, _: dict[str, Any], answer: Answer, line: bytes) -> bytes | None:
        said = honest(answer, line)
        return pack_line({**kept[0], "id": said["id"]} if op == operation else said)

    plant.twists["WS-1"] = first
    with pytest.raises(StepError, match="power lost"):
        plant.enrol("WS-1")
    plant.twists["WS-1"] = again
    refused(plant, "WS-1", step=operation, why=why)


def test_a_unit_that_does_not_refuse_is_not_shipped(plant: Plant) -> None:
    """One that says yes to everything fails the negative self-test; so does one that says no to everything."""

    def meek(_op: str, _: dict[str, Any], answer: Answer, line: bytes) -> bytes | None:
        said = honest(answer, line)
        return pack_line({"id": said["id"], "ok": {}} if "refused" in said else said)

    plant.twists["WS-1"] = meek
    refused(plant, "WS-1", step="refuse", why="negative self-test, credential for another key")
    quotes: list[str] = []

    def sulks(op: str, _: dict[str, Any], answer: Answer, line: bytes) -> bytes | None:
        if quotes:
            return pack_line({"id": _id(line), "refused": "no"})
        quotes.extend([op] * (op == "quote"))
        return pack_line(honest(answer, line))

    plant.twists["WS-1"] = sulks
    refused(plant, "WS-1", step="refuse", why="the unit refuses: no")


def test_a_tampered_birth_record_is_refused(plant: Plant) -> None:
    enrolled = plant.enrol("WS-1")
    for old, new in ((b"WS-1", b"WS-2"), (b'"value":3', b'"value":9')):
        with pytest.raises(TrustError):
            read_birth(enrolled.record.note.replace(old, new, 1), verifier=FACTORY.verifier)
    with pytest.raises(TrustError):
        read_birth(enrolled.record.note, verifier=Signer.generate(FACTORY.name).verifier)


def test_a_unit_that_answers_nonsense_is_refused_in_bounded_time_and_memory() -> None:
    def link(answer: Answer, timeout_s: float = 0.3) -> Link:
        return Link(Direct(answer, close=lambda: None), session="s", timeout_s=timeout_s, tries=2)

    begun_s = time.monotonic()
    with pytest.raises(LinkError, match="got no answer within"):
        link(lambda _: None).ask("hello", {}, {})
    with pytest.raises(LinkError, match="got no answer within"):
        link(lambda _: b"00000000 {}\n{}\nxx\n").ask("hello", {}, {})
    with pytest.raises(TrustError, match="without an answer"):
        link(lambda _: b"x" * 2_000_000).ask("hello", {}, {})
    with pytest.raises(TrustError, match="without an answer"):
        link(lambda _: b"x\n" * 2_000_000).ask("hello", {}, {})
    with pytest.raises(TrustError, match="neither ok nor refused"):
        link(lambda _: pack_line({"id": "s-1", "maybe": 1})).ask("hello", {}, {})
    with pytest.raises(TrustError, match="want just"):
        link(lambda _: pack_line({"id": "s-1", "ok": {"more": 1}})).ask("hello", {}, {})
    with pytest.raises(LinkError):
        link(lambda _: pack_line({"id": "other-1", "ok": {}})).ask("hello", {}, {})
    assert time.monotonic() - begun_s < 10
