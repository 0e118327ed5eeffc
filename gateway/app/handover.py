"""Exports on their way out and in: gathered from the ledger's logs, written as a folder or a zip, and read back.

What an export is, and whether it holds, is for carbon/audit/export.py and carbon/audit/verify.py, which know no files.
"""

import shutil
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from gateway.app.factbook import STANDINGS, read_standings
from gateway.app.keys import read_signer
from gateway.app.trust.seenepochs import Seen
from gateway.app.trust.signers import pinned_key
from gateway.carbon.audit.evidence import ProvenLeaf
from gateway.carbon.audit.export import LogPart, build
from gateway.carbon.audit.form import Subject
from gateway.carbon.scopes.fuels import FUEL
from gateway.carbon.standings import Standings
from gateway.codec.leaves import Leaf, parse
from gateway.config import LedgerConfig
from gateway.errors import ConfigError, LogError
from gateway.model import State
from gateway.store import projections as tables
from gateway.store.files import RealFiles
from gateway.store.projections import Connection, Projections
from gateway.store.segments import Log
from gateway.store.view import steadily, view
from gateway.tlog.note import Verifier

MOST_FILES = 10_000
MOST_BYTES = 4 << 30
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """What somebody wants exported. lines: all when empty; a bare name is that line of every gateway.

    start_ns, end_ns: None for from the first, or up to the newest, interval.
    """

    lines: tuple[str, ...] = ()
    start_ns: int | None = None
    end_ns: int | None = None


def gather(config: LedgerConfig, wish: Wish) -> dict[str, bytes]:
    """Return the files of an export by path; the ledger may run meanwhile.

    Raises ConfigError where there is nothing of what is wished for.
    """
    return steadily(lambda: _gather(config, wish))


def _gather(config: LedgerConfig, wish: Wish) -> dict[str, bytes]:
    folder = config.ledger.state
    book = Projections(folder / "projections.sqlite", new=False)
    # The ledger's own log last: by then it has accepted what the copies show.
    opened = {name: view(RealFiles(folder / "gateways" / name), origin=f"wattseal/{name}") for name in config.gateways}
    own = view(RealFiles(folder / "own"), origin=config.origin)
    try:
        with book.reading() as connection:
            subject = _subject(connection, wish, opened)
            signer = read_signer(config.ledger.key, "ledger.key", name=config.origin)
            signed = {name: _signed(config, name, opened[name]) for name in subject.gateways}
            standings = read_standings(own, connection)
            _check_epochs(standings, signed)
            return build(
                subject,
                gateways={
                    name: _gateway_part(connection, subject, name, opened[name], signed=one, standings=standings)
                    for name, one in signed.items()
                },
                ledger=_ledger_part(connection, subject, own, opened, signer.verifier),
                signer=signer,
            )
    finally:
        book.close()
        for log in (own, *opened.values()):
            log.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Signed:
    """Who signed a log's newest checkpoint. index: of the epoch leaf that announces the key."""

    key: Verifier
    index: int


def _signed(config: LedgerConfig, gateway: str, log: Log) -> _Signed:
    """Return who signed the copy's newest checkpoint. Raises ConfigError while the leaf that says so is to come."""
    pinned = pinned_key(config.gateways[gateway], gateway)
    if pinned is not None:
        return _Signed(key=pinned, index=_epoch_of(log, pinned))
    seen = Seen.unpacked(log.heads)
    signing = None if isinstance(seen, str) else seen.signing
    if signing is None or signing.index is None:
        raise ConfigError(
            f"export: {log.origin} is still sending what it had kept: the leaf that announces the key of its newest "
            "checkpoint has not come yet; try again when `wattseal ledger` has caught up"
        )
    return _Signed(key=Verifier.from_vkey(signing.vkey), index=signing.index)


def _check_epochs(standings: Standings, signed: Mapping[str, _Signed]) -> None:
    """Raise ConfigError while an epoch is not sealed as waiting that the export would not show: it would count."""
    for name, one in signed.items():
        newest = standings.newest(name)
        if newest is None or newest.state is not State.TRUSTED:
            continue
        later = [number for index, number, _ in standings.epochs(name) if number > newest.epoch and index != one.index]
        if later:
            raise ConfigError(
                f"export: {name} has begun epoch {later[0]}, and `wattseal ledger` has not sealed yet that it waits; "
                "let it run, and try again"
            )


def _subject(connection: Connection, wish: Wish, logs: Mapping[str, Log]) -> Subject:
    known = tables.lines(connection)
    lines = [line for line in known if not wish.lines or line[1] in wish.lines or "/".join(line) in wish.lines]
    for name in wish.lines:
        if not any(name in {line, f"{gateway}/{line}"} for gateway, line in lines):
            raise ConfigError(
                f"line: got {name!r}, want one of {', '.join('/'.join(line) for line in known) or 'none yet'}"
            )
    if not lines:
        raise ConfigError("export: the ledger has no interval of any line yet")
    bounds = [
        row.t_ns
        for gateway, line in lines
        for row in tables.intervals(connection, gateway, line, last=logs[gateway].signed - 1)
    ]
    start_ns = min(bounds, default=0) if wish.start_ns is None else wish.start_ns
    end_ns = max(bounds, default=0) if wish.end_ns is None else wish.end_ns
    if end_ns <= start_ns:
        raise ConfigError("export: the period is empty: want at least two intervals, and an end after its start")
    return Subject(start_ns=start_ns, end_ns=-(-end_ns // _SECOND_NS) * _SECOND_NS, lines=tuple(sorted(lines)))


def _gateway_part(
    connection: Connection, subject: Subject, name: str, log: Log, *, signed: _Signed, standings: Standings
) -> LogPart:
    wanted = {signed.index}
    used: set[bytes] = set()
    for line in subject.lines_of(name):
        span = tables.settled_range(connection, name, line, start_ns=subject.start_ns, end_ns=subject.end_ns)
        if span is None:
            continue
        for row in tables.intervals(connection, name, line, first=span[0], last=min(span[1], log.signed - 1)):
            wanted.add(row.leaf_index)
            used.add(row.schema_id)
            epoch = standings.telling(name, row.leaf_index)
            wanted |= set() if epoch is None else {epoch}
    wanted |= {index for index, schema in tables.schemas(connection, name) if schema.id in used}
    return LogPart(note=_note(log), key=signed.key, leaves=_proven(log, wanted))


def _ledger_part(
    connection: Connection, subject: Subject, own: Log, copies: Mapping[str, Log], key: Verifier
) -> LogPart:
    zones = {
        schema.zone
        for name in subject.gateways
        for _, schema in tables.schemas(connection, name)
        if schema.name in subject.lines_of(name)
    }
    wanted = {_epoch_of(own, key), *(_accepted(own, name, _note(copies[name])) for name in subject.gateways)}
    factors = tables.factors(connection)
    wanted |= {leaf.index for leaf in factors if leaf.factor.key[1] in zones or leaf.factor.key[2] == FUEL}
    lines = {"/".join(line) for line in subject.lines}
    wanted |= {
        row.leaf_index
        for row in tables.own_leaves(connection, "document", "context", "counts", "standing", "decision")
        if row.kind == "document" or row.chain in (subject.gateways if row.kind in STANDINGS else lines)
    }
    return LogPart(note=_note(own), key=key, leaves=_proven(own, wanted))


def _note(log: Log) -> bytes:
    if log.checkpoint is None:
        raise ConfigError(f"export: {log.origin} has no checkpoint yet")
    return log.checkpoint


def _proven(log: Log, wanted: Iterable[int]) -> tuple[ProvenLeaf, ...]:
    proven = []
    for index in sorted(index for index in wanted if index < log.signed):
        body = log.read(index, 1, index + 1)[0]
        if body is None:
            raise LogError(f"{log.origin}: leaf {index} is needed for the export, and its body was dropped")
        proven.append(ProvenLeaf(index=index, leaf=body, proof=log.inclusion(index, log.signed)))
    return tuple(proven)


def _epoch_of(log: Log, key: Verifier) -> int:
    """Return the index of an epoch leaf that announces the key: the first leaf of all, or else the newest."""

    def announces(leaf: Leaf) -> bool:
        return leaf.kind == "epoch" and leaf.body["key"] == key.vkey

    first = log.read(0, 1, 1)
    if first and first[0] is not None and announces(parse(first[0])):
        return 0
    return _newest(log, f"an epoch of {key.vkey}", announces)


def _accepted(own: Log, gateway: str, note: bytes) -> int:
    """Return the index of the leaf by which the ledger accepted a checkpoint."""
    body = {"gateway": gateway, "checkpoint": note.decode()}
    return _newest(own, f"the checkpoint of {gateway}", lambda leaf: leaf.kind == "accepted" and leaf.body == body)


def _newest(log: Log, what: str, wanted: Callable[[Leaf], bool]) -> int:
    """Return the index of the newest signed leaf that is wanted."""
    stop = log.signed
    while stop:
        start = max(0, stop - 256)
        for index in range(stop - 1, start - 1, -1):
            body = log.read(index, 1, index + 1)[0]
            if body is not None and wanted(parse(body)):
                return index
        stop = start
    raise LogError(f"{log.origin}: holds no leaf that says {what}")


# ---- as files


def export_to(path: Path, config: LedgerConfig, wish: Wish, *, force: bool = False) -> dict[str, bytes]:
    """Write an export to a new folder, or to a zip where path ends in .zip; return its files."""
    if path.exists() and not force:
        raise ConfigError(f"{path}: exists already, want a new path, or --force")
    files = gather(config, wish)
    fresh = path.with_name(f".{path.name}.new")
    _remove(fresh)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        with zipfile.ZipFile(fresh, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in sorted(files):
                archive.writestr(zipfile.ZipInfo(name), files[name], zipfile.ZIP_DEFLATED)
    else:
        for name, content in files.items():
            (fresh / name).parent.mkdir(parents=True, exist_ok=True)
            (fresh / name).write_bytes(content)
    _remove(path)
    fresh.rename(path)
    return files


def read_export(path: Path) -> dict[str, bytes]:
    """Return the files of an export, a folder or a zip; whatever is in it, so that nothing extra hides.

    Raises ConfigError for what is neither, or is absurdly large.
    """
    if path.is_dir():
        found = sorted(one for one in path.rglob("*") if not one.is_dir() or one.is_symlink())
        if any(one.is_symlink() or not one.is_file() for one in found):
            raise ConfigError(f"{path}: got a link or a device in it, want plain files alone")
        _check_size(path, [one.stat().st_size for one in found])
        return {one.relative_to(path).as_posix(): one.read_bytes() for one in found}
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            _check_size(path, [entry.file_size for entry in entries])
            if len({entry.filename for entry in entries}) != len(entries):
                raise ConfigError(f"{path}: got a name twice in the zip, want each once")
            return {entry.filename: _unzipped(archive, entry) for entry in entries}
    except (OSError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError) as e:
        raise ConfigError(f"{path}: got no export: {e}, want a folder or a zip") from e


def _unzipped(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    with archive.open(entry) as opened:
        content = opened.read(entry.file_size + 1)
    if len(content) != entry.file_size:
        raise zipfile.BadZipFile(f"{entry.filename}: its size is not what the zip says")
    return content


def _check_size(path: Path, sizes: Sequence[int]) -> None:
    if len(sizes) > MOST_FILES or sum(sizes) > MOST_BYTES:
        raise ConfigError(
            f"{path}: got {len(sizes)} files, {sum(sizes)} bytes, want {MOST_FILES} and {MOST_BYTES} at most"
        )


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
