"""The case `attest-epoch`: what it costs to find out whose epoch key it is, from leaf to the device CA's root."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.attest.chain import Anchors, forget
from gateway.attest.epoch import verify_epoch
from gateway.errors import GatewayError
from gateway.tlog.note import Signer
from hil.bench.usage import percentile
from hil.plant.soft_tpm import SoftAuthority, SoftDevice

AT_S: Final = 1_790_000_000
_PARTS: Final = ("warm", "another device", "cold", "cold, with a CRL")


@dataclass(frozen=True, kw_only=True)
class AttestCase:
    """Epoch leaves of so many devices of one maker. about: what it is, for people. revoked: entries in the CRL."""

    name: str
    about: str
    devices: int
    revoked: int


ATTEST: Final = {
    case.name: case
    for case in (
        AttestCase(
            name="attest-epoch",
            about="an epoch leaf: quote, attestation key, issuing CA, root, names, time, revocation",
            devices=100,
            revoked=1000,
        ),
    )
}


def measure_attest(case: AttestCase, *, seconds: float) -> dict[str, Any]:
    """Return microseconds of one core a leaf. Raises GatewayError where a leaf is not found good."""
    authority = SoftAuthority()
    devices = [SoftDevice(f"WS-{n:04}", authority=authority) for n in range(case.devices)]
    bodies = [_body(device) for device in devices]
    crl = authority.crl({n + 1: dt.datetime(2026, 1, 1, tzinfo=dt.UTC) for n in range(case.revoked)})
    plain, listed = authority.anchors, Anchors(roots=(authority.root,), crls=(crl,))
    each = seconds / len(_PARTS)

    def nothing() -> None:
        """Leave all that is remembered as it is."""

    found: dict[str, Any] = {"about": case.about, "devices": case.devices, "revoked": case.revoked}
    found["warm"] = _timed(bodies, plain, seconds=each, before=nothing, each_round=nothing)
    found["another device"] = _timed(
        bodies, plain, seconds=each, before=nothing, each_round=lambda: _only_the_authority(bodies[-1], plain)
    )
    found["cold"] = _timed(bodies, plain, seconds=each, before=forget, each_round=nothing)
    found["cold, with a CRL"] = _timed(bodies, listed, seconds=each, before=forget, each_round=nothing)
    return found


def _body(device: SoftDevice) -> dict[str, Any]:
    vkey = Signer.generate("wattseal/gw1").verifier.vkey
    return {"epoch": 1, "key": vkey, "binding": device.bind(vkey=vkey, epoch=1, t_ns=AT_S * 10**9)}


def _only_the_authority(body: Mapping[str, Any], anchors: Anchors) -> None:
    forget()
    verify_epoch(body, anchors)


def _timed(
    bodies: Sequence[Mapping[str, Any]],
    anchors: Anchors,
    *,
    seconds: float,
    before: Callable[[], None],
    each_round: Callable[[], None],
) -> dict[str, float]:
    """Verify all but the last leaf in rounds; the first round, which warms up what is not forgotten, does not count."""
    taken: list[int] = []
    end: float | None = None
    while end is None or time.monotonic() < end:
        each_round()
        times = [_once(body, anchors, before) for body in bodies[:-1]]
        if end is None:
            end = time.monotonic() + seconds
        else:
            taken += times
    ordered = sorted(taken)
    return {
        "p50_us": round(percentile(ordered, 0.5) / 1000, 1),
        "p99_us": round(percentile(ordered, 0.99) / 1000, 1),
        "leaves": len(taken),
    }


def _once(body: Mapping[str, Any], anchors: Anchors, before: Callable[[], None]) -> int:
    before()
    started = time.thread_time_ns()
    bound = verify_epoch(body, anchors)
    taken = time.thread_time_ns() - started
    if bound.epoch != body["epoch"]:
        raise GatewayError(f"bench: got epoch {bound.epoch}, want {body['epoch']}")
    return taken


def attest_lines(name: str, figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield the case as a table."""
    yield f"{name}: {figures['about']}"
    yield f"{'':20}{'us p50':>10}{'us p99':>10}{'leaves':>10}"
    for part in _PARTS:
        found = figures[part]
        yield f"{part:20}{found['p50_us']:10.1f}{found['p99_us']:10.1f}{found['leaves']:10,}"


def fleet_lines(name: str, figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield the case as text."""
    yield f"{name}: {figures['about']}"
    used, alone = figures["verifier"], figures["alone"]
    yield f"  {figures['gateways']:,} gateways in {figures['seconds']:.1f} s: {figures['gateways_per_s']:,.0f} a second"
    yield (
        f"  verifier: {used['cpu_ms_per_gateway']:.2f} ms of CPU a gateway; of a known one without MQTT "
        f"{alone['cpu_ms_per_gateway']:.2f} ms, {alone['gateways_per_cpu_s']:,.0f} a CPU s; {used['rss_mb']:.0f} MB"
    )
    yield f"  asked every {figures['period_s']} s, this fleet takes {figures['cores_at_period']:.3f} of a core"
    troubles = {what: figures[what] for what in ("missed", "refused", "dropped") if figures[what]}
    if troubles:
        yield f"  trouble: {troubles}"
