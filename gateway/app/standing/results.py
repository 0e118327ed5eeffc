"""What a verifier has told the ledger of each gateway: its newest result, and the newest good one, kept over restarts.

They are files in the ledger's state folder, a token each, and verified again when they are read: whoever writes there
cannot make a gateway good, only make the ledger forget that it was.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gateway.attest.ear import LEEWAY_S, Result
from gateway.errors import TrustError

GOOD = "affirming"
_MOST_BYTES = 64_000
_SECOND_NS = 1_000_000_000

Verify = Callable[[str], Result]
"""From a token to what it says, for this ledger and by its verifier; raises TrustError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A result and its token."""

    result: Result
    token: str

    def holds(self, now_ns: int) -> bool:
        """Return whether it is of now: neither run out, nor from a time that a clock set back has yet to reach."""
        result = self.result
        return (result.issued_s - LEEWAY_S) * _SECOND_NS <= now_ns < result.expires_s * _SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What was heard of a gateway. issued_s: of the newest result ever taken. verified_ns: when it was last good.

    newest, good: results that held when they were read; None for none, or none that still does.
    proven: the epoch and the size of its log that the newest good result was about: nobody vouches for what is later.
    """

    issued_s: int = 0
    verified_ns: int | None = None
    newest: Told | None = None
    good: Told | None = None
    proven: tuple[int, int] = (0, 0)

    def take(self, told: Told) -> "Heard":
        """Return what is known with a newer result. Raises TrustError for one that is not newer."""
        result = told.result
        if result.issued_s <= self.issued_s:
            raise TrustError(f"result: not newer than the one before it, of {self.issued_s}: a replay, or late")
        if result.status != GOOD:
            return replace(self, issued_s=result.issued_s, newest=told)
        verified_ns = max(self.verified_ns or 0, result.issued_s * _SECOND_NS)
        proven = (result.epoch, result.log_size)
        return Heard(issued_s=result.issued_s, verified_ns=verified_ns, newest=told, good=told, proven=proven)

    def of_epoch(self, epoch: int) -> "Heard":
        """Return what still says something when another epoch begins: not that an earlier one did not answer."""
        is_old = self.newest is not None and self.newest.result.epoch != epoch
        return replace(self, newest=None) if is_old else self


def folder_of(state: Path) -> Path:
    """Return where the files stand."""
    return state / "results"


def write(state: Path, gateway: str, heard: Heard) -> None:
    """Write down what was heard. Raises OSError."""
    said: dict[str, Any] = {"issued_s": heard.issued_s, "verified_ns": heard.verified_ns, "proven": heard.proven}
    said |= {name: None if told is None else told.token for name, told in _tokens(heard).items()}
    folder_of(state).mkdir(exist_ok=True)
    path = folder_of(state) / f"{gateway}.json"
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(said), encoding="utf-8")
    fresh.replace(path)


def read(state: Path, gateway: str, verify: Verify | None = None) -> Heard:
    """Return what was heard of a gateway before; nothing where there is no readable file. Without verify no result."""
    try:
        said = json.loads((folder_of(state) / f"{gateway}.json").read_bytes()[:_MOST_BYTES])
        issued_s, verified_ns = int(said["issued_s"]), said["verified_ns"]
        epoch, size = map(int, said["proven"])
        tokens = [said["newest"], said["good"]]
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return Heard()
    newest, good = (None if verify is None or token is None else _held(str(token), verify) for token in tokens)
    if type(verified_ns) is not int:
        verified_ns = None
    return Heard(issued_s=issued_s, verified_ns=verified_ns, newest=newest, good=good, proven=(epoch, size))


def _tokens(heard: Heard) -> dict[str, Told | None]:
    return {"newest": heard.newest, "good": heard.good}


def _held(token: str, verify: Verify) -> Told | None:
    try:
        return Told(result=verify(token), token=token)
    except TrustError:
        return None  # expired since, or not by our verifier: it says nothing
