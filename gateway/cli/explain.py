"""`wattseal explain`: how a figure came about, from the registers to the rounding."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from gateway.app.load import load_ledger
from gateway.cli.audit import instant

_MAIN = ("energy_kwh", "co2e_kg", "units_good", "kg_per_unit", "oee", "coverage_pct", "factor_state", "state")
_MARKET = ("market_co2e_kg", "market_method", "market_state", "market_matched")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("record")
@click.option("--line", help="A row's line, as NAME or GATEWAY/NAME: no other is searched.")
@click.option("--at", "at_ns", callback=instant, help="A row's interval_start_utc: no other time is searched.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
def explain(file: Path, record: str, *, line: str | None, at_ns: int | None, as_json: bool) -> int:
    """Show how a figure came about, computed again from the leaves; exit 1 where that gives another figure.

    RECORD is the record_id of a row of an export, or the record of a statement. A row's says nothing of where it
    stands, so the rows are searched from the newest back; --at and --line spare that.

    \b
    Example: wattseal explain ledger.toml 0123456789abcdef0123456789abcdef
             wattseal explain ledger.toml 0123456789abcdef0123456789abcdef --line filling --at 2026-11-21T06:00:00Z
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from rich.console import Console
    from rich.progress import Progress

    from gateway.app.explaining import explain_record

    config, console = load_ledger(file), Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        bar = progress.add_task("searching, days", total=None)
        found = explain_record(
            config,
            record,
            line=line,
            at_ns=at_ns,
            tell=lambda done, days: progress.update(bar, completed=done, total=days),
        )
    if as_json:
        click.echo(json.dumps(found))
    else:
        click.echo("\n".join(_row(found) if found["kind"] == "row" else _statement(found)))
    return 0 if found["equal"] else 1


def _row(found: Mapping[str, Any]) -> Iterator[str]:
    of = found["of"]
    yield f"{of['gateway']}/{of['line']}, {of['asset'] or of['meter']} ({of['kind']}), Scope {of['scope']}"
    yield f"  {found['start']} to {found['end']}, in the cell {found['cell']['start']} to {found['cell']['end']}"
    setting = ", ".join(f"{name} {value}" for name, value in found["setting"].items() if value)
    yield f"  setting: {setting or 'not known'}" + (f"; plan {found['plan_sha256'][:12]}" * bool(found["plan_sha256"]))
    for number, part in enumerate(found["parts"], 1):
        yield from _part(number, part)
    yield f"hierarchy\n  {found['hierarchy']}"
    yield from _factor(found["factor"])
    yield "product"
    yield f"  {found['co2e']['formula'] or 'none: energy or factor is not known'}"
    if found["co2e"]["kg"] is not None:
        yield f"  = {found['co2e']['kg']} kg CO2e, exact"
    if found["uncertainty_pct"] is not None:
        yield f"  uncertainty {found['uncertainty_pct']} %, meter and factor combined"
    yield f"quality\n  {found['quality']}"
    for flag, meaning in found["flags"].items():
        yield f"  {flag}: {meaning}"
    yield "rounding"
    for rule in found["rounding"]:
        yield f"  {rule}"
    yield from _verdict(found)


def _part(number: int, part: Mapping[str, Any]) -> Iterator[str]:
    about = ", ".join(filter(None, (part["serial"] and f"serial {part['serial']}", part["meter_class"])))
    yield f"register {number}: {part['sign']} {part['point']}" + (f" ({about})" if about else "")
    if "nothing" in part:
        base = part["newest_believed"]
        yield f"  books nothing: {part['nothing']}"
        if base is not None:
            yield _reading("newest believed", base, part["unit"])
        return
    yield _reading("start", part["start"], part["unit"])
    yield _reading("end", part["end"], part["unit"])
    yield f"  difference: {part['difference']['formula']}"
    for flag, meaning in part["flags"].items():
        yield f"    {flag}: {meaning}"
    split = part["split"]
    if split["is_whole"]:
        yield "  all of it falls within this row"
    else:
        first, last = split["seconds"]
        yield f"  split over time: from {first} s to {last} s of {split['of_seconds']} s: {split['formula']}"


def _reading(what: str, shown: Mapping[str, Any], unit: str) -> str:
    raw = f"raw 0x{shown['raw']}" if shown["raw"] else "no raw bytes"
    return (
        f"  {what}: {shown['register']} {unit}, {raw}, boundary {shown['boundary']}, read at {shown['read_at']}"
        f"\n    leaf {shown['leaf']} of {shown['log']}, {shown['leaf_hash']}, clock {shown['clock']}"
        + (f", {shown['status']}" if shown["status"] else "")
    )


def _factor(factor: Mapping[str, Any] | None) -> Iterator[str]:
    yield "factor"
    if factor is None:
        yield "  none"
        return
    key = "/".join(filter(None, (factor[name] for name in ("provider", "zone", "signal", "type", "granularity"))))
    yield f"  {factor['value']} {factor['unit']}, {factor['state']}, {key}"
    yield f"  window {factor['window'][0]} to {factor['window'][1] or 'further notice'}; method {factor['method']}"
    yield f"  source {factor['source']}" + (f"; {factor['gwp_set']}" if factor["gwp_set"] else "")
    yield f"  version {factor['version']}, leaf {factor['leaf']}, {factor['leaf_hash']}"
    if factor["supersedes"]:
        yield f"  supersedes {factor['supersedes']}"
    for flag in factor["fallback"]:
        yield f"  fallback: {flag}"


def _statement(found: Mapping[str, Any]) -> Iterator[str]:
    subject = found["subject"]
    yield f"{subject['gateway']}/{subject['line']} {subject['shift']}, {found['start']} to {found['end']}"
    for version in found["versions"]:
        sealed = f"leaf {version['leaf']}, sealed {version['sealed_at']}"
        yield f"version {version['version']}, {sealed}: {version['reason']}"
        if not (version["chain_holds"] and version["as_sealed"]):
            yield "  NOT AS SEALED, or its chain does not hold"
        if version["changed"]:
            for name, (before, after) in version["changed"].items():
                yield f"  {name}: {before or '-'} -> {after or '-'}"
        else:
            for name in _MAIN:
                yield f"  {name}: {version['figures'].get(name) or '-'}"
            for name in _MARKET if "market_method" in version["figures"] else ():
                yield f"  {name}: {version['figures'][name] or '-'} (as stated: of the year's match at that time)"
    yield "largest rows"
    for row in found["rows"]:
        yield f"  {row['record']}  {row['start']}  {row['asset']}  {row['energy_kwh']} kWh  {row['co2e_kg'] or '-'} kg"
    yield from _verdict(found)


def _verdict(found: Mapping[str, Any]) -> Iterator[str]:
    if found["equal"]:
        yield "computed again from the leaves: EQUAL to what is stored"
        return
    yield "computed again from the leaves: DIFFERS from what is stored"
    for name, (stored, again) in found.get("differences", {}).items():
        yield f"  {name}: stored {stored or '-'}, computed {again or '-'}"


COMMANDS = (explain,)
