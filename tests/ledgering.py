"""What the tests of the ledger share: a ledger without sockets, its logs in memory or on disk, to be restarted."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from structlog.testing import CapturingLogger

from gateway.app.ledger import Ledger
from gateway.app.ledgercounts import LedgerCounts
from gateway.app.rebuild import rebuild
from gateway.carbon.exact import text
from gateway.clock import WallClock
from gateway.codec.frames import LeafHash, LogMessage, pack_log
from gateway.codec.leaves import Leaf
from gateway.config import LedgerConfig, parse_ledger
from gateway.store import projections as tables
from gateway.store.files import Files, RealFiles
from gateway.store.projections import Projections, Slice
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.merkle import CompactRange, leaf_hash
from gateway.tlog.note import Signer
from tests.faulty_files import FaultyFiles
from tests.sealing import T0_S, WITNESS

SIGNERS = {name: Signer.generate(f"wattseal/{name}") for name in ("gw1", "gw2")}

Window = tuple[int, int, str]
"""From minute, to minute, g/kWh."""


def minute(number: int) -> str:
    """Return a minute of the story in TOML."""
    return datetime.fromtimestamp(T0_S + 60 * number, UTC).isoformat().replace("+00:00", "Z")


def factors_toml(windows: Sequence[Window], **more: str) -> str:
    """Return a factor file."""
    made = ""
    for start, end, value in windows:
        entry = {"provider": "demo", "zone": "DEMO", "signal": "average", "type": "lifecycle", "unit": "g/kWh"}
        entry |= {"state": "final", "method": "constant", "source": "test", **more}
        made += "[[factor]]\n" + "".join(f'{key} = "{said}"\n' for key, said in entry.items())
        made += f"start = {minute(start)}\nend = {minute(end)}\nvalue = {value}\n"
    return made


@dataclass
class Scroll:
    """A gateway's log as bytes, of anything that its key may sign."""

    signer: Signer
    leaves: list[bytes | LeafHash] = field(default_factory=list)

    def message(self, first: int, end: int | None = None) -> bytes:
        """Return leaves first to end-1 with the checkpoint that ends with them, as a `log` message."""
        end = len(self.leaves) if end is None else end
        edge = CompactRange()
        edge.extend(bytes(leaf) if isinstance(leaf, LeafHash) else leaf_hash(leaf) for leaf in self.leaves[:end])
        note = checkpoints.sign(Checkpoint(origin=self.signer.name, size=end, root=edge.root()), self.signer)
        return pack_log(LogMessage(first=first, leaves=tuple(self.leaves[first:end]), checkpoint=note))


@dataclass
class Hall:
    """A ledger of two gateways, what it has said, and what it takes to restart it.

    memory: its logs are kept in memory, one file system a log; else on disk. clock: the machine's without it.
    more: lines of [ledger].
    """

    folder: Path
    windows: Sequence[Window] = ((0, 60, "400"),)
    memory: bool = True
    clock: WallClock | None = None
    more: str = ""
    disks: dict[Path, FaultyFiles] = field(default_factory=dict)
    said: CapturingLogger = field(default_factory=CapturingLogger)
    counts: LedgerCounts = field(default_factory=LedgerCounts)
    ledger: Ledger = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.write_key("ledger.key", WITNESS.to_text())
        for name, signer in SIGNERS.items():
            self.write_key(f"{name}.vkey", signer.verifier.vkey)
        self.write_factors(self.windows)
        self.start()

    @property
    def toml(self) -> str:
        """The text of ledger.toml."""
        toml = '[ledger]\nname = "ledger"\nstate = "state"\nkey = "ledger.key"\nfactors = "factors.toml"\n'
        toml += self.more
        toml += '[broker]\nbroker = "127.0.0.1:1"\nca = "ca"\ncert = "cert"\nkey = "key"\n'
        return toml + "".join(f'[gateways.{name}]\nkey = "{name}.vkey"\n' for name in SIGNERS)

    @property
    def config(self) -> LedgerConfig:
        """What ledger.toml says."""
        return parse_ledger(self.toml, name="ledger.toml", folder=self.folder)

    def write_key(self, name: str, key: str) -> None:
        """Write a key file."""
        (self.folder / name).write_text(key + "\n")

    def write_factors(self, windows: Sequence[Window], **more: str) -> None:
        """Write the factor file."""
        (self.folder / "factors.toml").write_text(factors_toml(windows, **more))

    def files(self, folder: Path) -> Files:
        """Return the files of a log."""
        return self.disks.setdefault(folder, FaultyFiles()) if self.memory else RealFiles(folder)

    def disk(self, gateway: str | None) -> FaultyFiles:
        """Return the disk of a gateway's copy, or of the ledger's own log."""
        state = self.folder / "state"
        return self.disks[state / "own" if gateway is None else state / "gateways" / gateway]

    def start(self) -> None:
        """Start the ledger. What an earlier one had not committed is gone."""
        (self.folder / "state").mkdir(exist_ok=True)
        log: Any = structlog.wrap_logger(
            self.said, processors=[], wrapper_class=structlog.make_filtering_bound_logger(0)
        )
        self.counts = LedgerCounts()
        try:
            self.ledger = Ledger(self.config, counts=self.counts, log=log, files=self.files, clock=self.clock)
        except BaseException:
            for disk in self.disks.values():
                disk.close()
            raise

    def restart(self) -> None:
        """Close and start again, as after a kill."""
        self.ledger.close()
        self.start()

    def size(self, gateway: str = "gw1") -> int:
        """Return how many leaves of a gateway are taken."""
        return self.ledger.copies[gateway].size

    def take(self, gateway: str, payloads: Iterable[bytes]) -> bytes:
        """Take messages and commit; return the receipt that there must be."""
        for payload in payloads:
            self.ledger.take(gateway, payload)
        return self.ledger.commit()[gateway]

    def own(self, kind: str) -> list[Leaf]:
        """Return the durable leaves of a kind in the ledger's own log."""
        return [leaf for leaf in self.ledger.own.leaves(0) if leaf.kind == kind]

    def times(self, event: str) -> int:
        """Return how often this was logged."""
        return sum(call.kwargs.get("event") == event for call in self.said.calls)

    def dump(self) -> list[str]:
        """Return all tables as text."""
        return dump_of(self.ledger._book)

    def dump_rebuilt(self) -> list[str]:
        """Close the ledger, make its tables anew from the logs alone, and return them; then start it again."""
        self.ledger.close()
        rebuild(self.config, say=lambda _: None, files=self.files)
        book = Projections(self.folder / "state" / "projections.sqlite", new=False)
        dumped = dump_of(book)
        book.close()
        self.start()
        return dumped

    def totals(self, line: str = "filling", gateway: str = "gw1") -> tuple[int, str, str]:
        """Return energy in mWh, CO2e in g, and units of a line."""
        with self.ledger._book.reading() as connection:
            found = tables.totals(connection, Slice(gateway=gateway, line=line))
        return found.energy_mwh, text(found.co2e_g), text(found.units_good)


def dump_of(book: Projections) -> list[str]:
    """Return all tables as text."""
    with book.reading() as connection:
        return list(tables.dump(connection))
