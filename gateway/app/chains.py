"""Leaves of the ledger's own log that name the one before them of their chain."""

from collections.abc import Sequence

from gateway.app.ownlog import OwnLog
from gateway.codec.leaves import CHAINED
from gateway.codec.ledger_leaves import chain_of
from gateway.codec.pack import unpack
from gateway.store import projections as tables
from gateway.store.projections import Projections


def append_all(own: OwnLog, book: Projections, leaves: Sequence[tuple[str, bytes]]) -> list[int]:
    """Add leaves, as kind and body, to the log; return their indices. book: up to date with the log."""
    newest: dict[tuple[str, str], int | None] = {}
    indices = []
    with book.reading() as connection:
        for kind, body in leaves:
            if kind not in CHAINED:
                indices.append(own.append(kind, body))
                continue
            chain = (kind, chain_of(kind, unpack(body)))
            prev = newest[chain] if chain in newest else tables.newest_of_chain(connection, *chain)
            index = newest[chain] = own.append(kind, body, prev)
            indices.append(index)
    return indices
