"""What the tests of epoch keys share: a gateway whose device vouches for its keys, and a ledger that relies on that."""

import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.app.accept import GatewayCopy
from gateway.app.sealer import Sealer
from gateway.app.trust.anchorfiles import LOOK_S, AnchorFiles
from gateway.app.trust.signedby import Attested
from gateway.app.verdicts import Committed
from gateway.codec.frames import pack_log
from gateway.store.files import RealFiles
from gateway.store.segments import Log
from hil.plant.soft_tpm import SoftAuthority, SoftDevice
from tests.sealing import ORIGIN, T0_S, WITNESS, Box, Hands

AUTHORITY = SoftAuthority()
DEVICE = SoftDevice("WS-0001", authority=AUTHORITY)
OTHER = SoftDevice("WS-0002", authority=AUTHORITY)
STRANGER = SoftDevice("WS-0001", authority=SoftAuthority(name="another maker"))
"""Has the serial number of DEVICE, by another authority's word."""


@dataclass
class Unit(Box):
    """One gateway's seal with a device, without sockets."""

    device: SoftDevice = DEVICE
    hands: Hands = field(default_factory=Hands)

    @classmethod
    def on(cls, folder: Path, device: SoftDevice = DEVICE) -> "Unit":
        """Return one whose log is in a folder."""
        return cls(files=lambda: RealFiles(folder), device=device)

    def start(self) -> None:
        """Open the log and a sealer on it, with a new key."""
        self.log = Log.open(self.files(), origin=ORIGIN, height=self.height)
        try:
            self.sealer = Sealer(
                self.log,
                binder=self.device,
                witness=WITNESS.cosigner().verifier,
                clock=self.hands.clock(),
                **self.options,
            )
        except BaseException:
            self.log.close()
            raise

    def renew(self) -> bool:
        """Go over to a new key, as the seal does once a day."""
        return self.sealer.renew(self.sealer.epochs.make(*self.sealer.next_epoch()))

    def next_chunk(self, most_bytes: int = 1 << 18) -> bytes:
        """Return the next message after the last receipt."""
        return pack_log(self.sealer.chunk(self.sealer.receipted, most_bytes))


class Relying:
    """The ledger's copy of a gateway's log, as far as the device's word goes. time_s: its clock."""

    def __init__(self, folder: Path, *, serial: str = DEVICE.serial, authority: SoftAuthority = AUTHORITY) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder, self._serial = folder, serial
        self.time_s, self.steady_s = float(T0_S), 100.0
        self.said: list[str] = []
        (folder / "ca.pem").write_bytes(authority.root.public_bytes(Encoding.PEM))
        self.revoke()
        self.start()

    def revoke(self, *devices: SoftDevice, at_s: float = T0_S) -> None:
        """Write the list of the revoked."""
        when = dt.datetime.fromtimestamp(at_s, dt.UTC)
        crl = AUTHORITY.crl({device.certificate.serial_number: when for device in devices})
        self.write_crl(crl)

    def write_crl(self, crl: x509.CertificateRevocationList) -> None:
        """Write this list."""
        fresh = self._folder / "crl.new"
        fresh.write_bytes(crl.public_bytes(Encoding.PEM))
        fresh.rename(self._folder / "crl.pem")

    def start(self) -> None:
        """Open the copy; what was not committed is gone."""
        self.log = Log.open(RealFiles(self._folder / "log"), origin=ORIGIN)
        self.anchors = AnchorFiles(
            self._folder / "ca.pem",
            self._folder / "crl.pem",
            say=self.said.append,
            monotonic_s=lambda: self.steady_s,
        )
        self.signed_by = Attested(ORIGIN, serial=self._serial, anchors=self.anchors, now_s=lambda: self.time_s)
        self.copy = GatewayCopy(
            self.log,
            signed_by=self.signed_by,
            cosigner=WITNESS.cosigner(),
            time_s=lambda: self.time_s,
            monotonic_s=lambda: self.steady_s,
        )

    def restart(self) -> None:
        """Close and open again."""
        self.log.close()
        self.start()

    def pass_s(self, seconds: float = LOOK_S) -> None:
        """Let time pass."""
        self.time_s += seconds
        self.steady_s += seconds

    def take(self, *payloads: bytes) -> Committed:
        """Accept and commit; something must have become durable."""
        for payload in payloads:
            self.copy.accept(payload)
        committed = self.copy.commit()
        assert committed is not None
        return committed

    def answer(self, payload: bytes) -> bytes:
        """Take one message, new or not; return the receipt that the gateway gets."""
        self.copy.accept(payload)
        committed = self.copy.commit()
        return self.copy.receipt if committed is None else committed.receipt

    def drain(self, unit: Box, most_bytes: int = 1 << 18) -> int:
        """Take all that a gateway has signed, chunk by chunk, each with its receipt; return how many chunks."""
        chunks = 0
        while unit.sealer.receipted < unit.sealer.signed:
            message = unit.sealer.chunk(unit.sealer.receipted, most_bytes)
            unit.sealer.receive(self.answer(pack_log(message)))
            chunks += 1
        return chunks
