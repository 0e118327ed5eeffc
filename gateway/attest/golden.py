"""A [[release]] of reference.toml from what golden units show: text that a person reads before it is used."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from gateway.attest.eventlog import Replay
from gateway.attest.references import parse_references
from gateway.errors import ConfigError, TrustError

# EFI_GLOBAL_VARIABLE as UEFI lays it out, and what stands before the data of a variable of 10 characters and 1 byte
# (PFP 1.06, 10.2.7: UEFI_VARIABLE_DATA).
_GLOBAL = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
_SECURE_BOOT = _GLOBAL + (10).to_bytes(8, "little") + (1).to_bytes(8, "little") + "SecureBoot".encode("utf-16-le")
_ON, _OFF = (sha256(_SECURE_BOOT + value).hexdigest() for value in (b"\x01", b"\x00"))
_SECURE_BOOT_PCR = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Golden:
    """What one golden unit shows. counters: floors by NV index."""

    pcrs: Mapping[int, bytes]
    counters: Mapping[int, int]


def release_text(
    units: Iterable[Golden],
    *,
    name: str,
    model: str,
    from_s: int,
    until_s: int | None = None,
    version: str = "",
    pcrs: Iterable[int] = (),
    rules: str = "",
) -> str:
    """Return one [[release]]: each PCR with every value that a unit shows, the least of each counter.

    pcrs: which to list; all that every unit shows, where it is empty. rules: [[release.event]] tables.
    Raises ConfigError for what reference.toml cannot say, and for a PCR that a unit does not show.
    """
    shown = list(units)
    common = set.intersection(*(set(unit.pcrs) for unit in shown)) if shown else set()
    listed = sorted(set(pcrs) or common)
    if lacking := [index for index in listed if index not in common]:
        raise ConfigError(f"--pcrs: got {', '.join(map(str, lacking))}, want PCRs that every golden unit shows")
    lines = ["[[release]]", f"name = {_quoted(name)}", f"model = {_quoted(model)}", f"from = {_instant(from_s)}"]
    lines += [f"until = {_instant(until_s)}"] if until_s is not None else []
    lines += [f"version = {_quoted(version)}"] if version else []
    lines += ["[release.pcrs]"]
    for index in listed:
        values = sorted({unit.pcrs[index].hex() for unit in shown})
        lines.append(f"{index} = [{', '.join(map(_quoted, values))}]")
    floors: dict[int, int] = {}
    for unit in shown:
        for counter, value in unit.counters.items():
            floors[counter] = min(value, floors.get(counter, value))
    lines += ["[release.counters]"] if floors else []
    lines += [f"0x{counter:08x} = {value}" for counter, value in sorted(floors.items())]
    text = "\n".join(lines) + "\n" + rules
    parse_references(text, name="release")
    return text


def secure_boot_rules(log: Replay) -> str:
    """Return rules by which secure boot is on, as this log has it. Raises TrustError where it is not on here."""
    digests = {digest.hex() for digest in log.digests(_SECURE_BOOT_PCR)}
    if _ON not in digests or _OFF in digests:
        raise TrustError("event log: PCR 7 does not say that secure boot is on, so no rule can be made of it")
    return _rule("required", _ON, "secure boot on") + _rule("forbidden", _OFF, "secure boot off")


def _rule(kind: str, digest: str, about: str) -> str:
    return f'[[release.event]]\npcr = {_SECURE_BOOT_PCR}\nrule = "{kind}"\ndigests = ["{digest}"]\nabout = "{about}"\n'


def _quoted(text: str) -> str:
    """Return a text as a TOML string. Raises ConfigError where a line of a file cannot hold it."""
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ConfigError(f"release: got {text!r}, want text without control characters")
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _instant(at_s: int) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
