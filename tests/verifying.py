"""What the tests of the verifier share: a fleet of devices in software, a desk that restarts, clocks by hand."""

import asyncio
import datetime as dt
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from cryptography.hazmat.primitives.serialization import Encoding
from structlog.testing import CapturingLogger

from gateway.attest.ear import Result, verify_result
from gateway.attest.evidence import Challenge, read_challenge
from gateway.model.standing import State
from gateway.tlog.note import Signer
from hil.plant.soft_tpm import MODEL, SoftAuthority, SoftDevice
from provisioning.verifier.desk import Clocks, Desk
from provisioning.verifier.store import Store
from provisioning.verifier.trust import TrustFiles

VERIFIER = Signer.generate("wattseal-verifier/desk")
LEDGER = "wattseal-ledger/ledger"
T0_S = 1_800_000_000
ABOUT = {"version": "0.1.0", "tls": "file"}

VERIFIER_TOML = """\
[verifier]
name = "desk"
key = "desk.sign.key"
device_ca = "device-ca.pem"
crl = "device-crl.pem"
reference = "reference.toml"
ledger = "wattseal-ledger/ledger"
{more}
[broker]
broker = "127.0.0.1:{port}"
ca = "pki/ca.pem"
cert = "pki/desk.pem"
key = "pki/desk.key"
"""


def reference_text(pcrs: Mapping[int, bytes], *, model: str = MODEL, name: str = "r1") -> str:
    """Return a reference.toml with one release that has just these PCRs."""
    values = "\n".join(f'{index} = ["{value.hex()}"]' for index, value in pcrs.items())
    head = f'[[release]]\nname = "{name}"\nmodel = "{model}"\nfrom = 2020-01-01T00:00:00Z\n'
    return f"{head}[release.pcrs]\n{values}\n"


def logger() -> tuple[Any, CapturingLogger]:
    """Return a logger, and what captures its lines."""
    said = CapturingLogger()
    return structlog.wrap_logger(said, processors=[], wrapper_class=structlog.make_filtering_bound_logger(0)), said


@dataclass
class Machine:
    """A gateway as its verifier sees it: a device, and what it claims."""

    device: SoftDevice
    key: str
    epoch: int = 1
    log_size: int = 10

    def answer(self, challenge: Challenge, **changes: Any) -> bytes:
        """Return its evidence."""
        said: dict[str, Any] = {
            "epoch": self.epoch,
            "key": self.key,
            "log_size": self.log_size,
            "about": ABOUT,
        } | changes
        return self.device.evidence(challenge, **said)

    def start(self) -> None:
        """Start anew, as a device does: a reset of the TPM, another epoch."""
        self.device.reset_count, self.epoch, self.log_size = self.device.reset_count + 1, self.epoch + 1, 12
        self.key = epoch_key(self.device.gateway)


def epoch_key(gateway: str) -> str:
    """Return the verifier key of a new epoch."""
    return Signer.generate(f"wattseal/{gateway}").verifier.vkey


@dataclass
class Fleet:
    """A verifier's desk, its files in a folder, and the machines it asks."""

    folder: Path
    gateways: tuple[str, ...] = ("gw1", "gw2")
    more: str = ""
    port: int = 8883
    steady_s: float = 1000.0
    wall_s: float = float(T0_S)
    authority: SoftAuthority = field(default_factory=SoftAuthority)
    machines: dict[str, Machine] = field(default_factory=dict)
    said: CapturingLogger = field(init=False)
    store: Store = field(init=False)
    desk: Desk = field(init=False)

    def __post_init__(self) -> None:
        for number, gateway in enumerate(self.gateways):
            device = SoftDevice(f"WS-{number:04}", authority=self.authority, gateway=gateway)
            self.machines[gateway] = Machine(device=device, key=epoch_key(gateway))
        (self.folder / "desk.sign.key").write_text(VERIFIER.to_text())
        (self.folder / "device-ca.pem").write_bytes(self.authority.root.public_bytes(Encoding.PEM))
        self.revoke()
        first = next(iter(self.machines.values()))
        (self.folder / "reference.toml").write_text(reference_text(first.device.pcrs))
        self.write_config()
        self.open()

    def write_config(self, gateways: tuple[str, ...] | None = None) -> None:
        """Write verifier.toml for these gateways."""
        text = VERIFIER_TOML.format(more=self.more, port=self.port)
        for gateway in self.gateways if gateways is None else gateways:
            text += f'\n[gateways.{gateway}]\ndevice = "{self.machines[gateway].device.serial}"\n'
        (self.folder / "verifier.toml").write_text(text)

    def revoke(self, *gateways: str) -> None:
        """Write the CRL: the attestation keys of these were revoked long ago."""
        numbers = [self.machines[gateway].device.certificate.serial_number for gateway in gateways]
        crl = self.authority.crl(dict.fromkeys(numbers, dt.datetime(2021, 1, 1, tzinfo=dt.UTC)))
        (self.folder / "device-crl.pem").write_bytes(crl.public_bytes(Encoding.PEM))

    @property
    def clocks(self) -> Clocks:
        """The clocks by hand, and a chance that is always a half."""
        return Clocks(steady_s=lambda: self.steady_s, wall_s=lambda: self.wall_s, chance=lambda: 0.5)

    def open(self) -> None:
        """Start the verifier on what is in the folder."""
        log, self.said = logger()
        files = TrustFiles(self.folder / "verifier.toml", log)
        self.store = Store(files.config.database)
        self.desk = Desk(files, self.store, VERIFIER, log=log, clocks=self.clocks)

    def close(self) -> None:
        """End the verifier, as if it was killed."""
        self.store.close()

    def restart(self) -> None:
        """End it and start it."""
        self.close()
        self.open()

    def pass_s(self, seconds: float) -> None:
        """Let time pass."""
        self.steady_s += seconds
        self.wall_s += seconds

    def ask(self) -> dict[str, Challenge]:
        """Return the challenges that are due, as their gateways read them."""
        return {
            gateway: read_challenge(note, verifier=VERIFIER.verifier, gateway=gateway)
            for gateway, note in self.desk.challenges()
        }

    def told(self) -> dict[str, Result]:
        """Return the newest results, as the ledger reads them."""
        return {
            gateway: verify_result(
                token.decode(),
                issuer=VERIFIER.name,
                audience=LEDGER,
                verifier=VERIFIER.verifier,
                now_s=int(self.wall_s),
            )
            for gateway, token in self.desk.settle()
        }

    def round(self, **answers: bytes) -> dict[str, Result]:
        """Let a period pass, ask all, answer for all (some with bytes of the test's own), and return the results."""
        self.pass_s(301)
        for gateway, challenge in self.ask().items():
            machine = self.machines[gateway]
            machine.device.clock_ms += 1000
            self.desk.take(gateway, answers.get(gateway, b"") or machine.answer(challenge))
        return self.told()

    def state(self, gateway: str) -> tuple[State, str]:
        """Return a gateway's state, and why."""
        record = self.desk.records[gateway]
        return record.state, record.reason

    def events(self, name: str) -> int:
        """Return how often this was logged."""
        return sum(call.args[:1] == (name,) or call.kwargs.get("event") == name for call in self.said.calls)


async def cancelled(task: "asyncio.Task[None]") -> None:
    """End a task."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
