"""The whole chain of trust, as processes: from the factory to the figure, through a drift and back."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gateway.app.demo import GATEWAY
from gateway.app.supervisor import wattseal
from tests.system.attested import SERIAL, Chain, enrolled, running_chain
from tests.system.site import Part, eventually
from tests.tpms import make_state, running_tpm


def cells(chain: Chain) -> int:
    """Return how many intervals of the line have figures."""
    return len(chain.run("python3", "-c", _COUNT).split())


_COUNT = """
import sqlite3
book = sqlite3.connect("file:ledger/projections.sqlite?mode=ro", uri=True)
for (start,) in book.execute("select start_ns from line_figures order by start_ns"): print(start)
"""


async def more_figures(chain: Chain, than: int, *, within_s: float = 30.0) -> int:
    """Wait until there are more figures than this; return how many."""
    found = 0

    async def grown() -> bool:
        nonlocal found
        found = await asyncio.to_thread(cells, chain)
        return found > than

    await eventually(grown, within_s=within_s, what=f"more than {than} cells", every_s=0.5)
    return found


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_from_the_factory_to_the_figure_through_a_drift_and_back(tmp_path: Path, tpm_state: Path) -> None:
    """A device is enrolled, trusted, drifts, is quarantined, goes on sealing, and is re-admitted by a person."""
    async with enrolled(tmp_path, tpm_state) as chain, running_chain(chain) as site:
        # In order: leaves that waited for the first good quote count, too.
        trusted = await chain.until("TRUSTED")
        assert trusted["last_verified"]
        await more_figures(chain, 3)

        # Drifted: it goes on sealing and forwarding, and not one more figure comes.
        chain.drift()
        failed = await chain.until("FAILED")
        assert "4" in failed["reason"]
        before = cells(chain)
        size = (await site.metrics())["wattseal_seal_receipt_size"]
        await site.until(lambda m: m["wattseal_seal_receipt_size"] > size + 10, within_s=30, what="still forwarding")
        assert cells(chain) == before
        held: dict[str, Any] = chain.status()
        assert held["quarantined"] > 0

        # Re-admitted by an officer's word: the figures are there, and no leaf was lost.
        leaves = f"{failed['since_leaf']}:{int(size)}"
        said = ["--reason", "test of the chain", "--key", "officer.key", "--config", "ledger.toml"]
        chain.wattseal("admin", "readmit", GATEWAY, "--leaves", leaves, *said)
        await more_figures(chain, before)

        # Whoever is to believe it needs the roots alone.
        chain.wattseal("export", "ledger.toml", "--out", "export")
        birth = [
            "--birth",
            "identity/birth.note",
            "--factory",
            "registrar/factory.vkey",
            "--ek-root",
            "maker/issuercert.pem",
        ]
        roots = ["--ek-root", "maker/swtpm-localca-rootca-cert.pem"]
        found = chain.wattseal("verify", "export", "--device-ca", "roots.pem", *birth, *roots)
        assert SERIAL in found
        assert "tpm2-quote" in found
        assert found.count("UNATTESTED") == 1, found
        assert "UNATTESTED: no TPM vouches for the keys of wattseal-ledger/demo." in found, "the ledger has none"
    assert "Traceback" not in (tmp_path / "processes.log").read_text(errors="replace")


BLIND = """\
from gateway.attest.structures import Public
from gateway.cli import main
Public.stands_in = lambda self, certificate: True
main()
"""
"""A seal that does not look whether its certificates are for the TPM that it has."""


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_a_copied_disk_on_another_tpm_produces_no_acceptable_leaf(tmp_path: Path, tpm_state: Path) -> None:
    """Its seal does not start; one that does not look gets no certificate, so that the broker lets its data not in."""
    (tmp_path / "a").mkdir()
    async with enrolled(tmp_path / "a", tpm_state) as chain, running_chain(chain) as site:
        await chain.until("TRUSTED")
        thief = tmp_path / "b"
        for name in ("collect", "forward", "seal"):
            await site.parts[name].stop()
        shutil.copytree(tmp_path / "a", thief, ignore=shutil.ignore_patterns("*.sock*", "t", "run"))
        size = chain.status()["leaves"]
        other = make_state(tmp_path / "o")
        (tmp_path / "u").mkdir()
        with running_tpm(other, tmp_path / "u") as tcti, (thief / "thief.log").open("ab") as log:
            text = (thief / "gateway.toml").read_text().replace(chain.tcti, tcti)
            (thief / "gateway.toml").write_text(text)
            done = subprocess.run(
                ["timeout", "20", *wattseal("seal", str(thief / "gateway.toml"))],
                cwd=tmp_path,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 2, done.stderr
            assert "attest.chain" in done.stderr
            # A thief's own program does not look. Its evidence is by another TPM all the same.
            (thief / "gateway.toml").write_text(text + "counters = []\n")
            seal = [sys.executable, "-c", BLIND, "seal", str(thief / "gateway.toml")]
            lines = {"seal": seal} | {
                name: wattseal(name, str(thief / "gateway.toml")) for name in ("forward", "collect")
            }
            parts = [Part(name, line, errors=log) for name, line in lines.items()]
            try:
                for part in parts:
                    part.start()
                await chain.until("UNREACHABLE")
                await eventually(
                    lambda: said(tmp_path / "a" / "processes.log", '"verifier.certificate"', "refused"),
                    within_s=30,
                    what="the verifier refuses the thief a certificate",
                )
            finally:
                for part in parts:
                    await part.stop()
            told = (thief / "thief.log").read_text(errors="replace")
            assert "forward.connected" not in told
            assert "forward.certified" not in told
        assert chain.status()["leaves"] == size
        assert chain.status()["state"] == "UNREACHABLE"


async def said(log: Path, *words: str) -> bool:
    """Return whether a line of a log has all these words."""
    return any(all(word in line for word in words) for line in log.read_text(errors="replace").splitlines())
