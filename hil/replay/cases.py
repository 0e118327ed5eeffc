"""The six cases, a clean run, and a clean month: what is made, what goes wrong, and how the grid stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One story. It begins with shifts without a fault, from which the line's baseline is learnt.

    learn: by shift, the plant's commands at its start. fault, repair: commands then. before, during: the grid's
    factor in g/kWh, while the fault lasts and else. context: whether the line's product is told.
    """

    what: str
    learn: tuple[tuple[str, ...], ...] = ((), (), ())
    start: tuple[str, ...] = ()
    fault: tuple[str, ...] = ()
    repair: tuple[str, ...] = ()
    before: str = "400"
    during: str = "400"
    context: bool = True


_HEAVY, _LIGHT = ("fault heavy-sku",), ("repair heavy-sku",)

CASES: Mapping[str, Case] = {
    "compressor": Case(
        what="a compressor valve breaks: 585 kW instead of 300, 30 starts an hour instead of 6",
        fault=("fault compressor-valve",),
        repair=("repair compressor-valve",),
    ),
    "grid": Case(what="the grid's factor rises from 0.40 to 0.5117647 kg/kWh", during="511.7647"),
    "sku": Case(
        what="a heavier product, which has a baseline of its own",
        learn=((), (), (), _HEAVY, (), (), _LIGHT),
        fault=_HEAVY,
        repair=_LIGHT,
    ),
    "sku-unknown": Case(what="a heavier product, and nobody says so", fault=_HEAVY, repair=_LIGHT, context=False),
    "slow": Case(
        what="the line slows down to 334.88 units/h", fault=("fault slow-line",), repair=("repair slow-line",)
    ),
    "mixed": Case(
        what="a bit of everything: the grid to 0.42, the line to 570 units/h, the compressor to 493.71 kW",
        fault=("fault compressor-valve 493.7142857", "fault slow-line 570"),
        repair=("repair compressor-valve", "repair slow-line"),
        during="420",
    ),
    "no-counts": Case(
        what="the controller's counter stands still", fault=("fault no-counts",), repair=("repair no-counts",)
    ),
    "clean": Case(what="nothing happens"),
    "month": Case(what="nothing happens, for 30 days: each alert is a false one", learn=((),) * 89),
}
