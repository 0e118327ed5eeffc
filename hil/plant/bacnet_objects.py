"""What the plant's air handler shows by BACnet: one row an object, and the objects themselves."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from bacpypes3.basetypes import Reliability, Scale
from bacpypes3.local.analog import AnalogInputObject, AnalogValueObject
from bacpypes3.local.binary import BinaryInputObject
from bacpypes3.local.cov import GenericCriteria
from bacpypes3.local.multistate import MultiStateInputObject
from bacpypes3.local.object import Object
from bacpypes3.object import AccumulatorObject
from bacpypes3.primitivedata import Unsigned

from hil.plant.factory import Plant

SHARE: Final = 0.4
"""The air handler's share of the asset hvac's power."""
START_WH: Final = 7_500_000
_DAY_S: Final = 86_400
NO_FLAGS: Final = [0, 0, 0, 0]  # in alarm, fault, overridden, out of service
FAULT: Final = [0, 1, 0, 0]


class Air(NamedTuple):
    """What the air handler's sensors feel at one instant."""

    outdoor_c: float
    supply_c: float
    return_c: float
    boiler_c: float
    power_w: float
    energy_wh: float

    @property
    def mode(self) -> int:
        """1 off, 2 heating, 3 ventilating."""
        return 2 if self.outdoor_c < 14 else 3


def feel(plant: Plant) -> Air:
    """Return the air handler's state now: waves of plant time, and a share of hvac's power."""
    truth = plant.truth()
    t = truth.plant_s
    return Air(
        outdoor_c=10 + 6 * math.sin(2 * math.pi * t / _DAY_S),
        supply_c=20 + 1.5 * math.sin(2 * math.pi * t / 900),
        return_c=22.5 + 0.5 * math.sin(2 * math.pi * t / 1800),
        boiler_c=62 + 3 * math.sin(2 * math.pi * t / 1200),
        power_w=SHARE * truth.power_w["hvac"],
        energy_wh=START_WH + SHARE * truth.energy_wh["hvac"],
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One object. units: BACnet's name. increment: of its COV, for analog ones."""

    id: str
    name: str
    value: Callable[[Air], float | int | str]
    units: str = ""
    increment: float = 0.0


ROWS: Final = (
    Row(id="analog-input,1", name="OutdoorTemp", value=lambda a: 1.8 * a.outdoor_c + 32, units="degrees-fahrenheit",
        increment=0.2),
    Row(id="analog-input,2", name="SupplyTemp", value=lambda a: a.supply_c, units="degrees-celsius", increment=0.05),
    Row(id="analog-input,3", name="ReturnTemp", value=lambda a: a.return_c, units="degrees-celsius", increment=0.05),
    Row(id="analog-input,4", name="SupplyPressure", value=lambda a: a.power_w / 96, units="pascals", increment=1.0),
    Row(id="analog-input,5", name="AirFlow", value=lambda a: 0.75 * a.power_w, units="cubic-meters-per-hour",
        increment=50.0),
    Row(id="analog-input,6", name="Power", value=lambda a: a.power_w / 1000, units="kilowatts", increment=0.05),
    Row(id="analog-input,7", name="BoilerFlowTemp", value=lambda a: a.boiler_c, units="degrees-celsius", increment=0.1),
    Row(id="analog-value,1", name="SupplySetpoint", value=lambda _: 20.0, units="degrees-celsius", increment=0.1),
    Row(id="accumulator,1", name="Energy", value=lambda a: int(a.energy_wh), units="watt-hours"),
    Row(id="binary-input,1", name="FanRunning", value=lambda a: "active" if a.power_w > 0 else "inactive"),
    Row(id="binary-input,2", name="FilterAlarm", value=lambda _: "inactive"),
    Row(id="multi-state-input,1", name="Mode", value=lambda a: a.mode),
)  # fmt: skip
"""The device's objects. The gateway's template is another encoding of the same facts; a test compares them."""


class _Mode(MultiStateInputObject):  # type: ignore[misc]  # the library has no types
    """A state has no increment; the library's own class looks for one."""

    _cov_criteria = GenericCriteria


class Accumulator(Object, AccumulatorObject):  # type: ignore[misc]  # the library has no types
    """A counter that is read as it is at that instant; it has no COV (ASHRAE 135, table 13-1)."""

    def __init__(self, plant: Plant, row: Row, **properties: Any) -> None:
        super().__init__(**properties)
        self._now = lambda: row.value(feel(plant))

    @property
    def presentValue(self) -> Any:  # noqa: N802 - the library's own
        """Return the count of now."""
        return Unsigned(self._now())  # type: ignore[no-untyped-call]


def make_object(row: Row, plant: Plant) -> Any:
    """Return a new object for a row."""
    common: dict[str, Any] = {"objectIdentifier": row.id, "objectName": row.name, "statusFlags": NO_FLAGS}
    common |= {"eventState": "normal", "outOfService": False, "reliability": Reliability("no-fault-detected")}
    kind, first = row.id.partition(",")[0], row.value(feel(plant))
    match kind:
        case "analog-input" | "analog-value":
            make = AnalogInputObject if kind == "analog-input" else AnalogValueObject
            return make(presentValue=first, units=row.units, covIncrement=row.increment, **common)
        case "binary-input":
            return BinaryInputObject(presentValue=first, polarity="normal", **common)
        case "multi-state-input":
            texts = ["Off", "Heating", "Ventilating"]
            return _Mode(presentValue=first, numberOfStates=3, stateText=texts, **common)
        case _:
            scale = Scale(integerScale=0)
            return Accumulator(plant, row, units=row.units, scale=scale, maxPresValue=2**32 - 1, **common)
