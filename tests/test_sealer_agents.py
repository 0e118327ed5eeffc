"""The seal and agents' frames: only what is signed by the agent's key, each once, across restarts."""

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.app.agentkeys import MOST_AGENTS, MOST_EARLIER, WINDOW, AgentHead, advanced, read_agent_keys
from gateway.app.heads import Heads
from gateway.codec.agent_leaves import AgentColumn, AgentSource, frames_body
from gateway.codec.agents import pack_frame, parse_frame
from gateway.codec.bodies import interval_body, schema_body
from gateway.errors import ConfigError, LogError, TrustError
from gateway.model import Interval, Sample
from tests.ledgering import SIGNERS, Hall
from tests.sealing import BOOT, LINE, LINES, NS, OTHER_BOOT, T0_S, Box, Hands, readings

KEYS = {"press-1": bytes(range(32)), "press-2": bytes(32)}
SOURCES = {agent: AgentSource.of(agent, agent, {"energy": ("Wh", AgentColumn(None))}) for agent in KEYS}
BOOTS = [f"boot {number:03}".encode() for number in range(50)]


def frame(sequence: int = 1, *, boot: int = 0, agent: str = "press-1", key: bytes | None = None, **other: Any) -> bytes:
    """Return a frame; boot number 5 was 500 s after T0."""
    said = {"time_ms": 1000 * (T0_S + 100 * boot + sequence), "energy": sequence, **other}
    return pack_frame(agent=agent, boot=BOOTS[boot], sequence=sequence, key=key or KEYS[agent], **said)


def batch(*frames: bytes, agent: str = "press-1") -> tuple[str, bytes]:
    return "readings", frames_body(SOURCES[agent], frames)


@pytest.fixture
def hands() -> Hands:
    return Hands(wall_ns=(T0_S + 100_000) * NS)


@pytest.fixture
def box(tmp_path: Path, hands: Hands) -> Iterator[Box]:
    made = Box.at(tmp_path / "log", clock=hands.clock(), agent_keys=KEYS)
    made.sealer.welcome(BOOT)
    made.put(*[("schema", schema_body(source.schema)) for source in SOURCES.values()])
    yield made
    made.log.close()


def refused(box: Box, why: str, *frames: bytes, agent: str = "press-1") -> None:
    """Fail unless this batch is refused, counts as answered, and leaves nothing in the log."""
    size, count = box.log.size, box.sealer.counts.refused
    with pytest.raises(TrustError, match=why):
        box.put(batch(*frames, agent=agent))
    assert box.log.size == size
    assert box.sealer.counts.refused == count + 1
    box.sealer.put(box.sequence, "readings", b"")  # known already: passed over


def sealed_frames(box: Box) -> list[bytes]:
    return [raw for leaf in box.leaves() if leaf is not None for raw in leaf.body.get("frames", ())]


# ---- what is sealed, and what is not


def test_frames_are_sealed_byte_for_byte(box: Box) -> None:
    frames = [frame(1), frame(2), frame(4)]
    box.put(batch(*frames[:2]), batch(frames[2]), batch(frame(agent="press-2"), agent="press-2"))
    assert sealed_frames(box) == [*frames, frame(agent="press-2")]


def test_a_forged_frame_is_refused_with_its_batch(box: Box) -> None:
    refused(box, "HMAC", frame(1), frame(2, key=bytes(reversed(range(32)))))
    refused(box, "HMAC", frame(1)[:-1] + b"\0")
    box.put(batch(frame(1), frame(2)))
    assert sealed_frames(box) == [frame(1), frame(2)]


def test_a_frame_by_another_agents_key_is_refused(box: Box) -> None:
    """Press 2 has a key, and a certificate: still it cannot speak for press 1."""
    refused(box, "HMAC", frame(1, key=KEYS["press-2"]))


def test_a_frame_of_another_agent_than_the_leaf_says_is_refused(box: Box) -> None:
    """One key for two agents is a mistake that must not let one pose as the other."""
    box.sealer._agent_keys = dict.fromkeys(KEYS, KEYS["press-1"])
    refused(box, "want only those of 'press-2'", frame(1), agent="press-2")


def test_an_agent_without_a_key_is_refused(box: Box) -> None:
    source = AgentSource.of("press-3", "press-3", {"energy": ("Wh", AgentColumn(None))})
    raw = pack_frame(agent="press-3", boot=BOOTS[0], sequence=1, time_ms=1, energy=1, key=bytes(32))
    with pytest.raises(TrustError, match="press-3: the seal has no key"):
        box.put(("readings", frames_body(source, [raw])))


@pytest.mark.parametrize("restart", ["", "kill", "sign"])
def test_a_replayed_frame_is_refused_also_after_a_restart(box: Box, restart: str) -> None:
    box.put(batch(frame(1)), batch(frame(2), frame(3)))
    if restart:
        box.restart(sign=restart == "sign")
    for again in (1, 2, 3):
        refused(box, "sealed before", frame(again))
    refused(box, "sealed before", frame(4), frame(4))
    box.put(batch(frame(4)))
    assert sealed_frames(box) == [frame(number) for number in range(1, 5)]


def test_what_collect_sends_again_after_a_lost_answer_is_no_replay(box: Box) -> None:
    box.put(batch(frame(1)))
    box.restart()
    box.sealer.put(box.sequence, *batch(frame(1)))
    assert box.sealer.counts.duplicates == 1
    assert sealed_frames(box) == [frame(1)]


def test_a_new_boot_of_collect_cannot_bring_old_frames_back(box: Box) -> None:
    box.put(batch(frame(1)))
    box.sealer.welcome(OTHER_BOOT)
    box.sequence = 0
    refused(box, "sealed before", frame(1))


def test_frames_that_were_mixed_up_on_the_way_are_sealed_once_each(box: Box) -> None:
    order = [1, 4, 3, 2, WINDOW + 10, 11, 12]
    for number in order:
        box.put(batch(frame(number)))
    for number in order:
        refused(box, "sealed before", frame(number))
    refused(box, "comes too late", frame(10))
    box.restart()
    refused(box, "sealed before", frame(11))
    box.put(batch(frame(13)))


def test_what_was_not_durable_may_come_again(box: Box) -> None:
    """A disk that was full took back the batch, and with it what the heads had learnt."""
    box.put(batch(frame(1)))
    box.put(batch(frame(2)), commit=False)
    box.sealer._undo()
    box.sealer.put(box.sequence, *batch(frame(2)))
    box.sealer.commit()
    assert sealed_frames(box) == [frame(1), frame(2)]


# ---- boots


@pytest.mark.parametrize("restart", [False, True])
def test_a_boot_that_was_replaced_cannot_come_back(box: Box, *, restart: bool) -> None:
    box.put(batch(frame(1)), batch(frame(1, boot=1)))
    if restart:
        box.restart()
    refused(box, "cannot come back", frame(2))
    box.put(batch(frame(2, boot=1)))


def test_a_boot_too_old_to_be_remembered_is_refused_by_its_time(box: Box) -> None:
    """Only the last eight are known by name."""
    for boot in range(MOST_EARLIER + 3):
        box.put(batch(frame(1, boot=boot)))
    box.restart(sign=True)
    refused(box, "begins before", frame(2, boot=0))
    refused(box, "cannot come back", frame(2, boot=5))


def test_a_clock_that_ran_ahead_does_not_shut_an_agent_out_for_ever(box: Box, hands: Hands) -> None:
    """Its time is remembered as the seal's own, at most."""
    box.put(batch(frame(1, time_ms=1000 * (T0_S + 10**9))))
    hands.pass_s(10)
    box.put(batch(frame(1, boot=1, time_ms=1000 * (T0_S + 100_010))))
    refused(box, "cannot come back", frame(2, time_ms=1000 * (T0_S + 10**9)))


def test_a_clock_that_is_not_set_says_nothing_of_order(box: Box) -> None:
    box.put(batch(frame(1)), batch(frame(1, boot=1, clock_set=False, time_ms=5)))
    box.put(batch(frame(1, boot=2)))
    refused(box, "cannot come back", frame(2, boot=1, clock_set=False, time_ms=6))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 100)), max_size=60))
def test_no_frame_is_ever_sealed_twice(order: list[tuple[int, int]]) -> None:
    """Whatever comes in whatever order, and over a restart after each."""
    heads, taken = Heads(t_ns=2**62), []
    for boot, sequence in order:
        raw = frame(sequence, boot=boot)
        try:
            heads.saw(advanced(heads.agents, [parse_frame(raw)]))
        except TrustError:
            continue
        taken.append(raw)
        heads = Heads.unpacked(heads.packed(), 1)
    assert len(set(taken)) == len(taken)
    newest = -1
    for raw in taken:
        boot = BOOTS.index(parse_frame(raw).boot)
        assert boot >= newest, "a boot came back"
        newest = boot


def test_the_number_of_agents_has_a_bound() -> None:
    heads = {f"a{number}": AgentHead(BOOTS[0], 1) for number in range(MOST_AGENTS)}
    with pytest.raises(TrustError, match="at most"):
        advanced(heads, [parse_frame(frame(1))])
    known = pack_frame(agent="a7", boot=BOOTS[0], sequence=2, time_ms=1, energy=None, key=bytes(32))
    assert advanced(heads, [parse_frame(known)])["a7"].sequence == 2


def test_a_log_with_a_frame_twice_is_none_that_a_seal_made(box: Box) -> None:
    heads = Heads()
    box.put(batch(frame(1)))
    body = box.log.read(box.log.size - 1, 1 << 16, box.log.size)[0]
    assert body is not None
    heads.follow(0, body)
    assert heads.agents["press-1"].sequence == 1
    with pytest.raises(LogError, match="sealed before"):
        heads.follow(1, body)


# ---- intervals


def interval(raw: bytes, *, t_s: int = T0_S, source_ms: int | None = None) -> tuple[str, bytes]:
    t_ns = (parse_frame(raw).time_ms if source_ms is None else source_ms) * 1_000_000
    samples = (
        Sample(point="m1.energy", source_time_ns=t_ns, raw=raw, value=Decimal(1)),
        Sample(point="plc.good", source_time_ns=t_ns, raw=b"\0\1", value=Decimal(1)),
    )
    return "interval", interval_body(Interval(schema_id=LINE.id, t_ns=t_s * NS, samples=samples))


def test_the_frame_behind_an_intervals_counter_is_verified_too(box: Box) -> None:
    box.put(*LINES, batch(frame(1)), interval(frame(1)))
    with pytest.raises(TrustError, match="HMAC"):
        box.put(interval(frame(2, key=bytes(reversed(range(32))))))
    for wrong_s in (5000, 2 + 1, -5000):
        with pytest.raises(TrustError, match="a sample of"):
            box.put(interval(frame(2), source_ms=1000 * (T0_S + wrong_s)))
    box.put(interval(frame(1), t_s=T0_S + 60))
    assert box.kinds().count("interval") == 2


def test_the_ledger_takes_frames_like_any_reading_and_counts_them(tmp_path: Path) -> None:
    hall = Hall(tmp_path / "hall")
    box = Box.at(tmp_path / "log", signer=SIGNERS["gw1"], agent_keys=KEYS)
    box.sealer.welcome(BOOT)
    box.put(*LINES, batch(frame(1), frame(2)), interval(frame(2)), batch(frame(3)))
    box.sealer.sign()
    assert box.sealer.receive(hall.take("gw1", box.payloads())) == box.log.size
    assert (hall.counts.rows, hall.counts.unusable) == (3, 0)
    box.log.close()
    hall.ledger.close()


def test_readings_of_other_devices_are_sealed_without_any_key(tmp_path: Path) -> None:
    box = Box.at(tmp_path / "log")
    box.sealer.welcome(BOOT)
    box.put(readings(1))
    assert box.kinds()[-1] == "readings"
    box.log.close()


# ---- keys


def write_key(folder: Path, name: str, text: str, mode: int = 0o600) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(mode)
    return path


def test_keys_are_read_from_a_folder(tmp_path: Path) -> None:
    for agent, key in KEYS.items():
        write_key(tmp_path, f"{agent}.key", f"{key.hex()}\n")
    write_key(tmp_path, "README", "not a key", 0o644)
    assert read_agent_keys(tmp_path, "seal.agents") == KEYS
    assert read_agent_keys(None, "seal.agents") == {}


@pytest.mark.parametrize(
    ("name", "text", "mode", "why"),
    [
        ("press-1.key", "00" * 32, 0o640, "mode 0640, want a file of mode 0600"),
        ("press-1.key", "00" * 32, 0o604, "mode 0604"),
        ("press-1.key", "00" * 31, 0o600, "62 characters, want 64 hexadecimal digits"),
        ("press-1.key", "zz" * 32, 0o600, "want 64 hexadecimal digits"),
        ("press-1.key", "", 0o600, "want 64 hexadecimal digits"),
        ("Press 1.key", "00" * 32, 0o600, "want the id of an agent"),
    ],
)
def test_a_key_that_others_can_read_or_that_is_none_is_refused(
    tmp_path: Path, name: str, text: str, mode: int, why: str
) -> None:
    write_key(tmp_path, name, text, mode)
    with pytest.raises(ConfigError, match=f"seal.agents: .*{why}") as caught:
        read_agent_keys(tmp_path, "seal.agents")
    assert text == "" or text not in str(caught.value)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="want a folder"):
        read_agent_keys(tmp_path / "none", "seal.agents")
    with pytest.raises(ConfigError, match="want a folder"):
        read_agent_keys(write_key(tmp_path, "file", ""), "seal.agents")


def test_a_link_to_a_key_is_judged_by_the_file_behind_it(tmp_path: Path) -> None:
    target = write_key(tmp_path / "other", "k", "00" * 32, 0o644)
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "press-1.key").symlink_to(target)
    with pytest.raises(ConfigError, match="mode 0644"):
        read_agent_keys(tmp_path / "keys", "seal.agents")
