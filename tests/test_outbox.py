"""The queue between polling and the seal: nothing is lost, reordered or sealed twice, but what is counted."""

import asyncio
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from gateway.app.outbox import MOST_BODY, MOST_IN_FLIGHT, Batch, Outbox
from gateway.codec.checks import check_body, rows_of
from gateway.codec.frames import Message
from gateway.codec.pack import unpack
from gateway.model import Column, Quality, Row, Schema

NOW = 1_760_000_400_000_000_000
SCHEMA = Schema(device="m1", columns=(Column(name="a", unit="", store="f64"), Column(name="b", unit="", store="s8")))


def batch(kind: str, number: int, size: int = 100, rows: int | None = None) -> Batch:
    """Return a batch with its number in its body; readings say that they are as many rows as their number."""
    count = (number if rows is None else rows) if kind == "readings" else 0
    return Batch(kind, f"{kind} {number}".encode().ljust(size, b"."), count, NOW + number if count else 0)


def names(messages: Iterable[Message]) -> list[str]:
    """Return what stands in the bodies of messages, or what a `collect.dropped` event says."""
    return [said(message) or message[3].decode().rstrip(".") for message in messages]


def said(message: Message) -> str:
    """Return a `collect.dropped` event in words, "" for any other message."""
    if not message[3].startswith(b"\x83"):
        return ""
    about = check_body("event", unpack(message[3]))["about"]
    return f"dropped {about['batches']} batches, {about['rows']} rows of {','.join(about['kinds'])}"


def sequences(messages: Iterable[Message]) -> list[int]:
    return [message[1] for message in messages]


def row(value: float = 1.0, status: str = "", qualities: tuple[Quality, ...] | None = None) -> Row:
    values = (value, "x") if qualities is None else (None, None)
    return Row(schema=SCHEMA, source_time_ns=NOW, values=values, qualities=qualities, status=status)


# --- in order, again after a break ---


def test_batches_go_out_in_order_with_rising_sequence_numbers() -> None:
    outbox = Outbox(most_bytes=10_000)
    for number in range(3):
        outbox.put(batch("event", number))
    messages = outbox.unsent(NOW)
    assert messages == [["put", n + 1, "event", batch("event", n).body] for n in range(3)]
    outbox.put(batch("interval", 3))
    assert sequences(outbox.unsent(NOW)) == [4]
    assert outbox.unsent(NOW) == []


def test_each_start_has_its_own_boot_id() -> None:
    assert len({Outbox(most_bytes=1).boot for _ in range(10)}) == 10
    assert len(Outbox(most_bytes=1).boot) == 8


def test_what_was_not_answered_is_sent_again_as_it_was() -> None:
    """The seal knows a batch by its number: it must be the same bytes under the same number."""
    outbox = Outbox(most_bytes=10_000)
    for number in range(5):
        outbox.put(batch("event", number))
    first = outbox.unsent(NOW)
    assert outbox.resume(2) == first[2:]
    assert outbox.resume(2) == first[2:]
    assert outbox.resume(0) == first[2:], "what is durable stays answered"
    assert outbox.resume(5) == []
    assert outbox.is_empty


def test_an_acknowledgement_counts_for_all_before_it() -> None:
    outbox = Outbox(most_bytes=10_000)
    for number in range(5):
        outbox.put(batch("event", number))
    outbox.unsent(NOW)
    assert outbox.acknowledge(3) == 3
    assert outbox.acknowledge(3) == 0
    assert sequences(outbox.in_flight()) == [4, 5]
    assert outbox.acknowledge(99) == 2


def test_a_refused_batch_is_never_sent_again_and_no_other_is_touched() -> None:
    outbox = Outbox(most_bytes=10_000)
    for number in range(3):
        outbox.put(batch("event", number))
    outbox.unsent(NOW)
    outbox.refuse(2)
    assert names(outbox.resume(0)) == ["event 0", "event 2"]
    outbox.refuse(2)
    outbox.refuse(99)
    assert sequences(outbox.in_flight()) == [1, 3]
    outbox.acknowledge(3)
    assert outbox.is_empty


def test_at_most_so_many_batches_are_under_way() -> None:
    outbox = Outbox(most_bytes=100_000)
    for number in range(40):
        outbox.put(batch("event", number))
    assert sequences(outbox.unsent(NOW)) == list(range(1, MOST_IN_FLIGHT + 1))
    assert outbox.unsent(NOW) == []
    outbox.acknowledge(1)
    outbox.refuse(5)
    assert sequences(outbox.unsent(NOW)) == [MOST_IN_FLIGHT + 1, MOST_IN_FLIGHT + 2]
    assert len(outbox.in_flight()) == MOST_IN_FLIGHT


async def test_the_sender_is_woken_when_there_is_something_to_send_and_room_for_it() -> None:
    outbox = Outbox(most_bytes=100_000)
    assert not outbox.filled.is_set()
    for number in range(MOST_IN_FLIGHT + 1):
        outbox.put(batch("event", number))
    assert outbox.filled.is_set()
    outbox.unsent(NOW)
    assert not outbox.filled.is_set(), "no room: the sender must sleep, not spin"
    outbox.acknowledge(1)
    assert outbox.filled.is_set()
    outbox.unsent(NOW)
    outbox.refuse(2)
    assert not outbox.filled.is_set(), "room, but nothing waits"


async def test_waiting_for_the_end_ends_with_the_last_answer() -> None:
    outbox = Outbox(most_bytes=10_000)
    await outbox.emptied()
    outbox.put(batch("event", 1))
    outbox.put(batch("event", 2))
    outbox.add(row())
    waiting = asyncio.ensure_future(outbox.emptied())
    outbox.flush()
    outbox.unsent(NOW)
    for answer in (lambda: outbox.acknowledge(1), lambda: outbox.refuse(2)):
        await asyncio.sleep(0)
        assert not waiting.done()
        answer()
    await asyncio.sleep(0.01)
    assert not waiting.done()
    outbox.acknowledge(3)
    await asyncio.wait_for(waiting, 1)


# --- the bound ---


def test_at_the_bound_the_oldest_readings_go_first() -> None:
    outbox = Outbox(most_bytes=500)
    for number in range(1, 8):
        outbox.put(batch("readings", number))
    assert outbox.depth_bytes == 500
    assert names(outbox.unsent(NOW)) == [
        "dropped 2 batches, 3 rows of readings",
        *(f"readings {n}" for n in range(3, 8)),
    ]
    assert outbox.dropped_rows == 3


def test_an_interval_is_never_dropped_before_readings() -> None:
    """Figures rest on intervals alone; a newer reading goes before an older interval."""
    outbox = Outbox(most_bytes=500)
    for number in range(1, 4):
        outbox.put(batch("interval", number))
    for number in range(4, 9):
        outbox.put(batch("readings", number))
    outbox.put(batch("interval", 9))
    outbox.put(batch("event", 10))
    kept = names(outbox.unsent(NOW))
    assert kept[1:] == ["interval 1", "interval 2", "interval 3", "interval 9", "event 10"]
    assert kept[0] == "dropped 5 batches, 30 rows of readings"


def test_without_readings_the_oldest_of_the_rest_goes() -> None:
    outbox = Outbox(most_bytes=300)
    for number, kind in enumerate(["event", "interval", "interval", "event"]):
        outbox.put(batch(kind, number))
    assert names(outbox.unsent(NOW)) == ["dropped 1 batches, 0 rows of event", "interval 1", "interval 2", "event 3"]


def test_a_schema_is_never_dropped() -> None:
    """Without it the seal refuses the intervals and nobody can read the rows, until collect is started again."""
    outbox = Outbox(most_bytes=300)
    for number in range(5):
        outbox.put(batch("schema", number))
    for number in range(5, 9):
        outbox.put(batch("interval", number))
    assert names(outbox.unsent(NOW)) == [
        "dropped 4 batches, 0 rows of interval",
        *(f"schema {number}" for number in range(5)),
    ]


def test_what_is_under_way_is_never_dropped() -> None:
    """It may be sealed already; a number that means two things would lose one of them."""
    outbox = Outbox(most_bytes=300)
    for number in range(1, 4):
        outbox.put(batch("readings", number))
    first = outbox.unsent(NOW)
    for number in range(4, 20):
        outbox.put(batch("readings", number))
    assert outbox.resume(0) == first
    assert names(outbox.unsent(NOW))[1:] == ["readings 17", "readings 18", "readings 19"]


def test_a_batch_larger_than_the_bound_is_kept_when_it_is_alone() -> None:
    outbox = Outbox(most_bytes=300)
    outbox.put(batch("readings", 1, 400))
    assert names(outbox.unsent(NOW)) == ["readings 1"]


def test_the_dropped_event_says_what_how_many_and_since_when() -> None:
    outbox = Outbox(most_bytes=250)
    for number in range(1, 6):
        outbox.put(batch("readings", number))
    event, *_ = outbox.unsent(NOW + 7)
    assert event[2] == "event"
    assert check_body("event", unpack(event[3])) == {
        "what": "collect.dropped",
        "t": NOW + 7,
        "about": {
            "batches": 3,
            "rows": 6,
            "since": NOW + 1,
            "kinds": ["readings"],
            "why": "the queue to the seal was full",
        },
    }
    assert names(outbox.unsent(NOW + 8)) == [], "it is said once"


def test_a_dropped_event_is_not_dropped_itself() -> None:
    """Once, it could wait in the queue like any other, go as the oldest of all, and take its counts with it."""
    outbox = Outbox(most_bytes=250)
    for number in range(MOST_IN_FLIGHT):
        outbox.put(batch("event", number, 1))
    assert len(outbox.unsent(NOW)) == MOST_IN_FLIGHT
    for number in range(1, 10):
        outbox.put(batch("readings", number))
        assert outbox.unsent(NOW) == []
    for number in range(10, 13):
        outbox.put(batch("interval", number))
        assert outbox.unsent(NOW) == []
    outbox.acknowledge(MOST_IN_FLIGHT)
    assert names(outbox.unsent(NOW)) == [
        "dropped 10 batches, 45 rows of interval,readings",
        "interval 11",
        "interval 12",
    ]


# --- rows ---


def test_rows_are_joined_until_they_are_flushed() -> None:
    outbox = Outbox(most_bytes=100_000)
    for number in range(10):
        outbox.add(row(float(number)))
    assert outbox.unsent(NOW) == []
    assert not outbox.is_empty
    assert outbox.depth_bytes > 0
    outbox.flush()
    outbox.flush()
    (message,) = outbox.unsent(NOW)
    body = check_body("readings", unpack(message[3]))
    assert [found.values[0] for found in rows_of(body, {SCHEMA.id: SCHEMA})] == list(range(10))


@settings(max_examples=30)
@given(
    st.lists(
        st.builds(
            row,
            st.floats(allow_nan=False),
            st.text(max_size=200) | st.sampled_from(["", "\N{SNOWMAN}" * 200, "\U0001f600" * 200]),
            st.none() | st.just((Quality.BAD,) * 2),
        ),
        min_size=1,
        max_size=8,
    ),
    st.integers(1, 400),
)
def test_no_batch_of_rows_is_ever_too_long_for_a_leaf(rows: list[Row], times: int) -> None:
    """Whatever the status says, in whatever script: once, characters were counted where bytes go into the leaf."""
    outbox = Outbox(most_bytes=1 << 30)
    for number in range(times):
        outbox.add(rows[number % len(rows)])
    outbox.flush()
    count = 0
    while messages := outbox.unsent(NOW):
        for message in messages:
            assert len(message[3]) <= MOST_BODY
            count += len(unpack(message[3])["rows"])
        outbox.acknowledge(messages[-1][1])
    assert count == times


def test_rows_of_the_fast_path_fill_a_leaf_and_do_not_overflow_it() -> None:
    outbox = Outbox(most_bytes=1 << 30)
    for _ in range(5000):
        outbox.add(row())
    outbox.flush()
    sizes = [len(message[3]) for message in outbox.unsent(NOW)]
    assert max(sizes) <= MOST_BODY
    assert min(sizes[:-1]) > MOST_BODY // 2


# --- any order of events ---


class Seal:
    """A seal as docs/wire.md has it: group commits, refusals, `full`, and restarts that forget what was not durable."""

    def __init__(self) -> None:
        self.durable: list[Message] = []
        self.refused: set[bytes] = set()
        self.has_room = True
        self.last = 0
        self._pending: list[Message] = []
        self._stalled: int | None = None

    def connected(self) -> int:
        """Return the last number that is durable: what `welcome` says."""
        self._stalled = None
        return self.last

    def hears(self, messages: list[Message], *, dies: bool) -> list[Message]:
        """Take what has arrived; commit it and answer, or die before that."""
        answers: list[Message] = []
        last = self.last
        for message in messages:
            sequence, body = message[1], message[3]
            if self._stalled not in {None, sequence}:
                continue
            if sequence > last and not self.has_room:
                self._stalled = sequence
                answers.append(["full", sequence])
                break
            self._stalled = None
            if sequence > last and b"malformed" in body:
                answers.append(["refused", sequence, "malformed"])
                self.refused.add(body)
            elif sequence > last:
                self._pending.append(message)
            last = max(last, sequence)
        if dies:
            self._pending = []
            return []
        self.durable += self._pending
        acknowledged = [["ack", last]] if last > self.last or not answers else []
        self._pending, self.last = [], last
        return [*acknowledged, *answers]


class OutboxAndSeal(RuleBasedStateMachine):
    """An outbox and a seal with a connection between them that breaks at any point."""

    MOST = 600

    def __init__(self) -> None:
        super().__init__()
        self.outbox = Outbox(most_bytes=self.MOST)
        self.seal = Seal()
        self.put_bodies: list[bytes] = []
        self.rows: dict[bytes, int] = {}
        self.wire: list[Message] = []
        self.answers: list[Message] = []
        self.up = False

    @rule(
        kind=st.sampled_from(["readings", "readings", "interval", "event", "schema"]),
        size=st.integers(30, 200),
        rows=st.integers(1, 9),
        bad=st.sampled_from([False] * 9 + [True]),
    )
    def put(self, kind: str, size: int, rows: int, bad: bool) -> None:  # noqa: FBT001
        """Queue a batch that no other is equal to."""
        body = f"{kind} {'malformed ' if bad else ''}{len(self.put_bodies):05}".encode().ljust(size, b".")
        made = Batch(kind, body, rows if kind == "readings" else 0, NOW)
        self.put_bodies.append(body)
        self.rows[body] = made.rows
        self.outbox.put(made)

    @precondition(lambda self: not self.up)
    @rule()
    def connect(self) -> None:
        """Connect: what was not answered is sent again."""
        self.up, self.wire, self.answers = True, [], []
        self.wire += self.outbox.resume(self.seal.connected())

    @precondition(lambda self: self.up)
    @rule()
    def send(self) -> None:
        """Send what may be sent."""
        self.wire += self.outbox.unsent(NOW)

    @precondition(lambda self: self.up and self.wire)
    @rule(share=st.floats(0, 1))
    def arrive(self, share: float) -> None:
        """Let the seal take some of what is on the wire."""
        count = max(1, int(share * len(self.wire)))
        arrived, self.wire = self.wire[:count], self.wire[count:]
        self.answers += self.seal.hears(arrived, dies=False)

    @precondition(lambda self: self.up and self.answers)
    @rule()
    def answer(self) -> None:
        """Let collect take one answer."""
        match self.answers.pop(0):
            case ["ack", last]:
                self.outbox.acknowledge(last)
            case ["refused", sequence, _]:
                self.outbox.refuse(sequence)
            case ["full", _]:
                self.wire += self.outbox.in_flight()

    @precondition(lambda self: self.up)
    @rule(dies=st.booleans())
    def breaks(self, dies: bool) -> None:  # noqa: FBT001
        """Cut the connection; the seal may die over what arrived last, before its commit."""
        if dies:
            self.seal.hears(self.wire, dies=True)
        self.up, self.wire, self.answers = False, [], []

    @rule(has_room=st.booleans())
    def disk(self, has_room: bool) -> None:  # noqa: FBT001
        """Fill or clear the seal's disk."""
        self.seal.has_room = has_room

    @invariant()
    def sealed_once_and_in_order(self) -> None:
        """Check that what is durable stands in the order of its numbers and in that in which it was put, once each."""
        assert sequences(self.seal.durable) == sorted(set(sequences(self.seal.durable)))
        bodies = [message[3] for message in self.seal.durable if not said(message)]
        places = [self.put_bodies.index(body) for body in bodies]
        assert places == sorted(set(places))

    @invariant()
    def bounded(self) -> None:
        """At most so many are under way, and what waits stays within the bound (schemas aside)."""
        flying = self.outbox.in_flight()
        assert len(flying) <= MOST_IN_FLIGHT
        waiting = self.outbox.depth_bytes - sum(len(message[3]) for message in flying)
        schemas = sum(len(body) for body in self.put_bodies if body.startswith(b"schema"))
        assert waiting <= self.MOST + schemas

    def teardown(self) -> None:
        """Let a healthy seal take all that is left: then everything put is sealed, refused, or dropped and counted."""
        self.seal.has_room = True
        if self.up:
            self.breaks(dies=False)
        self.connect()
        while not self.outbox.is_empty:
            self.send()
            while self.wire:
                self.arrive(1.0)
            while self.answers:
                self.answer()
        self.sealed_once_and_in_order()
        bodies = {message[3] for message in self.seal.durable}
        gone = [body for body in self.put_bodies if body not in bodies | self.seal.refused]
        events = [unpack(message[3])["about"] for message in self.seal.durable if said(message)]
        assert sum(about["batches"] for about in events) == len(gone)
        assert sum(about["rows"] for about in events) == sum(self.rows[body] for body in gone)
        assert self.outbox.dropped_rows == sum(self.rows[body] for body in gone)
        assert not any(body.startswith(b"schema") for body in gone)
        kinds: set[Any] = {kind for about in events for kind in about["kinds"]}
        assert kinds == {body.split()[0].decode() for body in gone}


OutboxAndSeal.TestCase.settings = settings(max_examples=40, stateful_step_count=50)
TestNothingIsLostOrReorderedButWhatIsCounted = OutboxAndSeal.TestCase


@pytest.mark.parametrize("most_bytes", [1, 1000])
def test_the_model_seal_agrees_with_an_undisturbed_outbox(most_bytes: int) -> None:
    """The property test above would prove nothing if its seal took nothing."""
    machine = OutboxAndSeal()
    machine.outbox = Outbox(most_bytes=most_bytes)
    machine.connect()
    for number in range(30):
        machine.put("readings", 30 + number, 2, bad=False)
        machine.send()
        machine.arrive(1.0)
        machine.answer()
    assert len(machine.seal.durable) == 30
    machine.teardown()
