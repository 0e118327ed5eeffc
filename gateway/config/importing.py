"""Register maps of other programs to device templates of ours. Pure: text in, texts out.

Every message says the file and line, what stands there, what is wanted, and how to mend it:
`modbus_map.conf:2: register: got '70001', want ...`
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Final, NamedTuple

from gateway.codec.planner import width
from gateway.config import parse_template
from gateway.config.import_entries import Entry, Found, named
from gateway.config.import_seed import read_csv, read_seed
from gateway.config.import_telegraf import read_telegraf
from gateway.config.lint import OVERFLOW, Level, lint, overlaps, span
from gateway.config.templates import ModbusTemplate
from gateway.errors import ConfigError
from gateway.model import Kind, Order, Point

_EDE: Final = ("engineering-data-exchange", "project_name", "device obj.-instance")
_LONGEST: Final = 63
_NOWHERE: Final = "tcp://192.0.2.10:502"


class Imported(NamedTuple):
    """One device of a foreign file: its template, and the section that a gateway.toml needs for it."""

    name: str
    template: str
    section: str


def import_map(
    text: str, *, file: str, form: str = "auto", name: str = "", units: str | None = None, device: int | None = None
) -> tuple[Imported, ...]:
    """Return the devices that a foreign register map describes, in its order. Raises ConfigError.

    file: its name, for messages. form: a key of `FORMATS`, "ede", or "auto". name: what to call the template.
    units, device: for EDE alone, see `from_ede`.
    """
    form = guess(text, file) if form == "auto" else form
    name = name or named(re.sub(r"\.[A-Za-z0-9]+\Z", "", file)) or "imported"
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,55}", name):
        raise ConfigError(f"--name: got {name!r}, want at most 56 lower-case letters, digits, - and _")
    if form == "ede":
        return (_of_ede(text, file, name, units, device),)
    found = FORMATS[form](text, file)
    if not any(device.entries for device in found):
        raise ConfigError(f"{file}: got no register, want at least one")
    several = len(found) > 1
    names = [f"{name}-{device.tag}" if several else name for device in found]
    if too_long := [each for each in names if len(each) > _LONGEST]:
        raise ConfigError(
            f"--name: got {too_long[0]!r} of {len(too_long[0])} characters, want at most {_LONGEST}: shorten it"
        )
    return tuple(_imported(device, file, each) for device, each in zip(found, names, strict=True))


def guess(text: str, file: str) -> str:
    """Return which format a text has. Raises ConfigError where nobody can tell."""
    lines = [line.strip().lower() for line in text.splitlines() if line.strip()]
    head = [line for line in lines if not line.startswith("#")][:1]
    if any(word in line for word in _EDE for line in lines[:12]):
        return "ede"
    if any(re.match(r"\[\[ *inputs *\. *modbus", line) for line in lines):
        return "telegraf"
    if head and re.match(r"(slave_id|register|type|unit)\s*:", head[0]):
        return "seed"
    if head and {"address", "register"} & {cell.strip(' "') for cell in re.split("[,;]", head[0])}:
        return "csv"
    raise ConfigError(
        f"{file}: got a format that nobody can tell from its first lines, "
        f"want --format with one of {', '.join([*FORMATS, 'ede'])}"
    )


FORMATS: Final[Mapping[str, Callable[[str, str], Sequence[Found]]]] = MappingProxyType(
    {"seed": read_seed, "telegraf": read_telegraf, "csv": read_csv}
)


def _of_ede(text: str, file: str, name: str, units: str | None, device: int | None) -> Imported:
    from gateway.config.ede import from_ede  # noqa: PLC0415 (a format that few need)

    try:
        template = from_ede(text, name=name, units=units, device=device)
    except ConfigError as e:
        raise ConfigError(f"{file}: {e}") from e
    instance = re.search(r"bacnet:([0-9]+)", template)
    url = f"bacnet:{instance[1]}" if instance else "bacnet:1234"
    return Imported(name, template, _section(name, url, None, known=bool(instance)))


def _imported(device: Found, file: str, name: str) -> Imported:
    """Return a device's texts, once they are known to hold. Raises ConfigError."""
    _check(device.entries, file)
    template = _template(device, file)
    parsed = parse_template(template, name)
    if not isinstance(parsed, ModbusTemplate):
        raise TypeError(name)
    lines = {entry.point.name: entry.line for entry in device.entries}
    for finding in lint(parsed, template):
        if finding.level is Level.ERROR:
            where = f":{lines[finding.points[0]]}" if finding.points else ""
            raise ConfigError(f"{file}{where}: {finding.text}")
    section = _section(name, device.url or _NOWHERE, device.unit_id, known=bool(device.url))
    return Imported(name, template, section)


def _check(entries: Sequence[Entry], file: str) -> None:
    """Refuse two registers of one name, and registers that overlap."""
    seen: dict[str, Entry] = {}
    for entry in entries:
        try:
            width(entry.point)
        except ConfigError as e:
            raise ConfigError(f"{file}:{entry.line}: {e}") from e
        other = seen.setdefault(entry.point.name, entry)
        # Of the same register, what follows says more.
        if (other.point.function, other.point.address) != (entry.point.function, entry.point.address):
            raise ConfigError(
                f"{file}:{entry.line}: name: got {entry.point.name!r}, which line {other.line} has already, "
                "want a name of its own: rename one of them"
            )
    by_point = {id(entry.point): entry for entry in entries}
    for first, second in overlaps([entry.point for entry in entries]):
        pair = sorted((by_point[id(first)], by_point[id(second)]), key=lambda entry: entry.line)
        before, after = pair
        free = before.point.address + width(before.point) - after.point.address
        mend = f"move it by {free}, or drop one" if 0 < free < width(before.point) else "drop or mend one of them"
        raise ConfigError(
            f"{file}:{after.line}: {OVERFLOW}: got {after.shown} ({after.point.type}, PDU {span(after.point)}), "
            f"which overlaps {before.shown} ({before.point.type}, PDU {span(before.point)}) of line {before.line}, "
            f"want each register in one point: {mend}"
        )


def _section(name: str, url: str, unit_id: int | None, *, known: bool) -> str:
    note = "" if known else "  # CHANGE THIS: the file does not say where the device is"
    unit = "" if unit_id is None else f"unit_id = {unit_id}\n"
    return f"[devices.{name}]\ntemplate = {_text(name)}\nurl = {_text(url)}{note}\n{unit}"


def _template(device: Found, file: str) -> str:
    title = f"{device.title or 'Imported device'}"[:60]
    head = [
        f"# Imported from {_line(file)}. Compare each value with the device's display before relying on it.",
        f"title = {_text(title)}",
        "verified = false",
        f"sources = [{_text(f'the file {_line(file)}')}]",
        "votes = 1",
    ]
    return "\n".join([*head, *(_point(entry) for entry in device.entries)]) + "\n"


def _point(entry: Entry) -> str:
    """Return the lines of one point, its defaults left out."""
    point = entry.point
    lines = [
        "",
        f"[points.{point.name}]",
        f"function = {point.function}",
        f"address = {point.address}  # {_line(entry.shown)}",
        f'type = "{point.type}"',
    ]
    optional: Sequence[tuple[str, object, object]] = (
        ("order", _text(point.order), _text(Order.ABCD)),
        ("registers", point.registers, 0),
        ("bit", point.bit, None),
        ("unit", _text(point.unit), _text("")),
        ("scale", _text(_plain(point.scale)), _text("1")),
        ("offset", _text(_plain(point.offset)), _text("0")),
        ("kind", _text(point.kind), _text(Kind.GAUGE)),
        ("modulus", point.modulus, None),
        ("sentinels", sorted(point.sentinels), []),
    )
    return "\n".join([*lines, *(f"{key} = {value}" for key, value, usual in optional if value != usual)])


def _plain(number: Decimal) -> str:
    return format(number.normalize(), "f")


def _text(text: str) -> str:
    """Return a text as TOML has it: JSON's escapes are a part of TOML's."""
    return json.dumps(str(text), ensure_ascii=False).replace("\x7f", "\\u007f")


def _line(text: str) -> str:
    return re.sub(r"[\x00-\x1f\x7f]", " ", text)


__all__ = ["FORMATS", "Imported", "Point", "guess", "import_map"]
