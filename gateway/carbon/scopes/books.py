"""What one line's figures are made of by one plan: accounts, fuel meters, modelled loads. Made once for all cells."""

from typing import NamedTuple

from gateway.carbon.energy import Flag
from gateway.carbon.figures import Flags
from gateway.carbon.scopes.fuels import FuelMeter, fuel_meters
from gateway.carbon.scopes.hierarchy import Account, accounts_of, strangers
from gateway.carbon.scopes.modelled import StaticAsset, static_assets, uncovered
from gateway.config.plan import Plan
from gateway.model import LineSchema, Role


class Books(NamedTuple):
    """All of them, and what is wrong with the plan. alone: by account its column, None where it has more than one."""

    accounts: tuple[Account, ...]
    alone: tuple[int | None, ...]
    fuels: tuple[FuelMeter, ...]
    assets: tuple[StaticAsset, ...]
    flags: Flags


def books_of(plan: Plan, gateway: str, schema: LineSchema) -> Books:
    """Return a line's books.

    flags: PLAN_MISMATCH where the plan names a counter that the line does not have; figures are then made without it.
    """
    line = plan.line(gateway, schema.name)
    fuels = fuel_meters(plan, gateway, schema)
    named = {one.point for one in plan.fuels.values() if one.line == f"{gateway}/{schema.name}"}
    known = {column.point for column in schema.columns if column.role == Role.FUEL}
    wrong = strangers(line, schema.columns) or named - known or uncovered(plan, gateway, schema, schema.columns)
    accounts = accounts_of(line, schema.columns)
    return Books(
        accounts=accounts,
        alone=tuple(None if one.minus or len(one.plus) > 1 else one.plus[0] for one in accounts),
        fuels=fuels,
        assets=static_assets(plan, gateway, schema),
        flags=frozenset({Flag.PLAN_MISMATCH}) if wrong else frozenset(),
    )
