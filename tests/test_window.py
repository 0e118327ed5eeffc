"""app/window.py and app/backoff.py: what goes next, and when."""

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.app.backoff import Backoff
from gateway.app.window import CHUNKS, REWIND_S, SILENCE_S, Window


def filled(chunks: int = CHUNKS, *, start: int = 0, now_s: float = 0.0) -> Window:
    """Return a window with so many chunks of ten leaves under way."""
    window = Window(start)
    for _ in range(chunks):
        window.sent(window.next + 10, now_s)
    return window


def test_at_most_eight_chunks_go_without_a_receipt() -> None:
    """A receipt makes room for just what it covers."""
    window = filled(7)
    assert window.has_room
    window.sent(80, 0)
    assert not window.has_room
    assert not window.receipt(30, 1)
    assert (window.in_flight, window.next, window.base) == (5, 80, 30)
    assert window.has_room


def test_a_receipt_inside_a_chunk_leaves_the_chunk_under_way() -> None:
    """The ledger may cut elsewhere."""
    window = filled(3)
    window.receipt(15, 1)
    assert (window.in_flight, window.next) == (2, 30)


def test_a_receipt_beyond_what_was_sent_moves_us_there() -> None:
    """The ledger has more than the last receipt that the seal got to see."""
    window = filled(1, start=100)
    assert not window.receipt(500, 1)
    assert (window.in_flight, window.next, window.base) == (0, 500, 500)


def test_a_receipt_that_does_not_advance_starts_us_again_from_its_size() -> None:
    """It says that something before what is under way is missing; also when it goes back."""
    window = filled(4, start=20)
    assert window.receipt(20, 1)
    assert (window.in_flight, window.next, window.base) == (0, 20, 20)
    window.sent(30, 2)
    assert window.receipt(5, 3)
    assert (window.in_flight, window.next, window.base) == (0, 5, 5)


def test_we_start_again_at_most_once_a_second() -> None:
    """However many such receipts come, of whatever sizes."""
    window = filled(2, start=20)
    assert window.receipt(20, 10.0)
    for size in (20, 10, 0, 20):
        window.sent(window.next + 10, 10.1)
        assert not window.receipt(size, 10.0 + REWIND_S - 0.01)
        window.receipt(window.next, 10.2)
    window.sent(window.next + 10, 11.0)
    assert window.receipt(0, 10.0 + REWIND_S)


def test_a_repeated_receipt_with_nothing_under_way_does_nothing() -> None:
    """It only says again what is known."""
    window = filled(2)
    window.receipt(20, 1)
    assert not window.receipt(20, 1)
    assert (window.next, window.has_room) == (20, True)


def test_silence_starts_us_again_from_the_last_receipt() -> None:
    """Five seconds without a receipt, counted from the last one or from the first chunk after it."""
    window = filled(8, now_s=100)
    window.receipt(30, 103)
    assert not window.is_overdue(103 + SILENCE_S - 0.01)
    assert window.is_overdue(103 + SILENCE_S)
    assert (window.in_flight, window.next) == (0, 30)
    assert not window.is_overdue(1000)
    window.sent(40, 1000)
    assert not window.is_overdue(1000 + SILENCE_S - 0.01)
    assert window.is_overdue(1000 + SILENCE_S)


def test_after_a_loss_one_chunk_goes_and_each_receipt_doubles_them() -> None:
    """A ledger that is away is asked gently."""
    window = filled(8)
    assert window.is_overdue(SILENCE_S)
    room = []
    for now_s in range(10, 15):
        count = 0
        while window.has_room:
            window.sent(window.next + 10, now_s)
            count += 1
        room.append(count)
        window.receipt(window.next, now_s)
    assert room == [1, 2, 4, 8, 8]


@settings(max_examples=300, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from("sror"), st.integers(0, 300), st.floats(0, 3)), max_size=60))
def test_whatever_happens_the_window_stays_bounded_and_in_order(steps: list[tuple[str, int, float]]) -> None:
    """Never more than eight under way, never a leaf skipped that has no receipt."""
    window, now_s = Window(50), 0.0
    for step, number, later_s in steps:
        now_s += later_s
        if step == "s" and window.has_room:
            window.sent(window.next + 1 + number % 20, now_s)
        elif step == "r":
            window.receipt(number, now_s)
        elif step == "o":
            window.is_overdue(now_s)
        assert window.base <= window.next
        assert 0 <= window.in_flight <= CHUNKS
        assert window.in_flight > 0 or window.next == window.base or not window.has_room or window.next >= window.base


def test_waits_double_up_to_the_most_and_start_again_after_success() -> None:
    """Each is between half of its step and all of it, and never below the least."""
    backoff = Backoff(least_s=0.2, most_s=10.0, chance=random.Random(7))
    waits = [backoff.next_s() for _ in range(12)]
    for wait, step in zip(waits, [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10.0, 10.0, 10.0, 10.0, 10.0, 10.0], strict=True):
        assert max(0.2, step / 2) <= wait <= step
    assert len(set(waits)) == 12 or waits[0] == 0.2
    backoff.reset()
    assert backoff.next_s() == 0.2
