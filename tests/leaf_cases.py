"""One good leaf of each kind, and what bends it: shared by the tests of leaves and of their bodies."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgpack

from gateway.codec.bodies import (
    accepted_body,
    context_body,
    counts_body,
    decision_body,
    document_body,
    epoch_body,
    event_body,
    factor_body,
    interval_body,
    line_body,
    readings_body,
    schema_body,
    standing_body,
    statement_body,
)
from gateway.codec.leaves import parse, seal
from gateway.model import (
    Clock,
    ClockState,
    Column,
    ContextColumn,
    ContextFact,
    CountFact,
    Decision,
    Document,
    Factor,
    Interval,
    LineColumn,
    LineSchema,
    Quality,
    Role,
    Row,
    Sample,
    Schema,
    Standing,
    State,
    Statement,
    Told,
    What,
)

T = 1_760_000_000_000_000_000
MINUTE_NS = 60 * 10**9
BOUNDARY = T // MINUTE_NS * MINUTE_NS
BOOT = bytes(range(8))
CLOCK = Clock(t_ns=T, state=ClockState.SYNCHRONISED, offset_ns=-1200)
METER = Schema(
    device="m1",
    columns=(
        Column(name="power", unit="kW", store="f32"),
        Column(name="energy", unit="kWh", store="f64"),
        Column(name="drift", unit="", store="i64"),
        Column(name="pulses", unit="", store="u64"),
        Column(name="alarm", unit="", store="bool"),
        Column(name="label", unit="", store="s4"),
    ),
)
LINE = LineSchema(
    name="filling",
    site="works",
    zone="DE",
    period_s=60,
    columns=(
        LineColumn(
            point="m1.energy",
            unit="kWh",
            role=Role.ENERGY,
            modulus=Decimal("42949672.96"),
            rated_power_w=30_000,
            meter_class="B",
            serial="7",
        ),
        LineColumn(point="plc.good", unit="", role=Role.COUNT_GOOD),
    ),
)
ROWS = (
    Row(schema=METER, source_time_ns=T, values=(1.5, 0.1, -2, 2**64 - 1, True, "Öl")),
    Row(
        schema=METER,
        source_time_ns=T + 1,
        values=(1.5, None, 0, 0, False, ""),
        qualities=(Quality.UNCERTAIN, Quality.BAD, Quality.GOOD, Quality.GOOD, Quality.GOOD, Quality.GOOD),
        status="exception 2",
    ),
    Row(schema=METER, source_time_ns=T + 2, values=(None,) * 6, qualities=(Quality.BAD,) * 6, status="no answer"),
)
INTERVAL = Interval(
    schema_id=LINE.id,
    t_ns=BOUNDARY,
    samples=(
        Sample(point="m1.energy", source_time_ns=BOUNDARY + 5, raw=b"\x00\x01\x00\x00", value=Decimal("655.36")),
        Sample(point="plc.good", source_time_ns=BOUNDARY, raw=b"", value=None, quality=Quality.BAD, status="no answer"),
    ),
)
FACTOR = Factor(
    key=("demo", "DE", "average", "lifecycle", "PT1H"),
    start_ns=BOUNDARY,
    end_ns=BOUNDARY + 60 * MINUTE_NS,
    g_per_kwh=Decimal("363.50"),
    state="final",
    method="constant",
    source="a table",
    version="ab" * 32,
    supersedes="",
    model_date="2024",
    updated_ns=BOUNDARY + 1,
    gwp_set="AR5",
    uncertainty_pct=Decimal("2.5"),
)
CONTEXT_LINE = LineSchema(
    name="press",
    site="works",
    zone="DE",
    period_s=60,
    columns=(LineColumn(point="m1.energy", unit="kWh", role=Role.ENERGY),),
    context=(
        ContextColumn(point="plc.state", what=What.STATE),
        ContextColumn(point="mes.job", what=What.JOB),
    ),
)
CONTEXT_INTERVAL = Interval(
    schema_id=CONTEXT_LINE.id,
    t_ns=BOUNDARY,
    samples=(Sample(point="m1.energy", source_time_ns=BOUNDARY, raw=b"\0\1", value=Decimal(1)),),
    context=((Told(BOUNDARY - 70 * 10**9, "6"), Told(BOUNDARY - 10**9, "3")), (Told(BOUNDARY - 10**9, None),)),
)
DOCUMENT = Document(
    name="plan", from_ns=BOUNDARY, content=b"[site]\n", by="carbon.toml", rules=((-(2**40), 3600), (BOUNDARY, 7200))
)
CONTEXT = ContextFact(
    gateway="gw1", line="press", what=What.JOB, t_ns=BOUNDARY, value="4711", source="mes by MQTT", id="a-1"
)
COUNTS = CountFact(
    gateway="gw1",
    line="press",
    start_ns=BOUNDARY,
    end_ns=BOUNDARY + 60 * MINUTE_NS,
    good=1200,
    total=None,
    source="mes",
    id="a-2",
)
STATEMENT = Statement(
    record="ab" * 16,
    version=2,
    supersedes="cd" * 32,
    reason="a factor was revised",
    subject=(("shift", "2025-10-09/early"),),
    figures=(("energy_kwh", "1.5"),),
)
BINDING = {
    "type": "tpm2-quote",
    "t": T,
    "attest": bytes.fromhex("ff5443478018") + bytes(10),
    "signature": bytes.fromhex("0018000b") + bytes(4),
    "pcrs": [[0, bytes(32)], [11, bytes(range(32))]],
    "chain": [b"0an attestation key's certificate", b"0its issuer's"],
}
PENDING = Standing(
    gateway="gw1",
    first=0,
    size=0,
    state=State.PENDING,
    reason="no result yet",
    epoch=0,
    t_ns=T,
    verified_ns=None,
    start_ns=None,
    end_ns=None,
    result="",
)
TRUSTED = Standing(
    gateway="gw1",
    first=3,
    size=40,
    state=State.TRUSTED,
    reason="",
    epoch=2,
    t_ns=T + 9,
    verified_ns=T + 5,
    start_ns=BOUNDARY,
    end_ns=BOUNDARY + 7 * MINUTE_NS,
    result="eyJ.eyJ.AAAA",
)
DECISION = Decision(
    gateway="gw1",
    first=40,
    stop=52,
    admit=True,
    start_ns=BOUNDARY,
    end_ns=BOUNDARY + 9 * MINUTE_NS,
    note=(
        "wattseal-decision/v1\nledger wattseal-ledger/acme\ngateway gw1\nleaves 40 52\nreadmit\n"
        "made 2025-10-09T08:53:20.000000Z\nby wattseal-officer/jane\nreason approved late, ticket 4711\n\n"
        f"\N{EM DASH} wattseal-officer/jane {'AAAA' * 22}AA==\n"
    ).encode(),
)
NOTE = b"wattseal/gw1\n1\nAAAA\n\n\xe2\x80\x94 wattseal/gw1 BBBB\n"

LEAVES: dict[str, Callable[[], bytes]] = {
    "epoch": lambda: seal("epoch", epoch_body(1, "wattseal/gw1+01020304+AQ", {"type": "unattested"}), clock=CLOCK),
    "epoch that a TPM vouches for": lambda: seal(
        "epoch", epoch_body(2, "wattseal/gw1+01020304+AQ", BINDING), clock=CLOCK
    ),
    "schema of readings": lambda: seal("schema", schema_body(METER), clock=CLOCK, src=(BOOT, 1)),
    "schema of intervals": lambda: seal("schema", line_body(LINE), clock=CLOCK, src=(BOOT, 2)),
    "readings": lambda: seal("readings", readings_body(ROWS), clock=CLOCK, src=(BOOT, 3)),
    "first interval": lambda: seal("interval", interval_body(INTERVAL), clock=CLOCK, src=(BOOT, 4)),
    "next interval": lambda: seal("interval", interval_body(INTERVAL), clock=CLOCK, src=(BOOT, 2**63 - 1), prev=4),
    "event by a suspect clock": lambda: seal(
        "event",
        event_body("device.down", T, {"device": "m1", "why": "", "tries": [1, 2.5, None, True]}),
        clock=Clock(t_ns=0, state=ClockState.SUSPECT, offset_ns=2**40),
        src=(BOOT, 5),
    ),
    "factor": lambda: seal("factor", factor_body(FACTOR), clock=CLOCK),
    "schema of intervals with context": lambda: seal("schema", line_body(CONTEXT_LINE), clock=CLOCK, src=(BOOT, 6)),
    "interval with context": lambda: seal("interval", interval_body(CONTEXT_INTERVAL), clock=CLOCK, src=(BOOT, 7)),
    "document": lambda: seal("document", document_body(DOCUMENT), clock=CLOCK, prev=3),
    "context": lambda: seal("context", context_body(CONTEXT), clock=CLOCK),
    "counts": lambda: seal("counts", counts_body(COUNTS), clock=CLOCK, prev=7),
    "statement": lambda: seal("statement", statement_body(STATEMENT), clock=CLOCK, prev=9),
    "first standing": lambda: seal("standing", standing_body(PENDING), clock=CLOCK),
    "standing that reaches back": lambda: seal("standing", standing_body(TRUSTED), clock=CLOCK, prev=11),
    "decision": lambda: seal("decision", decision_body(DECISION), clock=CLOCK, prev=13),
    "accepted": lambda: seal("accepted", accepted_body("gw1", NOTE), clock=CLOCK),
}
BODIES: dict[str, tuple[str, dict[str, Any]]] = {
    name: (parse(make()).kind, parse(make()).body) for name, make in LEAVES.items()
}


def meaning(value: Any) -> Any:
    """Return a value as JSON can say it."""
    if isinstance(value, bytes):
        return f"hex:{value.hex()}"
    if isinstance(value, dict):
        return {key: meaning(item) for key, item in value.items()}
    return [meaning(item) for item in value] if isinstance(value, list | tuple) else value


def sealed(kind: str, body: Any) -> bytes:
    return seal(kind, msgpack.packb(body), clock=CLOCK)


def pairs(*items: tuple[Any, Any]) -> bytes:
    """Return a map of these pairs, in this order, whatever they are; bytes of a value stand as they are."""
    packed = (
        msgpack.packb(key) + (value if isinstance(value, bytes) else msgpack.packb(value)) for key, value in items
    )
    return bytes([0x80 | len(items)]) + b"".join(packed)


def nested(levels: int) -> bytes:
    return b"\x91" * levels + b"\xc0"
