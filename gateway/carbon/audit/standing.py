"""What an export says of the states of its gateways, and who vouches for that: verifiers' results, officers' notes."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from gateway.attest.decision import verify_ruling
from gateway.attest.ear import verify_result
from gateway.carbon.standings import Placed, Standings
from gateway.errors import TrustError
from gateway.model import Standing, State
from gateway.tlog.note import SignatureKind, Verifier

_VERIFIER = "wattseal-verifier/"
_OFFICER = "wattseal-officer/"


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
    """The newest state of an attested gateway that the export shows. results: how many good ones it rests on.

    checked: the caller named the verifier's key, and all of these results hold. What came later it cannot show.
    """

    gateway: str
    state: str
    reason: str
    results: int
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
    """Return the newest states. Raises TrustError where a good state's result is not by a verifier whom trust names.

    devices: the serial of the device that vouches for a gateway's newest epoch, where that was checked.
    """
    keys = [key for key in map(Verifier.from_vkey, trust) if key.name.startswith(_VERIFIER)]
    found = []
    for gateway in gateways:
        newest = standings.newest(gateway)
        if newest is None:
            continue
        good = [(index, one) for index, one in standings.sealed(gateway) if one.state is State.TRUSTED]
        for index, one in good if keys else ():
            _check_result(index, one, keys, ledger, about=_About(standings.epochs(gateway), devices.get(gateway)))
        found.append(
            StandingVerdict(
                gateway=gateway,
                state=str(newest.state),
                reason=newest.reason,
                results=len(good),
                checked=bool(keys),
            )
        )
    return tuple(found)


class _About(NamedTuple):
    """What a result must be about: in the epochs that the export shows their keys, and the device where it is known."""

    epochs: Sequence[tuple[int, int, str]]
    device: str | None


def _check_result(index: int, one: Standing, keys: Sequence[Verifier], ledger: str, *, about: _About) -> None:
    """Raise TrustError unless a verifier found a gateway good, in this epoch, when the ledger says that it did."""
    why = ""
    shown = {key for _, number, key in about.epochs if number == one.epoch}
    for key in keys:
        try:
            result = verify_result(
                one.result, issuer=key.name, audience=ledger, verifier=key, now_s=one.t_ns // 1_000_000_000
            )
        except TrustError as e:
            why = str(e)
            continue
        is_of_it = (result.gateway, result.status, result.epoch) == (one.gateway, "affirming", one.epoch)
        is_of_key = not shown or (shown == {result.key} and about.device in {None, result.device})
        if is_of_it and is_of_key:
            return
        why = "its result is about something else"
    raise TrustError(f"leaf {index}: standing: TRUSTED by no result that holds: {why}", index=index)
