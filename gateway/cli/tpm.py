"""Commands for the TPM: what is there, and does it do what we need."""

import base64
import json
from dataclasses import asdict
from typing import Any

import click

from gateway.errors import TrustError

_TCTI = click.option(
    "--tcti", default="device:/dev/tpmrm0", show_default=True, help="How to reach the TPM, as tpm2-tools has it."
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")


@click.group()
def tpm() -> None:
    """What the TPM of this device is, and whether it does what we need.

    \b
    Example: wattseal tpm show
             wattseal tpm self-test
    """  # noqa: D301 (click's mark for a block that is not wrapped)


@tpm.command()
@_TCTI
@_JSON
def show(tcti: str, *, as_json: bool) -> None:
    """Show the TPM: its maker, certificates, attestation key, PCRs and handles. Changes nothing.

    Example: wattseal tpm show --tcti swtpm:path=/tmp/t.sock
    """
    from gateway.attest.structures import parse_public
    from gateway.tpm import EK_KINDS, Tpm

    with Tpm.open(tcti) as device:
        facts = device.describe()
        certificates = {kind: device.ek_certificate(kind) for kind in EK_KINDS}
        name = parse_public(device.ak_public()).name.hex()
        clock = device.clock()
        pcrs = device.pcrs(range(24))
        handles = device.handles()
    found = {
        "tcti": tcti,
        "facts": facts,
        "ek_certificates": {kind: base64.b64encode(der).decode() for kind, der in certificates.items() if der},
        "ak_name": name,
        "clock": asdict(clock),
        "pcrs": {str(index): value.hex() for index, value in pcrs.items()},
        "handles": {kind: [f"0x{one:08x}" for one in found] for kind, found in handles.items()},
    }
    if as_json:
        click.echo(json.dumps(found))
        return
    lines = [f"{key:13} {value}" for key, value in facts.items()]
    lines += [f"{'EK ' + kind:13} {_certified(der)}" for kind, der in certificates.items()]
    lines += [f"{'AK name':13} {name}", f"{'starts':13} {clock.reset_count} (resumed {clock.restart_count})"]
    lines += [f"{kind:13} {' '.join(f'0x{one:08x}' for one in found) or 'none'}" for kind, found in handles.items()]
    lines += [f"{'PCR ' + str(index):13} {value.hex()}" for index, value in pcrs.items()]
    click.echo("\n".join(lines))


@tpm.command("self-test")
@_TCTI
@_JSON
def self_test(tcti: str, *, as_json: bool) -> None:
    """Try everything that we need of the TPM, and time it. Leaves nothing behind; exit code 1 when something fails.

    Example: wattseal tpm self-test --json
    """
    from gateway.tpm import Tpm
    from gateway.tpm import selftest as trial

    with Tpm.open(tcti) as device:
        result = trial.self_test(device)
    if as_json:
        click.echo(json.dumps({"tcti": tcti, "is_good": not result.failed} | asdict(result)))
    else:
        click.echo(_told(result.facts, result.ek_kinds))
        for check in result.checks:
            click.echo(f"{'ok  ' if check.is_good else 'FAIL'} {check.name:12} {check.took_ms:8.1f} ms  {check.said}")
    if result.failed:
        raise TrustError(f"the TPM fails {len(result.failed)} of {len(result.checks)} checks")


def _told(facts: dict[str, Any], kinds: tuple[str, ...]) -> str:
    maker = f"{facts['manufacturer']} {facts['vendor']}, firmware {facts['firmware']}, TPM {facts['family']}"
    return f"{maker} rev {facts['revision']}; EK certificates: {', '.join(kinds) or 'none'}"


def _certified(der: bytes | None) -> str:
    return f"certificate of {len(der)} bytes" if der else "no certificate"


COMMANDS = (tpm,)
