"""What the plant's OPC UA server shows: one row a node.

Names follow PackML (OPC 30050) and OPC 34100 where they have one. The gateway's template is another encoding of the
same facts; a test holds one against the other.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from asyncua import ua
from asyncua.ua.status_codes import StatusCodes

from hil.plant.factory import Plant

NAMESPACE = "urn:wattseal:hil:plant"

Cell = float | int | bool | str
Unit = Literal["W", "Wh", "kWh", "Cel", "1", "1/h"]

UNITS: dict[Unit, tuple[str, str]] = {
    "W": ("WTT", "watt"),
    "Wh": ("WHR", "watt hour"),
    "kWh": ("KWH", "kilowatt hour"),
    "Cel": ("CEL", "degree Celsius"),
    "1": ("C62", "one"),
    "1/h": ("H10", "reciprocal hour"),
}
"""By sign: the unit's code in UNECE Recommendation 20, and its name. OPC UA numbers it by the bytes of its code."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """The plant at one instant, as its controllers know it.

    energy_wh, power_w: by asset, energies with what the meters had counted before. dead: units that do not answer.
    """

    energy_wh: dict[str, float]
    power_w: dict[str, float]
    good: int
    total: int
    state: int
    sku: int
    job: int
    recipe: int
    mode: int
    rate: float
    starts: int
    dead: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantNode:
    """A variable of the server.

    id: the string identifier, whose parts are the folders above it. unit_id: the device of the plant that it comes
    from; while that is dead, so is the node. low, high: its EURange. status: of all its values.
    """

    id: str
    type: ua.VariantType
    value: Callable[[Reading], Cell]
    unit_id: int
    unit: Unit | None = None
    low: float = 0.0
    high: float = 0.0
    status: int = StatusCodes.Good


def read_plant(plant: Plant) -> Reading:
    """Return the plant as it is now."""
    truth = plant.truth()
    good, total, state, sku, job, recipe = (int(field.value(truth.plant_s)) for field in plant.devices[5].fields)
    return Reading(
        energy_wh={asset: energy + STARTS_WH[asset] for asset, energy in truth.energy_wh.items()},
        power_w=truth.power_w,
        good=good,
        total=total,
        state=state,
        sku=sku,
        job=job,
        recipe=recipe,
        mode=truth.mode,
        rate=plant.units_per_hour(),
        starts=truth.starts,
        dead=truth.dead,
    )


STARTS_WH = {"compressor": 12_000_000.0, "press": 185_000_000.0, "hvac": 94_000_000.0, "filler": 106_000_000.0}
_DEW_POINT = 3.0

NODES: tuple[PlantNode, ...] = (
    PlantNode(id="FillingLine.Status.StateCurrent", type=ua.VariantType.Int32, value=lambda r: r.state, unit_id=5),
    PlantNode(id="FillingLine.Status.UnitModeCurrent", type=ua.VariantType.Int32, value=lambda r: r.mode, unit_id=5),
    PlantNode(id="FillingLine.Status.Executing", type=ua.VariantType.Boolean, value=lambda r: r.state == 6, unit_id=5),
    PlantNode(
        id="FillingLine.Status.CurMachSpeed",
        type=ua.VariantType.Double,
        value=lambda r: r.rate,
        unit_id=5,
        unit="1/h",
        high=1200.0,
    ),
    PlantNode(id="FillingLine.Status.SKU", type=ua.VariantType.String, value=lambda r: f"SKU-{r.sku}", unit_id=5),
    PlantNode(id="FillingLine.Status.Recipe", type=ua.VariantType.String, value=lambda r: f"R-{r.recipe}", unit_id=5),
    PlantNode(id="FillingLine.Status.Job", type=ua.VariantType.String, value=lambda r: f"JOB-{r.job}", unit_id=5),
    PlantNode(
        id="FillingLine.Admin.ProdProcessedCount",
        type=ua.VariantType.UInt32,
        value=lambda r: r.total,
        unit_id=5,
        unit="1",
        high=2.0**32 - 1,
    ),
    PlantNode(
        id="FillingLine.Admin.ProdDefectiveCount",
        type=ua.VariantType.UInt32,
        value=lambda r: (r.total - r.good) % 2**32,
        unit_id=5,
        unit="1",
        high=2.0**32 - 1,
    ),
    PlantNode(
        id="FillingLine.Admin.ProdGoodCount",
        type=ua.VariantType.UInt32,
        value=lambda r: r.good,
        unit_id=5,
        unit="1",
        high=2.0**32 - 1,
    ),
    PlantNode(
        id="Filler.AcActivePowerTotal",
        type=ua.VariantType.Float,
        value=lambda r: r.power_w["filler"],
        unit_id=4,
        unit="W",
        high=1_000_000.0,
    ),
    PlantNode(
        id="Filler.AcActiveEnergyTotalImport",
        type=ua.VariantType.UInt64,
        value=lambda r: int(r.energy_wh["filler"]),
        unit_id=4,
        unit="Wh",
        high=1e12,
    ),
    PlantNode(
        id="Compressor.AcActivePowerTotal",
        type=ua.VariantType.Double,
        value=lambda r: r.power_w["compressor"],
        unit_id=1,
        unit="W",
        high=1_000_000.0,
    ),
    PlantNode(
        id="Compressor.AcActiveEnergyTotalImport",
        type=ua.VariantType.Double,
        value=lambda r: r.energy_wh["compressor"] / 1000,
        unit_id=1,
        unit="kWh",
        high=1e9,
    ),
    PlantNode(id="Compressor.Starts", type=ua.VariantType.UInt16, value=lambda r: r.starts % 65_536, unit_id=1),
    PlantNode(
        id="Compressor.AirDewPoint",
        type=ua.VariantType.Double,
        value=lambda _: _DEW_POINT,
        unit_id=1,
        unit="Cel",
        low=-60.0,
        high=60.0,
        status=StatusCodes.UncertainSensorNotAccurate,
    ),
)
