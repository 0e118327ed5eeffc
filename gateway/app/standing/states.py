"""What the ledger holds of its gateways, for people: from its tables and its own log, it may run meanwhile."""

from collections.abc import Sequence
from typing import Any

from gateway.app.dual import reading
from gateway.app.duties.attesting import NO_RESULT, PINNED
from gateway.app.factbook import read_standings
from gateway.app.keys import read_verifier
from gateway.app.standing import results
from gateway.carbon.exact import utc
from gateway.carbon.standings import Standings
from gateway.config import LedgerConfig
from gateway.model import State
from gateway.store import projections as tables
from gateway.store.files import RealFiles
from gateway.store.projections import Connection, Slice
from gateway.store.view import steadily, view
from gateway.tlog.note import SignatureKind


def standings_of(config: LedgerConfig, connection: Connection) -> Standings:
    """Return what the ledger holds of its gateways. Raises LogError."""

    def read() -> Standings:
        own = view(RealFiles(config.ledger.state / "own"), origin=config.origin)
        try:
            return read_standings(own, connection)
        finally:
            own.close()

    return steadily(read)


def list_states(config: LedgerConfig) -> list[dict[str, Any]]:
    """Return each gateway's state as plain JSON. Raises ConfigError where the ledger never ran."""
    with reading(config) as connection:
        standings = standings_of(config, connection)
        counts = tables.quarantined_counts(connection)
        sizes = {one.gateway: one.size for one in tables.gateways(connection)}
    return [
        _state(config, standings, name, sizes.get(name, 0), counts.get(name, 0)) for name in sorted(config.gateways)
    ]


def _state(config: LedgerConfig, standings: Standings, gateway: str, size: int, quarantined: int) -> dict[str, Any]:
    device = config.gateways[gateway].device
    # What would hold for the next leaf: so a new epoch shows at once.
    newest = standings.at(gateway, size)
    if newest is None:
        state, reason = (State.UNATTESTED, PINNED) if device is None else (State.PENDING, NO_RESULT)
    else:
        state, reason = newest.state, newest.reason
    verified = [t_ns for t_ns in (_heard_ns(config, standings, gateway), newest and newest.verified_ns) if t_ns]
    return {
        "gateway": gateway,
        "device": device or "",
        "state": str(state),
        "reason": reason,
        "epoch": 0 if newest is None else newest.epoch,
        "last_verified": utc(max(verified)) if verified else "",
        "since": "" if newest is None else utc(newest.t_ns),
        "since_leaf": 0 if newest is None else newest.first,
        "leaves": size,
        "quarantined": quarantined,
        "decisions": len(standings.decisions(gateway)),
    }


def _heard_ns(config: LedgerConfig, standings: Standings, gateway: str) -> int | None:
    """Return when a verifier last found a gateway good, as the results say that the ledger keeps."""
    device = config.gateways[gateway].device
    if config.attest is None or device is None:
        return None
    verifier = read_verifier(config.attest.verifier, "attest.verifier", kind=SignatureKind.NOTE)
    verify = results.kept_by(gateway, device, verifier=verifier, ledger=config.origin, standings=standings)
    return results.read(config.ledger.state, gateway, verify, sealed="").verified_ns


def list_quarantined(
    config: LedgerConfig, connection: Connection, lines: Sequence[tuple[str, str]], start_ns: int, end_ns: int
) -> list[dict[str, Any]]:
    """Return the runs of quarantined intervals of these lines in a period, and why, as plain JSON."""
    if not tables.quarantined_counts(connection):
        return []
    standings = standings_of(config, connection)
    runs = [
        run
        for gateway, line in lines
        for run in tables.quarantined(connection, Slice(start_ns=start_ns, end_ns=end_ns, gateway=gateway, line=line))
    ]
    return [
        {
            "line": f"{run.gateway}/{run.line}",
            "intervals": run.leaves,
            "first_leaf": run.first,
            "last_leaf": run.last,
            "start": utc(run.start_ns),
            "end": utc(run.end_ns),
            "why": standings.why(run.gateway, run.first),
        }
        for run in runs
    ]
