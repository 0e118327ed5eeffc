"""What a device says of itself, looked at offline: `wattseal attest events`, `reference`, `appraise`."""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.attest.appraisal import Appraisal
    from gateway.attest.chain import Anchors
    from gateway.attest.eventlog import Replay
    from gateway.attest.evidence import VerifiedEvidence
    from gateway.attest.golden import Golden

_PATH = click.Path(path_type=Path, dir_okay=False)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
_ROOTS = click.option("--device-ca", type=_PATH, help="Roots of the device maker's CA, PEM.")


def _instant(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    if text is None:
        return None
    try:
        then = datetime.fromisoformat(text)
        return int((then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError) as e:
        raise click.BadParameter(f"got {text!r}, want a date or time such as 2026-11-21 or 2026-11-21T06:00:00Z") from e


def _indices(_: click.Context, __: click.Parameter, text: str | None) -> tuple[int, ...]:
    parts = [] if text is None else text.split(",")
    if not all(part.isdecimal() and part.isascii() and len(part) < 3 and int(part) < 24 for part in parts):
        raise click.BadParameter(f"got {text!r}, want indices such as 0,2,4,7")
    return tuple(map(int, parts))


def _nonce(_: click.Context, __: click.Parameter, text: str | None) -> bytes | None:
    try:
        return None if text is None else bytes.fromhex(text)
    except ValueError as e:
        raise click.BadParameter(f"got {text!r}, want hexadecimal digits") from e


@click.command()
@click.argument("file", type=_PATH)
@_JSON
def events(file: Path, *, as_json: bool) -> None:
    """Replay a firmware's event log: its events, and the PCRs that they make.

    \b
    Example: wattseal attest events /sys/kernel/security/tpm0/binary_bios_measurements
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.trust.anchorfiles import read_bounded
    from gateway.attest.eventlog import replay

    log = replay(read_bounded(file))
    click.echo(json.dumps(_log_row(log)) if as_json else _log_text(log))


def _log_row(log: "Replay") -> dict[str, Any]:
    return {
        "banks": list(log.banks),
        "padding": log.padding,
        "events": [
            {
                "number": event.number,
                "pcr": event.pcr,
                "type": event.name,
                "sha256": event.sha256.hex() if event.is_measured else None,
                "size": len(event.data),
                "data_measured": event.measured is not None,
            }
            for event in log.events
        ],
        "pcrs": {str(index): log.pcrs[index].hex() for index in sorted(log.pcrs)},
    }


def _log_text(log: "Replay") -> str:
    lines = [f"{len(log.events)} events, banks {', '.join(log.banks)}; * where the PCR vouches for the data, too"]
    for event in log.events:
        pcr = f"{event.pcr:>3}" if event.is_measured else "  -"
        digest = event.sha256.hex()[:16] if event.is_measured else "not measured"
        mark = "*" if event.measured is not None else " "
        lines.append(f"{event.number:>5} PCR {pcr} {digest:<16} {mark} {event.name} ({len(event.data)} bytes)")
    lines += [f"PCR {index:>2} {log.pcrs[index].hex()}" for index in sorted(log.pcrs)]
    lines += [f"{log.padding} bytes of zeros after the last event"] if log.padding else []
    return "\n".join(lines)


@click.command()
@click.argument("name")
@click.option("--model", help="As in the device's certificate; by default that of the evidence or birth record.")
@click.option("--evidence", "evidences", type=_PATH, multiple=True, help="Of a golden unit; may be given again.")
@_ROOTS
@click.option("--birth", "births", type=_PATH, multiple=True, help="A birth record; may be given again.")
@click.option("--factory", type=_PATH, help="The verifier key by which birth records are signed.")
@click.option("--log", type=_PATH, help="A firmware's event log, for its PCRs where nothing else is given.")
@click.option("--pcrs", callback=_indices, help="Which to list, such as 0,2,4,7; all that are shown without it.")
@click.option("--version", default="", help="What the device must call its software.")
@click.option("--from", "from_s", callback=_instant, help="When it begins to be good, UTC; now without it.")
@click.option("--until", "until_s", callback=_instant, help="When it ends, UTC; never without it.")
@click.option("--secure-boot", is_flag=True, help="Add rules by which secure boot is on, as --log has it.")
def reference(
    name: str,
    model: str | None,
    evidences: tuple[Path, ...],
    device_ca: Path | None,
    births: tuple[Path, ...],
    factory: Path | None,
    log: Path | None,
    pcrs: tuple[int, ...],
    version: str,
    from_s: int | None,
    until_s: int | None,
    *,
    secure_boot: bool,
) -> None:
    """Print a [[release]] for reference.toml, made from golden units. Several give each PCR several values.

    \b
    Example: wattseal attest reference 2026-11 --evidence golden.evidence --device-ca roots.pem --pcrs 0,2,4,7
             wattseal attest reference 2026-11 --model WS-100 --log log.bin --secure-boot
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.trust.anchorfiles import read_bounded
    from gateway.attest.eventlog import replay
    from gateway.attest.golden import Golden, release_text, secure_boot_rules

    now_s = int(time.time())
    found = [_golden_evidence(path, _anchors(device_ca), now_s) for path in evidences]
    found += [_golden_birth(path, factory) for path in births]
    replayed = None if log is None else replay(read_bounded(log))
    if replayed is not None and not found:
        found = [(model or "", Golden(pcrs=replayed.pcrs, counters={}))]
    if not found:
        raise ConfigError("attest reference: got no golden unit, want --evidence, --birth or --log")
    if secure_boot and replayed is None:
        raise ConfigError("attest reference: got --secure-boot, want --log, too")
    models = {model} if model else {one for one, _ in found}
    if len(models) != 1 or models == {""}:
        raise ConfigError(f"attest reference: got models {sorted(map(str, models))}, want one, by --model")
    click.echo(
        release_text(
            [unit for _, unit in found],
            name=name,
            model=str(models.pop()),
            from_s=now_s if from_s is None else from_s,
            until_s=until_s,
            version=version,
            pcrs=pcrs,
            rules=secure_boot_rules(replayed) if replayed is not None and secure_boot else "",
        ),
        nl=False,
    )


def _anchors(roots: Path | None, crl: Path | None = None) -> "Anchors":
    from gateway.app.trust.anchorfiles import read_anchors

    if roots is None:
        raise ConfigError("--device-ca: got nothing, want the device maker's roots, PEM")
    return read_anchors(roots, crl, where="--device-ca, --crl")


def _verified(path: Path, anchors: "Anchors", *, nonce: bytes | None, at_s: int) -> "VerifiedEvidence":
    from gateway.app.trust.anchorfiles import read_bounded
    from gateway.attest.evidence import Claims, Evidence, verify_evidence

    evidence = Evidence.unpack(read_bounded(path))
    asked = Claims.unpack(evidence.claims).nonce if nonce is None else nonce
    return verify_evidence(evidence, anchors, nonce=asked, at_s=at_s)


def _golden_evidence(path: Path, anchors: "Anchors", at_s: int) -> tuple[str, "Golden"]:
    from gateway.attest.golden import Golden

    verified = _verified(path, anchors, nonce=None, at_s=at_s)
    return verified.device.model, Golden(pcrs=verified.pcrs, counters={})


def _golden_birth(path: Path, factory: Path | None) -> tuple[str, "Golden"]:
    from gateway.app.load import read_text
    from gateway.app.trust.anchorfiles import read_bounded
    from gateway.attest.birth import read_birth
    from gateway.attest.golden import Golden
    from gateway.tlog.note import Verifier

    if factory is None:
        raise ConfigError("--factory: got nothing, want the key by which the birth record is signed")
    birth = read_birth(read_bounded(path), verifier=Verifier.from_vkey(read_text(factory).strip()))
    return birth.model, Golden(pcrs=birth.golden, counters={birth.nv_index: birth.nv_value} if birth.nv_index else {})


@click.command()
@click.argument("evidence", type=_PATH)
@click.option("--reference", "file", required=True, type=_PATH, help="The reference.toml to judge by.")
@_ROOTS
@click.option("--crl", type=_PATH, help="What the device maker has revoked, PEM.")
@click.option("--nonce", callback=_nonce, help="Of the challenge, in hex; without it the evidence may be old.")
@click.option("--at", "at_s", callback=_instant, help="An instant, UTC; now without it.")
@_JSON
def appraise(
    evidence: Path,
    file: Path,
    device_ca: Path | None,
    crl: Path | None,
    nonce: bytes | None,
    at_s: int | None,
    *,
    as_json: bool,
) -> int:
    """Appraise a file of evidence offline. Exit code 0 where it is affirmed, else 1.

    \b
    Example: wattseal attest appraise gw1.evidence --reference reference.toml --device-ca roots.pem
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.load import read_text
    from gateway.attest.appraisal import appraise as judge
    from gateway.attest.references import parse_references

    references = parse_references(read_text(file), name=file.name)
    now_s = int(time.time()) if at_s is None else at_s
    verified = _verified(evidence, _anchors(device_ca, crl), nonce=nonce, at_s=now_s)
    row = _appraisal_row(verified, judge(verified, references, now_s=now_s), is_fresh=nonce is not None)
    click.echo(json.dumps(row) if as_json else _appraisal_text(row))
    return 0 if row["status"] == "affirming" else 1


def _appraisal_row(verified: "VerifiedEvidence", found: "Appraisal", *, is_fresh: bool) -> dict[str, Any]:
    return {
        "gateway": verified.claims.gateway,
        "device": verified.device.serial,
        "model": verified.device.model,
        "status": found.status,
        "reason": found.reason,
        "release": found.release,
        "vector": dict(found.vector),
        "policy": found.policy,
        "nonce_checked": is_fresh,
        "epoch": verified.claims.epoch,
        "log_size": verified.claims.log_size,
        "resets": verified.reset_count,
        "about": dict(verified.claims.about),
        "pcrs": {str(index): verified.pcrs[index].hex() for index in sorted(verified.pcrs)},
    }


def _appraisal_text(row: Mapping[str, Any]) -> str:
    lines = [
        f"{row['status'].upper()}: {row['reason']}",
        f"  gateway {row['gateway']}, device {row['device']} ({row['model']}), epoch {row['epoch']}",
        f"  claims: {', '.join(f'{claim} {value}' for claim, value in row['vector'].items())}",
        f"  by {row['policy']}",
    ]
    if not row["nonce_checked"]:
        lines.append("  not checked: whether it answers a challenge of ours (--nonce)")
    return "\n".join("".join(c if c.isprintable() else "?" for c in line) for line in lines)
