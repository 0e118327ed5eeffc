"""A whole chain as real processes: factory, device with a TPM, broker, attestation service, ledger, gateway.

Everything is made by the commands that a factory and a plant would use.
"""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.app.broker import running_broker
from gateway.app.demo import GATEWAY, LEDGER, write_site
from gateway.app.demo_plant import plant_devices, running_plant
from gateway.app.supervisor import wattseal
from gateway.tlog.note import Signer
from tests.system.site import LOCAL, Site, _start, eventually
from tests.tpms import running_tpm

VERIFIER = "verifier"
SERIAL = "WS-0001"
MODEL = "WS-100"
OFFICER = Signer.generate("wattseal-officer/jane")
_SECRETS = {"WATTSEAL_CA_UNLOCK": "a password of the tests 1", "WATTSEAL_ROOT_UNLOCK": "a password of the tests 2"}
_STATION = """\
[station]
name = "bench-1"
operator = "A. Smith"
order = "WO-17"
model = "{model}"
image_sha256 = "{image}"

[unit]
command = {command}

[ca]
folder = "ca/devices"

[registrar]
folder = "registrar"

[ek]
roots = "maker"

[anchors]
verifier = "verifier.vkey"
ledger = "ledger.vkey"
"""
_VERIFIER = """\
[verifier]
name = "{verifier}"
key = "verifier.key"
state = "verifier"
device_ca = "roots.pem"
crl = "device-crl.pem"
reference = "reference.toml"
ledger = "wattseal-ledger/{ledger}"
period_s = 4
deadline_s = 3.5
result_s = 12

[broker]
broker = "{broker}"
ca = "pki/ca.pem"
cert = "pki/verifier.pem"
key = "pki/verifier.key"

[gateways.{gateway}]
device = "{serial}"

[issue]
authority = "ca/operation"
hours = 24
"""
_GATEWAY = """\

[attest]
tcti = "{tcti}"
chain = "identity/ak-chain.pem"
verifier = "identity/verifier.vkey"
"""
_LEDGER = """\

[attest]
device_ca = "roots.pem"
crl = "device-crl.pem"
verifier = "verifier.vkey"
officers = "officers.txt"
"""


class Chain:
    """The folder in which it all stands, and the commands that work on it."""

    def __init__(self, folder: Path, tcti: str) -> None:
        self.folder, self.tcti = folder, tcti
        self._environment = {**os.environ, **_SECRETS, "TSS2_LOG": "all+none", "PYTHONSAFEPATH": "1"}

    def run(self, *arguments: str, code: int = 0, env: dict[str, str] | None = None) -> str:
        """Run a command in the folder; return what it prints."""
        done = subprocess.run(
            arguments,
            cwd=self.folder,
            env={**self._environment, **(env or {})},
            capture_output=True,
            text=True,
            timeout=110,
            check=False,
        )
        assert done.returncode == code, f"{' '.join(arguments)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def provision(self, *arguments: str, code: int = 0) -> str:
        """Run `provision`."""
        return self.run(sys.executable, "-m", "provisioning.cli", *arguments, code=code)

    def wattseal(self, *arguments: str, code: int = 0) -> str:
        """Run `wattseal`."""
        return self.run(*wattseal(*arguments), code=code)

    def status(self) -> dict[str, Any]:
        """Return what the ledger holds of the gateway."""
        said = json.loads(self.wattseal("attest", "status", "ledger.toml", "--json"))
        found: dict[str, Any] = next(one for one in said["gateways"] if one["gateway"] == GATEWAY)
        return found

    async def until(self, state: str, *, within_s: float = 30.0) -> dict[str, Any]:
        """Wait until the ledger holds the gateway to be in this state."""
        found: dict[str, Any] = {}

        async def holds() -> bool:
            nonlocal found
            if not (self.folder / "ledger" / "projections.sqlite").exists():
                return False
            found = await asyncio.to_thread(self.status)
            return bool(found["state"] == state)

        await eventually(holds, within_s=within_s, what=f"{GATEWAY} is {state}", every_s=0.5)
        return found

    def drift(self) -> None:
        """Measure something else into the device, as other firmware would."""
        self.run("tpm2_pcrextend", "-T", self.tcti, f"4:sha256={'11' * 32}")

    # ---- the factory

    def found(self, maker: Path) -> None:
        """Make the factory's authorities and keys. maker: a folder with the TPM maker's certificates."""
        self.provision("ca", "init", "ca", "--name", "Test Devices")
        (self.folder / "roots.pem").write_bytes((self.folder / "ca/root/chain.pem").read_bytes())
        self.provision("ca", "crl", "ca/devices", "--out", "device-crl.pem")
        (self.folder / "maker").mkdir()
        for certificate in ("issuercert.pem", "swtpm-localca-rootca-cert.pem"):
            (self.folder / "maker" / certificate).write_bytes((maker / certificate).read_bytes())
        self.provision("registrar", "init", "--name", "test")
        verifier = Signer.generate(f"wattseal-verifier/{VERIFIER}")
        self._key("verifier.key", verifier.to_text())
        self._key("verifier.vkey", verifier.verifier.vkey)
        ledger = Signer.generate(f"wattseal-ledger/{LEDGER}")
        self._key("ledger.sign.key", ledger.to_text())
        self._key("ledger.vkey", ledger.cosigner().verifier.vkey)
        self._key("ledger.note.vkey", ledger.verifier.vkey)
        self._key("officer.key", OFFICER.to_text())
        self._key("officers.txt", OFFICER.verifier.vkey)

    def _key(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text.rstrip("\n") + "\n", encoding="utf-8")
        path.chmod(0o600)

    def enrol(self) -> None:
        """Take the device through the station, and give it to its owner."""
        image = self.folder / "image"
        image.write_bytes(b"an image")
        (self.folder / "serial").write_text(f"{SERIAL}\n")
        unit = ["enrol", "--identity", str(self.folder / "identity"), "--image", str(image)]
        command = wattseal(*unit, "--serial-file", str(self.folder / "serial"), "--tcti", self.tcti)
        digest = hashlib.sha256(image.read_bytes()).hexdigest()
        station = _STATION.format(model=MODEL, image=digest, command=json.dumps(command))
        (self.folder / "station.toml").write_text(station)
        self.provision("station", "--config", "station.toml", SERIAL)
        birth = ["--birth", "identity/birth.note", "--factory", "registrar/factory.vkey"]
        text = self.wattseal("attest", "reference", "golden", *birth, "--from", "2026-01-01")
        (self.folder / "reference.toml").write_text(text)

    def certify(self) -> None:
        """Issue what connects to the broker: everyone's certificate, and the gateway's bootstrap identity."""
        pki = self.folder / "pki"
        pki.mkdir()
        (pki / "ca.pem").write_bytes((self.folder / "roots.pem").read_bytes())
        hosts = ["--host", LOCAL, "--host", "localhost"]
        self._request("broker")
        self.provision("ca", "issue-server", "ca/operation", "pki/broker.csr", *hosts, "--out", "pki/broker.pem")
        for name, more in ((LEDGER, ()), (VERIFIER, ()), (GATEWAY, ("--enrol",))):
            self._request(name)
            request = [f"pki/{name}.csr", "--gateway", name, *more, "--out", f"pki/{name}.pem"]
            self.provision("ca", "issue-client", "ca/operation", *request)
        self.provision("ca", "crl", "ca/operation", "--out", "pki/crl.pem")

    def _request(self, name: str) -> None:
        new = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}"]
        self.run("openssl", "req", "-new", *new, "-keyout", f"pki/{name}.key", "-out", f"pki/{name}.csr")

    # ---- the plant

    def write(self, *, broker: str, devices: str) -> None:
        """Write the configuration of gateway, ledger and attestation service."""
        write_site(self.folder, broker=broker, devices=devices)
        names = {"gateway": GATEWAY, "ledger": LEDGER, "verifier": VERIFIER, "serial": SERIAL}
        self._change(
            "gateway.toml",
            f'key = "pki/{GATEWAY}.epoch.key"\nwitness = "pki/{LEDGER}.vkey"\n',
            'witness = "ledger.vkey"\n',
        )
        self._change("gateway.toml", "[interval]", 'key_in = "memory"\n\n[interval]')
        self._change("ledger.toml", f'key = "pki/{LEDGER}.sign.key"', 'key = "ledger.sign.key"')
        self._change("ledger.toml", f'key = "pki/{GATEWAY}.vkey"', f'device = "{SERIAL}"')
        for file, more in (("gateway.toml", _GATEWAY.format(tcti=self.tcti)), ("ledger.toml", _LEDGER)):
            with (self.folder / file).open("a", encoding="utf-8") as opened:
                opened.write(more)
        (self.folder / "verifier.toml").write_text(_VERIFIER.format(**names, broker=broker))

    def _change(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text(encoding="utf-8")
        assert old in text, f"{file}: no {old!r}"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")


def verifier_command(folder: Path) -> list[str]:
    """Return the command line of the attestation service in this folder."""
    environment = [f"{name}={value}" for name, value in _SECRETS.items()]
    command = ["env", *environment, sys.executable, "-m", "provisioning.cli", "verifier", "run"]
    return [*command, str(folder / "verifier.toml")]


@asynccontextmanager
async def enrolled(folder: Path, tpm_state: Path) -> AsyncIterator[Chain]:
    """Give a chain whose device the factory has enrolled; its TPM runs."""
    (folder / "t").mkdir()
    with running_tpm(tpm_state, folder / "t") as tcti:
        chain = Chain(folder, tcti)
        await asyncio.to_thread(chain.found, tpm_state.parent / "ca")
        await asyncio.to_thread(chain.enrol)
        yield chain


@asynccontextmanager
async def running_chain(chain: Chain, *, seed: int = 1) -> AsyncIterator[Site]:
    """Run it all; end it on leaving."""
    await asyncio.to_thread(chain.certify)
    folder = chain.folder
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(
            running_broker(folder / "broker", pki=folder / "pki", ledger=LEDGER, verifier=VERIFIER, enrolling=[GATEWAY])
        )
        plant = await stack.enter_async_context(running_plant(folder, seed=seed))
        devices = plant_devices(f"{LOCAL}:{plant.port}", period_s=0.5)
        chain.write(broker=f"{LOCAL}:{broker.port}", devices=devices)
        site = Site(folder=folder, control=plant.control)
        commands: dict[str, Sequence[str]] = {
            "ledger": wattseal("ledger", "run", str(folder / "ledger.toml")),
            "verifier": verifier_command(folder),
            **{name: wattseal(name, str(folder / "gateway.toml")) for name in ("seal", "forward", "collect")},
        }
        stack.push_async_callback(_end, site)
        await _start(stack, site, commands)
        yield site


async def _end(site: Site) -> None:
    if "verifier" in site.parts:
        await site.parts["verifier"].stop()
