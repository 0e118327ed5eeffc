"""How a line's meters stand to each other, so that each kWh counts once."""

from collections.abc import Sequence
from typing import NamedTuple

from gateway.carbon.figures import METER
from gateway.config.plan import LinePlan
from gateway.model import LineColumn, Role


class Account(NamedTuple):
    """One asset's energy: the sum of some columns of the line, less the sum of others.

    plus, minus: places in the line's columns; plus has at least one.
    """

    asset: str
    kind: str
    plus: tuple[int, ...]
    minus: tuple[int, ...] = ()


def accounts_of(plan: LinePlan, columns: Sequence[LineColumn]) -> tuple[Account, ...]:  # noqa: ARG001
    """Return what a line's energy is made of; the accounts' sum counts each kWh once."""
    return tuple(
        Account(column.point, METER, (place,)) for place, column in enumerate(columns) if column.role == Role.ENERGY
    )
