"""The leaves of an export: their file form, their proofs, and what they amount to.

A leaf is hashed and proven before it is parsed. What is wrong is named by file and leaf.
"""

import contextlib
from base64 import b64encode
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gateway.carbon.emissions import IntervalLeaf
from gateway.carbon.energy import LeafRef
from gateway.carbon.facts import Facts
from gateway.carbon.grid.factors import version_of
from gateway.carbon.grid.table import FactorLeaf
from gateway.codec.canonical import pack_json, unpack_json
from gateway.codec.checks import to_schema
from gateway.codec.leaves import CHAINED, Leaf, parse
from gateway.codec.ledger_leaves import chain_of, to_context, to_counts, to_document, to_factor
from gateway.codec.line_leaves import to_interval
from gateway.codec.standing_leaves import to_decision, to_standing
from gateway.errors import TrustError
from gateway.model import Factor, LineSchema
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.lines import decode_base64
from gateway.tlog.merkle import leaf_hash
from gateway.tlog.proof import verify_inclusion


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenLeaf:
    """A leaf's bytes and the proof that it is in the tree of its log's checkpoint."""

    index: int
    leaf: bytes
    proof: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParsedLeaf:
    """A leaf that has been read."""

    index: int
    hash: bytes
    leaf: Leaf


@dataclass(slots=True, kw_only=True)
class LineEvidence:
    """The interval leaves of one line, in the order of the log. first_prev: what the first names before it."""

    leaves: list[IntervalLeaf] = field(default_factory=list)
    first_prev: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayEvidence:
    """What a gateway's leaves say. epoch: the body of the epoch leaf of its checkpoint's key.

    epochs: all epoch leaves that are shown, by index, in order: that one, and those of leaves that no result is about.
    """

    schemas: Mapping[bytes, LineSchema]
    lines: Mapping[str, LineEvidence]
    epoch: Mapping[str, Any]
    epochs: Mapping[int, Mapping[str, Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerEvidence:
    """What the ledger's leaves say."""

    facts: Facts
    factor_indices: tuple[int, ...]
    epoch: Mapping[str, Any]


@contextlib.contextmanager
def naming(where: str, index: int | None = None) -> Iterator[None]:
    """Say of each TrustError within where it was: the file, and the leaf or row if one is known."""
    try:
        yield
    except TrustError as e:
        known = e.index if index is None else index
        raise TrustError(f"{where}: {e}", index=known) from e


def pack_leaves(leaves: Iterable[ProvenLeaf]) -> bytes:
    """Return the file of leaves: a line of JSON each, in the order of the log."""
    return b"".join(
        pack_json(
            {
                "hash": leaf_hash(one.leaf).hex(),
                "index": one.index,
                "leaf": b64encode(one.leaf).decode(),
                "proof": [b64encode(node).decode() for node in one.proof],
            }
        )
        + b"\n"
        for one in sorted(leaves, key=lambda one: one.index)
    )


def unpack_leaves(path: str, content: bytes, checkpoint: Checkpoint) -> list[ParsedLeaf]:
    """Return the leaves of a file, each proven to be in the checkpoint's tree, and parsed only then."""
    lines = content.split(b"\n")
    if lines.pop():
        raise TrustError(f"{path}: the last line does not end")
    found: list[ParsedLeaf] = []
    for number, line in enumerate(lines, 1):
        with naming(f"{path}: line {number}"):
            entry = _entry(unpack_json(line))
        index = entry.index
        with naming(f"{path}: line {number}: leaf {index}", index):
            if found and index <= found[-1].index:
                raise TrustError(f"stands after leaf {found[-1].index}")
            hashed = leaf_hash(entry.leaf)
            if hashed != entry.hash:
                raise TrustError(f"its bytes hash to {hashed.hex()}, and the line says {entry.hash.hex()}")
            verify_inclusion(
                index=index, size=checkpoint.size, leaf_hash=hashed, proof=entry.proof, root=checkpoint.root
            )
            found.append(ParsedLeaf(index=index, hash=hashed, leaf=parse(entry.leaf)))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    index: int
    hash: bytes
    leaf: bytes
    proof: tuple[bytes, ...]


def _entry(value: Any) -> _Entry:
    if type(value) is not dict or list(value) != ["hash", "index", "leaf", "proof"]:
        raise TrustError("want hash, index, leaf and proof")
    hashed, index, leaf, proof = value.values()
    if type(index) is not int or type(leaf) is not str or type(hashed) is not str:
        raise TrustError("hash, index or leaf is of another type")
    if type(proof) is not list or not all(type(node) is str for node in proof):
        raise TrustError("proof: want a list of strings")
    try:
        digest = bytes.fromhex(hashed)
    except ValueError as e:
        raise TrustError("hash: want hexadecimal") from e
    if digest.hex() != hashed:
        raise TrustError("hash: want lower-case hexadecimal")
    return _Entry(index=index, hash=digest, leaf=decode_base64(leaf), proof=tuple(map(decode_base64, proof)))


def read_gateway(
    path: str, gateway: str, leaves: Sequence[ParsedLeaf], *, lines: Collection[str], vkey: str
) -> GatewayEvidence:
    """Return what a gateway's leaves say of these lines.

    Raises TrustError for a leaf that nobody asked for, for an interval without its schema before it, for one that
    names another predecessor than the one before it here, for epochs whose numbers do not rise, and where the epoch
    leaf of vkey is missing.
    """
    schemas: dict[bytes, LineSchema] = {}
    unused: dict[bytes, int] = {}
    held: dict[str, LineEvidence] = {}
    epochs: dict[int, Mapping[str, Any]] = {}
    for one in leaves:
        with naming(f"{path}: leaf {one.index}", one.index):
            if one.leaf.kind == "schema":
                schema = to_schema(one.leaf.body)
                if not isinstance(schema, LineSchema) or schema.name not in lines or schema.id in schemas:
                    raise TrustError("a schema that no line of this export asks for")
                schemas[schema.id], unused[schema.id] = schema, one.index
            elif one.leaf.kind == "interval":
                known = schemas.get(one.leaf.body["schema"])
                if known is None:
                    raise TrustError(f"schema {one.leaf.body['schema'].hex()} is not in the export before it")
                unused.pop(known.id, None)
                _chain(held.setdefault(known.name, LineEvidence()), gateway, one, known)
            else:
                _announce(epochs, one)
    for schema_id, index in unused.items():
        raise TrustError(f"{path}: leaf {index}: schema {schema_id.hex()} that no interval names", index=index)
    if missing := set(lines) - set(held):
        raise TrustError(f"{path}: no interval of line {min(missing)!r}")
    return GatewayEvidence(schemas=schemas, lines=held, epoch=_of_key(path, epochs, vkey), epochs=epochs)


def _announce(epochs: dict[int, Mapping[str, Any]], one: ParsedLeaf) -> None:
    if one.leaf.kind != "epoch":
        raise TrustError(f"a leaf of kind {one.leaf.kind!r}, which has no place in an export")
    if epochs and one.leaf.body["epoch"] <= next(reversed(epochs.values()))["epoch"]:
        raise TrustError("an epoch whose number does not rise")
    epochs[one.index] = one.leaf.body


def _of_key(path: str, epochs: Mapping[int, Mapping[str, Any]], vkey: str) -> Mapping[str, Any]:
    own = [body for body in epochs.values() if body["key"] == vkey]
    if not own:
        raise TrustError(f"{path}: no epoch leaf of the key that signed the checkpoint")
    return own[-1]


def _chain(line: LineEvidence, gateway: str, one: ParsedLeaf, schema: LineSchema) -> None:
    if not line.leaves:
        line.first_prev = one.leaf.prev
    elif line.leaves[-1].ref.index != one.leaf.prev:
        raise TrustError(
            f"names leaf {one.leaf.prev} as the one before it in line {schema.name!r}, and here that is leaf "
            f"{line.leaves[-1].ref.index}: an interval was left out"
        )
    ref = LeafRef(index=one.index, hash=one.hash, clock=one.leaf.clock)
    line.leaves.append(IntervalLeaf(gateway=gateway, ref=ref, interval=to_interval(one.leaf.body, schema)))


def read_ledger(path: str, leaves: Sequence[ParsedLeaf], *, notes: Mapping[str, bytes], vkey: str) -> LedgerEvidence:
    """Return the factors that the ledger's leaves put in force.

    notes: each gateway's cosigned checkpoint. Raises TrustError for a leaf that nobody asked for, for two factors
    where only one can be in force, for a document, a piece of context, a standing or a decision that names one before
    it that is not here, and unless the ledger accepted just these checkpoints.
    """
    facts, indices, open_notes = Facts(), [], dict(notes)
    epochs: dict[int, Mapping[str, Any]] = {}
    chains: dict[tuple[str, str], int] = {}
    for one in leaves:
        with naming(f"{path}: leaf {one.index}", one.index):
            kind, body = one.leaf.kind, one.leaf.body
            if kind in CHAINED:
                _follow(chains, one)
            if kind == "factor":
                indices.append(one.index)
            if kind in {"standing", "decision"} and body["gateway"] not in notes:
                raise TrustError(f"a {kind} of gateway {body['gateway']!r}, of which the export shows nothing")
            if kind == "accepted":
                if open_notes.pop(body["gateway"], None) != body["checkpoint"].encode():
                    raise TrustError(f"accepts another checkpoint of gateway {body['gateway']!r} than the one shown")
            elif not _enforce(facts, one):
                _announce(epochs, one)
                if one.leaf.body["key"] != vkey or len(epochs) > 1:
                    raise TrustError("an epoch leaf of another key than the checkpoint's, or a second one")
    for gateway in sorted(open_notes):
        raise TrustError(f"{path}: no leaf by which the ledger accepts the checkpoint of gateway {gateway!r}")
    return LedgerEvidence(facts=facts, factor_indices=tuple(indices), epoch=_of_key(path, epochs, vkey))


def _follow(chains: dict[tuple[str, str], int], one: ParsedLeaf) -> None:
    """Raise TrustError unless a leaf names the one of its chain that was shown before it."""
    kind = one.leaf.kind
    chain = (kind, chain_of(kind, one.leaf.body))
    if one.leaf.prev != chains.get(chain):
        raise TrustError(f"names leaf {one.leaf.prev} as the one before it: a leaf of kind {kind} was left out")
    chains[chain] = one.index


def _enforce(facts: Facts, one: ParsedLeaf) -> bool:
    """Put what a leaf says in force; return whether it is of a kind that figures rest on."""
    body = one.leaf.body
    match one.leaf.kind:
        case "factor":
            if not facts.add_factor(FactorLeaf(factor=_factor(body), index=one.index, hash=one.hash)):
                raise TrustError("a factor that is in force already")
        case "document":
            facts.add_document(one.index, to_document(body), one.hash)
        case "context":
            facts.add_context(one.index, to_context(body))
        case "counts":
            facts.add_counts(one.index, to_counts(body))
        case "standing":
            facts.add_standing(one.index, to_standing(body))
        case "decision":
            facts.add_decision(one.index, to_decision(body))
        case _:
            return False
    return True


def _factor(body: Mapping[str, Any]) -> Factor:
    """Return a factor whose version is the hash of what it says. Raises TrustError."""
    factor = to_factor(body)
    said = version_of(
        g_per_kwh=factor.g_per_kwh, state=factor.state, method=factor.method, model_date=factor.model_date
    )
    if said != factor.version:
        raise TrustError(f"version: got {factor.version[:64]}, and what the factor says hashes to {said}")
    return factor
