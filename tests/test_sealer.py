"""app/sealer.py: what is acknowledged is sealed once, in order, for good; and what the disk has no room for is said."""

import contextlib
from pathlib import Path

import pytest

from gateway.app.heads import MOST_BOOTS, MOST_LINES
from gateway.codec.bodies import event_body, line_body, schema_body
from gateway.codec.frames import LeafHash
from gateway.codec.leaves import MAX_LEAF
from gateway.codec.pack import pack, unpack
from gateway.errors import LogError, TrustError
from gateway.model import ClockState, Column, LineColumn, LineSchema, Role, Schema
from gateway.store.files import RealFiles
from gateway.store.segments import Log, StoreFull
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.merkle import leaf_hash
from gateway.tlog.note import Signer
from tests.sealing import (
    BOOT,
    LINE,
    LINES,
    NS,
    ORIGIN,
    OTHER_BOOT,
    OTHER_LINE,
    SCHEMA,
    SIGNER,
    T0_S,
    WIDER,
    WITNESS,
    Body,
    Box,
    Hands,
    bodies_of,
    event,
    interval,
    readings,
    root_of,
)


@pytest.fixture
def box(tmp_path: Path) -> Box:
    made = Box.at(tmp_path / "log")
    made.sealer.welcome(BOOT)
    return made


# ---- starts


def test_each_start_begins_with_an_epoch_leaf_and_a_higher_number(box: Box) -> None:
    starts = [0]
    for sign in (False, True, False):
        box.put(SCHEMA, readings(1))
        starts.append(box.log.size)
        box.restart(sign=sign)
    leaves = box.leaves()
    epochs = [(at, leaf.body["epoch"]) for at, leaf in enumerate(leaves) if leaf and leaf.kind == "epoch"]
    assert epochs == list(zip(starts, [1, 2, 3, 4], strict=True))
    assert all(leaf.body["key"] == SIGNER.verifier.vkey for leaf in leaves if leaf and leaf.kind == "epoch")
    assert all(leaf.body["binding"] == {"type": "unattested"} for leaf in leaves if leaf and leaf.kind == "epoch")
    assert [about["log_size"] for about in box.events("seal.started")] == starts


def test_the_start_is_signed_before_anybody_asks(box: Box) -> None:
    assert box.checkpoint().size == box.log.size == 2


def test_a_torn_tail_is_said(tmp_path: Path) -> None:
    """Bytes behind the last whole leaf, as a power cut leaves them, are cut off, and an event says how many."""
    box = Box.at(tmp_path / "log")
    box.log.close()
    bundle = next((tmp_path / "log" / "tile" / "entries").glob("*.part"))
    bundle.write_bytes(bundle.read_bytes() + b"\0\x40torn")
    box.start()
    assert box.events("seal.recovered") == [{"torn_bytes": 6}]
    assert box.kinds() == ["epoch", "event", "epoch", "event", "event"]


def test_a_checkpoint_by_another_key_stops_the_start(box: Box, tmp_path: Path) -> None:
    box.log.close()
    with pytest.raises(LogError, match="not by this gateway's key"):
        Box.at(tmp_path / "log", signer=Signer.generate(ORIGIN))


def test_a_checkpoint_that_says_another_root_stops_the_start(box: Box) -> None:
    """Only the note was exchanged for one that the key has signed, too: of another log of the same size."""
    size = box.log.signed
    other = checkpoints.sign(Checkpoint(origin=ORIGIN, size=size, root=bytes(32)), SIGNER)
    box.log.record(other, box.log.heads, size, box.log.root(size))
    with pytest.raises(LogError, match="the checkpoint says"):
        box.restart()


GOOD_HEADS = [BOOT, 1, 1, 1, {}, {}, [], {}]


@pytest.mark.parametrize(
    "heads",
    [
        b"\xc1",
        pack("heads"),
        pack(None),
        pack([]),
        pack(GOOD_HEADS[:-1]),
        pack([*GOOD_HEADS, 1]),
        pack(["boot", *GOOD_HEADS[1:]]),
        pack([BOOT, -1, *GOOD_HEADS[2:]]),
        pack([BOOT, 1, True, *GOOD_HEADS[3:]]),
        pack([BOOT, 1, 1, 2**63, *GOOD_HEADS[4:]]),
        pack([*GOOD_HEADS[:4], {"filling": 2}, {}, [], {}]),
        pack([*GOOD_HEADS[:4], {"filling": "1"}, {}, [], {}]),
        pack([*GOOD_HEADS[:4], [], {}, [], {}]),
        pack([*GOOD_HEADS[:5], {"00": 1}, [], {}]),
        pack([*GOOD_HEADS[:5], {"00": ["filling", 1]}, [], {}]),
        pack([*GOOD_HEADS[:5], {"00": ["filling", 1, 0]}, [], {}]),
        pack([*GOOD_HEADS[:5], {"00": [b"filling", 1, 60]}, [], {}]),
        pack([*GOOD_HEADS[:5], [], [], {}]),
        pack([*GOOD_HEADS[:5], {}, [[BOOT]], {}]),
        pack([*GOOD_HEADS[:5], {}, [[BOOT, "1"]], {}]),
        pack([*GOOD_HEADS[:5], {}, [["boot", 1]], {}]),
        pack([*GOOD_HEADS[:5], {}, [[[], 1]], {}]),
        pack([*GOOD_HEADS[:7], []]),
        pack([*GOOD_HEADS[:7], {"press": [BOOT, 1, 1, 1]}]),
        pack([*GOOD_HEADS[:7], {"press": ["boot", 1, 1, 1, []]}]),
        pack([*GOOD_HEADS[:7], {"press": [BOOT, -1, 1, 1, []]}]),
        pack([*GOOD_HEADS[:7], {"press": [BOOT, 1, True, 1, []]}]),
        pack([*GOOD_HEADS[:7], {"press": [BOOT, 1, 1, 1, [BOOT] * 9]}]),
        pack([*GOOD_HEADS[:7], {"press": [BOOT, 1, 1, 1, [1]]}]),
    ],
)
def test_tampered_heads_stop_the_start(box: Box, heads: bytes) -> None:
    """Their checksum holds: whoever can write the folder can make one. What they say must still make sense."""
    assert box.log.signed == 2
    box.log.record(box.log.checkpoint or b"", heads, 2, box.log.root(2))
    with pytest.raises(LogError, match="heads"):
        box.restart()


def test_a_flipped_bit_in_the_checkpoint_file_stops_the_start(box: Box, tmp_path: Path) -> None:
    box.log.close()
    path = tmp_path / "log" / "checkpoint"
    content = bytearray(path.read_bytes())
    content[-40] ^= 1
    path.write_bytes(content)
    with pytest.raises(LogError, match="checkpoint"):
        box.start()


@pytest.mark.parametrize("leaf", [b"no leaf", b"\x80"])
def test_a_leaf_that_no_sealer_can_have_made_stops_the_start(box: Box, leaf: bytes) -> None:
    box.log.append(leaf)
    box.log.commit()
    with pytest.raises(LogError, match="leaf 2"):
        box.restart()


# ---- once


@pytest.mark.parametrize("sign", [False, True])
def test_a_batch_is_sealed_once_even_if_the_seal_restarts_in_between(box: Box, *, sign: bool) -> None:
    """The acknowledgement is lost with the seal; collect sends all of it again."""
    bodies = [SCHEMA, *(readings(number) for number in range(1, 5))]
    box.put(*bodies)
    assert box.restart(sign=sign) == 5
    for number, (kind, body) in enumerate([*bodies, readings(5)], 1):
        box.sealer.put(number, kind, body)
    box.sealer.commit()
    assert box.sources() == [(BOOT, number) for number in range(1, 7)]
    assert box.sealer.counts.duplicates == 5


@pytest.mark.parametrize("sign", [False, True])
def test_what_was_not_committed_is_asked_for_again(box: Box, *, sign: bool) -> None:
    box.put(SCHEMA)
    if sign:
        box.sealer.sign()
    box.put(readings(1), readings(2), commit=False)
    assert box.restart() == 1
    assert box.sources() == [(BOOT, 1)]


def test_a_new_boot_starts_from_zero_and_an_older_one_is_still_known(box: Box) -> None:
    """Two collects at once, by mistake: each goes on where it was, and nothing is sealed twice."""
    box.put(SCHEMA, readings(1))
    assert box.sealer.welcome(OTHER_BOOT) == 0
    box.sealer.put(1, *readings(3))
    box.sealer.commit()
    assert box.sealer.welcome(BOOT) == 2
    assert box.restart(sign=True, boot=OTHER_BOOT) == 1
    assert box.sealer.welcome(BOOT) == 2
    box.put(readings(5))
    assert box.restart(boot=OTHER_BOOT) == 1
    assert box.sources() == [(BOOT, 1), (BOOT, 2), (OTHER_BOOT, 1), (BOOT, 3)]


def test_the_number_of_boots_that_are_remembered_has_a_bound(box: Box) -> None:
    box.put(SCHEMA)
    for number in range(MOST_BOOTS):
        box.sealer.welcome(number.to_bytes(8, "big"))
    assert box.sealer.welcome(BOOT) == 1
    for number in range(1000):
        box.sealer.welcome(number.to_bytes(8, "big"))
    box.put(readings(1))
    box.sealer.sign()
    assert box.sealer.welcome(BOOT) == 0
    assert len(box.log.heads) < 500


# ---- malformed


LONG = Schema(device="m1", columns=tuple(Column(name=f"{n:0>150}", unit="", store="f32") for n in range(500)))
FOREIGN = LineSchema(name="foreign", site="", zone="", period_s=60, columns=LINE.columns)
MALFORMED: dict[str, Body] = {
    "an unknown kind": ("nonsense", pack({})),
    "a kind of the sealer's own": ("epoch", pack({"epoch": 9, "key": "k", "binding": {}})),
    "a kind of the ledger's": ("accepted", pack({"gateway": "gw1", "checkpoint": ""})),
    "no msgpack": ("event", b"\xc1"),
    "nothing": ("event", b""),
    "trailing bytes": ("event", event(1)[1] + b"\0"),
    "no map": ("event", pack([1])),
    "other keys": ("event", pack({"what": "x", "t": 1})),
    "another order of keys": ("event", pack({"t": 1, "what": "x", "about": {}})),
    "a negative time": ("event", pack({"what": "x", "t": -1, "about": {}})),
    "a key twice": ("event", b"\x83" + (pack("what") + pack("x")) * 2 + pack("t") + pack(1)),
    "too deep a nest": ("event", event_body("x", 1, {"a": [[[[[[[[[[1]]]]]]]]]]})),
    "a row without a schema": ("readings", pack({"rows": [[None, 1, b"", None, None]]})),
    "a row with a quality that does not exist": ("readings", pack({"rows": [[bytes(8), 1, b"", b"\3", None]]})),
    "a schema with another's id": ("schema", pack({**unpack(SCHEMA[1]), "id": bytes(8)})),
    "a line without a period": ("schema", pack({**unpack(LINES[0][1]), "line": {"name": "x"}})),
    "an interval of an unknown schema": interval(1, FOREIGN),
    "an interval with a number that is none": (
        "interval",
        pack({"schema": LINE.id, "t": 0, "samples": [[0, b"", "1e5", 0, None]]}),
    ),
    "an interval with a sample too few": ("interval", pack({"schema": LINE.id, "t": 0, "samples": []})),
    "an interval off its line's period": (
        "interval",
        pack({**unpack(interval(1)[1]), "t": unpack(interval(1)[1])["t"] + NS}),
    ),
    "more than a leaf can hold": ("schema", schema_body(LONG)),
}


@pytest.mark.parametrize("what", MALFORMED)
@pytest.mark.parametrize("restart", [False, True])
def test_what_is_malformed_is_refused_and_counts_as_answered(box: Box, what: str, *, restart: bool) -> None:
    """It is not sealed, now or later, and what follows it is."""
    box.put(SCHEMA, *LINES)
    box.sequence += 1
    with pytest.raises(TrustError):
        box.sealer.put(box.sequence, *MALFORMED[what])
    assert box.sealer.counts.refused == 1
    box.sealer.put(box.sequence, *readings(1))
    assert box.sealer.counts.duplicates == 1
    box.put(readings(2))
    if restart:
        box.restart()
        box.put(readings(3))
    assert [number for _, number in box.sources()] == [1, 2, 3, 5, *([6] if restart else [])]


@pytest.mark.parametrize("sequence", [-1, 2**63, 2**64])
def test_a_sequence_number_that_no_leaf_can_hold_is_refused(box: Box, sequence: int) -> None:
    with pytest.raises(TrustError, match="sequence"):
        box.sealer.put(sequence, *SCHEMA)
    assert box.sealer.counts.refused == 1
    box.put(SCHEMA)
    assert box.sources() == [(BOOT, 1)]


def test_a_schema_that_was_too_long_to_seal_explains_no_interval(box: Box) -> None:
    """Else an interval would name a schema that is not in the log."""
    points = tuple(LineColumn(point=f"{n:0>180}", unit="kWh", role=Role.ENERGY) for n in range(400))
    long = LineSchema(name="long", site="", zone="", period_s=60, columns=points)
    assert len(line_body(long)) > MAX_LEAF
    with pytest.raises(TrustError, match="65535"):
        box.put(("schema", line_body(long)))
    with pytest.raises(TrustError, match="is no line's newest"):
        box.put(("interval", pack({"schema": long.id, "t": 0, "samples": []})))


def test_collect_cannot_make_the_heads_grow_without_bound(box: Box) -> None:
    """Any number of schemas of a line are one entry; there are at most so many lines."""
    for number in range(50):
        column = LineColumn(point=f"m{number}.energy", unit="kWh", role=Role.ENERGY)
        line = LineSchema(name="a", site="", zone="", period_s=60, columns=(column,))
        box.put(("schema", line_body(line)), commit=False)
    box.sealer.commit()
    box.sealer.sign()
    size = len(box.log.heads)
    assert size < 200
    for number in range(MOST_LINES - 1):
        line = LineSchema(name=f"l{number}", site="", zone="", period_s=60, columns=())
        box.put(("schema", line_body(line)), commit=False)
    with pytest.raises(TrustError, match="at most 1000 lines"):
        box.put(("schema", line_body(LineSchema(name="one more", site="", zone="", period_s=60, columns=()))))
    box.put(("schema", line_body(LineSchema(name="l7", site="new", zone="", period_s=60, columns=()))))


# ---- intervals


def test_each_interval_names_the_one_before_it_on_its_line(box: Box) -> None:
    """Across restarts, signed or not, other lines, and a new schema of the line."""
    box.put(*LINES, interval(1), interval(1, OTHER_LINE), interval(2))
    box.restart()
    box.put(interval(2, OTHER_LINE), interval(3))
    box.restart(sign=True)
    box.put(("schema", line_body(WIDER)), interval(4, WIDER), interval(3, OTHER_LINE))
    box.restart()
    box.put(interval(5, WIDER))
    found: dict[bytes, list[tuple[int, int | None]]] = {}
    for at, leaf in enumerate(box.leaves()):
        if leaf is not None and leaf.kind == "interval":
            line = OTHER_LINE.id if leaf.body["schema"] == OTHER_LINE.id else LINE.id
            found.setdefault(line, []).append((at, leaf.prev))
    for chain in found.values():
        indices = [at for at, _ in chain]
        assert [prev for _, prev in chain] == [None, *indices[:-1]]
    assert [len(chain) for chain in found.values()] == [5, 3]


def test_only_the_newest_schema_of_a_line_may_be_named(box: Box) -> None:
    box.put(LINES[0], ("schema", line_body(WIDER)))
    with pytest.raises(TrustError, match="newest"):
        box.put(interval(1))
    box.restart()
    with pytest.raises(TrustError, match="newest"):
        box.put(interval(1))
    box.put(interval(1, WIDER))


# ---- checkpoints and receipts


def test_only_what_is_durable_is_signed(box: Box) -> None:
    box.put(SCHEMA, commit=False)
    assert not box.sealer.sign()
    assert (box.checkpoint().size, box.log.size) == (2, 3)
    box.sealer.commit()
    assert box.sealer.sign()
    assert not box.sealer.sign()
    assert box.checkpoint() == Checkpoint(
        origin=ORIGIN, size=3, root=root_of(tuple(body or b"" for body in bodies_of(box.log)))
    )


def test_a_checkpoint_does_not_speak_of_what_waits_for_commit(box: Box) -> None:
    """What stands beside it would say that a batch is sealed which a crash then takes away: collect would lose it."""
    box.put(SCHEMA)
    box.put(readings(1), commit=False)
    assert not box.sealer.sign()
    assert box.restart() == 1


def test_a_receipt_is_kept_over_a_restart(box: Box) -> None:
    box.put(SCHEMA, readings(1))
    box.sealer.sign()
    note = box.receipt()
    assert box.sealer.receive(note) == box.sealer.receipted == box.sealer.counts.receipt_size == 4
    box.restart()
    assert (box.sealer.receipted, box.log.receipt) == (4, note)


def test_an_older_receipt_changes_nothing(box: Box) -> None:
    box.put(SCHEMA, readings(1))
    box.sealer.sign()
    newest = box.receipt()
    box.sealer.receive(newest)
    for size in (0, 1, 3, 4):
        assert box.sealer.receive(box.receipt(size)) == 4
    assert box.log.receipt == newest


def test_a_receipt_of_another_key_log_or_history_is_refused(box: Box) -> None:
    box.put(SCHEMA, readings(1))
    box.sealer.sign()
    root, size = box.log.root(4), 4

    def cosigned(signer: Signer = WITNESS, origin: str = ORIGIN, size: int = size, root: bytes = root) -> bytes:
        return checkpoints.cosign(Checkpoint(origin=origin, size=size, root=root), signer.cosigner(), time_s=T0_S)

    stranger = Signer.generate(WITNESS.name)
    good = cosigned()
    forged = [
        cosigned(signer=stranger),
        cosigned(signer=Signer.generate("wattseal-ledger/other")),
        cosigned(origin="wattseal/gw2"),
        cosigned(origin=WITNESS.name),
        cosigned(root=bytes(32)),
        cosigned(size=3),
        cosigned(size=5),
        cosigned(size=2**40),
        WITNESS.sign_note(Checkpoint(origin=ORIGIN, size=size, root=root).text),
        box.log.checkpoint or b"",
        good.replace(b"\n4\n", b"\n3\n"),
        good.replace(b"\n4\n", b"\n04\n"),
        good[:-1],
        good + good,
        b"",
        b"nonsense",
    ]
    for note in forged:
        with pytest.raises(TrustError):
            box.sealer.receive(note)
    assert (box.sealer.receipted, box.log.receipt) == (0, None)
    assert box.sealer.receive(good) == 4


# ---- what forward reads


def test_each_chunk_ends_with_a_checkpoint_of_its_own_size(box: Box) -> None:
    """So a backlog goes in pieces, each of which the ledger can verify; none shows what is not signed yet."""
    box.put(SCHEMA, *(readings(number, rows=5) for number in range(40)))
    box.sealer.sign()
    box.put(readings(99))
    seen: tuple[bytes | LeafHash, ...] = ()
    messages = list(box.chunks(1000))
    assert len(messages) > 5
    for message in messages:
        seen += message.leaves
        found = checkpoints.verify(message.checkpoint, origin=ORIGIN, verifier=SIGNER.verifier)
        assert (found.size, found.root) == (len(seen), root_of(seen))
        assert sum(map(len, message.leaves)) <= 1000
    assert len(seen) == box.sealer.signed == box.log.size - 1
    assert list(seen) == bodies_of(box.log)[:-1]


def test_a_chunk_has_at_least_one_leaf(box: Box) -> None:
    assert [len(message.leaves) for message in box.chunks(1)] == [1, 1]


@pytest.mark.parametrize("first", [-1, 2, 3, 2**70])
def test_a_chunk_from_nowhere_is_refused(box: Box, first: int) -> None:
    with pytest.raises(TrustError, match="read"):
        box.sealer.chunk(first, 1000)


# ---- the clock


def test_a_clock_behind_the_newest_leaf_is_suspect(tmp_path: Path) -> None:
    """A battery died: the clock says an hour less than the log has seen. It moves no floor."""
    hands = Hands(wall_ns=(T0_S + 10**9) * NS)
    box = Box.at(tmp_path / "log", clock=hands.clock())
    box.options = {}
    for sign in (False, True):
        box.restart(sign=sign)
        leaf = box.leaves()[-1]
        assert leaf is not None
        assert leaf.clock.state == ClockState.SUSPECT
    assert [leaf.clock.state for leaf in box.leaves() if leaf is not None] == [0, 0, 2, 2, 2, 2]


def test_a_step_of_the_clock_is_an_event(tmp_path: Path) -> None:
    hands = Hands()
    box = Box.at(tmp_path / "log", clock=hands.clock())
    box.sealer.welcome(BOOT)
    box.put(SCHEMA)
    hands.pass_s(5)
    hands.wall_ns -= 600 * NS
    box.put(readings(1), readings(2))
    assert box.events("clock.stepped") == [{"by_ns": -600 * NS}]
    states = [(leaf.kind, leaf.clock.state) for leaf in box.leaves()[2:] if leaf is not None]
    assert states == [("schema", 0), ("readings", 2), ("event", 2), ("readings", 2)]


def test_a_step_that_is_seen_while_an_event_is_written_is_not_lost(tmp_path: Path) -> None:
    """The clock is read for the event's own time, too."""
    hands = Hands()
    box = Box.at(tmp_path / "log", height=2, clock=hands.clock(), budget_bytes=2000)
    box.sealer.welcome(BOOT)
    box.put(SCHEMA, *(readings(number, rows=10) for number in range(12)))
    box.sealer.sign()
    hands.wall_ns += 3600 * NS
    assert box.sealer.tidy()
    assert box.events("clock.stepped") == [{"by_ns": 3600 * NS}]


# ---- the disk budget


def small(folder: Path, *, keep_bytes: int = 1000, drop_readings: bool = True) -> Box:
    """Return a box with bundles of four leaves."""
    box = Box.at(folder / "log", height=2, budget_bytes=8000, keep_bytes=keep_bytes, drop_readings=drop_readings)
    box.sealer.welcome(BOOT)
    box.put(SCHEMA, *LINES)
    return box


def fill(box: Box, number: int) -> bool:
    """Hand over some readings and an interval, then let a beat pass; return whether there was room for all."""
    try:
        box.put(*(readings(number, rows=6) for _ in range(5)), interval(number))
    except StoreFull:
        box.sequence -= 1
        return False
    box.sealer.sign()
    box.sealer.tidy()
    return True


def test_what_has_a_receipt_goes_first(tmp_path: Path) -> None:
    """Nothing is lost by it, so no event speaks of a loss; the reserve stays."""
    box = small(tmp_path, keep_bytes=2500)
    for number in range(20):
        assert fill(box, number)
        box.sealer.receive(box.receipt())
        assert box.log.body_bytes <= 2500 + 1500
    assert box.events("seal.dropped") == []
    assert box.sealer.counts.dropped == 0
    assert box.log.body_bytes > 1000
    assert box.kinds()[0] == ""


def test_a_reserve_larger_than_the_budget_stops_nobody(tmp_path: Path) -> None:
    """`keep_mb` has a default: beside a small `budget_mb` it must not keep everything."""
    box = small(tmp_path, keep_bytes=64 << 20, drop_readings=False)
    for number in range(20):
        assert fill(box, number)
        box.sealer.receive(box.receipt())
    assert box.sealer.counts.full == 0


def test_a_budget_smaller_than_one_bundle_stops_nobody(tmp_path: Path) -> None:
    """A bundle that grows can be neither pruned nor dropped: it comes on top, or nothing would ever move again."""
    box = Box.at(tmp_path / "log", height=4, budget_bytes=300, keep_bytes=0)
    box.sealer.welcome(BOOT)
    box.put(SCHEMA, LINES[0])
    for number in range(30):
        assert fill(box, number)
        box.sealer.receive(box.receipt())
        box.sealer.tidy()
    assert box.log.body_bytes < 300 + 17 * 400


def test_without_receipts_the_oldest_readings_go_and_an_event_says_which(tmp_path: Path) -> None:
    box = small(tmp_path)
    number = 0
    while not box.sealer.counts.dropped:
        number += 1
        assert fill(box, number)
    kinds = box.kinds()
    told = box.events("seal.dropped")
    missing = [at for at, kind in enumerate(kinds) if not kind]
    assert missing
    assert len(missing) == box.sealer.counts.dropped == sum(about["readings_leaves"] for about in told)
    assert all(any(about["first"] <= at < about["stop"] for about in told) for at in missing)
    assert kinds.count("interval") == number
    assert kinds.count("schema") == 3
    assert box.log.body_bytes <= 8000
    chunked = next(box.chunks()).leaves
    assert [at for at, leaf in enumerate(chunked) if isinstance(leaf, LeafHash)] == missing
    assert [leaf_hash(leaf) if not isinstance(leaf, LeafHash) else leaf for leaf in chunked] == [
        box.log.leaf_hash(at) for at in range(len(chunked))
    ]


def test_with_intervals_alone_the_seal_is_full_until_receipts_come(tmp_path: Path) -> None:
    """Figures rest on them, so they are never dropped. It goes on by itself."""
    box = small(tmp_path)
    number = 0
    while fill(box, number):
        number += 1
    box.sealer.tidy()
    assert box.sealer.is_full
    assert box.sealer.counts.full == 1
    intervals = box.kinds().count("interval")
    with pytest.raises(StoreFull, match="budget_mb"):
        box.sealer.put(box.sequence + 1, *event(1))
    box.sealer.sign()
    box.sealer.receive(box.receipt())
    assert not box.sealer.is_full
    assert fill(box, number + 1)
    sealed = [number for _, number in box.sources()]
    assert sealed == sorted(set(sealed))
    assert intervals > 5


def test_a_seal_that_must_not_drop_refuses_instead(tmp_path: Path) -> None:
    box = small(tmp_path, drop_readings=False)
    number = 0
    while fill(box, number):
        number += 1
    box.sealer.tidy()
    assert box.sealer.is_full
    assert "" not in box.kinds()
    box.restart()
    assert box.sealer.is_full
    box.sealer.receive(box.receipt())
    assert not box.sealer.is_full
    assert fill(box, number)


def test_the_log_is_the_same_after_any_deletion(tmp_path: Path) -> None:
    """Hashes stay: the root over dropped and pruned leaves is the one that was signed, also after a restart."""
    box = small(tmp_path)
    for number in range(20):
        fill(box, number)
        if number == 10:
            box.sealer.receive(box.receipt())
    box.restart()
    leaves = tuple(leaf for message in box.chunks(2000) for leaf in message.leaves)
    assert root_of(leaves) == box.checkpoint().root
    assert any(isinstance(leaf, LeafHash) for leaf in leaves)
    with contextlib.closing(Log.open(RealFiles(tmp_path / "other"), origin="wattseal/x", height=2)) as other:
        for leaf in leaves:
            other.append_hash(leaf) if isinstance(leaf, LeafHash) else other.append(leaf)
        assert other.root(other.size) == box.checkpoint().root
