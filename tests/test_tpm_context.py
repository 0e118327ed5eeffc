"""gateway/tpm/context.py: nothing is left in a TPM, its refusals are told apart, and it comes back after a loss."""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tpm2_pytss import TSS2_Exception

from gateway.errors import ConfigError, GatewayError, TrustError
from gateway.tpm import Tpm
from gateway.tpm.context import MAX_LIVE, TRIES, attempt
from gateway.tpm.refusals import narrowed
from gateway.tpm.templates import AK
from tests.test_tpm import COUNTER, NONCE, tool
from tests.tpms import running_tpm

ROOT = Path(__file__).parent.parent


@dataclass
class Busy:
    """A TPM that answers with these codes first, and then with `done`."""

    codes: list[int]
    pauses: list[float] = field(default_factory=list)

    def __call__(self) -> str:
        """Return `done`, or raise the next code."""
        if self.codes:
            raise TSS2_Exception(self.codes.pop(0))
        return "done"


def test_a_thousand_mixed_operations_leave_nothing_in_the_tpm(tcti: str) -> None:
    """Neither success nor refusal leaks an object or a session; swtpm has three slots, so one leak would show."""
    with Tpm.open(tcti) as tpm:
        tpm.counter_define(COUNTER)
        key, sealed = tpm.create_key(), tpm.seal(b"secret", pcrs=[16])
        tpm.extend(16, NONCE)

        def refused() -> None:
            with pytest.raises(TrustError):
                tpm.unseal(sealed)

        light: list[Callable[[], object]] = [
            lambda: tpm.quote(NONCE, [0, 16]),
            lambda: tpm.pcrs(range(24)),
            lambda: tpm.counter_increment(COUNTER),
            tpm.ak_public,
            tpm.clock,
        ]
        heavy: list[Callable[[], object]] = [
            refused,
            lambda: tpm.certify(key, NONCE),
            lambda: tpm.counter_certify(COUNTER, NONCE),
            lambda: tpm.ek_public("p384"),
            lambda: tpm.sign(key, NONCE),
        ]
        operations = light * 3 + heavy
        for number in range(1000):
            operations[number % len(operations)]()
            assert tpm.live == 0
        found = tpm.handles()
    assert found["transient"] == found["session"] == []
    assert "0x8" not in tool(tcti, "tpm2_getcap", "handles-transient")


def test_a_fourth_handle_is_a_bug_and_not_an_error_of_the_tpm(tcti: str) -> None:
    """The limit fails loudly before a TPM with more slots hides it."""
    with Tpm.open(tcti) as tpm, tpm._turn() as commands, ExitStack() as stack:
        for _ in range(MAX_LIVE):
            stack.enter_context(commands.primary("endorsement", AK))
        with pytest.raises(RuntimeError, match="3 handles are open, want at most 3"):
            stack.enter_context(commands.primary("endorsement", AK))
        assert tpm.live == MAX_LIVE


def test_closing_with_a_handle_open_is_a_bug(tcti: str) -> None:
    """Whoever closes the TPM inside a `with` hears of it."""
    tpm = Tpm.open(tcti)
    with ExitStack() as stack:
        commands = stack.enter_context(tpm._turn())
        kept = commands.primary("endorsement", AK)
        kept.__enter__()
        with pytest.raises(RuntimeError, match="1 handles were left open"):
            tpm.close()
    with pytest.raises(RuntimeError, match="used after it was closed"):
        tpm.clock()


@pytest.mark.parametrize(
    "where", ["swtpm:path=/nowhere", "device:/dev/nowhere", "nonsense:x", "", "device:/dev/null", "tcti\0:x"]
)
def test_a_tpm_that_is_not_there_is_an_operators_mistake(where: str) -> None:
    """The message names the place and what to edit."""
    with pytest.raises(ConfigError, match="want a TPM that answers there"):
        Tpm.open(where)


def test_without_the_software_the_operator_reads_how_to_install_it(tmp_path: Path) -> None:
    """A ledger or a laptop imports gateway.tpm, and hears what is missing only when it opens a TPM."""
    (tmp_path / "tpm2_pytss.py").write_text("raise ImportError('libtss2-esys.so.0: cannot open shared object file')\n")
    script = (
        "from gateway.tpm import Tpm, KeyBlob, approve\nfrom gateway.errors import ConfigError\n"
        "try:\n    Tpm.open('device:/dev/tpmrm0')\nexcept ConfigError as e:\n    print(e)\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stderr == ""
    assert "libtss2-esys.so.0" in done.stdout
    assert "apt-get install libtss2-dev" in done.stdout


def test_a_lost_tpm_comes_back_without_a_person(tpm_state: Path, tmp_path: Path) -> None:
    """While it is gone each call says so; once it answers again, the next call works."""
    with running_tpm(tpm_state, tmp_path) as tcti:
        tpm = Tpm.open(tcti)
        before = tpm.ak_public()
    for _ in range(3):
        with pytest.raises(ConfigError, match="want a TPM that answers there"):
            tpm.quote(NONCE, [0])
        assert tpm.live == 0
    with running_tpm(tpm_state, tmp_path):
        assert tpm.ak_public() == before
        tpm.close()
        tpm.close()


def test_a_tpm_lost_in_the_middle_leaves_no_count_behind(tpm_state: Path, tmp_path: Path) -> None:
    """The first error is told, not the flush that fails after it."""
    with ExitStack() as power:
        tpm = Tpm.open(power.enter_context(running_tpm(tpm_state, tmp_path)))

        def lose_it() -> None:
            with tpm._turn() as commands, commands.primary("endorsement", AK) as key:
                power.close()
                commands.quote(key, NONCE, [0])

        with pytest.raises(ConfigError, match=r"TPM: quote: .*want a TPM that answers there"):
            lose_it()
    assert tpm.live == 0
    tpm.close()


def test_a_tpm_whose_slots_others_hold_is_said_to_be_full(tcti: str, tmp_path: Path) -> None:
    """A crashed script without a resource manager keeps its objects; the message says what to do."""
    for number in range(3):
        tool(tcti, "tpm2_createprimary", "-C", "o", "-c", str(tmp_path / f"{number}"))
    with Tpm.open(tcti) as tpm:
        with pytest.raises(ConfigError, match="want free slots: use device:/dev/tpmrm0, or `tpm2_flushcontext -t`"):
            tpm.quote(NONCE, [0])
        assert tpm.live == 0
    tool(tcti, "tpm2_flushcontext", "-t")
    with Tpm.open(tcti) as tpm:
        tpm.quote(NONCE, [0])


def test_attestation_goes_on_while_the_tpm_is_in_lockout(tcti: str) -> None:
    """Somebody who guesses passwords can lock others' objects, and not ours; the state is shown."""
    tool(tcti, "tpm2_dictionarylockout", "-s", "-n", "1", "-t", "1000", "-l", "1000")
    tool(tcti, "tpm2_nvdefine", "0x1800099", "-C", "o", "-s", "8", "-p", "right", "-a", "authread|authwrite")
    wrong = ["tpm2_nvread", "0x1800099", "-C", "0x1800099", "-P", "wrong", "-T", tcti]
    said = [subprocess.run(wrong, capture_output=True, text=True, timeout=30, check=False).stderr for _ in range(3)]
    assert "0x921" in said[-1]
    with Tpm.open(tcti) as tpm:
        assert tpm.describe()["lockout"].startswith("locked, ")
        tpm.counter_define(COUNTER)
        key = tpm.create_key()
        tpm.quote(NONCE, [0])
        tpm.certify(key, NONCE)
        tpm.counter_certify(COUNTER, NONCE)
        assert tpm.unseal(tpm.seal(b"secret", pcrs=[0])) == b"secret"


@pytest.mark.parametrize(
    ("code", "error", "words"),
    [
        (0x921, TrustError, "too many wrong passwords: wait"),
        (0x902, ConfigError, "want free slots"),
        (0x903, ConfigError, "want free slots"),
        (0x0B0902, ConfigError, "want free slots"),
        (0x100, ConfigError, "tpm2_startup -c"),
        (0x922, ConfigError, "still busy"),
        (0xA0008, ConfigError, "want a TPM that answers there"),
        (0x99D, TrustError, "policy check failed"),
        (0x98E, TrustError, "authorization"),
        (0x1DF, TrustError, "integrity check failed"),
        (0x101, TrustError, "0x101"),
    ],
)
def test_an_answer_code_is_a_decision(code: int, error: type[GatewayError], words: str) -> None:
    """What an operator can mend is a ConfigError; what the TPM refuses is a TrustError; both in its own words."""
    found = narrowed(TSS2_Exception(code), "quote")
    assert type(found) is error
    assert words in str(found)
    assert str(found).startswith("TPM: quote: ")


@pytest.mark.parametrize("code", [0x908, 0x90A, 0x920, 0x922])
def test_a_busy_tpm_is_asked_again(code: int) -> None:
    """RETRY, YIELDED, TESTING, and the brake on NV writes: wait, ask again."""
    pauses: list[float] = []
    assert attempt(Busy([code] * 3), pause=pauses.append) == "done"
    assert len(pauses) == 3
    assert pauses == sorted(pauses)


def test_a_tpm_that_stays_busy_is_given_up_after_a_bounded_time() -> None:
    """No call waits for ever."""
    pauses: list[float] = []
    with pytest.raises(TSS2_Exception):
        attempt(Busy([0x922] * 99), pause=pauses.append)
    assert len(pauses) == TRIES - 1
    assert sum(pauses) < 15


def test_a_refusal_is_not_asked_again() -> None:
    """Anything but busy is final: an attacker gets no more attempts by our own doing."""
    pauses: list[float] = []
    with pytest.raises(TSS2_Exception):
        attempt(Busy([0x99D]), pause=pauses.append)
    assert pauses == []


def test_threads_take_turns(tcti: str) -> None:
    """Several threads share one TPM: each call is whole, and none fails."""
    problems: list[BaseException] = []
    with Tpm.open(tcti) as tpm:
        key = tpm.create_key()

        def work() -> None:
            try:
                for _ in range(10):
                    tpm.quote(NONCE, [0])
                    tpm.sign(key, NONCE)
            except BaseException as e:  # noqa: BLE001 (told to the test's own thread)
                problems.append(e)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert tpm.handles()["transient"] == []
    assert problems == []


async def test_the_loop_runs_on_while_the_tpm_works(tcti: str) -> None:
    """As the seal calls it: in a thread, which a cancelled task leaves to finish before the next caller's turn."""
    with Tpm.open(tcti) as tpm:
        waiting = asyncio.create_task(asyncio.to_thread(tpm.ek_public, "rsa2048"))
        await asyncio.sleep(0)
        waiting.cancel()
        start = time.monotonic()
        made = await asyncio.to_thread(tpm.quote, NONCE, [0])
        assert made.pcrs == {0: bytes(32)}
        assert time.monotonic() - start < 30
        assert tpm.live == 0
