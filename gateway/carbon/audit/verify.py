"""Check an export with nothing but its own files: the leaf, row or file that is wrong is named.

In this order: keys and the manifest's signature; checkpoints and the ledger's cosignatures on them; each leaf's hash
and proof, before it is parsed; that no interval is left out between a line's first and last; then all figures are
computed again from the leaves and compared with rows.csv byte for byte; last, every file against the manifest.
With the device authority's roots, also which device's TPM vouches for each gateway's key.

What this cannot show: that the first interval shown is a good one to start from, that nothing came after the last
one, and without those roots, that a key belongs to a device; the verdict says where the lines begin and end, and how
keys are bound.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from gateway.attest.epoch import UNATTESTED
from gateway.carbon.audit.compute import LineCells, compute, factors_of, rows_of
from gateway.carbon.audit.devices import DeviceTrust, DeviceVerdict, check_device
from gateway.carbon.audit.evidence import (
    GatewayEvidence,
    LedgerEvidence,
    LineEvidence,
    naming,
    read_gateway,
    read_ledger,
    unpack_leaves,
)
from gateway.carbon.audit.form import (
    ABOUT,
    KEYS,
    LEDGER_CHECKPOINT,
    LEDGER_LEAVES,
    MANIFEST,
    ROWS,
    Keys,
    Subject,
    check_manifest,
    checkpoint_path,
    leaves_path,
    paths_of,
)
from gateway.carbon.audit.standing import check_decisions, check_standings
from gateway.carbon.audit.verdict import LineVerdict, LogVerdict, Verdict
from gateway.carbon.figures import CALC_VERSION, Totals
from gateway.errors import TrustError
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.lines import split_note
from gateway.tlog.note import Verifier, open_note


def verify(
    files: Mapping[str, bytes], trust: Sequence[str] | None = None, devices: DeviceTrust | None = None
) -> Verdict:
    """Return what holds of an export; raise TrustError, which names the first thing that does not.

    files: by path. trust: verifier keys that the caller got elsewhere: the ledger's, and any gateways'. Without it
    the export is only shown to agree with itself, and the verdict's fingerprints are to be compared by hand.
    devices: what the caller trusts of devices; without it, what an epoch leaf says of a TPM is not checked.
    """
    keys, subject, manifest = _frame(files)
    _check_trust(keys, trust)
    logs = {name: _gateway(files, name, keys, subject, devices) for name in subject.gateways}
    own, ledger = _ledger(files, keys, subject)
    lines = compute(subject, {name: evidence for name, (_, evidence) in logs.items()}, ledger)
    rows = _check_rows(files[ROWS], lines, ledger)
    verdicts = tuple(_line_verdict(subject, logs[one.gateway][1].lines[one.line], one) for one in lines)
    check_manifest(manifest, {path: content for path, content in files.items() if path != MANIFEST})
    return Verdict(
        subject=subject,
        calc_version=CALC_VERSION,
        trust_given=trust is not None,
        files=len(files),
        rows=rows,
        ledger=replace(own, named=_named(keys.ledger, trust)),
        gateways=tuple(replace(log, named=_named(keys.gateways[name], trust)) for name, (log, _) in logs.items()),
        lines=verdicts,
        **_judged(ledger, keys.ledger.name, trust or (), {name: log.device for name, (log, _) in logs.items()}),
    )


def _judged(
    ledger: LedgerEvidence, name: str, trust: Sequence[str], devices: Mapping[str, DeviceVerdict | None]
) -> dict[str, Any]:
    """Return what the ledger says of the gateways' states, and of its officers' decisions on their leaves."""
    standings = ledger.facts.standings
    serials = {gateway: device.serial for gateway, device in devices.items() if device is not None}
    with naming(LEDGER_LEAVES):
        return {
            "standings": check_standings(standings, devices, ledger=name, trust=trust, devices=serials),
            "decisions": check_decisions(standings, devices, ledger=name, trust=trust),
        }


def _frame(files: Mapping[str, bytes]) -> tuple[Keys, Subject, str]:
    """Return the keys, the subject, and the manifest's text, whose signature holds."""
    for path in sorted(paths_of(())):
        if path not in files:
            raise TrustError(f"{path}: missing")
    with naming(KEYS):
        keys = Keys.unpack(files[KEYS])
    with naming(MANIFEST):
        text = open_note(files[MANIFEST], [keys.ledger]).text
        if len(split_note(files[MANIFEST])[1]) != 1:
            raise TrustError("signed by others than the ledger")
    check_manifest(text, files, only=(KEYS, ABOUT))
    with naming(ABOUT):
        subject = Subject.unpack(files[ABOUT])
    if set(subject.gateways) != set(keys.gateways):
        raise TrustError(f"{KEYS}: want the keys of the gateways whose lines are in {ABOUT}, and of no other")
    wanted = paths_of(subject.gateways)
    for path in sorted(wanted ^ set(files)):
        raise TrustError(f"{path[:200]!r}: " + ("missing" if path in wanted else "has no place in an export"))
    return keys, subject, text


def _gateway(
    files: Mapping[str, bytes], name: str, keys: Keys, subject: Subject, devices: DeviceTrust | None
) -> tuple[LogVerdict, GatewayEvidence]:
    """Return what holds of a gateway's checkpoint, signed by it and cosigned by the ledger, and of its leaves."""
    key, path = keys.gateways[name], checkpoint_path(name)
    with naming(path):
        head = checkpoints.verify(files[path], origin=key.name, verifier=key)
        cosigned, time_s = checkpoints.verify_cosignature(files[path], origin=key.name, witness=keys.witness)
        if cosigned != head:
            raise TrustError("the two signatures are on different checkpoints")
    path = leaves_path(name)
    leaves = unpack_leaves(path, files[path], head)
    evidence = read_gateway(path, name, leaves, lines=subject.lines_of(name), vkey=key.vkey)
    log = _log(key, head, evidence.epoch, len(leaves), time_s)
    if devices is None or log.binding == UNATTESTED:
        return log, evidence
    with naming(f"{path}: epoch {log.epoch}"):
        # As of the receipt: the ledger's clock, for a device out of hand may have set its own.
        return replace(log, device=check_device(evidence.epoch, devices, at_s=time_s)), evidence


def _ledger(files: Mapping[str, bytes], keys: Keys, subject: Subject) -> tuple[LogVerdict, LedgerEvidence]:
    """Return what holds of the ledger's own checkpoint and leaves."""
    with naming(LEDGER_CHECKPOINT):
        head = checkpoints.verify(files[LEDGER_CHECKPOINT], origin=keys.ledger.name, verifier=keys.ledger)
    leaves = unpack_leaves(LEDGER_LEAVES, files[LEDGER_LEAVES], head)
    notes = {name: files[checkpoint_path(name)] for name in subject.gateways}
    evidence = read_ledger(LEDGER_LEAVES, leaves, notes=notes, vkey=keys.ledger.vkey)
    return _log(keys.ledger, head, evidence.epoch, len(leaves), None), evidence


def _log(key: Verifier, head: Checkpoint, epoch: Mapping[str, Any], leaves: int, receipt_s: int | None) -> LogVerdict:
    return LogVerdict(
        origin=head.origin,
        size=head.size,
        vkey=key.vkey,
        fingerprint=key.fingerprint(),
        named=False,
        epoch=epoch["epoch"],
        binding=str(epoch["binding"].get("type", "unknown")),
        device=None,
        receipt_s=receipt_s,
        leaves=leaves,
    )


def _check_trust(keys: Keys, trust: Sequence[str] | None) -> None:
    if trust is None:
        return
    names = {Verifier.from_vkey(vkey).name for vkey in trust}
    for key in (keys.ledger, *keys.gateways.values()):
        # A gateway's key may be new at each boot: where the caller names none, the ledger's cosignature vouches for it.
        if not _named(key, trust) and (key is keys.ledger or key.name in names):
            raise TrustError(f"{KEYS}: {key.vkey} ({key.fingerprint()}) is not a key of {key.name} that you trust")


def _check_rows(content: bytes, lines: Sequence[LineCells], ledger: LedgerEvidence) -> int:
    """Compare each row with what the leaves give, and that each factor is used; return how many rows there are."""
    rows = _compare(content, rows_of(lines))
    used = factors_of(lines, ledger)
    for index in ledger.factor_indices:
        if index not in used:
            raise TrustError(f"{LEDGER_LEAVES}: leaf {index}: a factor that no row rests on", index=index)
    return rows


def _compare(content: bytes, expected: Iterator[str]) -> int:
    position, number = 0, -1
    for number, line in enumerate(expected):
        want = line.encode()
        if not content.startswith(want, position):
            got = content[position : position + len(want)].partition(b"\n")[0].decode(errors="replace")
            raise TrustError(
                f"{ROWS}: row {number}: got {got[:300]!r}, and the leaves give {line.rstrip()[:300]!r}", index=number
            )
        position += len(want)
    if position != len(content):
        raise TrustError(f"{ROWS}: row {number + 1}: the leaves give no such row", index=number + 1)
    return number


def _line_verdict(subject: Subject, evidence: LineEvidence, cells: LineCells) -> LineVerdict:
    first, last = evidence.leaves[0], evidence.leaves[-1]
    if first.interval.t_ns > subject.start_ns and evidence.first_prev is not None:
        raise TrustError(
            f"{leaves_path(cells.gateway)}: leaf {first.ref.index}: line {cells.line!r} begins here within the "
            "period, and the leaf names one before it: intervals were left out",
            index=first.ref.index,
        )
    return LineVerdict(
        gateway=cells.gateway,
        line=cells.line,
        intervals=len(evidence.leaves),
        first_ns=first.interval.t_ns,
        last_ns=last.interval.t_ns,
        begins=evidence.first_prev is None,
        settled=cells.settled,
        quarantined=cells.quarantined,
        alone=cells.alone,
        totals=Totals.of(cells.cells),
    )


def _named(key: Verifier, trust: Sequence[str] | None) -> bool:
    """Whether the caller named this key, as signer or as cosigner."""
    named = map(Verifier.from_vkey, trust or ())
    return any((other.name, other.public_key) == (key.name, key.public_key) for other in named)
