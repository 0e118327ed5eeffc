"""A unit's birth record with the proof that it is in the factory's log: for the customer, for an auditor.

Three files: `birth.note`, the leaf around it, and a C2SP tlog-proof. They hold without us, by the factory's key alone.
Source: c2sp.org/tlog-proof.
"""

import base64
from dataclasses import dataclass

from gateway.attest.birth import Birth, read_birth
from gateway.codec.leaves import parse
from gateway.codec.ledger_leaves import to_document
from gateway.errors import TrustError
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.lines import decode_base64
from gateway.tlog.merkle import HASH_BYTES, leaf_hash
from gateway.tlog.note import Verifier
from gateway.tlog.proof import verify_inclusion
from provisioning.registrar.factorylog import BIRTH
from provisioning.registrar.registrar import Registrar

HEADER = "c2sp.org/tlog-proof@v1"
MOST_PROOF = 64 * 1024
MOST_HASHES = 63


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """What goes out. birth: the signed note; leaf: the bytes that the log has; proof: a C2SP tlog-proof."""

    birth: bytes
    leaf: bytes
    proof: bytes


def export(registrar: Registrar, serial: str) -> Exported:
    """Return a unit's birth record, leaf and proof under the newest checkpoint. Raises TrustError when it has none."""
    with registrar.session() as own:
        unit = registrar.unit(serial)
        if unit.birth is None or unit.birth_leaf is None:
            raise TrustError(f"unit {serial}: is {unit.state}, and has no birth record")
        log = own.log
        hashes = log.inclusion(unit.birth_leaf, log.signed)
        leaf = next(body for _, body in own.leaves(unit.birth_leaf))
        proof = write_proof(unit.birth_leaf, hashes, log.checkpoint or b"")
        return Exported(birth=unit.birth, leaf=leaf, proof=proof)


def verify_exported(exported: Exported, *, verifier: Verifier) -> Birth:
    """Return the birth record that the factory signed and keeps in its log. Raises TrustError for anything else."""
    index, hashes, note = read_proof(exported.proof)
    checkpoint = checkpoints.verify(note, origin=verifier.name, verifier=verifier)
    hashed = leaf_hash(exported.leaf)
    verify_inclusion(index=index, size=checkpoint.size, leaf_hash=hashed, proof=hashes, root=checkpoint.root)
    parsed = parse(exported.leaf)
    if parsed.kind != "document":
        raise TrustError(f"leaf {index}: got {parsed.kind}, want a birth record", index=index)
    document = to_document(parsed.body)
    birth = read_birth(document.content, verifier=verifier)
    if exported.birth != document.content or document.name != f"{BIRTH}{birth.serial}":
        raise TrustError(f"leaf {index}: holds another birth record than the file", index=index)
    return birth


def write_proof(index: int, hashes: tuple[bytes, ...], checkpoint: bytes) -> bytes:
    """Return the proof's text."""
    lines = [HEADER, f"index {index}", *(base64.b64encode(one).decode() for one in hashes), "", ""]
    return "\n".join(lines).encode() + checkpoint


def read_proof(proof: bytes) -> tuple[int, list[bytes], bytes]:
    """Return the index, the hashes and the checkpoint's note, none of them verified. Raises TrustError."""
    if len(proof) > MOST_PROOF:
        raise TrustError(f"proof: got {len(proof)} bytes, want at most {MOST_PROOF}")
    head, _, note = proof.partition(b"\n\n")
    try:
        header, index, *rest = head.decode("ascii").split("\n")
    except ValueError as e:
        raise TrustError("proof: this is no tlog-proof") from e
    number = index.removeprefix("index ")
    fits = number.isdigit() and len(number) <= 19 and str(int(number)) == number
    if header != HEADER or not index.startswith("index ") or not fits or len(rest) > MOST_HASHES or not note:
        raise TrustError("proof: this is no tlog-proof")
    hashes = [decode_base64(one) for one in rest]
    if any(len(one) != HASH_BYTES for one in hashes):
        raise TrustError("proof: a hash does not have 32 bytes")
    return int(number), hashes, note
