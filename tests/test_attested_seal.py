"""The seal process with a real TPM in software: its keys, its renewals, and its disk in another device."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.app.channel import Channel, connect
from gateway.app.load import template_text
from gateway.app.metrics import read_metrics
from gateway.app.seal import run_seal
from gateway.attest.structures import parse_public
from gateway.codec.frames import LogMessage, pack_log, unpack_leaves
from gateway.config import GatewayConfig, parse_gateway
from gateway.errors import ConfigError, TrustError
from gateway.tlog.note import Signer
from gateway.tpm import Tpm
from hil.plant.soft_tpm import SoftAuthority
from tests.epoching import Relying
from tests.sealing import WITNESS
from tests.tpms import make_state, running_tpm

PATIENCE_S = 20.0
AUTHORITY = SoftAuthority()


def configured(folder: Path, tcti: str, serial: str = "WS-1", *, renew_h: float = 24.0) -> GatewayConfig:
    """Return the configuration of a gateway whose TPM's attestation key has a certificate; write the files it names."""
    with Tpm.open(tcti) as tpm:
        certificate = AUTHORITY.issue(parse_public(tpm.ak_public()).key, serial)
    chain = (certificate, AUTHORITY.issuing)
    (folder / "ak.pem").write_bytes(b"".join(one.public_bytes(Encoding.PEM) for one in chain))
    (folder / "ledger.vkey").write_text(WITNESS.cosigner().verifier.vkey + "\n")
    (folder / "verifier.vkey").write_text(Signer.generate("wattseal-verifier/site").verifier.vkey + "\n")
    toml = f"""
[gateway]
id = "gw1"
[seal]
witness = "ledger.vkey"
checkpoint_s = 0.05
[attest]
tcti = "{tcti}"
chain = "ak.pem"
verifier = "verifier.vkey"
pcrs = [0, 7]
renew_h = {renew_h}
[forward]
broker = "127.0.0.1:1"
ca = "ca.pem"
cert = "gw1.pem"
key = "gw1.key"
"""
    return parse_gateway(toml, name="gateway.toml", folder=folder, template_text=template_text)


@asynccontextmanager
async def running(config: GatewayConfig) -> AsyncIterator[Channel]:
    """Run the seal; give forward's side of its outlet."""
    config.run_folder.mkdir(parents=True, exist_ok=True)
    task = asyncio.create_task(run_seal(config, isolated=True))
    async with asyncio.timeout(PATIENCE_S):
        while not task.done():
            with contextlib.suppress(OSError):
                await read_metrics(config.run_folder / "seal.metrics.sock")
                break
            await asyncio.sleep(0.01)
    if task.done():
        task.result()
    channel = await connect(config.run_folder / "outlet.sock")
    await channel.send(["hello", 1])
    await channel.receive()
    try:
        yield channel
    finally:
        channel.close()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def chunk(channel: Channel, first: int) -> LogMessage:
    """Read from a leaf on."""
    await channel.send(["read", first, 1 << 18])
    async with asyncio.timeout(PATIENCE_S):
        match await channel.receive():
            case [["chunk", int(at), list(leaves), bytes(checkpoint), *epoch]]:
                announced = epoch[0] if epoch else b""
                return LogMessage(first=at, leaves=unpack_leaves(leaves), checkpoint=checkpoint, epoch=announced)
            case other:
                raise AssertionError(other)


def relying(folder: Path) -> Relying:
    """Return a ledger that relies on the authority; none of its devices is revoked."""
    made = Relying(folder, serial="WS-1", authority=AUTHORITY)
    made.log.close()
    made.write_crl(AUTHORITY.crl({}))
    made.start()
    return made


async def test_a_tpm_vouches_for_each_key_of_a_seal_that_runs(tmp_path: Path, tcti: str) -> None:
    """At each start a new key, at the pace of renew_h while it runs; the ledger takes all of it."""
    config, ledger = configured(tmp_path, tcti, renew_h=0.001), relying(tmp_path / "ledger")
    for _ in range(2):
        async with running(config) as channel:
            ledger.take(pack_log(await chunk(channel, ledger.copy.size)))
    first = ledger.copy.epoch
    async with running(config) as channel:
        async with asyncio.timeout(PATIENCE_S):
            while ledger.copy.epoch is first or (epoch := ledger.copy.epoch) is None or epoch.number < 4:
                ledger.take(pack_log(await chunk(channel, ledger.copy.size)))
        assert epoch.bound is not None
        assert epoch.bound.device.serial == "WS-1"
        assert set(epoch.bound.pcrs) == {0, 7}
    ledger.log.close()


async def test_a_seal_without_its_tpm_does_not_run(tmp_path: Path, tpm_state: Path) -> None:
    folder = tmp_path / "t"
    folder.mkdir()
    with running_tpm(tpm_state, folder) as tcti:
        config = configured(tmp_path, tcti)
    with pytest.raises(ConfigError):
        await run_seal(config, isolated=True)
    assert not config.log_folder.exists()


@pytest.mark.slow
async def test_a_cloned_disk_beside_another_tpm_gives_not_one_leaf(tmp_path: Path, tcti: str) -> None:
    """The second device has the whole disk, certificates and all, and a TPM of its own."""
    config, ledger = configured(tmp_path, tcti), relying(tmp_path / "ledger")
    async with running(config) as channel:
        ledger.take(pack_log(await chunk(channel, 0)))
    size = ledger.copy.size
    clone, other = tmp_path / "clone", tmp_path / "o"
    shutil.copytree(tmp_path, clone, ignore=shutil.ignore_patterns("clone", "t", "run", "ledger"))
    other.mkdir()
    with running_tpm(make_state(other / "s"), other) as second:
        stolen = (clone / "ak.pem").read_bytes()
        for serial, chain in (("WS-1", stolen), ("WS-2", b"")):
            theirs = configured(clone, second, serial)
            if chain:  # other software, that does not look, gains nothing: tests/attacks/test_epochs.py
                (clone / "ak.pem").write_bytes(chain)
                with pytest.raises(ConfigError, match=r"attest\.chain.*another TPM"):
                    await run_seal(theirs, isolated=True)
                continue
            async with running(theirs) as channel:
                for first in (0, size):
                    with pytest.raises(TrustError):
                        ledger.copy.accept(pack_log(await chunk(channel, first)))
    assert ledger.copy.size == size
    async with running(config) as channel:
        ledger.take(pack_log(await chunk(channel, size)))
    assert ledger.copy.size > size
    ledger.log.close()
