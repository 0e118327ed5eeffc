"""The cases of single protocols: what our driver takes of a CPU, and beside it the bare library at the same task."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from gateway.errors import GatewayError
from hil.bench.measure import CPU, Figures, run_stage

_READY_S: Final = 60.0
_END_S: Final = 10.0
_SHARE: Final = 0.5
"""Of the seconds of a case, those of each of its stages, so that a case of several takes no longer than others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One measurement. name: in the figures. stage: of `hil.bench.protocol_stages`, with these options."""

    name: str
    stage: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProtocolCase:
    """One protocol at one load.

    about: what it is, for people. peer: of `hil.bench.peers`. period_s: in which each point changes once, where the
    peer can. library: the bare one. renewed: each stage has a peer of its own, as it would keep what it was told.
    """

    name: str
    about: str
    peer: str
    library: str
    stages: Sequence[Stage]
    points: int = 1000
    devices: int = 1
    period_s: float = 0.1
    renewed: bool = False


_WITH_QUALITY: Final = {"properties": ["present-value", "status-flags", "reliability"]}

PROTOCOLS: Final = {
    case.name: case
    for case in (
        ProtocolCase(
            name="opcua1000",
            about="OPC UA: 1,000 monitored items, 10 times a second",
            peer="opcua",
            library="asyncua",
            stages=(
                Stage(name="driver", stage="opcua_driver", options={"secured": False}),
                Stage(name="plain_library", stage="opcua_plain"),
                Stage(name="driver_encrypted", stage="opcua_driver", options={"secured": True}),
            ),
        ),
        ProtocolCase(
            name="bacnet1000_rpm",
            about="BACnet: 1,000 points of 10 devices by ReadPropertyMultiple, with their flags, without a pause",
            peer="bacnet",
            library="bacpypes3",
            devices=10,
            stages=(
                Stage(name="driver", stage="bacnet_rpm_driver"),
                Stage(name="plain_library", stage="bacnet_rpm_plain", options=_WITH_QUALITY),
                Stage(name="plain_values_only", stage="bacnet_rpm_plain", options={"properties": ["present-value"]}),
            ),
        ),
        ProtocolCase(
            name="bacnet1000_cov",
            about="BACnet: 1,000 points of 10 devices by COV, as fast as the devices tell",
            peer="bacnet",
            library="bacpypes3",
            devices=10,
            renewed=True,
            stages=(
                Stage(name="driver", stage="bacnet_cov_driver"),
                Stage(name="plain_library", stage="bacnet_cov_plain"),
            ),
        ),
    )
}


async def measure_protocol(case: ProtocolCase, *, seconds: float) -> Figures:
    """Return the figures of one case. Raises GatewayError when a process fails."""
    found: Figures = {"about": case.about, "library": case.library}
    groups = [[stage] for stage in case.stages] if case.renewed else [case.stages]
    for stages in groups:
        with TemporaryDirectory(prefix="wattseal-bench-") as name:
            async with _peer(case, Path(name)) as about:
                for stage in stages:
                    options = {**about, **stage.options, "case": case.name, "seconds": seconds * _SHARE}
                    both = await run_stage("hil.bench.protocol_stages", stage.stage, options)
                    found[stage.name] = both["client"]
                    found.setdefault("peer", both["peer"])  # while our driver was measured, which comes first
    found["plain_library"]["ratio_to_driver"] = round(found["plain_library"][CPU] / found["driver"][CPU], 2)
    return found


@asynccontextmanager
async def _peer(case: ProtocolCase, folder: Path) -> AsyncIterator[dict[str, Any]]:
    """Run the peer of a case; yields what its clients need to know."""
    theirs, ours = folder / "peer", folder / "client"
    theirs.mkdir()
    ours.mkdir()
    about = {"points": case.points, "devices": case.devices, "period_s": case.period_s, "folder": str(theirs)}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "hil.bench.peers", case.peer, json.dumps(about)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_READY_S):
            said = await process.stdout.readline()
        if not said:
            raise GatewayError(f"bench: the peer of {case.name} ended with code {await process.wait()}")
        yield {**about, **json.loads(said), "folder": str(ours), "peer": process.pid}
    finally:
        process.stdin.close()
        try:
            async with asyncio.timeout(_END_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
