"""Figures as the rows of an export: CSV of one fixed form, so that the same figures give the same bytes.

Comma separated, a header line, LF line ends, a field quoted only where it has to be, UTF-8. Numbers are exact decimal
strings; CO2e is unrounded. An empty field is a value that there is not: never 0.

A text that begins with =, +, - or @ gets an apostrophe before it: what a gateway calls a meter must not become a
formula in an auditor's spreadsheet. A control character, as in a word of a controller's, is written as U+FFFD: it could
end the row there, or hide a formula behind it.

Units stand in the first row of a cell alone, so that a column's sum is the sum: kg per unit is
SUM(co2e_kg) / SUM(units_good).
"""

import csv
import hashlib
import io
import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from functools import lru_cache

from gateway.carbon.exact import shifted, text, utc
from gateway.carbon.figures import CALC_VERSION, METHOD, SCOPE_2, Cell, Figure, LineFigure, flag_text
from gateway.model import ClockState

SCHEMA_VERSION = "2"
_utc = lru_cache(maxsize=1024)(utc)  # the rows of a cell start at the same instant, nearly all
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")

COLUMNS = (
    "schema_version",
    "record_id",
    "site_id",
    "gateway_id",
    "line_id",
    "asset_id",
    "kind",
    "meter_id",
    "meter_serial",
    "meter_class",
    "state",
    "sku",
    "recipe",
    "job_id",
    "shift_id",
    "interval_start_utc",
    "interval_end_utc",
    "register_start",
    "register_end",
    "register_unit",
    "energy_kwh",
    "scope",
    "energy_quality",
    "flags",
    "units_good",
    "units_total",
    "method",
    "factor_value",
    "factor_unit",
    "factor_source",
    "factor_zone",
    "factor_type",
    "factor_state",
    "factor_updated_at",
    "factor_version_sha256",
    "gwp_set",
    "co2e_kg",
    "uncertainty_pct",
    "calc_version",
    "config_sha256",
    "clock_state",
    "clock_offset_ms",
    "log_origin",
    "start_leaf_index",
    "leaf_index",
    "leaf_hash",
    "factor_leaf_index",
)


def header() -> str:
    """Return the first line."""
    return _line(COLUMNS)


def lines_of(cells: Iterable[Cell]) -> Iterator[str]:
    """Yield one CSV line a figure, in order."""
    for cell in cells:
        for place, figure in enumerate(cell.figures):
            yield _line(_fields(figure, None if place else cell.line))


def record_id(gateway: str, line: str, meter: str, start_ns: int) -> str:
    """Return what a row is known by: the same for all its versions."""
    identity = f"wattseal/{gateway}\n{line}\n{meter}\n{_utc(start_ns)}"
    return hashlib.sha256(identity.encode()).hexdigest()[:32]


def _fields(figure: Figure, line: LineFigure | None) -> Iterator[str]:
    origin = f"wattseal/{figure.gateway}"
    start = _utc(figure.start_ns)
    yield SCHEMA_VERSION
    yield record_id(figure.gateway, figure.line, figure.meter, figure.start_ns)
    yield _word(figure.site)
    yield _word(figure.gateway)
    yield _word(figure.line)
    yield _word(figure.asset)
    yield figure.kind
    yield _word(figure.meter)
    yield _word(figure.serial)
    yield _word(figure.meter_class)
    yield figure.setting.state
    yield _word(figure.setting.product)
    yield _word(figure.setting.recipe)
    yield _word(figure.setting.job)
    yield figure.setting.shift
    yield start
    yield utc(figure.end_ns)
    yield _number(figure.register_start)
    yield _number(figure.register_end)
    yield _word(figure.register_unit)
    yield "" if figure.energy_mwh is None else text(shifted(figure.energy_mwh, -6))
    yield figure.scope
    yield figure.quality
    yield flag_text(figure.flags)
    yield _number(None if line is None else line.units_good)
    yield _number(None if line is None else line.units_total)
    yield METHOD if figure.scope == SCOPE_2 else ""
    yield _number(figure.factor_g_per_kwh)
    yield "" if figure.factor_g_per_kwh is None else figure.factor_unit
    yield _word(figure.factor_source)
    yield _word(figure.zone)
    yield _word(figure.factor_type)
    yield _word(figure.factor_state)
    yield "" if figure.factor_updated_ns is None else utc(figure.factor_updated_ns)
    yield _word(figure.factor_version)
    yield _word(figure.gwp_set)
    yield "" if figure.co2e_g is None else text(shifted(figure.co2e_g, -3))
    yield _number(figure.uncertainty_pct)
    yield CALC_VERSION
    yield figure.plan_sha256
    yield ClockState(figure.clock_state).name.lower()
    yield text(figure.clock_offset_ms)
    yield origin
    yield _index(figure.start_leaf_index)
    yield _index(figure.end_leaf_index)
    yield figure.leaf_hash.hex()
    yield _index(figure.factor_leaf_index)


def _word(said: str) -> str:
    said = _CONTROL.sub("\ufffd", said)
    return "'" + said if said.startswith(("=", "+", "-", "@")) else said


def _number(value: Decimal | None) -> str:
    return "" if value is None else text(value)


def _index(value: int | None) -> str:
    return "" if value is None else str(value)


def _line(fields: Iterable[str]) -> str:
    written = io.StringIO()
    csv.writer(written, dialect="excel", lineterminator="\n").writerow(fields)
    return written.getvalue()
