"""An export: all that an auditor needs to compute the figures of some lines over a period again, as files.

| path | what |
|---|---|
| rows.csv | the figures: one row a meter, cell and factor window (rows.py) |
| about.json | the period and the lines, and which calculation it was |
| keys.json | the verifier keys of the checkpoints: gateways, ledger, witness |
| gateways/<id>/checkpoint | the gateway's checkpoint with the ledger's cosignature |
| gateways/<id>/leaves.jsonl | its leaves, proven: line schemas, intervals, epochs of the key and of UNATTESTED leaves |
| ledger/checkpoint | the ledger's own checkpoint |
| ledger/leaves.jsonl | its leaves, proven: the factors used, what it accepted, the epoch of the key |
| manifest | the hash and size of every file above, signed by the ledger |

A line's intervals run from a leaf at or before the period's start to one at or after its end, with none left out
between, as each names the one before it. They should begin and end with a clean leaf (LineProjector.clean): then the
rows are those of the whole history.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.carbon.audit.compute import compute, factors_of, rows_of
from gateway.carbon.audit.evidence import ParsedLeaf, ProvenLeaf, pack_leaves, read_gateway, read_ledger
from gateway.carbon.audit.form import (
    ABOUT,
    KEYS,
    LEDGER_CHECKPOINT,
    LEDGER_LEAVES,
    MANIFEST,
    ROWS,
    Keys,
    Subject,
    checkpoint_path,
    leaves_path,
    pack_manifest,
)
from gateway.carbon.audit.verify import verify
from gateway.codec.leaves import parse
from gateway.errors import TrustError
from gateway.tlog.merkle import leaf_hash
from gateway.tlog.note import Signer, Verifier


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPart:
    """What an export takes from one log.

    note: its checkpoint; a gateway's with the ledger's cosignature. key: the one that signed it.
    leaves: with proofs for the size of this checkpoint, in any order.
    """

    note: bytes
    key: Verifier
    leaves: tuple[ProvenLeaf, ...]


def build(subject: Subject, *, gateways: Mapping[str, LogPart], ledger: LogPart, signer: Signer) -> dict[str, bytes]:
    """Return the files of an export, by path.

    gateways: those of the subject's lines. Each part holds the leaves that belong in an export and no other, but
    factors: those that no row rests on are left out. signer: the ledger's key, for the manifest.
    Raises TrustError where the export would not verify, so that none is ever given away.
    """
    if set(gateways) != set(subject.gateways):
        raise TrustError(f"gateways: got {sorted(gateways)}, want {list(subject.gateways)}")
    evidence = {
        name: read_gateway(leaves_path(name), name, _parsed(part), lines=subject.lines_of(name), vkey=part.key.vkey)
        for name, part in gateways.items()
    }
    notes = {name: part.note for name, part in gateways.items()}
    factors = read_ledger(LEDGER_LEAVES, _parsed(ledger), notes=notes, vkey=ledger.key.vkey)
    lines = compute(subject, evidence, factors)
    unused = set(factors.factor_indices) - factors_of(lines, factors)
    files = {
        ROWS: "".join(rows_of(lines)).encode(),
        ABOUT: subject.pack(),
        KEYS: Keys(gateways={name: part.key for name, part in gateways.items()}, ledger=ledger.key).pack(),
        LEDGER_CHECKPOINT: ledger.note,
        LEDGER_LEAVES: pack_leaves(one for one in ledger.leaves if one.index not in unused),
    }
    for name, part in gateways.items():
        files[checkpoint_path(name)] = part.note
        files[leaves_path(name)] = pack_leaves(part.leaves)
    files[MANIFEST] = signer.sign_note(pack_manifest(files))
    verify(files)
    return files


def _parsed(part: LogPart) -> list[ParsedLeaf]:
    ordered = sorted(part.leaves, key=lambda one: one.index)
    return [ParsedLeaf(index=one.index, hash=leaf_hash(one.leaf), leaf=parse(one.leaf)) for one in ordered]
