"""Commands for figures on their way to others: export, verify."""

import json
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.app.load import load_ledger
from gateway.errors import ConfigError, TrustError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.carbon.audit.compute import Alone
    from gateway.carbon.audit.devices import DeviceVerdict
    from gateway.carbon.audit.verdict import Verdict

_FILE = click.Path(path_type=Path, dir_okay=False)
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
@click.option("--trust", type=_FILE, help="File of verifier keys, one a line.")
@click.option("--device-ca", type=_FILE, help="Roots of the device authority, PEM: whose TPM vouches for the keys?")
@click.option("--crl", type=_FILE, help="The device authority's lists of the revoked, PEM.")
@click.option("--birth", "births", type=_FILE, multiple=True, help="A device's birth record; may be given again.")
@click.option("--factory", type=_FILE, help="The factory's verifier key, for --birth.")
@click.option(
    "--ek-root",
    "ek_roots",
    type=_FILE,
    multiple=True,
    help="TPM maker's certificates, PEM, for --birth; again for more.",
)
@_JSON
def verify(
    path: Path,
    trust: Path | None,
    device_ca: Path | None,
    crl: Path | None,
    births: tuple[Path, ...],
    factory: Path | None,
    ek_roots: tuple[Path, ...],
    *,
    as_json: bool,
) -> int:
    """Check an export offline and compute every figure again; exit 1 and name what does not hold.

    \b
    Example: wattseal verify export --trust keys.txt
             wattseal verify export --device-ca roots.pem --crl crl.pem
             wattseal verify export --device-ca roots.pem --birth birth.note --factory factory.vkey --ek-root maker.pem
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.handover import read_export
    from gateway.app.trust.devicetrust import read_device_trust
    from gateway.carbon.audit.verify import verify as check

    keys = None if trust is None else _keys(trust)
    devices = read_device_trust(device_ca, crl=crl, births=births, factory=factory, ek_roots=ek_roots)
    files = read_export(path)
    try:
        verdict = check(files, keys, devices)
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
        "claimed": list(verdict.claimed),
        "keys": [
            {
                "origin": log.origin,
                "size": log.size,
                "key": log.vkey,
                "fingerprint": log.fingerprint,
                "epoch": log.epoch,
                "binding": log.binding,
                "device": None if log.device is None else asdict(log.device),
            }
            for log in logs
        ],
        "lines": [
            {
                "gateway": line.gateway,
                "line": line.line,
                "intervals": line.intervals,
                "energy_kwh": _kwh(line.totals.energy_mwh),
                "co2e_kg": str(line.totals.co2e_g / 1000),
                "kg_per_unit": None if line.totals.kg_per_unit is None else str(line.totals.kg_per_unit),
                "units_mixed": line.totals.units_mixed,
                "settled": line.settled,
                "quarantined": dict(line.quarantined),
                "alone": [asdict(one) for one in line.alone],
            }
            for line in verdict.lines
        ],
        "standings": [asdict(one) for one in verdict.standings],
        "decisions": [asdict(one) for one in verdict.decisions],
    }


def _kwh(energy_mwh: int) -> str:
    return f"{energy_mwh // 1_000_000}.{energy_mwh % 1_000_000:06d}"


def _said(path: Path, verdict: "Verdict") -> str:
    said = [f"{path}: OK"]
    for line in verdict.lines:
        totals = line.totals
        per_unit = "" if totals.kg_per_unit is None else f", {totals.kg_per_unit} kg per unit"
        per_unit += " (units_mixed: of the intervals that count good units)" if totals.units_mixed else ""
        said.append(
            f"  line {line.gateway}/{line.line}: {line.intervals} intervals, {_kwh(totals.energy_mwh)} kWh, "
            f"{totals.co2e_g / 1000:.3f} kg CO2e{per_unit}" + ("" if line.settled else " (its end may still change)")
        )
        said.extend(
            f"    {count} intervals in quarantine, in no figure: {why}" for why, count in line.quarantined.items()
        )
        said += _alone(line.alone)
    said += _judged(verdict)
    said.append(f"  {verdict.rows} rows computed again, {verdict.leaves} leaves proven, {verdict.files} files")
    for log in (verdict.ledger, *verdict.gateways):
        said.append(f"  key of {log.origin}: {log.fingerprint}{' (one that you trust)' if log.named else ''}")
        if log.device is not None:
            said += _device(log.device, log.binding)
    if not verdict.trust_given:
        said.append("  COMPARE these fingerprints with ones that you got another way, or give the keys with --trust.")
    if verdict.claimed:
        said.append(
            f"  CLAIMED, NOT CHECKED: a TPM vouches for the keys of {', '.join(verdict.claimed)}. Give --device-ca."
        )
    if verdict.unattested:
        said.append(f"  UNATTESTED: no TPM vouches for the keys of {', '.join(verdict.unattested)}.")
    return "\n".join(said)


def _alone(ranges: "Sequence[Alone]") -> list[str]:
    """Return what rests on the ledger's word alone: ranges that count one by one, the others in sum."""
    said = [
        f"    {one.leaves} intervals count as UNATTESTED, leaves {one.first} to {one.last}: BY THE LEDGER'S WORD ALONE"
        for one in ranges
        if one.state == "UNATTESTED"
    ]
    for state in sorted({one.state for one in ranges} - {"UNATTESTED"}):
        counts = [one.leaves for one in ranges if one.state == state]
        said.append(
            f"    {state} by the ledger's word alone: {len(counts)} ranges, {sum(counts)} intervals, in no figure"
        )
    return said


def _judged(verdict: "Verdict") -> list[str]:
    """Return what the ledger held of attested gateways, and what officers decided."""
    said = []
    for one in verdict.standings:
        by = "checked" if one.checked else "NOT CHECKED: give the verifier's key with --trust"
        reason = f", {one.reason}" if one.reason else ""
        said.append(
            f"  {one.gateway} is {one.state}{reason}, as far as this shows; {one.results} good results of its verifier "
            f"and {one.bad} others ({by})"
        )
    for decided in verdict.decisions:
        by = "checked" if decided.checked else "NOT CHECKED: give the officer's key with --trust"
        what = "readmitted" if decided.admit else "quarantined"
        said.append(
            f"  leaves {decided.first}:{decided.stop} of {decided.gateway} {what} by {decided.by} ({by}): "
            f"{decided.reason}"
        )
    return said


def _device(device: "DeviceVerdict", binding: str) -> list[str]:
    when = datetime.fromtimestamp(device.t_ns // 1_000_000_000, UTC).isoformat().replace("+00:00", "Z")
    said = [
        f"    {binding}: device {device.serial} ({device.model}), epoch {device.epoch} of {when}",
        f"    TPM reset count {device.reset_count}",
        f"    attestation key's certificate SHA-256 {device.fingerprint}",
        f"    PCRs {', '.join(map(str, device.pcrs))}: SHA-256 {device.pcr_sha256}",
    ]
    if device.tpm is not None:
        said.append(
            f"    TPM of {device.tpm.maker or 'a maker that it does not name'}, certificate {device.tpm.serial}"
        )
        said.extend(f"    remark: {remark}" for remark in device.tpm.remarks)
    return said


COMMANDS = (export, verify)
