"""The meters of one cell that are booked over just this cell, under one factor: nearly all figures come about here.

They differ in their own readings and in nothing else, so all but the first take over what that one says of the cell.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.carbon.exact import EXACT, shifted
from gateway.carbon.figures import Figure
from gateway.carbon.scopes.uncertainty import combined_pct

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.carbon.energy import Booking
    from gateway.carbon.figures import Flags
    from gateway.carbon.grid.table import Span
    from gateway.carbon.scopes.hierarchy import Account
    from gateway.model import LineColumn

_OWN = (
    *("meter", "serial", "meter_class", "register_start", "register_end", "register_unit"),
    *("energy_mwh", "flags", "co2e_g", "asset", "kind", "uncertainty_pct"),
)
_FIRST = Figure._fields.index(_OWN[0])
_REST = _FIRST + len(_OWN)
if Figure._fields[_FIRST:_REST] != _OWN:
    raise AssertionError("Figure: want the fields of a meter's own in one run")


class Plain:
    """Makes the figures of a cell's further meters.

    first: of a meter that is booked over just this cell. span: the cell, and its one factor. flags: of the span.
    """

    def __init__(self, first: Figure, columns: Sequence[LineColumn], span: Span, flags: Flags) -> None:
        self._head, self._tail = first[:_FIRST], first[_REST:]
        self._columns, self._flags = columns, flags
        factor = None if span.leaf is None else span.leaf.factor
        self._g_per_mwh = None if factor is None else shifted(factor.g_per_kwh, -6)
        self._factor_pct = None if factor is None else factor.uncertainty_pct

    def figure(self, account: Account, place: int, said: Booking) -> Figure:
        """Return the figure of an account of one column, at place. said: what it booked, over just this cell."""
        column, energy_mwh = self._columns[place], said.amount
        own = (
            column.point,
            column.serial,
            column.meter_class,
            said.start.register,
            said.end.register,
            column.unit,
            energy_mwh,
            said.flags | self._flags if self._flags else said.flags,
            None if self._g_per_mwh is None else EXACT.multiply(self._g_per_mwh, energy_mwh),
            account.asset,
            account.kind,
            None if self._factor_pct is None else combined_pct(column.meter_class, self._factor_pct),
        )
        return Figure._make(self._head + own + self._tail)
