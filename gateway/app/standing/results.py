"""What a verifier has told the ledger of each gateway: its newest result, and the newest good one, kept over restarts.

They are files in the ledger's state folder, the two tokens each, and nothing beside what these say is believed: so
whoever writes there cannot make a gateway good, only make the ledger forget that it was. No older result counts than
the newest one that the ledger's own log holds of the gateway's epoch, whatever the files say.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from gateway.attest.ear import LEEWAY_S, Result, verify_result
from gateway.carbon.standings import Standings
from gateway.errors import TrustError
from gateway.tlog.note import Verifier

GOOD = "affirming"
_MOST_BYTES = 64_000
_SECOND_NS = 1_000_000_000

Verify = Callable[[str], Result]
"""From a token to what it says of one gateway, by its verifier, whenever that was; raises TrustError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A result and its token."""

    result: Result
    token: str

    def holds(self, now_ns: int) -> bool:
        """Return whether it is of now: neither run out, nor from a time that a clock set back has yet to reach."""
        result = self.result
        return (result.issued_s - LEEWAY_S) * _SECOND_NS <= now_ns < result.expires_s * _SECOND_NS

    def may_be_sealed(self, now_ns: int) -> bool:
        """Return whether whoever verifies a standing of now takes it for the reason: clocks may differ."""
        result = self.result
        return (result.issued_s - LEEWAY_S) * _SECOND_NS <= now_ns < (result.expires_s + LEEWAY_S) * _SECOND_NS


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What was heard of a gateway. issued_s: no result counts that is not newer. newest, good: results; None for none.

    They may have run out since.
    """

    issued_s: int = 0
    newest: Told | None = None
    good: Told | None = None

    @property
    def verified_ns(self) -> int | None:
        """When the gateway was last found good."""
        return None if self.good is None else self.good.result.issued_s * _SECOND_NS

    @property
    def proven(self) -> tuple[int, int]:
        """The epoch and size of the log that the newest good result was about: nobody vouches for what is later."""
        return (0, 0) if self.good is None else (self.good.result.epoch, self.good.result.log_size)

    def take(self, told: Told) -> "Heard":
        """Return what is known with a newer result. Raises TrustError for one that is not newer."""
        issued_s = told.result.issued_s
        if issued_s <= self.issued_s:
            raise TrustError(f"result: not newer than the one before it, of {self.issued_s}: a replay, or late")
        good = told if told.result.status == GOOD else self.good
        return Heard(issued_s=issued_s, newest=told, good=good)

    def of_epoch(self, epoch: int) -> "Heard":
        """Return what still says something when another epoch begins: not that an earlier one did not answer."""
        is_old = self.newest is not None and self.newest.result.epoch != epoch
        return replace(self, newest=None) if is_old else self


def kept_by(gateway: str, device: str, *, verifier: Verifier | None, ledger: str, standings: Standings) -> Verify:
    """Return what verifies results that were kept of a gateway: they are about it, its device and one of its epochs."""

    def verify(token: str) -> Result:
        if verifier is None:
            raise TrustError("result: no verifier in ledger.toml")
        result = verify_result(token, issuer=verifier.name, audience=ledger, verifier=verifier, now_s=None)
        about = {(number, key) for _, number, key in standings.epochs(gateway)}
        is_of_it = result.status == "none" or (result.device == device and (result.epoch, result.key) in about)
        if result.gateway != gateway or not is_of_it:
            raise TrustError("result: it is about something else")
        return result

    return verify


def folder_of(state: Path) -> Path:
    """Return where the files stand."""
    return state / "results"


def write(state: Path, gateway: str, heard: Heard) -> None:
    """Write down what was heard. Raises OSError."""
    told = {"newest": heard.newest, "good": heard.good}
    said = {name: None if one is None else one.token for name, one in told.items()}
    folder_of(state).mkdir(exist_ok=True)
    path = folder_of(state) / f"{gateway}.json"
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(said), encoding="utf-8")
    fresh.replace(path)


def read(state: Path, gateway: str, verify: Verify, *, sealed: str) -> Heard:
    """Return what was heard of a gateway before, as far as it verifies. sealed: as newest_sealed has it."""
    try:
        said = json.loads((folder_of(state) / f"{gateway}.json").read_bytes()[:_MOST_BYTES])
        newest, good = _told(said["newest"], verify), _told(said["good"], verify)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        newest = good = None
    if good is not None and good.result.status != GOOD:
        good = None
    issued_s = max((told.result.issued_s for told in (newest, good, _told(sealed, verify)) if told), default=0)
    if newest is not None and newest.result.issued_s < issued_s:
        newest = None
    return Heard(issued_s=issued_s, newest=newest, good=good)


def newest_sealed(standings: Standings, gateway: str) -> str:
    """Return the newest token by which a standing of a gateway's newest epoch was sealed, "" for none."""
    newest = standings.newest(gateway)
    sealed = [one for _, one in standings.sealed(gateway) if newest is not None and one.epoch == newest.epoch]
    return next((one.result for one in reversed(sealed) if one.result), "")


def _told(token: object, verify: Verify) -> Told | None:
    if type(token) is not str or not token:
        return None
    try:
        return Told(result=verify(token), token=token)
    except TrustError:
        return None  # not by our verifier, or not about this: it says nothing
