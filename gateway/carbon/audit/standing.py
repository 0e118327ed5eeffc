"""What an export says of the states of its gateways, and who vouches for that: verifiers' results, officers' notes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway.attest.decision import verify_ruling
from gateway.attest.ear import Result, verify_result
from gateway.carbon.reliance import Placed
from gateway.carbon.standings import Standings
from gateway.errors import TrustError
from gateway.model import Standing, State
from gateway.tlog.note import SignatureKind, Verifier

_VERIFIER = "wattseal-verifier/"
_OFFICER = "wattseal-officer/"
_SAYS = {
    State.TRUSTED: {"affirming"},
    State.FAILED: {"warning", "contraindicated"},
    State.UNREACHABLE: {"none"},
}
"""What the result says by which a gateway is in such a state. In no other state a result puts it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecisionVerdict:
    """A decision of the export. checked: the caller named its officer's key, and the signature holds."""

    gateway: str
    leaf: int
    first: int
    stop: int
    admit: bool
    by: str
    reason: str
    checked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingVerdict:
    """The newest state of an attested gateway that the export shows.

    results: on how many good ones of its verifier its states rest; bad: on how many others, by which it was FAILED or
    UNREACHABLE. checked: the caller named the verifier's key, and all of these hold. What came later it cannot show.
    """

    gateway: str
    state: str
    reason: str
    results: int
    bad: int
    checked: bool


def check_decisions(
    standings: Standings, gateways: Iterable[str], *, ledger: str, trust: Sequence[str]
) -> tuple[DecisionVerdict, ...]:
    """Return the decisions on gateways' leaves.

    Raises TrustError where a named officer did not sign one of his, and for one by nobody whom trust names, where it
    names officers.
    """
    keys = [Verifier.from_vkey(vkey) for vkey in trust]
    placed = [one for gateway in gateways for one in standings.decisions(gateway)]
    return tuple(_decision(one, keys, ledger) for one in placed)


def _decision(one: Placed, keys: Sequence[Verifier], ledger: str) -> DecisionVerdict:
    ruling = one.ruling
    if ruling.ledger != ledger:
        raise TrustError(f"decision: it is for {ruling.ledger[:80]}, and the export is by {ledger}", index=one.index)
    officers = [key for key in keys if key.name == ruling.by and key.kind is SignatureKind.NOTE]
    if not officers and any(key.name.startswith(_OFFICER) for key in keys):
        raise TrustError(
            f"leaf {one.index}: decision: it is by {ruling.by}, no officer whom you named", index=one.index
        )
    if officers:
        try:
            verify_ruling(one.decision.note, officers, ledger=ledger)
        except TrustError as e:
            raise TrustError(f"leaf {one.index}: {e}", index=one.index) from e
    return DecisionVerdict(
        gateway=ruling.gateway,
        leaf=one.index,
        first=ruling.first,
        stop=ruling.stop,
        admit=ruling.admit,
        by=ruling.by,
        reason=ruling.reason,
        checked=bool(officers),
    )


def check_standings(
    standings: Standings,
    gateways: Iterable[str],
    *,
    ledger: str,
    trust: Sequence[str],
    devices: Mapping[str, str],
) -> tuple[StandingVerdict, ...]:
    """Return the newest states.

    Raises TrustError where a TRUSTED, FAILED or UNREACHABLE one has no result of its own time that says so, by a
    verifier whom trust names; and where an older result comes after a newer one of the same epoch.
    devices: the serial of the device that vouches for a gateway's newest epoch, where that was checked.
    """
    keys = [key for key in map(Verifier.from_vkey, trust) if key.name.startswith(_VERIFIER)]
    found = []
    for gateway in gateways:
        newest = standings.newest(gateway)
        if newest is None:
            continue
        told = [(index, one) for index, one in standings.sealed(gateway) if one.state in _SAYS]
        if keys:
            _check_results(told, keys, ledger, about=_About(standings.epochs(gateway), devices.get(gateway)))
        good = sum(one.state is State.TRUSTED for _, one in told)
        found.append(
            StandingVerdict(
                gateway=gateway,
                state=str(newest.state),
                reason=newest.reason,
                results=good,
                bad=len(told) - good,
                checked=bool(keys),
            )
        )
    return tuple(found)


class _About(NamedTuple):
    """What a result must be about: in the epochs that the export shows their keys, and the device where it is known."""

    epochs: Sequence[tuple[int, int, str]]
    device: str | None

    def fits(self, result: Result, one: Standing) -> bool:
        """Return whether a result says what a standing says, of the same. One that saw no evidence is of no epoch."""
        if result.gateway != one.gateway or result.status not in _SAYS[one.state]:
            return False
        if one.state is State.UNREACHABLE:
            return True
        shown = {key for _, number, key in self.epochs if number == one.epoch}
        is_newest = bool(self.epochs) and self.epochs[-1][1] == one.epoch
        is_of_device = not is_newest or self.device in {None, result.device}
        return result.epoch == one.epoch and shown <= {result.key} and is_of_device


def _check_results(
    told: Iterable[tuple[int, Standing]], keys: Sequence[Verifier], ledger: str, *, about: _About
) -> None:
    epoch = issued_s = 0
    for index, one in told:
        result = _result(index, one, keys, ledger, about=about)
        if one.epoch == epoch and result.issued_s < issued_s:
            raise TrustError(
                f"leaf {index}: standing: {one.state} by a result older than the one before it: a replay", index=index
            )
        epoch, issued_s = one.epoch, result.issued_s


def _result(index: int, one: Standing, keys: Sequence[Verifier], ledger: str, *, about: _About) -> Result:
    """Return by what a verifier found a gateway so, when the ledger says that it did. Raises TrustError."""
    why = "it has none"
    for key in keys if one.result else ():
        try:
            result = verify_result(
                one.result, issuer=key.name, audience=ledger, verifier=key, now_s=one.t_ns // 1_000_000_000
            )
        except TrustError as e:
            why = str(e)
            continue
        if about.fits(result, one):
            return result
        why = "its result is about something else"
    raise TrustError(f"leaf {index}: standing: {one.state} by no result that holds: {why}", index=index)
