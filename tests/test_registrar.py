"""provisioning/registrar: a unit's life on SQLite and on PostgreSQL, and what an attacker or a crash makes of it."""

import itertools
import multiprocessing
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import create_engine, insert, text
from sqlalchemy.exc import IntegrityError

from gateway.errors import ConfigError, GatewayError, LogError, TrustError
from gateway.store.files import RealFiles
from gateway.store.segments import Log
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.note import Signer
from provisioning.registrar import (
    AK,
    EK,
    Exported,
    Place,
    Registrar,
    State,
    export,
    make_place,
    rebuild,
    verify,
    verify_exported,
)
from provisioning.registrar.export import read_proof
from provisioning.registrar.factorylog import opened
from provisioning.registrar.tables import units
from tests.authorities import FACTORY, MODEL, birth_of, enrol, ids_of
from tests.databases import make_database, running_postgres

SPAWN = multiprocessing.get_context("spawn")
_numbers = itertools.count()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Path]:
    with running_postgres() as folder:
        yield folder


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give an empty database of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/registrar.sqlite"
    return make_database(request.getfixturevalue("postgres"), f"r{next(_numbers)}")


@pytest.fixture
def lite(tmp_path: Path) -> str:
    """Give an empty SQLite database, for what does not depend on the kind."""
    return f"sqlite:///{tmp_path}/registrar.sqlite"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "log"


def open_(url: str, log: Path, signer: Signer = FACTORY) -> Registrar:
    return Registrar.open(url, log=log, signer=signer)


def size_of(log: Path) -> int:
    with opened(log, FACTORY) as own:
        return own.log.durable


def behind_our_back(url: str, statement: str) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.execute(text(statement))
    engine.dispose()


# ---- a unit's life


def test_a_unit_goes_through_its_life(url: str, log: Path) -> None:
    registrar = open_(url, log)
    unit = registrar.begin("WS-1", model=MODEL, order="O-1", operator="ann")
    assert (unit.state, unit.ek, unit.steps) == (State.BEGUN, None, {})
    unit = registrar.step("WS-1", "keys", ids_of("WS-1"))
    assert (unit.ek, unit.ak) == (ids_of("WS-1")[EK], ids_of("WS-1")[AK])
    unit = registrar.step("WS-1", "image", {"sha256": "00" * 32})
    assert list(unit.steps) == ["keys", "image"]
    unit = registrar.complete("WS-1", birth_of("WS-1"))
    assert (unit.state, unit.birth, set(unit.certificates)) == (State.ENROLLED, birth_of("WS-1"), {"ak", "idevid"})
    unit = registrar.onboard("WS-1", "Acme", "gw1")
    assert (unit.state, unit.owner, unit.gateway) == (State.ONBOARDED, "Acme", "gw1")
    unit = registrar.transfer("WS-1", "Beta")
    assert (unit.state, unit.owner, unit.gateway) == (State.ONBOARDED, "Beta", "gw1")
    unit = registrar.revoke("WS-1", "keyCompromise")
    assert (unit.state, unit.reason) == (State.REVOKED, "keyCompromise")
    unit = registrar.decommission("WS-1")
    assert (unit.state, unit.owner) == (State.DECOMMISSIONED, "Beta")
    assert len(unit.leaves) == 8, "each change is a leaf"
    registrar.close()
    again = open_(url, log)
    assert again.units() == [unit]
    again.close()
    assert verify(url, log=log, signer=FACTORY).units == 1


def test_each_step_may_be_said_again(url: str, log: Path) -> None:
    """A station that was cut off begins again where it was; what it says twice is in the log once."""
    registrar = open_(url, log)
    enrol(registrar, "WS-1")
    registrar.onboard("WS-1", "Acme", "gw1")
    size = size_of(log)
    registrar.onboard("WS-1", "Acme", "gw1")
    registrar.begin("WS-2", model=MODEL, order="O-1", operator="ann")
    registrar.begin("WS-2", model=MODEL, order="O-1", operator="ben")
    registrar.step("WS-2", "keys", ids_of("WS-2"))
    registrar.step("WS-2", "keys", ids_of("WS-2"))
    registrar.complete("WS-2", birth_of("WS-2"))
    registrar.complete("WS-2", birth_of("WS-2"))
    for _ in range(2):
        registrar.revoke("WS-2", "superseded")
    for _ in range(2):
        registrar.decommission("WS-2")
    assert size_of(log) == size + 5
    registrar.close()


def test_a_units_new_idevid_takes_the_place_of_the_first(url: str, log: Path) -> None:
    """Only an enrolled or onboarded unit gets one, the same again changes nothing, and no other unit has it."""
    registrar = open_(url, log)
    registrar.begin("WS-1", model=MODEL, order="O-1", operator="ann")
    with pytest.raises(TrustError, match="got it begun, want it enrolled or onboarded"):
        registrar.renew("WS-1", "ab" * 32, {})
    enrol(registrar, "WS-2")
    registrar.onboard("WS-2", "Acme", "gw1")
    before = registrar.unit("WS-2")
    unit = registrar.renew("WS-2", "ab" * 32, {"name": "00"})
    assert unit.certificates == {**before.certificates, "idevid": "ab" * 32}
    assert (unit.steps["certify"], unit.state) == ({"name": "00"}, State.ONBOARDED)
    assert registrar.renew("WS-2", "ab" * 32, {"name": "01"}) == unit
    enrol(registrar, "WS-3")
    with pytest.raises(TrustError, match="another unit has this"):
        registrar.renew("WS-3", "ab" * 32, {})
    registrar.revoke("WS-2", "keyCompromise")
    with pytest.raises(TrustError, match="got it revoked"):
        registrar.renew("WS-2", "cd" * 32, {})
    registrar.close()
    assert verify(url, log=log, signer=FACTORY).quotes == 0
    rebuild(url, log=log, signer=FACTORY)
    assert verify(url, log=log, signer=FACTORY).units == 3


def test_what_is_out_of_order_is_refused_and_leaves_nothing(url: str, log: Path) -> None:
    registrar = open_(url, log)
    registrar.begin("WS-1", model=MODEL, order="O-1", operator="ann")
    size = size_of(log)
    wrongs: list[Callable[[], object]] = [
        lambda: registrar.onboard("WS-1", "Acme", "gw1"),
        lambda: registrar.transfer("WS-1", "Beta", "gw1"),
        lambda: registrar.step("WS-9", "keys", {}),
        lambda: registrar.complete("WS-9", birth_of("WS-9")),
        lambda: registrar.revoke("WS-9", "superseded"),
        lambda: registrar.decommission("WS-9"),
        lambda: registrar.begin("WS 2", model=MODEL, order="O", operator="ann"),
        lambda: registrar.begin("WS-2", model="", order="O", operator="ann"),
        lambda: registrar.begin("WS-2", model="a\nb", order="O", operator="ann"),
        lambda: registrar.step("WS-1", "x", {"a": "b" * 5000}),
        lambda: registrar.begin("WS-1", model=MODEL, order="another", operator="ann"),
    ]
    for wrong in wrongs:
        with pytest.raises(TrustError):
            wrong()
    assert size_of(log) == size
    assert [unit.serial for unit in registrar.units()] == ["WS-1"]
    registrar.close()
    verify(url, log=log, signer=FACTORY)


# ---- attacks: who is twice


def test_two_units_with_one_serial_are_refused(url: str, log: Path) -> None:
    """Another device under a serial that is being made shows itself by its keys; later the serial is taken."""
    registrar = open_(url, log)
    registrar.begin("WS-1", model=MODEL, order="O-1", operator="ann")
    registrar.step("WS-1", "keys", ids_of("WS-1"))
    with pytest.raises(TrustError, match="another device"):
        registrar.step("WS-1", "keys", ids_of("WS-2"))
    registrar.complete("WS-1", birth_of("WS-1"))
    for serial in ("WS-1", "ws-1"):
        with pytest.raises(TrustError, match="already"):
            registrar.begin(serial, model=MODEL, order="O-2", operator="ann")
    registrar.close()


@pytest.mark.parametrize("which", [EK, AK])
def test_one_device_under_two_serials_is_refused(url: str, log: Path, which: str) -> None:
    registrar = open_(url, log)
    enrol(registrar, "WS-1")
    registrar.begin("WS-2", model=MODEL, order="O-1", operator="ann")
    with pytest.raises(TrustError, match=f"another unit has this {which.upper()}"):
        registrar.step("WS-2", "keys", {which: ids_of("WS-1")[which]})
    with pytest.raises(TrustError, match="another unit has this"):
        registrar.complete("WS-2", birth_of("WS-2", like="WS-1"))
    registrar.close()


def test_a_decommissioned_unit_never_enrols_again(url: str, log: Path) -> None:
    """Neither its serial nor its TPM, under whatever serial."""
    registrar = open_(url, log)
    enrol(registrar, "WS-1")
    registrar.decommission("WS-1")
    with pytest.raises(TrustError, match="decommissioned already, and cannot be enrolled again"):
        registrar.begin("WS-1", model=MODEL, order="O-1", operator="ann")
    registrar.begin("WS-2", model=MODEL, order="O-1", operator="ann")
    with pytest.raises(TrustError, match="another unit has this EK already, or had it"):
        registrar.step("WS-2", "keys", ids_of("WS-1"))
    wrongs: list[Callable[[], object]] = [
        lambda: registrar.onboard("WS-1", "Acme", "gw1"),
        lambda: registrar.complete("WS-1", birth_of("WS-1")),
        lambda: registrar.revoke("WS-1", "superseded"),
    ]
    for wrong in wrongs:
        with pytest.raises(TrustError, match="decommissioned"):
            wrong()
    registrar.close()


def test_the_database_itself_refuses_a_second_one(url: str, log: Path) -> None:
    """Whatever program writes: that it is once is a constraint, and not a question asked before."""
    registrar = open_(url, log)
    enrol(registrar, "WS-1")
    registrar.onboard("WS-1", "Acme", "gw1")
    registrar.close()
    row: dict[str, str | int] = {"model": "m", "order": "o", "operator": "p", "owner": "", "gateway": "", "reason": ""}
    row |= {"state": "begun", "serial": "WS-2", "folded": "ws-2", "began_ns": 0, "changed_ns": 0}
    engine = create_engine(url)
    for clash in (
        {"serial": "WS-1"},
        {"folded": "ws-1"},
        {EK: ids_of("WS-1")[EK]},
        {AK: ids_of("WS-1")[AK]},
        {"state": "onboarded", "gateway": "gw1"},
        {"state": "stolen"},
    ):
        with pytest.raises(IntegrityError), engine.begin() as connection:
            connection.execute(insert(units).values(**(row | clash)))
    engine.dispose()


def test_of_many_stations_at_once_one_gets_the_serial(url: str, log: Path) -> None:
    """Each in a thread of its own, with a registrar of its own; the log has one leaf of it."""
    registrars = [open_(url, log) for _ in range(6)]
    start = threading.Barrier(len(registrars))

    def station(number: int) -> bool:
        start.wait()
        try:
            registrars[number].begin("WS-1", model=MODEL, order=f"O-{number}", operator="ann")
        except TrustError:
            return False
        return True

    with ThreadPoolExecutor(len(registrars)) as pool:
        won = list(pool.map(station, range(len(registrars))))
    assert won.count(True) == 1
    assert registrars[0].unit("WS-1").order == f"O-{won.index(True)}"
    assert len(registrars[0].unit("WS-1").leaves) == 1
    for registrar in registrars:
        registrar.close()
    verify(url, log=log, signer=FACTORY)


@pytest.mark.slow
def test_of_several_processes_one_gets_the_device(postgres: Path, log: Path) -> None:
    """They enrol one TPM under two serials at once, and each a device of its own."""
    url = make_database(postgres, f"r{next(_numbers)}")
    registrar = open_(url, log)
    for number in range(2):
        registrar.begin(f"WS-{number}", model=MODEL, order="O-1", operator="ann")
    registrar.close()
    said = SPAWN.Queue()
    arguments = [(url, log, FACTORY.to_text(), number, said) for number in range(2)]
    stations = [SPAWN.Process(target=_station, args=one) for one in arguments]
    for station in stations:
        station.start()
    won = sorted(said.get(timeout=60) for _ in stations)
    for station in stations:
        station.join(30)
        assert station.exitcode == 0
    assert won == [False, True]
    held = verify(url, log=log, signer=FACTORY)
    assert held.units == 4


def _station(url: str, log: Path, key: str, number: int, said: "multiprocessing.Queue[bool]") -> None:
    registrar = Registrar.open(url, log=log, signer=Signer.from_text(key))
    registrar.begin(f"OWN-{number}", model=MODEL, order="O-1", operator="ann")
    try:
        registrar.step(f"WS-{number}", "keys", ids_of("ONE"))
        said.put(True)
    except TrustError:
        said.put(False)
    registrar.close()


def test_one_gateway_is_one_unit_at_a_time(url: str, log: Path) -> None:
    registrar = open_(url, log)
    for serial in ("WS-1", "WS-2"):
        enrol(registrar, serial)
    registrar.onboard("WS-1", "Acme", "gw1")
    with pytest.raises(TrustError, match="another unit is this gateway"):
        registrar.onboard("WS-2", "Acme", "gw1")
    registrar.decommission("WS-1")
    assert registrar.onboard("WS-2", "Acme", "gw1").state is State.ONBOARDED, "the one that takes its place"
    registrar.close()


# ---- attacks: what was tampered with


def test_a_tampered_birth_record_is_refused(lite: str, log: Path) -> None:
    """Changed, signed by another factory, of another unit, order or TPM: none of them enrols it."""
    registrar = open_(lite, log)
    registrar.begin("WS-1", model=MODEL, order="O-1", operator="ann")
    registrar.step("WS-1", "keys", ids_of("WS-1"))
    good = birth_of("WS-1")
    for bad in (
        good.replace(b"ann", b"bob"),
        birth_of("WS-1", signer=Signer.generate(FACTORY.name)),
        birth_of("WS-2"),
        birth_of("WS-1", order="O-2"),
        birth_of("WS-1", like="WS-2"),
        b"",
        good[:-9],
    ):
        with pytest.raises(TrustError):
            registrar.complete("WS-1", bad)
    assert registrar.complete("WS-1", good).state is State.ENROLLED
    registrar.close()


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("UPDATE units SET owner = 'Mallory' WHERE serial = 'WS-1'", r"units WS-1: owner: got 'Mallory', want 'Acme'"),
        ("UPDATE units SET state = 'enrolled' WHERE serial = 'WS-2'", r"units WS-2: state: got 'enrolled', want 'rev"),
        ("DELETE FROM owners", r"owners WS-1 \d+: is missing"),
        ("UPDATE steps SET result = '{}' WHERE serial = 'WS-1'", r"steps WS-1 keys: result: got '{}', want"),
        ("INSERT INTO certificates VALUES ('aa', 'WS-1', 'ak')", r"certificates aa: no leaf of the log says so"),
        ("UPDATE records SET t_ns = 7 WHERE leaf = 1", r"records 1: t_ns: got 7, want"),
    ],
)
def test_a_row_changed_behind_our_back_is_named_and_mended_by_the_log(
    url: str, log: Path, statement: str, named: str
) -> None:
    registrar = open_(url, log)
    for serial in ("WS-1", "WS-2"):
        enrol(registrar, serial)
    registrar.onboard("WS-1", "Acme", "gw1")
    registrar.revoke("WS-2", "keyCompromise")
    before = registrar.units()
    registrar.close()
    behind_our_back(url, statement)
    with pytest.raises(TrustError, match=named):
        verify(url, log=log, signer=FACTORY)
    assert rebuild(url, log=log, signer=FACTORY) == size_of(log)
    verify(url, log=log, signer=FACTORY)
    registrar = open_(url, log)
    assert registrar.units() == before
    registrar.close()


def test_a_tampered_leaf_is_named(lite: str, log: Path) -> None:
    """One byte of one body, with the tree as it was."""
    registrar = open_(lite, log)
    enrol(registrar, "WS-1")
    registrar.close()
    bundle = next(path for path in (log / "tile" / "entries").rglob("*") if path.is_file())
    content = bytearray(bundle.read_bytes())
    content[content.index(b"ann")] ^= 1
    bundle.write_bytes(bytes(content))
    with pytest.raises(LogError, match="leaf 1"):
        verify(lite, log=log, signer=FACTORY)


def test_a_log_that_another_key_signed_is_refused(lite: str, log: Path, tmp_path: Path) -> None:
    """Somebody makes the whole log and database anew: without the factory's key, the checkpoint says so."""
    registrar = open_(lite, log)
    registrar.close()
    other = Signer.generate(FACTORY.name)
    forged = open_(f"sqlite:///{tmp_path}/forged.sqlite", tmp_path / "forged", other)
    enrol(forged, "WS-1", signer=other)
    forged.close()
    for use in (open_, lambda url, log: verify(url, log=log, signer=FACTORY)):
        with pytest.raises(LogError, match="not by this factory's key"):
            use(f"sqlite:///{tmp_path}/forged.sqlite", tmp_path / "forged")


def test_a_log_that_was_set_back_is_found_by_an_older_checkpoint_and_by_the_database(lite: str, log: Path) -> None:
    registrar = open_(lite, log)
    registrar.begin("WS-1", model=MODEL, order="O-1", operator="ann")
    saved = {path.relative_to(log): path.read_bytes() for path in log.rglob("*") if path.is_file()}
    enrol(registrar, "WS-2")
    registrar.close()
    later = verify(lite, log=log, signer=FACTORY).checkpoint
    assert verify(lite, log=log, signer=FACTORY, since=later).checkpoint == later
    for path in sorted(log.rglob("*"), reverse=True):
        if path.is_file():
            path.unlink()
    for relative, content in saved.items():
        (log / relative).parent.mkdir(parents=True, exist_ok=True)
        (log / relative).write_bytes(content)
    with pytest.raises(LogError, match="one of them is an old copy"):
        open_(lite, log)
    with pytest.raises(LogError, match="does not go on from its own checkpoint"):
        verify(lite, log=log, signer=FACTORY, since=later)
    with pytest.raises(TrustError, match="no leaf of the log says so"):
        verify(lite, log=log, signer=FACTORY)


def test_a_database_of_another_factory_is_refused(url: str, log: Path, tmp_path: Path) -> None:
    """Two machines with a log each must not share a database."""
    open_(url, log).close()
    with pytest.raises(LogError, match="was not made from this log"):
        open_(url, tmp_path / "other")
    with pytest.raises(LogError, match="got that of wattseal-factory/acme"):
        open_(url, tmp_path / "third", Signer.generate("wattseal-factory/beta"))


# ---- crashes


def test_a_crash_between_log_and_database_is_caught_up(url: str, log: Path) -> None:
    """The log has the leaf, the database does not: the next opening, or the next change, puts it in."""
    registrar = open_(url, log)
    registrar.begin("WS-1", model=MODEL, order="O-1", operator="ann")
    with opened(log, FACTORY) as own:
        about = {"serial": "WS-2", "model": MODEL, "order": "O-1", "operator": "ann"}
        own.event("unit.begun", about)
        own.commit()
    enrol(registrar, "WS-3")
    assert [unit.serial for unit in registrar.units()] == ["WS-1", "WS-2", "WS-3"]
    with opened(log, FACTORY) as own:
        own.event("unit.revoked", {"serial": "WS-3", "reason": "superseded"})
        own.log.commit()  # and the power goes before it is signed
    registrar.close()
    again = open_(url, log)
    assert again.unit("WS-3").state is State.REVOKED
    again.close()
    verify(url, log=log, signer=FACTORY)


def test_a_leaf_of_the_log_that_no_registrar_writes_stops_it(lite: str, log: Path) -> None:
    """Who has the factory's key could write anything; what makes no sense is not passed over."""
    open_(lite, log).close()
    with opened(log, FACTORY) as own:
        own.event("unit.revoked", {"serial": "NONE", "reason": "superseded"})
        own.commit()
    with pytest.raises(LogError, match="leaf 1"):
        open_(lite, log)


def test_a_station_that_waits_too_long_is_told(lite: str, log: Path) -> None:
    open_(lite, log).close()
    with opened(log, FACTORY), pytest.raises(LogError, match="others have had this"):
        opened(log, FACTORY, wait_s=0.05).__enter__()


def test_a_session_holds_the_log_for_several_changes(lite: str, log: Path) -> None:
    registrar = open_(lite, log)
    with registrar.session() as own:
        enrol(registrar, "WS-1")
        with registrar.session() as same:
            assert same is own
    assert registrar.unit("WS-1").state is State.ENROLLED
    registrar.close()


# ---- what goes out


def test_an_exported_birth_record_holds_by_the_factorys_key_alone(lite: str, log: Path) -> None:
    registrar = open_(lite, log)
    for number in range(1, 6):
        enrol(registrar, f"WS-{number}")
    made = export(registrar, "WS-3")
    birth = verify_exported(made, verifier=FACTORY.verifier)
    assert (birth.serial, birth.model) == ("WS-3", MODEL)
    assert made.proof.startswith(b"c2sp.org/tlog-proof@v1\nindex 9\n")
    other = export(registrar, "WS-4")
    flipped = bytearray(made.leaf)
    flipped[50] ^= 1
    for forged in (
        replace(made, birth=other.birth),
        replace(made, leaf=other.leaf),
        replace(made, proof=other.proof),
        replace(made, leaf=bytes(flipped)),
        replace(made, proof=made.proof.replace(b"index 9", b"index 8")),
        Exported(birth=b"", leaf=b"", proof=b""),
    ):
        with pytest.raises(TrustError):
            verify_exported(forged, verifier=FACTORY.verifier)
    with pytest.raises(TrustError):
        verify_exported(made, verifier=Signer.generate(FACTORY.name).verifier)
    registrar.begin("WS-9", model=MODEL, order="O-1", operator="ann")
    with pytest.raises(TrustError, match="has no birth record"):
        export(registrar, "WS-9")
    registrar.close()


@given(st.binary(max_size=300) | st.binary(max_size=60).map(lambda rest: b"c2sp.org/tlog-proof@v1\nindex 1\n" + rest))
def test_any_text_is_a_proof_or_refused(text: bytes) -> None:
    try:
        index, hashes, note = read_proof(text)
    except TrustError:
        return
    assert index >= 0
    assert all(len(one) == 32 for one in hashes)
    assert note


def test_the_log_is_one_that_any_verifier_of_ours_opens(lite: str, log: Path) -> None:
    """The same files, the same checkpoints: `factory.vkey` is all that is needed."""
    registrar = open_(lite, log)
    enrol(registrar, "WS-1")
    registrar.close()
    own = Log.open(RealFiles(log), origin=FACTORY.name)
    try:
        checkpoint = checkpoints.verify(own.checkpoint or b"", origin=FACTORY.name, verifier=FACTORY.verifier)
        assert (checkpoint.size, checkpoint.root) == (own.size, own.root(own.size))
    finally:
        own.close()


# ---- its folder


def test_a_place_is_made_once_and_read_again(tmp_path: Path) -> None:
    folder = tmp_path / "registrar"
    place = make_place(folder, name="acme")
    assert Place.read(folder).url == place.url == f"sqlite:///{folder}/registrar.sqlite"
    assert (folder / "factory.key").stat().st_mode & 0o777 == 0o600
    with pytest.raises(ConfigError, match="without a registrar"):
        make_place(folder, name="acme")
    (folder / "factory.key").chmod(0o640)
    with pytest.raises(ConfigError, match="0600"):
        Place.read(folder)


@pytest.mark.parametrize(
    "url",
    [
        "mysql://x/y",
        "postgresql+psycopg://ann:secret@127.0.0.1/registrar",
        "postgresql+psycopg://ann@127.0.0.1/registrar?password=secret",
        "postgresql+psycopg://ann:secret@127.0.0.1:port/registrar",
        "sqlite:////nowhere/at/all.sqlite",
        "not a url",
        "postgresql+psycopg://wattseal@/none?host=/nowhere",
    ],
)
def test_a_database_that_cannot_be_used_is_said(url: str, log: Path) -> None:
    """Also one with a password in it: that belongs into PGPASSFILE."""
    with pytest.raises(ConfigError, match="database") as caught:
        open_(url, log)
    assert "secret" not in str(caught.value)


def test_a_password_in_the_url_reaches_no_disk(tmp_path: Path) -> None:
    """And the same folder serves once it is gone from there."""
    with pytest.raises(ConfigError, match="PGPASSFILE"):
        make_place(tmp_path / "registrar", name="acme", database="postgresql+psycopg://ann:secret@h/registrar")
    assert not (tmp_path / "registrar").exists()
    make_place(tmp_path / "registrar", name="acme")


@pytest.mark.parametrize("owner", ["a\nb", "a\x00", "a\x9b2J", "a\u202eb", "a\u2028", "a\udcff"])
def test_a_name_that_would_move_a_terminals_cursor_is_refused(lite: str, log: Path, owner: str) -> None:
    registrar = open_(lite, log)
    enrol(registrar, "WS-1")
    with pytest.raises(TrustError, match="printable"):
        registrar.onboard("WS-1", owner, "gw1")
    with pytest.raises(TrustError, match="printable"):
        registrar.begin("WS-2", model=MODEL, order=owner, operator="ann")
    with pytest.raises(TrustError, match="serial"):
        registrar.unit(owner)
    registrar.begin("WS-2", model=MODEL, order="O-1", operator="Zoë")
    with pytest.raises(TrustError, match="printable"):
        registrar.step("WS-2", "ek", {"maker": owner})
    registrar.close()


def test_a_unit_that_was_begun_for_another_order_says_for_which(lite: str, log: Path) -> None:
    registrar = open_(lite, log)
    registrar.begin("WS-1", model=MODEL, order="O-1", operator="ann")
    with pytest.raises(TrustError, match="for order 'O-1', want the same"):
        registrar.begin("WS-1", model=MODEL, order="O-2", operator="ann")
    registrar.close()


def test_another_kind_of_key_signs_no_factorys_log(lite: str, log: Path) -> None:
    with pytest.raises(GatewayError, match="wattseal-factory/<name>"):
        open_(lite, log, Signer.generate("wattseal/gw1"))
