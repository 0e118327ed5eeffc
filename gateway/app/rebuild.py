"""`wattseal ledger rebuild`: the projections again, from the logs alone."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from gateway.app.projector import Projector
from gateway.config import LedgerConfig
from gateway.store import projections as tables
from gateway.store.files import Files, RealFiles
from gateway.store.projections import Projections
from gateway.store.segments import Log


def rebuild(config: LedgerConfig, *, say: Callable[[str], None], files: Callable[[Path], Files] = RealFiles) -> str:
    """Make all tables anew; return the SHA-256 of their canonical dump, the same for the same logs.

    say: told what is being done. files: how a log's folder is opened.
    Raises LogError when a log cannot be trusted, or the ledger is running.
    """
    folder = config.ledger.state
    own = Log.open(files(folder / "own"), origin=config.origin)
    copies = {
        gateway: Log.open(files(folder / "gateways" / gateway), origin=f"wattseal/{gateway}")
        for gateway in config.gateways
    }
    book = Projections(folder / "projections.sqlite")
    try:
        with book.writing() as connection:
            tables.reset(connection)
        say(f"projecting {own.durable} leaves of {own.origin}")
        projector = Projector(book, own=own, copies=copies)
        for log in copies.values():
            say(f"projecting {log.durable} leaves of {log.origin}")
        projector.catch_up()
        return dump_sha256(book)
    finally:
        book.close()
        for log in (own, *copies.values()):
            log.close()


def dump_sha256(book: Projections) -> str:
    """Return the SHA-256 of the tables as text: see tables.dump."""
    digest = hashlib.sha256()
    with book.reading() as connection:
        for line in tables.dump(connection):
            digest.update(line.encode() + b"\n")
    return digest.hexdigest()
