"""EDE to a device template: the lists of objects that BACnet projects hand over. Pure: text in, template text out.

Source: BACnet Interest Group Europe, EDE layout 2: header lines, a line that names the columns, a line an object;
object types and units are ASHRAE 135's numbers. State texts are not read.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.codec.units import BACNET_UNITS
from gateway.config import parse_template
from gateway.config.convert import shown
from gateway.errors import ConfigError
from gateway.model import ENERGY_UNITS

_MOST_CHARACTERS: Final = 20_000_000
_MOST_INSTANCE: Final = 4_194_302


class _Kind(NamedTuple):
    name: str
    store: str


_READ: Final[Mapping[int, _Kind]] = {
    0: _Kind("analog-input", "f32"),
    1: _Kind("analog-output", "f32"),
    2: _Kind("analog-value", "f32"),
    3: _Kind("binary-input", "bool"),
    4: _Kind("binary-output", "bool"),
    5: _Kind("binary-value", "bool"),
    13: _Kind("multi-state-input", "u64"),
    14: _Kind("multi-state-output", "u64"),
    19: _Kind("multi-state-value", "u64"),
    23: _Kind("accumulator", "u64"),
    24: _Kind("pulse-converter", "f32"),
    40: _Kind("characterstring-value", "s64"),
    45: _Kind("integer-value", "i64"),
    46: _Kind("large-analog-value", "f64"),
    48: _Kind("positive-integer-value", "u64"),
}
"""By object type number (ASHRAE 135, BACnetObjectType): what a template can read."""
_NUMBERS: Final = {kind.name: number for number, kind in _READ.items()}
_COUNTERS: Final = {*ENERGY_UNITS, "GWh", "J", "kJ", "MJ", "varh", "kvarh", "Mvarh", "VAh", "kVAh", "MVAh"}
"""Units of what is only ever added up."""

_COLUMNS: Final[Mapping[str, str]] = {
    "keyname": "key",
    "deviceobjinstance": "device",
    "deviceobjectinstance": "device",
    "deviceinstance": "device",
    "objectname": "name",
    "objecttype": "type",
    "objectinstance": "instance",
    "description": "description",
    "maxpresentvalue": "most",
    "unitcode": "unit",
}
_NEEDED: Final = ("device", "name", "type", "instance")
_WORDS: Final = {
    "device": "device obj.-instance",
    "name": "object-name",
    "type": "object-type",
    "instance": "object-instance",
    "unit": "unit-code",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    """One line's object.

    unit: ours, "" where we have none; note: what the file calls it then. most: its greatest value, for a counter that
    wraps; None where it is not said.
    """

    line: int
    device: int
    kind: _Kind
    instance: int
    name: str
    description: str
    unit: str
    note: str
    most: int | None


def from_ede(text: str, *, name: str, units: str | None = None, device: int | None = None) -> str:
    """Return the TOML of a template with the objects of an EDE file, unverified.

    name: the template's. units: the text of the file that comes with it: what numbers of the maker's own mean.
    device: the instance of the device, where the file holds several.
    Raises ConfigError: the line, what it got, what it wants.
    """
    if len(text) > _MOST_CHARACTERS:
        raise ConfigError(f"got {len(text)} characters, want at most {_MOST_CHARACTERS}")
    lines = text.lstrip("\ufeff").splitlines()
    place, separator, columns = _head(lines)
    own = _own_units(units or "")
    entries, left_out = [], Counter[str]()
    for number, line in enumerate(lines[place + 1 :], place + 2):
        if not line.strip(f"{separator} \t\"'") or line.lstrip(' "').startswith("#"):
            continue
        given = _cells(line, separator, number)
        cells = {key: _cell(cell) for key, cell in zip(columns, given, strict=False)}
        if not all(needed in cells for needed in _NEEDED):
            least = max(columns.index(needed) for needed in _NEEDED) + 1
            raise ConfigError(f"line {number}: got {len(given)} cells, want at least {least}")
        found = _entry(cells, number, own)
        if isinstance(found, str):
            left_out[found] += 1
        else:
            entries.append(found)
    entries = _of_device(entries, device)
    _check_twice(entries)
    written = _template(entries, name, _project(lines[:place], separator), left_out)
    parse_template(written, name)
    return written


def _head(lines: Sequence[str]) -> tuple[int, str, list[str]]:
    """Return where the line of the columns stands, what separates them, and what they are."""
    for place, line in enumerate(lines[:100]):
        for separator in ";\t,":
            columns = [re.sub(r"[^a-z]", "", cell.lower()) for cell in line.split(separator)]
            known = [_COLUMNS.get(column, "") for column in columns]
            if all(needed in known for needed in _NEEDED):
                return place, separator, known
    wanted = ", ".join(_WORDS[key] for key in _NEEDED)
    raise ConfigError(f"line {min(len(lines), 100)}: got no line of columns, want one with {wanted}")


def _cells(line: str, separator: str, number: int) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=separator, strict=True))
    except (csv.Error, StopIteration) as e:
        raise ConfigError(
            f"line {number}: got {shown(line)}, want cells with {separator!r} between them: {e}"
        ) from None


def _cell(text: str) -> str:
    """Return a cell on one line, without what no terminal and no TOML shows."""
    return "".join(c for c in " ".join(text.split()) if c.isprintable())


def _entry(cells: Mapping[str, str], line: int, own: Mapping[int, str]) -> _Entry | str:
    """Return the object of a line, or the type that no template reads."""
    kind = _kind(cells["type"], line)
    if isinstance(kind, str):
        return kind
    most = cells.get("most", "")
    unit, note = _unit(cells.get("unit", ""), line, own)
    counts = kind.name == "accumulator" and most.isascii() and most.isdecimal()
    return _Entry(
        line=line,
        device=_number(cells, "device", line),
        kind=kind,
        instance=_number(cells, "instance", line),
        name=cells.get("name") or cells.get("key", ""),
        description=cells.get("description", ""),
        unit=unit,
        note=note,
        most=int(most) if counts and 0 < int(most) < 2**64 else None,
    )


def _kind(text: str, line: int) -> _Kind | str:
    words = text.lower().replace(" ", "-").replace("_", "-")
    number = _NUMBERS.get(words, int(text) if _is_number(text) else None)
    if number is None and not re.fullmatch(r"[a-z]+(-[a-z]+)*", words):
        raise ConfigError(f"line {line}: object-type: got {shown(text)}, want its number, such as 0 for analog-input")
    return _READ.get(number, str(number)) if number is not None else words


def _number(cells: Mapping[str, str], key: str, line: int) -> int:
    text = cells.get(key, "")
    if not _is_number(text) or int(text) > _MOST_INSTANCE:
        raise ConfigError(f"line {line}: {_WORDS[key]}: got {shown(text)}, want 0..{_MOST_INSTANCE}")
    return int(text)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 9


def _unit(text: str, line: int, own: Mapping[int, str]) -> tuple[str, str]:
    """Return our unit, or "" and a note where there is none: a unit that nobody can check must not be claimed."""
    if text in {"", "-"}:
        return "", ""
    if not _is_number(text):
        raise ConfigError(f"line {line}: unit-code: got {shown(text)}, want the number of a unit, such as 19 for kWh")
    number = int(text)
    if number in BACNET_UNITS:
        return BACNET_UNITS[number], ""
    return "", f"Its unit is number {number}{f' ({own[number]})' if number in own else ''}, which is none of ours."


def _own_units(text: str) -> dict[int, str]:
    """Return the units of a maker's own by number. Raises ConfigError."""
    units = {}
    for number, line in enumerate(text.lstrip("\ufeff").splitlines(), 1):
        cells = [_cell(cell) for cell in re.split("[;\t,]", line, maxsplit=1)]
        if len(cells) == 2 and _is_number(cells[0]):
            unit = cells[1].strip(";, ")
            if len(unit) > 60:
                raise ConfigError(f"units: line {number}: got {shown(unit)}, want at most 60 characters")
            units[int(cells[0])] = unit
    return units


def _of_device(entries: Sequence[_Entry], device: int | None) -> list[_Entry]:
    """Return the objects of one device: the one that is wanted, or the only one."""
    instances = sorted({entry.device for entry in entries})
    if not instances:
        raise ConfigError("got no object that a template can read, want e.g. analog-input (0) or accumulator (23)")
    known = ", ".join(map(str, instances[:10]))
    if device is None and len(instances) > 1:
        raise ConfigError(f"got the objects of {len(instances)} devices ({known}), want --device with one of them")
    if device is not None and device not in instances:
        raise ConfigError(f"got device {device}, want one of the file: {known}")
    return [entry for entry in entries if device in {None, entry.device}]


def _check_twice(entries: Sequence[_Entry]) -> None:
    seen: dict[tuple[str, int], int] = {}
    for entry in entries:
        key = (entry.kind.name, entry.instance)
        if key in seen:
            raise ConfigError(
                f"line {entry.line}: got {key[0]},{key[1]} again, want each object once: line {seen[key]} has it"
            )
        seen[key] = entry.line


def _project(lines: Sequence[str], separator: str) -> str:
    """Return what the header says of the project and its version, on one line."""
    wanted = ("projectname", "versionofreferencefile", "timestampoflastchange")
    said = []
    for line in lines:
        key, _, value = line.partition(separator)
        if re.sub(r"[^a-z]", "", key.lower()) in wanted and (text := _cell(value.strip(f"{separator} "))):
            said.append(text)
    return ", ".join(said)[:200]


def _template(entries: Sequence[_Entry], name: str, project: str, left_out: Counter[str]) -> str:
    instance = entries[0].device
    source = f"EDE file{f': {project}' if project else ''}"
    lines = [
        f"title = {_quoted(f'{name} (from EDE, device {instance})')}",
        'protocol = "bacnet"',
        "verified = false",
        f"sources = [{_quoted(source)}]",
        "votes = 1",
        "",
        f'# In gateway.toml: url = "bacnet:{instance}".',
    ]
    if left_out:
        kinds = ", ".join(f"{count} of type {kind}" for kind, count in sorted(left_out.items()))
        lines.append(f"# Left out, since no template reads them: {kinds}.")
    names = Counter[str]()
    taken: set[str] = set()
    for entry in entries:
        point = _point_name(entry, names, taken)
        counter = entry.kind.store not in {"bool", "s64"} and (
            entry.kind.name == "accumulator" or entry.unit in _COUNTERS
        )
        lines += ["", *(f"# {said}" for said in (entry.description, entry.note) if said), f"[points.{point}]"]
        lines += [f'object = "{entry.kind.name},{entry.instance}"']
        store = "f64" if counter and entry.kind.store == "f32" else entry.kind.store
        lines += [f'store = "{store}"'] if store != "f32" else []
        lines += [f"unit = {_quoted(entry.unit)}"] if entry.unit else []
        lines += ['kind = "counter"'] if counter else []
        lines += [f"modulus = {entry.most + 1}"] if counter and entry.most is not None else []
    return "\n".join(lines) + "\n"


def _point_name(entry: _Entry, names: Counter[str], taken: set[str]) -> str:
    """Return a name that a template takes, and that none has yet."""
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z][a-z])", "_", entry.name).lower()
    plain = re.sub(r"[^a-z0-9_-]+", "_", plain).strip("_-")[:50] or f"{entry.kind.name}-{entry.instance}"
    name = plain
    while name in taken:
        names[plain] += 1
        name = f"{plain}_{names[plain] + 1}"
    taken.add(name)
    return name


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
