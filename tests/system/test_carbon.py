"""The carbon side of a whole site, as real processes: a provider, an MES, an operator, an auditor."""

import asyncio
import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from gateway.app.broker import free_port
from gateway.app.demo import GATEWAY, LEDGER
from gateway.app.demo_plant import LINE, ZONE
from gateway.app.rebuild import dump_sha256
from gateway.app.supervisor import wattseal
from gateway.app.tokens import add_token, make_token
from gateway.carbon.figures import Cell
from gateway.north.pki import make_dev_ca
from gateway.store import projections as tables
from gateway.store.projections import Projections, Slice
from hil.plant.grid.electricity_maps import TOKEN
from hil.plant.grid.server import GridServer
from tests.system.site import Site, eventually, running_site

NS = 10**9
PLAN = f"""
[site]
timezone = "Europe/Berlin"

[shifts.all]
start = "00:00"
end = "23:59"

[lines.{GATEWAY}.{LINE}.meters.compressor]
point = "compressor.import_energy"
"""


async def said(*arguments: str) -> Any:
    """Run a command of ours with --json and return what it says."""
    process = await asyncio.create_subprocess_exec(
        *wattseal(*arguments, "--json"), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()
    return json.loads(out)


@asynccontextmanager
async def works(folder: Path) -> AsyncIterator[tuple[Site, GridServer, httpx2.AsyncClient]]:
    """Run a site with a feed, a plan, grid settings to come, and an open door for an MES."""
    make_dev_ca(folder / "tls", gateways=[GATEWAY], ledger=LEDGER, hosts=["127.0.0.1"])
    token, entry = make_token("mes")
    add_token(folder / "tokens.txt", entry)
    (folder / "emaps.key").write_text(TOKEN)
    (folder / "emaps.key").chmod(0o600)
    (folder / "carbon.toml").write_text(PLAN)
    listen = f"127.0.0.1:{free_port()}"
    async with GridServer("electricitymaps") as grid:
        sections = (
            f'[feeds.grid]\nprovider = "electricitymaps"\nzone = "{ZONE}"\nregion = "DE"\n'
            f'url = "{grid.url}"\ncredentials = "emaps.key"\n'
            f'[context]\nlisten = "{listen}"\ncert = "tls/broker.pem"\nkey = "tls/broker.key"\ntokens = "tokens.txt"\n'
        )
        own = 'plan = "carbon.toml"\ngrid_settings = "grid-settings.json"\n'
        trust = ssl.create_default_context(cafile=str(folder / "tls" / "ca.pem"))
        async with (
            running_site(folder, ledger=sections, own=own) as site,
            httpx2.AsyncClient(
                base_url=f"https://{listen}", verify=trust, headers={"Authorization": f"Bearer {token}"}
            ) as mes,
        ):
            await site.flows()
            yield site, grid, mes


def cells_since(folder: Path, t_ns: int) -> list[Cell]:
    """Return the line's cells from an instant on, as the running ledger has them."""
    book = Projections(folder / "ledger" / "projections.sqlite", new=False)
    try:
        with book.reading() as connection:
            return list(tables.cells(connection, Slice(start_ns=t_ns, gateway=GATEWAY, line=LINE)))
    finally:
        book.close()


@pytest.mark.alone
async def test_a_factor_a_job_and_a_setting_reach_the_figures_of_a_running_site_and_an_auditor_agrees(
    tmp_path: Path,
) -> None:
    ledger_toml = str(tmp_path / "ledger.toml")
    async with works(tmp_path) as (site, _, mes):

        async def has(source: str, since_ns: int) -> bool:
            rows = [row for cell in cells_since(tmp_path, since_ns) for row in cell.figures]
            return any(source in row.factor_source.lower() for row in rows)

        began_ns = time.time_ns()
        await eventually(lambda: has("electricity", began_ns), within_s=30, what="the provider's factor counts")

        at_ns = time.time_ns()
        fact = {"gateway": GATEWAY, "line": LINE, "what": "job", "value": "4711", "id": "op-1"}
        answer = await mes.post("/v1/context", json={**fact, "timestamp_ms": at_ns // 1_000_000})
        assert answer.status_code == 202, answer.text

        async def has_job() -> bool:
            return any(cell.line.setting.job == "4711" for cell in cells_since(tmp_path, at_ns))

        await eventually(has_job, within_s=15, what="the job is in the figures")
        cut_ns = at_ns // 1_000_000 * 1_000_000
        assert cut_ns in {cell.line.start_ns for cell in cells_since(tmp_path, cut_ns - NS)}, "cut at the changeover"

        set_ns = time.time_ns()
        (tmp_path / "grid-settings.json").write_text('{"emission_factor": 0.5}')

        async def is_set() -> bool:
            rows = [row for cell in cells_since(tmp_path, set_ns) for row in cell.figures]
            return any(row.factor_g_per_kwh == 500 for row in rows)

        await eventually(is_set, within_s=20, what="the operator's factor counts, without a restart")
        report = await said("report", ledger_toml, "--by", "job")
        assert "4711" in json.dumps(report)
        factors = await said("factors", ledger_toml, "--zone", ZONE)
        assert "operator" in json.dumps(factors)
        await site.settle()
    _audit(tmp_path, await said("export", ledger_toml, "--out", str(tmp_path / "export")))
    assert (await said("verify", str(tmp_path / "export")))["ok"]
    rows = (tmp_path / "export" / "rows.csv").read_text(encoding="utf-8").splitlines()
    record = rows[-1].split(",")[1]
    explained = await said("explain", ledger_toml, record)
    assert "500" in json.dumps(explained)


def _audit(folder: Path, exported: dict[str, Any]) -> None:
    """Hold the tables against the ones that come from the logs alone."""
    assert exported["rows"] > 20
    book = Projections(folder / "ledger" / "projections.sqlite")
    before = dump_sha256(book)
    book.close()
    from gateway.app.load import load_ledger  # noqa: PLC0415 - after the processes ended
    from gateway.app.rebuild import rebuild  # noqa: PLC0415

    assert rebuild(load_ledger(folder / "ledger.toml"), say=lambda _: None) == before
