"""The authority's book: every certificate that it signed, beside its key, in SQLite. A CRL is made from it alone."""

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.errors import ConfigError

_TABLES = """
CREATE TABLE IF NOT EXISTS issued (
    number TEXT PRIMARY KEY, kind TEXT NOT NULL, subject TEXT NOT NULL, sha256 TEXT NOT NULL UNIQUE,
    start_s INTEGER NOT NULL, end_s INTEGER NOT NULL, der BLOB NOT NULL, revoked_s INTEGER, reason TEXT
) STRICT;
CREATE INDEX IF NOT EXISTS issued_subject ON issued (subject);
CREATE TABLE IF NOT EXISTS crl (number INTEGER PRIMARY KEY, made_s INTEGER NOT NULL, next_s INTEGER NOT NULL) STRICT;
"""
_COLUMNS = "number, kind, subject, sha256, start_s, end_s, der, revoked_s, reason"
WAIT_S = 30.0
MOST_AHEAD_S = 86_400
"""Lists that are made more often than once a second are dated ahead; a day is more than that ever comes to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """One certificate of the book. subject: the device's serial, the gateway, or a name. Times: Unix seconds.

    number: the certificate's serial number, in hexadecimal as openssl prints it.
    """

    number: str
    kind: str
    subject: str
    sha256: str
    start_s: int
    end_s: int
    der: bytes
    revoked_s: int | None = None
    reason: str | None = None


class Book:
    """The book in a file. Each change is one transaction; several processes may write."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def make(cls, path: Path) -> "Book":
        """Return the book in a file, made when it is not there."""
        book = cls(path)
        with book._changing() as db:
            for statement in _TABLES.split(";"):
                db.execute(statement)
        path.chmod(0o600)
        return book

    @contextmanager
    def _changing(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=WAIT_S, isolation_level=None)) as db:
                db.execute("PRAGMA synchronous = FULL")
                db.execute("BEGIN IMMEDIATE")
                yield db
                db.execute("COMMIT")
        except sqlite3.DatabaseError as e:
            raise ConfigError(f"{self._path}: {e}, want the authority's book") from e

    def add(self, issued: Issued) -> None:
        """Write a certificate down, before anyone gets it."""
        with self._changing() as db:
            db.execute(
                f"INSERT INTO issued ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",  # noqa: S608 - our own columns
                tuple(getattr(issued, column) for column in _COLUMNS.split(", ")),
            )

    def find(self, *, subject: str | None = None, number: str | None = None) -> list[Issued]:
        """Return the certificates of a subject or of a number, or all; oldest first."""
        wanted = {"subject": subject, "number": number}
        columns = [column for column, value in wanted.items() if value is not None]
        condition = f"WHERE {' AND '.join(f'{column} = ?' for column in columns)} " if columns else ""
        query = f"SELECT {_COLUMNS} FROM issued {condition}ORDER BY rowid"  # noqa: S608 - our own columns
        with self._changing() as db:
            rows = db.execute(query, [wanted[column] for column in columns]).fetchall()
        return [Issued(**dict(zip(_COLUMNS.split(", "), row, strict=True))) for row in rows]

    def revoke(self, numbers: Sequence[str], *, at_s: int, reason: str) -> int:
        """Mark certificates as revoked; those that are keep their first date. Return how many are so anew."""
        with self._changing() as db:
            return sum(
                db.execute(
                    "UPDATE issued SET revoked_s = ?, reason = ? WHERE number = ? AND revoked_s IS NULL",
                    (at_s, reason, number),
                ).rowcount
                for number in numbers
            )

    def next_crl(self, *, now_s: int, lasts_s: int) -> tuple[int, int, int]:
        """Return the number, the date and the end of the next list; nobody gets this number again.

        Its date is later than that of every list before: of two with one date, OpenSSL keeps the one that it has.
        Raises ConfigError where that would be another day: a clock was wrong, and no peer takes a list of tomorrow.
        """
        with self._changing() as db:
            number, made_s = db.execute("SELECT coalesce(max(number), 0), coalesce(max(made_s), 0) FROM crl").fetchone()
            if made_s > now_s + MOST_AHEAD_S:
                raise ConfigError(
                    f"{self._path}: got list {number}, dated {made_s - now_s} s after now, want the clock set right; "
                    "if it was wrong then, a row of the table crl to be deleted"
                )
            made_s = max(now_s, made_s + 1)
            db.execute("INSERT INTO crl VALUES (?, ?, ?)", (number + 1, made_s, made_s + lasts_s))
        return number + 1, made_s, made_s + lasts_s

    def newest_crl(self) -> tuple[int, int, int] | None:
        """Return the number, the date and the end of the newest list, None without one."""
        with self._changing() as db:
            found = db.execute("SELECT number, made_s, next_s FROM crl ORDER BY number DESC LIMIT 1").fetchone()
        return None if found is None else (found[0], found[1], found[2])
