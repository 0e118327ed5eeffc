"""The case `attest-epoch`: what it costs to find out whose epoch key it is, from leaf to the device CA's root."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec

from gateway.attest.chain import Anchors, forget
from gateway.attest.epoch import verify_epoch
from gateway.errors import GatewayError
from gateway.tlog.note import Signer
from hil.bench.usage import percentile
from hil.plant.soft_tpm import SoftAuthority, SoftDevice

_ALGORITHM: Final = ec.ECDSA(hashes.SHA256())
AT_S: Final = 1_790_000_000
_BARE: Final = "a bare signature"
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
    """Return microseconds of one core a leaf, beside the library's for one signature, of which a chain has three.

    Raises GatewayError where a leaf is not found good.
    """
    authority = SoftAuthority()
    devices = [SoftDevice(f"WS-{n:04}", authority=authority) for n in range(case.devices)]
    bodies = [_body(device) for device in devices]
    crl = authority.crl({n + 1: dt.datetime(2026, 1, 1, tzinfo=dt.UTC) for n in range(case.revoked)})
    plain, listed = authority.anchors, Anchors(roots=(authority.root,), crls=(crl,))

    *measured, other = bodies

    def knows(*known: Mapping[str, Any]) -> None:
        forget()
        for body in known:
            verify_epoch(body, plain)

    parts = (
        _Part(plain, before_round=lambda: knows(*measured)),
        _Part(plain, before_round=lambda: knows(other)),
        _Part(plain, before_leaf=forget),
        _Part(listed, before_leaf=forget),
    )
    end = time.monotonic() + seconds
    key = ec.generate_private_key(ec.SECP256R1())
    signature, public = key.sign(b"", _ALGORITHM), key.public_key()
    bare_ns: list[int] = []
    while not bare_ns or time.monotonic() < end:
        bare_ns += [_signature_ns(signature, public) for _ in measured]
        for part in parts:  # in turn, so that a busy machine slows all of them alike
            part.before_round()
            part.taken_ns += [_once(body, part) for body in measured]
    return {
        "about": case.about,
        "devices": case.devices,
        "revoked": case.revoked,
        _BARE: _figures(bare_ns),
        **{name: _figures(part.taken_ns) for name, part in zip(_PARTS, parts, strict=True)},
    }


def _body(device: SoftDevice) -> dict[str, Any]:
    vkey = Signer.generate("wattseal/gw1").verifier.vkey
    return {"epoch": 1, "key": vkey, "binding": device.bind(vkey=vkey, epoch=1, t_ns=AT_S * 10**9)}


def _nothing() -> None:
    """Leave all that is remembered as it is."""


@dataclass(kw_only=True)
class _Part:
    """Leaves verified under anchors, with what is done before each leaf and before each round of them all."""

    anchors: Anchors = field(kw_only=False)
    before_leaf: Callable[[], None] = _nothing
    before_round: Callable[[], None] = _nothing
    taken_ns: list[int] = field(default_factory=list)


def _figures(taken_ns: Sequence[int]) -> dict[str, float]:
    ordered = sorted(taken_ns)
    return {
        "best_us": round(ordered[0] / 1000, 1),
        "p50_us": round(percentile(ordered, 0.5) / 1000, 1),
        "p99_us": round(percentile(ordered, 0.99) / 1000, 1),
        "leaves": len(ordered),
    }


def _signature_ns(signature: bytes, public: ec.EllipticCurvePublicKey) -> int:
    started = time.thread_time_ns()
    public.verify(signature, b"", _ALGORITHM)
    return time.thread_time_ns() - started


def _once(body: Mapping[str, Any], part: _Part) -> int:
    part.before_leaf()
    started = time.thread_time_ns()
    bound = verify_epoch(body, part.anchors)
    taken = time.thread_time_ns() - started
    if bound.epoch != body["epoch"]:
        raise GatewayError(f"bench: got epoch {bound.epoch}, want {body['epoch']}")
    return taken


def attest_lines(name: str, figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield the case as a table."""
    yield f"{name}: {figures['about']}"
    yield f"{'':20}{'us p50':>10}{'us p99':>10}{'leaves':>10}"
    for part in (_BARE, *_PARTS):
        found = figures[part]
        yield f"{part:20}{found['p50_us']:10.1f}{found['p99_us']:10.1f}{found['leaves']:10,}"


def fleet_lines(name: str, figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield the case as text."""
    yield f"{name}: {figures['about']}"
    used, alone = figures["verifier"], figures["alone"]
    yield (
        f"  {figures['gateways']:,} gateways over {figures['connections']} connections in {figures['seconds']:.1f} s: "
        f"{figures['gateways_per_s']:,.0f} a second"
    )
    yield (
        f"  verifier: {used['cpu_ms_per_gateway']:.2f} ms of CPU a gateway; of a known one without MQTT "
        f"{alone['cpu_ms_per_gateway']:.2f} ms, {alone['gateways_per_cpu_s']:,.0f} a CPU s; {used['rss_mb']:.0f} MB"
    )
    yield f"  asked every {figures['period_s']} s, this fleet takes {figures['cores_at_period']:.3f} of a core"
    troubles = {what: figures[what] for what in ("missed", "refused", "dropped") if figures[what]}
    if troubles:
        yield f"  trouble: {troubles}"
