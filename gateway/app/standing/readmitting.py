"""What a decision on leaves of a gateway would concern, and the decision itself, signed and handed to the ledger."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.app.dual import reading
from gateway.app.keys import read_signer
from gateway.app.standing.officers import drop
from gateway.app.standing.rejudge import Source
from gateway.app.standing.states import standings_of
from gateway.attest.decision import Ruling, sign_ruling
from gateway.carbon.emissions import LineProjector
from gateway.carbon.exact import utc
from gateway.carbon.facts import Facts
from gateway.config import LedgerConfig
from gateway.errors import ConfigError, TrustError
from gateway.store import projections as tables
from gateway.store.files import RealFiles
from gateway.store.projections import Connection, IntervalRow
from gateway.store.segments import Log
from gateway.store.view import steadily, view


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which leaves: [first, stop), or those from the first to the last interval of a time. gateway: of ledger.toml."""

    gateway: str
    leaves: tuple[int, int] | None
    start_ns: int | None
    end_ns: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Concern:
    """What a decision on leaves [first, stop) is about.

    intervals: among them, of all lines; quarantined: so many of these. energy_mwh: what their counters counted.
    """

    gateway: str
    first: int
    stop: int
    intervals: int
    quarantined: int
    energy_mwh: int
    lines: tuple[str, ...]


def concern_of(config: LedgerConfig, wanted: Wanted) -> Concern:
    """Return what a decision would be about; the ledger may run meanwhile. Raises ConfigError for no such leaves."""
    if wanted.gateway not in config.gateways:
        raise ConfigError(f"gateway: got {wanted.gateway!r}, want one of {', '.join(sorted(config.gateways))}")
    with reading(config) as connection:
        first, stop = _range(connection, wanted)
        return steadily(lambda: _concern(config, connection, wanted.gateway, first, stop))


def _range(connection: Connection, wanted: Wanted) -> tuple[int, int]:
    if wanted.leaves is not None:
        return wanted.leaves
    end_ns = 2**63 - 1 if wanted.end_ns is None else wanted.end_ns
    found = tables.leaves_between(connection, wanted.gateway, wanted.start_ns or 0, end_ns)
    if found is None:
        raise ConfigError(f"{wanted.gateway}: no interval of that time, want one at least")
    return found[0], found[1] + 1


def _concern(config: LedgerConfig, connection: Connection, gateway: str, first: int, stop: int) -> Concern:
    log = view(RealFiles(config.ledger.state / "gateways" / gateway), origin=f"wattseal/{gateway}")
    try:
        lines = sorted({line for index, line, _ in tables.intervals_from(connection, gateway, first) if index < stop})
        rows = {line: tables.intervals(connection, gateway, line, first=first, last=stop - 1) for line in lines}
        if not lines or stop > log.durable:
            raise ConfigError(
                f"{gateway}: leaves {first}:{stop}: want some with an interval among them, up to {log.durable}"
            )
        energy_mwh = sum(_energy(connection, log, gateway, line, rows[line]) for line in lines)
    finally:
        log.close()
    listed = [row for found in rows.values() for row in found]
    return Concern(
        gateway=gateway,
        first=first,
        stop=stop,
        intervals=len(listed),
        quarantined=sum(row.quarantined for row in listed),
        energy_mwh=energy_mwh,
        lines=tuple(lines),
    )


def _energy(connection: Connection, log: Log, gateway: str, line: str, rows: list[IntervalRow]) -> int:
    """Return what a line's meters counted up to the last of these leaves, from the clean leaf before the first."""
    base = tables.clean_before(connection, gateway, line, rows[0].leaf_index)
    schemas = {schema.id: schema for _, schema in tables.schemas(connection, gateway)}
    facts = Facts()
    source = Source(name=gateway, log=log, size=log.durable, schemas=schemas, facts=facts)
    projector = LineProjector(schemas=schemas, facts=facts)
    cells: dict[int, int] = {}
    for _, leaf in source.leaves([*([] if base is None else [base]), *rows]):
        cells.update((cell.line.start_ns, cell.line.energy_mwh or 0) for cell in projector.feed(leaf))
    return sum(cells.values())


def decide(
    config: LedgerConfig, concern: Concern, *, admit: bool, reason: str, key: Path, now_ns: Callable[[], int]
) -> Path:
    """Sign a decision with an officer's key and hand it to the ledger; return the file in which it waits.

    Raises ConfigError for a key that cannot be read, for a reason that no note can hold, and where a decision on some
    of these leaves is of a later time than now: the ledger would refuse this one.
    """
    signer = read_signer(key, "--key", name=None)
    try:
        ruling = Ruling(
            ledger=config.origin,
            gateway=concern.gateway,
            first=concern.first,
            stop=concern.stop,
            admit=admit,
            made_ns=now_ns() // 1000 * 1000,
            by=signer.name,
            reason=reason,
        )
    except TrustError as e:
        raise ConfigError(f"--reason: {e}") from e
    try:
        with reading(config) as connection:
            standings_of(config, connection).check_ruling(ruling)
    except TrustError as e:
        raise ConfigError(f"clock: got {utc(ruling.made_ns)}: {e}; want this machine's clock right") from e
    return drop(config.ledger.state, sign_ruling(ruling, signer))
