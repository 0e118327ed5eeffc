"""Commands for figures on their way to others: export, verify."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.app.load import load_ledger
from gateway.errors import ConfigError, TrustError

if TYPE_CHECKING:
    from gateway.carbon.audit.verify import Verdict

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")


def instant(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    """Return a date or time as UTC nanoseconds; for options."""
    """Return a time option as UTC ns: click's callback."""
    if text is None:
        return None
    try:
        then = datetime.fromisoformat(text)
    except ValueError as e:
        raise click.BadParameter(f"got {text!r}, want a date or time such as 2026-11-21 or 2026-11-21T06:00:00Z") from e
    return int((then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp()) * 1_000_000_000


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--format", "form", type=click.Choice(["csv"]), default="csv", show_default=True, help="Of the rows.")
@click.option(
    "--line", "lines", multiple=True, help="A line, as NAME or GATEWAY/NAME; all without it. May be given again."
)
@click.option("--from", "start_ns", callback=instant, help="First instant, UTC; the first interval without it.")
@click.option("--to", "end_ns", callback=instant, help="End, UTC, excluded; the newest interval without it.")
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("export"), show_default=True, help="Folder, or .zip."
)
@click.option("--force", is_flag=True, help="Write over what is there.")
@_JSON
def export(
    file: Path,
    form: str,
    lines: tuple[str, ...],
    start_ns: int | None,
    end_ns: int | None,
    out: Path,
    *,
    force: bool,
    as_json: bool,
) -> None:
    """Write figures with all that an auditor needs to compute them again.

    \b
    Example: wattseal export ledger.toml --line filling --out export
             wattseal export ledger.toml --from 2026-11-01 --to 2026-12-01 --out november.zip
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.handover import Wish, export_to
    from gateway.carbon.audit.form import ROWS

    wish = Wish(lines=lines, start_ns=start_ns, end_ns=end_ns)
    files = export_to(out, load_ledger(file), wish, force=force)
    rows = files[ROWS].count(b"\n") - 1
    found = {"out": str(out), "format": form, "files": len(files), "rows": rows, "bytes": sum(map(len, files.values()))}
    click.echo(
        json.dumps(found) if as_json else f"{out}: {rows} rows, {len(files)} files. Check it: wattseal verify {out}"
    )


@click.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--trust", type=click.Path(path_type=Path, dir_okay=False), help="File of verifier keys, one a line.")
@_JSON
def verify(path: Path, trust: Path | None, *, as_json: bool) -> int:
    """Check an export offline and compute every figure again; exit 1 and name what does not hold.

    \b
    Example: wattseal verify export --trust keys.txt
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.handover import read_export
    from gateway.carbon.audit.verify import verify as check

    keys = None if trust is None else _keys(trust)
    files = read_export(path)
    try:
        verdict = check(files, keys)
    except TrustError as e:
        text = f"{path}: FAILED: {e}"
        click.echo(json.dumps({"ok": False, "index": e.index, "error": str(e)}) if as_json else text, err=not as_json)
        return 1
    click.echo(json.dumps(_fields(verdict)) if as_json else _said(path, verdict))
    return 0


def _keys(trust: Path) -> list[str]:
    try:
        keys = [line.strip() for line in trust.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{trust}: cannot be read: {e}") from e
    if not keys:
        raise ConfigError(f"{trust}: got no key, want one verifier key a line, as in the .vkey files")
    return keys


def _fields(verdict: "Verdict") -> dict[str, Any]:
    logs = (verdict.ledger, *verdict.gateways)
    return {
        "ok": True,
        "named": all(log.named for log in logs),
        "rows": verdict.rows,
        "leaves": verdict.leaves,
        "files": verdict.files,
        "unattested": list(verdict.unattested),
        "keys": [
            {"origin": log.origin, "size": log.size, "key": log.vkey, "fingerprint": log.fingerprint} for log in logs
        ],
        "lines": [
            {
                "gateway": line.gateway,
                "line": line.line,
                "intervals": line.intervals,
                "energy_kwh": _kwh(line.totals.energy_mwh),
                "co2e_kg": str(line.totals.co2e_g / 1000),
                "kg_per_unit": None if line.totals.kg_per_unit is None else str(line.totals.kg_per_unit),
                "settled": line.settled,
            }
            for line in verdict.lines
        ],
    }


def _kwh(energy_mwh: int) -> str:
    return f"{energy_mwh // 1_000_000}.{energy_mwh % 1_000_000:06d}"


def _said(path: Path, verdict: "Verdict") -> str:
    said = [f"{path}: OK"]
    for line in verdict.lines:
        totals = line.totals
        per_unit = "" if totals.kg_per_unit is None else f", {totals.kg_per_unit} kg per unit"
        said.append(
            f"  line {line.gateway}/{line.line}: {line.intervals} intervals, {_kwh(totals.energy_mwh)} kWh, "
            f"{totals.co2e_g / 1000:.3f} kg CO2e{per_unit}" + ("" if line.settled else " (its end may still change)")
        )
    said.append(f"  {verdict.rows} rows computed again, {verdict.leaves} leaves proven, {verdict.files} files")
    said.extend(
        f"  key of {log.origin}: {log.fingerprint}{' (one that you trust)' if log.named else ''}"
        for log in (verdict.ledger, *verdict.gateways)
    )
    if not verdict.trust_given:
        said.append("  COMPARE these fingerprints with ones that you got another way, or give the keys with --trust.")
    if verdict.unattested:
        said.append(f"  UNATTESTED: no TPM vouches for the keys of {', '.join(verdict.unattested)}.")
    return "\n".join(said)


COMMANDS = (export, verify)
