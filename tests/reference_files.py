"""Reference files for tests, from the PCRs of soft devices."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from gateway.attest.references import References, parse_references
from hil.plant.soft_tpm import MODEL

DAY_S = 86_400
NOW_S = int(datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp())


def instant(at_s: int) -> str:
    """Return a time as TOML has it."""
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def release(
    pcrs: Mapping[int, bytes | Sequence[bytes]],
    *,
    name: str = "r1",
    model: str = MODEL,
    from_s: int = NOW_S - DAY_S,
    until_s: int | None = None,
    more: str = "",
    tables: str = "",
) -> str:
    """Return one [[release]]. more: keys of its own; tables: what follows its PCRs."""
    until = "" if until_s is None else f"until = {instant(until_s)}\n"
    values = {
        index: [value.hex()] if isinstance(value, bytes) else [one.hex() for one in value]
        for index, value in pcrs.items()
    }
    lines = "".join(f"{index} = {found!r}\n" for index, found in values.items())
    head = f'[[release]]\nname = "{name}"\nmodel = "{model}"\nfrom = {instant(from_s)}\n{until}{more}\n'
    return f"{head}[release.pcrs]\n{lines}{tables}\n"


def rule(kind: str, pcr: int, *digests: bytes, about: str = "", event_type: str = "") -> str:
    """Return one [[release.event]]."""
    said = (f'about = "{about}"\n' if about else "") + (f'type = "{event_type}"\n' if event_type else "")
    listed = [one.hex() for one in digests]
    return f'[[release.event]]\npcr = {pcr}\nrule = "{kind}"\ndigests = {listed!r}\n{said}'


def references(*releases: str) -> References:
    """Return what these releases say as a file."""
    return parse_references("".join(releases), name="reference.toml")
