"""grid-settings.json: what the operator states of the grid, by hand; from text to what it says, and to a factor.

    {"emission_factor": 0.385, "offset_id": "ppa-1", "zone": "DE"}

All keys are optional. emission_factor: kg CO2e per kWh, exact as written, or {"value": 385, "unit": "g/kWh"};
without it the operator states none. zone: the one that it is of; all without it. offset_id: an instrument of the plan.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from gateway.carbon.exact import text
from gateway.carbon.grid.factors import to_g_per_kwh, version_of
from gateway.carbon.grid.table import AVERAGE
from gateway.config.convert import shown
from gateway.errors import ConfigError
from gateway.model import UNTIL_FURTHER_NOTICE_NS, Factor

OPERATOR = "operator"
UNSPECIFIED = "unspecified"
"""The type of a factor that the operator states: it counts beside lifecycle and direct ones."""

_KEYS = ("emission_factor", "offset_id", "zone")
_UNITS = ("g/kWh", "kg/kWh", "lb/MWh")
_MOST_G_PER_KWH = 3000
_MAX_BYTES = 65_536
_MAX_DIGITS = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class GridSettings:
    """All of grid-settings.json. g_per_kwh: exact, None for none. zone: "" for all. offset_id: "" for none."""

    g_per_kwh: Decimal | None = None
    zone: str = ""
    offset_id: str = ""

    def factor(self, from_ns: int) -> Factor | None:
        """Return the factor that it states from an instant on, until further notice."""
        if self.g_per_kwh is None:
            return None
        method = "set by the operator"
        return Factor(
            key=(OPERATOR, self.zone, AVERAGE, UNSPECIFIED, ""),
            start_ns=from_ns,
            end_ns=UNTIL_FURTHER_NOTICE_NS,
            g_per_kwh=self.g_per_kwh,
            state="measured",
            method=method,
            source="grid-settings.json",
            version=version_of(g_per_kwh=self.g_per_kwh, state="measured", method=method, model_date=""),
            updated_ns=from_ns,
        )


def parse_settings(content: bytes, *, name: str) -> GridSettings:
    """Return what the file says. name: its name, for messages. Raises ConfigError."""
    said = _json(content, name)
    for key in said:
        if key not in _KEYS:
            raise ConfigError(f"{name}: {shown(key)}: got an unknown key, want one of {', '.join(_KEYS)}")
    return GridSettings(
        g_per_kwh=_factor(said["emission_factor"], f"{name}: emission_factor") if "emission_factor" in said else None,
        zone=_text(said.get("zone", ""), f"{name}: zone"),
        offset_id=_text(said.get("offset_id", ""), f"{name}: offset_id"),
    )


def _json(content: bytes, name: str) -> dict[str, Any]:
    if len(content) > _MAX_BYTES:
        raise ConfigError(f"{name}: got {len(content)} bytes, want {_MAX_BYTES} at most")
    try:
        said = json.loads(
            content.decode(),
            parse_float=Decimal,
            parse_int=Decimal,
            parse_constant=_no_constant,
            object_pairs_hook=_once,
        )
    except (ValueError, ArithmeticError, RecursionError) as e:
        raise ConfigError(f"{name}: not JSON: {e}") from e
    if not isinstance(said, dict):
        raise ConfigError(f"{name}: got {shown(said)}, want an object")
    return said


def _no_constant(constant: str) -> Any:
    raise ValueError(f"got {constant}")


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("got a key twice")
    return dict(pairs)


def _factor(got: Any, where: str) -> Decimal:
    """Return a factor in g/kWh, exact."""
    value, unit = got, "kg/kWh"
    if isinstance(got, dict):
        if set(got) != {"value", "unit"} or got["unit"] not in _UNITS:
            raise ConfigError(f"{where}: got {_shown(got)}, want value, and unit: one of {', '.join(_UNITS)}")
        value, unit = got["value"], got["unit"]
    if not isinstance(value, Decimal) or abs(value.adjusted()) >= _MAX_DIGITS or len(value.as_tuple().digits) > 100:
        raise ConfigError(f"{where}: got {_shown(value)}, want a number such as 0.385, in kg/kWh")
    g_per_kwh = to_g_per_kwh(value, unit)
    if g_per_kwh <= 0:
        raise ConfigError(f"{where}: got {_shown(value)}, want more than 0; without it the feeds' factor counts again")
    if g_per_kwh > _MOST_G_PER_KWH:
        hint = f'; if g/kWh was meant: {{"value": {text(value)}, "unit": "g/kWh"}}' if unit == "kg/kWh" else ""
        raise ConfigError(f"{where}: got {_shown(value)} {unit}, want 3 kg/kWh at most{hint}")
    return Decimal(text(g_per_kwh))


def _text(got: Any, where: str) -> str:
    if not isinstance(got, str) or len(got) > 60 or not got.isprintable():
        raise ConfigError(f"{where}: got {_shown(got)}, want printable text of at most 60 characters")
    return got


def _shown(got: Any) -> str:
    """Return a value as the file has it, on one line."""
    return str(got)[:100] if isinstance(got, Decimal) else shown(got)
