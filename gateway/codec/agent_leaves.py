"""What agents' numbers mean, and their frames as they stand in a readings leaf: byte for byte.

Normative form: docs/log.md, section 1, "readings".
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal
from typing import Any, Final, NamedTuple

from gateway.codec.agents import AGENT, AgentFrame, parse_frame
from gateway.codec.pack import pack, shown, unpack
from gateway.errors import TrustError
from gateway.model import Change, Column, Quality, Schema, Value

_DECIMAL: Final = re.compile(r"-?[0-9]{1,14}(\.[0-9]{1,14})?\Z")
_EXACT: Final = Context(prec=80)
"""More digits than any raw value times any scale has."""


class AgentColumn(NamedTuple):
    """Where one column comes from: a point by its number, or the energy register by None; raw * scale + offset."""

    number: int | None
    scale: Decimal = Decimal(1)
    offset: Decimal = Decimal(0)

    @property
    def store(self) -> str:
        """How the column stands in a row: the bare energy register as it is, all else as a float."""
        return "u64" if self.number is None and self.scale == 1 and not self.offset else "f64"


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentSource:
    """What is needed to read an agent's frames: one AgentColumn for each column of the schema."""

    agent: str
    schema: Schema
    columns: tuple[AgentColumn, ...]

    @classmethod
    def of(cls, agent: str, device: str, columns: Mapping[str, tuple[str, AgentColumn]]) -> "AgentSource":
        """Return the source of a device. columns: by name, the unit and where it comes from."""
        made = tuple(Column(name=name, unit=unit, store=column.store) for name, (unit, column) in columns.items())
        schema = Schema(device=device, columns=made)
        return cls(agent=agent, schema=schema, columns=tuple(column for _, column in columns.values()))


class Told(NamedTuple):
    """What a frame says of one column: exact, or None with the reason. offset_ms: before the frame's time."""

    column: int
    value: Decimal | None
    quality: Quality
    offset_ms: int = 0
    status: str = ""


def told(frame: AgentFrame, columns: Sequence[AgentColumn]) -> Iterator[Told]:
    """Yield what a frame says of these columns, in the order of its points, energy last."""
    least = Quality.GOOD if frame.clock_set else Quality.UNCERTAIN
    status = "" if frame.clock_set else "the agent's clock is not set"
    places = {column.number: place for place, column in enumerate(columns)}
    for point in frame.points:
        if (place := places.get(point.number)) is None:
            continue  # the agent says more than its template asks for
        if point.quality is Quality.BAD:
            yield Told(place, None, Quality.BAD, point.offset_ms, "the agent says BAD")
        else:
            raw = _EXACT.scaleb(Decimal(point.mantissa), point.exponent)
            quality = max(least, point.quality)
            yield Told(place, _scaled(raw, columns[place]), quality, point.offset_ms, status)
    if (place := places.get(None)) is not None:
        if frame.energy is None:
            yield Told(place, None, Quality.BAD, 0, "the agent has no energy register")
        else:
            yield Told(place, _scaled(Decimal(frame.energy), columns[place]), least, 0, status)


def _scaled(raw: Decimal, column: AgentColumn) -> Decimal:
    return _EXACT.add(_EXACT.multiply(raw, column.scale), column.offset)


# ---- in a leaf


def frames_body(source: AgentSource, frames: Iterable[bytes]) -> bytes:
    """Return the body of a readings leaf: frames of one agent, as they came."""
    points = [[c.number, format(c.scale, "f"), format(c.offset, "f")] for c in source.columns]
    return pack({"agent": source.agent, "schema": source.schema.id, "points": points, "frames": list(frames)})


def split_frames(body: bytes) -> list[bytes]:
    """Return a body with frames as bodies with one each; nothing for one that holds only one, or no frames."""
    if not body.startswith(_FRAMES_START):
        return []
    said = unpack(body)
    return [pack({**said, "frames": [frame]}) for frame in said["frames"]] if len(said["frames"]) > 1 else []


_FRAMES_START: Final = b"\x84" + pack("agent")


def _good_agent(value: Any) -> bool:
    return type(value) is str and AGENT.match(value.encode("utf-8", "replace")) is not None


def _good_schema(value: Any) -> bool:
    return type(value) is bytes and len(value) == 8


def _good_points(value: Any) -> bool:
    return type(value) is list and bool(value) and all(map(_good_column, value))


def _good_column(column: Any) -> bool:
    if type(column) is not list or len(column) != 3:
        return False
    number, *factors = column
    return (number is None or (type(number) is int and 0 <= number <= 255)) and all(
        type(factor) is str and _DECIMAL.match(factor) is not None for factor in factors
    )


def _good_frames(value: Any) -> bool:
    if type(value) is not list or not value or any(type(frame) is not bytes for frame in value):
        return False
    try:
        return len({parse_frame(frame).agent for frame in value}) == 1
    except TrustError:
        return False


FRAMES_SHAPE: Final[dict[str, Callable[[Any], bool]]] = {
    "agent": _good_agent,
    "schema": _good_schema,
    "points": _good_points,
    "frames": _good_frames,
}
"""The keys of a body with frames, and what each must be."""


def parsed_frames(body: Mapping[str, Any]) -> list[AgentFrame]:
    """Return the frames of a checked readings body. Raises TrustError for another agent's than it says."""
    frames = [parse_frame(raw) for raw in body.get("frames", ())]
    for frame in frames:
        if frame.agent != body["agent"]:
            raise TrustError(f"readings: got a frame of agent {frame.agent!r}, want only those of {body['agent']!r}")
    return frames


def frames_of(body: Mapping[str, Any], schemas: Mapping[bytes, Schema], *, sealed_ns: int) -> Iterator[Change]:
    """Yield what the frames of a checked readings body say. Raises TrustError for what does not fit its schema.

    sealed_ns: the leaf's own time, which a frame without a clock is dated by; its values are never GOOD.
    """
    frames = parsed_frames(body)
    if not frames:
        return
    schema = schemas.get(body["schema"])
    if schema is None:
        raise TrustError(f"readings: schema {body['schema'].hex()} is not in the log before this leaf")
    columns = [AgentColumn(number, Decimal(scale), Decimal(offset)) for number, scale, offset in body["points"]]
    if [column.store for column in columns] != [column.store for column in schema.columns]:
        raise TrustError(f"readings: got points {shown(body['points'])}, which do not fit their schema")
    for frame in frames:
        at_ns = frame.time_ns if frame.clock_set else sealed_ns
        for column, value, quality, offset_ms, status in told(frame, columns):
            yield Change(
                schema=schema,
                column=column,
                source_time_ns=max(0, at_ns - offset_ms * 1_000_000),
                value=None if value is None else stored(value, columns[column]),
                quality=quality,
                status=status,
            )


def stored(value: Decimal, column: AgentColumn) -> Value:
    """Return an exact value as its column holds it."""
    return int(value) if column.store == "u64" else float(value)
