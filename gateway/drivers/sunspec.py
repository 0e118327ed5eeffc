"""SunSpec devices: which models one has, by reading, and a device template of them."""

from __future__ import annotations

import json
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any, Final

from sunspec2 import mdef

from gateway.codec.sunspec import BASES, END, HEADER, MARK, MEASURING, Model, direction_of, points_of
from gateway.drivers.modbus_bus import Bus
from gateway.drivers.modbus_pdu import RefusedError, Request, UnreachableError
from gateway.errors import DeviceError
from gateway.model import Kind, Point

_FUNCTION: Final = 3
_MAX_MODELS: Final = 256
_SPACE: Final = 65_536


@cache
def definition_of(model_id: int) -> Mapping[str, Any] | None:
    """Return the alliance's definition of a model; None where pysunspec2 has none.

    Only from the package itself: its own search would begin in the working folder.
    """
    name = mdef.to_json_filename(model_id)
    found = resources.files("sunspec2").joinpath("models", "json", name)
    if not found.is_file():
        return None
    definition: Mapping[str, Any] = mdef.from_json_str(found.read_text(encoding="utf-8"))
    return definition


async def scan_sunspec(bus: Bus, unit_id: int) -> Sequence[Model]:
    """Return the models that a device lists, in its order. Only reads.

    Raises DeviceError where none of the three addresses holds the mark "SunS", or where the list never ends.
    """
    address = await _marked(bus, unit_id) + HEADER
    found: list[Model] = []
    while len(found) < _MAX_MODELS and address <= _SPACE - HEADER:
        try:
            model_id, length = struct.unpack(">HH", await _read(bus, unit_id, address))
        except RefusedError:
            if not found:
                raise
            return found  # a list without its end
        if model_id in {END, 0}:
            return found
        found.append(Model(id=model_id, address=address, length=length))
        address += HEADER + length
    raise DeviceError(f"SunSpec: got {len(found)} models up to {address} and no end, want 0xFFFF after the last")


async def _marked(bus: Bus, unit_id: int) -> int:
    """Return the address where a device's SunSpec map begins."""
    why = ""
    for base in BASES:
        try:
            mark = await _read(bus, unit_id, base)
        except UnreachableError:
            raise
        except DeviceError as e:
            why = f"{e}"
            continue
        if mark == MARK:
            return base
        why = f"got {mark.hex(' ', 2)}"
    raise DeviceError(f'SunSpec: unit {unit_id} has no "SunS" at {", ".join(map(str, BASES))} ({why})')


async def _read(bus: Bus, unit_id: int, address: int) -> bytes:
    return await bus.read(Request(unit_id=unit_id, function=_FUNCTION, address=address, count=HEADER))


def name_of(model: Model) -> str:
    """Return what a model is called; "unknown" where nobody says."""
    definition = definition_of(model.id)
    return "unknown" if definition is None else str(definition["group"].get("label") or definition["group"]["name"])


def points_of_models(models: Sequence[Model]) -> tuple[Point, ...]:
    """Return the points of all models that measure, each named after its model: `m203_w`."""
    points: list[Point] = []
    seen: Counter[int] = Counter()
    for model in models:
        definition = definition_of(model.id)
        if definition is None or model.id not in MEASURING:
            continue
        seen[model.id] += 1
        prefix = f"m{model.id}_" if seen[model.id] == 1 else f"m{model.id}_{seen[model.id]}_"
        points += points_of(definition, model, prefix=prefix)
    return tuple(points)


def template_of(models: Sequence[Model]) -> str:
    """Return a device template of the models that measure; the others are named in its comments.

    Raises DeviceError where none measures.
    """
    points = points_of_models(models)
    if not points:
        raise DeviceError(f"SunSpec: got models {[model.id for model in models]}, want one that measures")
    head = [
        "# Made by `wattseal scan sunspec`: of this one device, since another may have its models elsewhere.",
        *(f"# model {m.id} at {m.address}, {m.length} registers: {_said(m)}" for m in models),
        'title = "SunSpec device"',
        "verified = true",
        'sources = ["the device\'s own list of SunSpec models", "the alliance\'s definitions of these models"]',
        "votes = 2",
        "function = 3",
        "base = 0",
        "",
        "[probe]",
        f"address = {models[0].address - HEADER}",
        'type = "string"',
        "registers = 2",
        f'text = "{MARK.decode()}"',
    ]
    return "\n".join([*head, *(_lines(point) for point in points)]) + "\n"


def _said(model: Model) -> str:
    said = " ".join(name_of(model).split())[:60]
    return said if model.id in MEASURING else f"{said} (not read)"


def _lines(point: Point) -> str:
    """Return the lines of one point."""
    lines = ["", f"[points.{point.name}]", f"address = {point.address}", f'type = "{point.type}"']
    if point.registers:
        lines.append(f"registers = {point.registers}")
    if point.unit:
        lines.append(f"unit = {json.dumps(point.unit, ensure_ascii=False)}")
    if point.scale != 1:
        lines.append(f'scale = "{point.scale:f}"')
    if point.scale_point is not None:
        lines.append(f'scale_point = "{point.scale_point}"')
    if point.sentinels:
        lines.append(f"sentinels = {sorted(point.sentinels)}")
    if point.kind is Kind.COUNTER:
        lines += ['kind = "counter"', 'counter = "total"']
        if point.modulus is not None:
            lines.append(f"modulus = {point.modulus}")
        if direction := direction_of(point.name):
            lines.append(f'direction = "{direction}"')
    return "\n".join(lines)
