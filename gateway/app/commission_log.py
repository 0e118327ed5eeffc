"""A meter's power and energy register over the last minutes, as the gateway's own log holds them."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gateway.app.commission import Pair, Taken
from gateway.app.devices import open_devices
from gateway.codec.commission_series import instant_of
from gateway.codec.leaves import parse
from gateway.config import GatewayConfig
from gateway.errors import ConfigError, LogError
from gateway.model import Quality, Schema
from gateway.store.files import RealFiles
from gateway.store.segments import Log
from gateway.store.view import steadily, view

_NS = 1_000_000_000
_LEAVES = 64
_BYTES = 8 << 20


def taken_from_log(config: GatewayConfig, device: str, pair: Pair, *, minutes: float) -> Taken:
    """Return the last minutes of a device's rows that are under a checkpoint; the gateway may run meanwhile.

    Raises ConfigError for a device whose rows are not in the log, LogError where there is none, or it is not to be
    trusted.
    """
    section = config.devices[device]
    if section.report is not None:
        raise ConfigError(
            f"{device}: got report on change, which leaves readings out: want to measure it without --from-log"
        )
    schema = _schema(config, device)
    return steadily(lambda: _taken(config, schema, pair, minutes))


def _schema(config: GatewayConfig, device: str) -> Schema:
    for bus in open_devices(config).values():
        if device in bus:
            return bus[device].schema
    raise ConfigError(f"{device}: got no driver for its protocol")


def _taken(config: GatewayConfig, schema: Schema, pair: Pair, minutes: float) -> Taken:
    taken = Taken(pair=pair)
    names = [column.name for column in schema.columns]
    places = names.index(pair.power.name), names.index(pair.energy.name)
    files = RealFiles(config.log_folder)
    newest_ns = None
    try:
        for row in _rows(view(files, origin=config.origin), schema.id):
            t_ns = row[1]
            newest_ns = newest_ns or t_ns
            if newest_ns - t_ns > minutes * 60 * _NS:
                break
            _add(taken, schema, row, places)
    finally:
        files.close()
    if newest_ns is None:
        raise LogError(f"log: no reading of {schema.device} is in it, as it is set up now")
    taken.instants.sort(key=lambda instant: instant.t_s)
    return taken


def _rows(log: Log, schema_id: bytes) -> Iterator[Sequence[Any]]:
    """Yield the packed rows of a schema, the newest first."""
    stop = log.durable
    while stop:
        first = max(0, stop - _LEAVES)
        leaves = log.read(first, _BYTES, stop)
        while first + len(leaves) < stop:
            leaves += log.read(first + len(leaves), _BYTES, stop)
        for leaf in reversed(leaves):
            if leaf is None:
                return  # what is older was deleted too
            parsed = parse(leaf)
            if parsed.kind == "readings":
                yield from (row for row in reversed(_of(parsed.body)) if row[0] == schema_id)
        stop = first


def _of(body: Mapping[str, Any]) -> Sequence[Sequence[Any]]:
    rows: Sequence[Sequence[Any]] = body.get("rows", ())
    return rows


def _add(taken: Taken, schema: Schema, row: Sequence[Any], places: tuple[int, int]) -> None:
    _, t_ns, packed, qualities, status = row
    if packed is None or (qualities and any(qualities[place] != Quality.GOOD for place in places)):
        taken.failed, taken.why = taken.failed + 1, status or "no good value"
        return
    values = schema.layout.unpack(packed)
    power, energy = float(values[places[0]]), float(values[places[1]])
    taken.instants.append(instant_of(taken.pair.power, taken.pair.energy, t_ns / _NS, power, energy))
