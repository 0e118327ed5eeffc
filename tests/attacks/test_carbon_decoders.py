"""What providers, an MES and the ledger's own leaves say: bent in any way, it is refused in one error, in time."""

import hashlib
import json
import time
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.carbon.facts import Facts
from gateway.carbon.grid import electricity_maps, neso, watttime
from gateway.carbon.grid.answers import AnswerError
from gateway.carbon.grid.entsoe import parse_generation
from gateway.carbon.grid.settings import parse_settings
from gateway.carbon.grid.table import FactorLeaf
from gateway.codec.bodies import context_body, counts_body, document_body, factor_body, statement_body
from gateway.codec.leaves import parse, seal
from gateway.codec.ledger_leaves import chain_of, to_context, to_counts, to_document, to_factor, to_statement
from gateway.codec.mes import MessageError, mac_of, open_envelope, parse_facts, parse_value
from gateway.config.plan import parse_plan
from gateway.errors import ConfigError
from gateway.model import ContextFact, CountFact, Document, Statement, What
from tests.attacks.test_decoders import BOMBS, Decoder, bent, text
from tests.leaf_cases import CLOCK
from tests.line_leaves import CONSTANT, T0
from tests.shifts import PLAN
from tests.test_grid_electricitymaps import hour
from tests.test_grid_electricitymaps import wanted as emaps_wanted
from tests.test_grid_entsoe import LIFECYCLE, document, series
from tests.test_grid_entsoe import wanted as entsoe_wanted
from tests.test_grid_neso import half, national, regional
from tests.test_grid_neso import wanted as neso_wanted
from tests.test_grid_watttime import answer
from tests.test_grid_watttime import wanted as watttime_wanted
from tests.test_mes import SAID

SOON_S = 5
"""Generous: other tests run beside this one, and memory is traced."""

KEY = hashlib.sha256(b"token").digest()
LATEST = json.dumps(hour(3)).encode()
HISTORY = json.dumps({"zone": "DE", "history": [hour(1), hour(2, None)]}).encode()
FORECAST = json.dumps(
    {"zone": "DE", "updatedAt": "2026-01-01T00:30:00Z", "forecast": [{"datetime": hour(4)["datetime"]}]}
).encode()
POINTS = answer({"point_time": "2026-01-01T00:00:00+00:00", "value": 870, "imputed_data_used": False})
MESSAGE = json.dumps([SAID, {**SAID, "id": "b"}])
ENVELOPE = json.dumps({"system": "mes", "message": MESSAGE, "mac": mac_of("mes", MESSAGE, KEY)}).encode()
COUNTS = json.dumps(
    {
        "gateway": "gw1",
        "line": "filling",
        "what": "counts",
        "start": "2026-01-01T00:00:00Z",
        "end": "2026-01-01T00:10:00Z",
        "good": 5,
        "scrap": 1,
        "id": "c",
    }
).encode()

LEDGER_LEAVES = [
    seal(kind, body, clock=CLOCK)
    for kind, body in (
        ("factor", factor_body(CONSTANT)),
        ("document", document_body(Document(name="plan", from_ns=T0, content=PLAN.encode(), rules=((0, 3600),)))),
        ("document", document_body(Document(name="grid-settings", from_ns=T0, content=b'{"emission_factor":0.4}'))),
        (
            "context",
            context_body(ContextFact(gateway="g", line="l", what=What.JOB, t_ns=T0, value="7", source="mes", id="1")),
        ),
        (
            "counts",
            counts_body(
                CountFact(gateway="g", line="l", start_ns=T0, end_ns=T0 + 9, good=1, total=2, source="mes", id="1")
            ),
        ),
        (
            "statement",
            statement_body(
                Statement(record="r", version=1, supersedes="", reason="", subject=(("a", "b"),), figures=(("c", "1"),))
            ),
        ),
    )
]


def ledger_leaf(some: bytes) -> object:
    """Read a leaf of the ledger's log to its end, and put it in force."""
    leaf, facts = parse(some), Facts()
    match leaf.kind:
        case "factor":
            return facts.add_factor(FactorLeaf(factor=to_factor(leaf.body), index=1, hash=bytes(32)))
        case "document":
            return facts.add_document(1, to_document(leaf.body), bytes(32))
        case "context":
            return facts.add_context(1, to_context(leaf.body))
        case "counts":
            return facts.add_counts(1, to_counts(leaf.body))
        case "statement":
            return to_statement(leaf.body), chain_of(leaf.kind, leaf.body)
    return leaf


def provider(decode: Callable[[bytes], object], *good: bytes) -> Decoder:
    """Return a decoder of a provider's answers."""
    return Decoder(decode=decode, good=list(good), refusal=AnswerError)


DECODERS: dict[str, Decoder] = {
    "electricitymaps latest": provider(lambda some: electricity_maps.parse_latest(some, emaps_wanted()), LATEST),
    "electricitymaps history": provider(
        lambda some: electricity_maps.parse_history(some, emaps_wanted(), key="history"), HISTORY
    ),
    "electricitymaps forecast": provider(lambda some: electricity_maps.parse_forecast(some, emaps_wanted()), FORECAST),
    "electricitymaps place": provider(electricity_maps.parse_place, LATEST),
    "watttime points": provider(lambda some: watttime.parse_points(some, watttime_wanted(), is_forecast=False), POINTS),
    "watttime token": provider(watttime.parse_token, b'{"token":"abc"}'),
    "watttime region": provider(watttime.parse_region, b'{"region":"A","region_full_name":"Aa"}'),
    "neso national": provider(
        lambda some: neso.parse_national(some, neso_wanted()), national(half(actual=263, forecast=266))
    ),
    "neso regional": provider(lambda some: neso.parse_regional(some, neso_wanted("13")), regional(half(forecast=266))),
    "entsoe": provider(
        lambda some: parse_generation(some, entsoe_wanted(), LIFECYCLE),
        document(series("B04", "300", "1"), series("B19", "100", "2", curve="A03")),
    ),
    "an MES's message": Decoder(
        decode=lambda some: parse_facts(some, source="mes"), good=[MESSAGE.encode(), COUNTS], refusal=MessageError
    ),
    "a value of a namespace": Decoder(
        decode=lambda some: parse_value(some, topic="t", gateway="g", line="l", what=What.STATE),
        good=[b'{"timestamp_ms":1767258000000,"value":"6"}', b'{"timestamp_ms":1767258000000,"value":6}'],
        refusal=MessageError,
    ),
    "an envelope": Decoder(
        decode=lambda some: open_envelope(some, {"mes": [KEY]}), good=[ENVELOPE], refusal=MessageError
    ),
    "a ledger's leaf": Decoder(decode=ledger_leaf, good=LEDGER_LEAVES),
    "a plan": Decoder(
        decode=text(lambda some: parse_plan(some, name="plan")), good=[PLAN.encode()], refusal=ConfigError
    ),
    "grid settings": Decoder(
        decode=lambda some: parse_settings(some, name="grid-settings"),
        good=[b'{"emission_factor":{"value":385.5,"unit":"g/kWh"},"zone":"DE"}'],
        refusal=ConfigError,
    ),
}
JSON = [name for name in DECODERS if name not in {"entsoe", "a ledger's leaf", "a plan"}]


def taken(decoder: Decoder, some: bytes) -> object:
    """Return what a decoder makes of bytes, None where it refuses them, soon and in few words; fail on all else."""
    began_s, made, why = time.monotonic(), None, ""
    try:
        made = decoder.decode(some)
    except decoder.refusal as e:
        why = str(e)
    assert time.monotonic() - began_s < SOON_S
    assert len(why) < 2000
    return made


@pytest.mark.parametrize("name", DECODERS)
def test_what_is_good_is_taken(name: str) -> None:
    for good in DECODERS[name].good:
        assert taken(DECODERS[name], good) is not None


@pytest.mark.parametrize("name", DECODERS)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_what_is_bent_is_taken_or_refused_and_nothing_else_happens(name: str, data: st.DataObject) -> None:
    decoder = DECODERS[name]
    taken(decoder, data.draw(st.sampled_from(decoder.good).flatmap(bent) | st.binary(max_size=200)))


ODD = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([10**400, -1, 0, 2**63, 2**64, float(10**300), -0.0])
    | st.text(max_size=8)
    | st.sampled_from(["2026-01-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "=cmd"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)


@pytest.mark.parametrize("name", JSON)
@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_a_field_of_another_kind_is_refused_or_left(name: str, data: st.DataObject) -> None:
    """Bytes that are bent are mostly no JSON any more; so here each field may hold anything."""
    decoder = DECODERS[name]
    said = json.loads(data.draw(st.sampled_from(decoder.good)))
    places: list[tuple[object, object]] = []

    def walk(value: object) -> None:
        inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, held in inside:
            places.append((value, key))
            walk(held)

    walk(said)
    holder, key = data.draw(st.sampled_from(places))
    holder[key] = data.draw(ODD)  # type: ignore[index]
    taken(decoder, json.dumps(said).encode("utf-8", "surrogatepass"))


NUMBERS = [b"1e999999999", b"1e-999999999", b"0e999999999999", b"NaN", b"Infinity", b"9" * 4000, b"9" * 9000, b"-0.0"]


@pytest.mark.parametrize("name", JSON)
@pytest.mark.parametrize("number", NUMBERS, ids=lambda one: one[:12].decode())
def test_a_number_beyond_reason_takes_neither_time_nor_memory(name: str, number: bytes) -> None:
    decoder = DECODERS[name]
    for good in decoder.good:
        for held in (b"216", b"870", b"266", b"263", b"1767258000000", b"385.5", b"5,", b"300"):
            if held in good:
                tracemalloc.start()
                try:
                    taken(decoder, good.replace(held, number + held[3:] if held == b"5," else number))
                    assert tracemalloc.get_traced_memory()[1] < 8 << 20
                finally:
                    tracemalloc.stop()


@pytest.mark.parametrize("name", DECODERS)
def test_a_bomb_takes_neither_time_nor_memory(name: str) -> None:
    decoder = DECODERS[name]
    good = decoder.good[0]
    more = [b'{"a":' * 40_000, b'[{"a":' * 20_000, b"a." * 30_000 + b"a=1", b"[" + b"a." * 30_000 + b"a]"]
    for bomb in [*BOMBS, *more, *(good[: len(good) // 2] + bomb for bomb in BOMBS)]:
        tracemalloc.start()
        try:
            taken(decoder, bomb)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert peak < 24 << 20, f"{peak} bytes for {len(bomb)}"


MB4 = 4 << 20
GARBAGE = [
    b"[" * MB4,
    b"\0" * MB4,
    b"<a>" * (MB4 // 3),
    b'{"a":1,' * (MB4 // 7),
    b"[[],[],[],[],{}" + b",[]" * (MB4 // 3) + b"]",
]


@pytest.mark.parametrize("name", [name for name in DECODERS if DECODERS[name].refusal is AnswerError])
@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda one: one[:8].decode())
def test_four_megabytes_of_garbage_are_refused_soon(name: str, garbage: bytes) -> None:
    began_s = time.monotonic()
    with pytest.raises(AnswerError):
        DECODERS[name].decode(garbage)
    assert time.monotonic() - began_s < 4 * SOON_S  # a million elements in each other: seconds, in expat


def test_an_answer_of_few_bytes_cannot_stand_for_a_million_points() -> None:
    """ENTSO-E's curve type A03: what is left out repeats; thousands of such periods would block the loop."""
    period = (
        "<Period><timeInterval><start>2020-01-01T00:00Z</start><end>2025-01-01T00:00Z</end></timeInterval>"
        "<resolution>PT15M</resolution><Point><position>1</position><quantity>1</quantity></Point></Period>"
    )
    body = document(series("B04", "300", curve="A03").replace("</TimeSeries>", period * 9_000 + "</TimeSeries>"))
    assert len(body) < MB4
    began_s = time.monotonic()
    with pytest.raises(AnswerError, match="points"):
        parse_generation(body, entsoe_wanted(), LIFECYCLE)
    assert time.monotonic() - began_s < SOON_S


@pytest.mark.parametrize(
    "dtd",
    [
        b'<!DOCTYPE a [<!ENTITY b "bbbbbbbb"><!ENTITY c "&b;&b;&b;&b;&b;&b;&b;&b;">]><a>&c;</a>',
        b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
        b'<?xml version="1.0" encoding="UTF-16"?><a/>',
        b'<?xml version="1.0" encoding="cp037"?><a/>',
        b'<?xml version="1.0" encoding="UTF-7"?>+ADwAIQ-DOCTYPE a+AD4-<a/>',
        '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "b">]><a>&b;</a>'.encode("utf-16"),
        "<!DOCTYPE a><a/>".encode("utf-32"),
        b"<a>&b;</a>",
    ],
)
def test_no_entity_and_no_other_encoding_comes_in(dtd: bytes) -> None:
    with pytest.raises(AnswerError):
        parse_generation(dtd, entsoe_wanted(), LIFECYCLE)
