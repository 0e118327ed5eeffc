"""What one device is asked: its blocks, made ready, and what becomes of them when the device refuses some."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from gateway.codec.planner import SPACE, Block, Limits, Never, plan, size_of
from gateway.drivers.modbus_pdu import Request
from gateway.model import Point

_MAX_FENCES: Final = 8


@dataclass(slots=True)
class Part:
    """One block, and how the latest poll went for it.

    single: it has no smaller parts. fences: see `Line.ask`. fault: why there is no reply, "" if there is.
    refused, owed: it can be tried in parts, for good or for now.
    absent: the device does not have it; not asked until the plan is rechecked.
    """

    block: Block
    request: Request
    single: bool
    fences: tuple[Request, ...]
    reply: bytes | None = None
    fault: str = ""
    refused: bool = False
    owed: bool = False
    silent: bool = False
    absent: bool = False


class Parts:
    """Makes the parts of one device, within its limits."""

    def __init__(self, unit_id: int, limits: Limits) -> None:
        self._unit_id = unit_id
        self._limits = limits

    def planned(self, points: Sequence[Point], holes: tuple[Never, ...] = ()) -> list[Part]:
        """Return parts that read all points without touching any hole. Raises ConfigError where there are none."""
        limits = replace(self._limits, never=self._limits.never + holes) if holes else self._limits
        return [self.of(block) for block in plan(points, limits)]

    def of(self, block: Block) -> Part:
        """Return a block made ready."""
        request = Request(unit_id=self._unit_id, function=block.function, address=block.address, count=block.count)
        single = not block.split()
        return Part(block, request, single=single, fences=self._fences(request) if single else ())

    def _fences(self, request: Request) -> tuple[Request, ...]:
        """Return reads of other sizes around the same registers, none that a plan could not have either."""
        address, count, limits = request.address, request.count, self._limits
        most = min(count + limits.max_gap, limits.most(request.function), SPACE - address)
        counts = [*range(count - 1, 0, -1), *range(count + 1, most + 1)]
        by_size = {size_of(request.function, c): c for c in reversed(counts)}
        return tuple(
            replace(request, count=c)
            for size, c in reversed(by_size.items())
            if size != request.size and not limits.forbids(request.function, address, address + c)
        )[:_MAX_FENCES]

    def merged(self, leaves: list[Part]) -> list[Part]:
        """Return leaves with those joined again that lie around registers the device does not have.

        Where nothing is absent, the block was too long or had a hole between its points: leaves are left as they are.
        """
        absent = [leaf for leaf in leaves if leaf.absent]
        points = tuple(point for leaf in leaves if not leaf.absent for point in leaf.block.points)
        if not absent or not points:
            return leaves
        own = [Block((point,)).range for point in points]
        holes = tuple(
            hole
            for hole in (leaf.block.range for leaf in absent)
            if not any(first <= hole[2] and hole[1] <= last for _, first, last in own)
        )
        return [*self.planned(points, holes), *absent]
