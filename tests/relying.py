"""What the tests of the ledger as relying party share: an attested gateway, its verifier, an officer, a ledger."""

from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding

from gateway.app.duties import Listener
from gateway.app.standing.officers import drop
from gateway.attest.decision import Ruling, sign_ruling
from gateway.attest.ear import Result, sign_result
from gateway.clock import WallClock
from gateway.codec.bodies import epoch_body, event_body, interval_body, line_body
from gateway.codec.frames import LogMessage, pack_log
from gateway.codec.leaves import seal
from gateway.codec.pack import pack, unpack
from gateway.model import Clock, ClockState, Interval, Sample, Standing, State
from gateway.north.mqtt import result_topic
from gateway.store import projections as tables
from gateway.store.projections import Slice
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.checkpoint import Checkpoint
from gateway.tlog.merkle import CompactRange, leaf_hash
from gateway.tlog.note import Signer
from hil.plant.soft_tpm import SoftAuthority, SoftDevice
from tests.ledgering import Hall
from tests.sealing import LINE, T0_S

NS = 1_000_000_000
MINUTE = 60 * NS
T0 = T0_S * NS
LEDGER = "wattseal-ledger/ledger"
VERIFIER = Signer.generate("wattseal-verifier/site")
OFFICER = Signer.generate("wattseal-officer/jane")
AUTHORITY = SoftAuthority()
DEVICE = SoftDevice("WS-0001", authority=AUTHORITY)
VECTOR = {"affirming": 2, "warning": 32, "contraindicated": 96, "none": 0}


@dataclass
class Site(Hall):
    """A ledger with one attested gateway, gw1, and one whose key is pinned, gw2; time moves by hand.

    kwh: how far the line's counter has grown; each minute adds one. starts: of the device; keys change within one.
    """

    now_ns: int = T0
    leaves: list[bytes] = field(default_factory=list)
    epoch: int = 0
    starts: int = 0
    kwh: int = 0
    prev: int | None = None
    signer: Signer = field(default_factory=lambda: Signer.generate("wattseal/gw1"))
    announced: bytes = b""
    topic: str = result_topic("gw1")

    def __post_init__(self) -> None:
        """Write the files of [attest], and start."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self.clock = WallClock(
            wall=lambda: self.now_ns, steady=lambda: self.now_ns, state=lambda: (ClockState.SYNCHRONISED, 0)
        )
        (self.folder / "ca.pem").write_bytes(AUTHORITY.root.public_bytes(Encoding.PEM))
        (self.folder / "verifier.vkey").write_text(VERIFIER.verifier.vkey + "\n")
        (self.folder / "officers").write_text(f"# who may decide\n{OFFICER.verifier.vkey}\n")
        super().__post_init__()

    @property
    def toml(self) -> str:
        """The text of ledger.toml."""
        toml = super().toml.replace('[gateways.gw1]\nkey = "gw1.vkey"', '[gateways.gw1]\ndevice = "WS-0001"')
        return f'{toml}[attest]\ndevice_ca = "ca.pem"\nverifier = "verifier.vkey"\nofficers = "officers"\n'

    # ---- the gateway

    def seal(self, kind: str, body: bytes, prev: int | None = None) -> int:
        """Seal a leaf; return its index."""
        clock = Clock(t_ns=self.now_ns + NS, state=ClockState.SYNCHRONISED, offset_ns=0)
        self.leaves.append(seal(kind, body, clock=clock, prev=prev))
        return len(self.leaves) - 1

    def boot(self) -> int:
        """Start the device: a new key, bound by its TPM, in an epoch leaf; return its index."""
        self.starts += 1
        return self.renew()

    def renew(self) -> int:
        """Change the key of a device that runs on, as the seal does daily; return the epoch leaf's index."""
        self.epoch += 1
        self.signer = Signer.generate("wattseal/gw1")
        vkey = self.signer.verifier.vkey
        binding = DEVICE.bind(vkey=vkey, epoch=self.epoch, t_ns=self.now_ns)
        body = epoch_body(self.epoch, vkey, binding)
        self.announced = pack(unpack(body))
        index = self.seal("epoch", body)
        if index == 0:
            self.seal("schema", line_body(LINE))
        return index

    def minutes(self, count: int) -> None:
        """Let so many minutes pass: each grows the counter by 1 kWh and 10 units, and seals an interval."""
        for _ in range(count):
            self.now_ns += MINUTE
            self.kwh += 1
            t_ns = self.now_ns // MINUTE * MINUTE
            values = (Decimal(self.kwh), Decimal(10 * self.kwh))
            samples = tuple(
                Sample(point=column.point, source_time_ns=t_ns, raw=b"\0", value=value)
                for column, value in zip(LINE.columns, values, strict=True)
            )
            self.prev = self.seal(
                "interval", interval_body(Interval(schema_id=LINE.id, t_ns=t_ns, samples=samples)), self.prev
            )

    def give(self) -> int:
        """Hand the ledger all that is new, and let its duties look; return how many leaves it holds."""
        first = self.size()
        if first < len(self.leaves):
            edge = CompactRange()
            edge.extend(map(leaf_hash, self.leaves))
            head = Checkpoint(origin="wattseal/gw1", size=len(self.leaves), root=edge.root())
            note = checkpoints.sign(head, self.signer)
            message = LogMessage(first=first, leaves=tuple(self.leaves[first:]), checkpoint=note, epoch=self.announced)
            self.take("gw1", [pack_log(message)])
        self.look()
        return self.size()

    def run(self, count: int) -> int:
        """Let minutes pass, each handed over as it comes."""
        for _ in range(count):
            self.minutes(1)
            self.give()
        return self.size()

    def look(self) -> None:
        """Let the duties look, a second later."""
        self.now_ns += 2 * NS
        self.ledger.beat()

    # ---- the verifier

    def result(self, status: str = "affirming", **more: Any) -> Result:
        """Return a result about the gateway as it is now."""
        now_s = self.now_ns // NS
        made = Result(
            gateway="gw1",
            device="WS-0001",
            status=status,
            reason="as in reference.toml" if status == "affirming" else "PCR 4 differs",
            nonce=bytes(32),
            epoch=self.epoch,
            key=self.signer.verifier.vkey,
            log_size=len(self.leaves),
            boot=f"aa:{self.starts}:0",
            issued_s=now_s,
            expires_s=now_s + 600,
            verified_s=now_s if status == "affirming" else None,
            vector={"instance-identity": 2, "executables": VECTOR[status]},
            policy="reference.toml sha256:00",
        )
        return replace(made, **more)

    def token(self, status: str = "affirming", signer: Signer = VERIFIER, **more: Any) -> str:
        """Return a result as its verifier signs it."""
        return sign_result(self.result(status, **more), issuer=VERIFIER.name, audience=LEDGER, signer=signer)

    def hear(self, token: str) -> str:
        """Let the ledger hear a result; return it. A second passes: no two are of one time."""
        for duty in self.ledger.duties:
            if isinstance(duty, Listener) and self.topic in duty.filters:
                duty.hear(self.topic, token.encode())
        self.now_ns += NS
        return token

    def appraised(self, status: str = "affirming", **more: Any) -> str:
        """Let the verifier find the gateway so."""
        return self.hear(self.token(status, **more))

    def unreachable(self) -> str:
        """Let the verifier find that the gateway does not answer."""
        return self.appraised(
            "none", reason="no answer", epoch=0, key="", nonce=b"", log_size=0, boot="", vector={"hardware": 0}
        )

    # ---- the officer

    def decide(self, first: int, stop: int, *, admit: bool, signer: Signer = OFFICER, **more: Any) -> bytes:
        """Let an officer decide; return the note."""
        said: dict[str, Any] = {
            "ledger": LEDGER,
            "gateway": "gw1",
            "made_ns": self.now_ns,
            "by": signer.name,
            "reason": "looked at it",
        }
        ruling = Ruling(first=first, stop=stop, admit=admit, **(said | more))
        note = sign_ruling(ruling, signer)
        self.drop(note)
        return note

    def drop(self, note: bytes) -> None:
        """Hand the ledger a decision."""
        drop(self.folder / "state", note)
        self.look()

    # ---- what the ledger makes of it

    @property
    def standing(self) -> Standing:
        """The newest of gw1."""
        newest = self.ledger.facts.standings.newest("gw1")
        assert newest is not None
        return newest

    @property
    def state(self) -> State:
        """Of gw1."""
        return self.standing.state

    @property
    def counted(self) -> int:
        """How many kWh are in figures."""
        with self.ledger.book.reading() as connection:
            mwh = tables.totals(connection, Slice(gateway="gw1", line="filling")).energy_mwh
        assert mwh % 1_000_000 == 0
        return mwh // 1_000_000

    @property
    def quarantined(self) -> int:
        """How many interval leaves no figure rests on."""
        with self.ledger.book.reading() as connection:
            return tables.quarantined_counts(connection).get("gw1", 0)

    def note(self, body: bytes = b"") -> None:
        """Seal an event leaf."""
        self.seal("event", body or event_body("device.up", self.now_ns, {}))


def site(folder: Path, *, memory: bool = True) -> Site:
    """Return a site whose gateway has started and was found good, with one interval: the base of all energy."""
    made = Site(folder, windows=((-600, 6000, "400"),), memory=memory)
    made.boot()
    made.give()
    made.appraised()
    made.run(1)
    return made
