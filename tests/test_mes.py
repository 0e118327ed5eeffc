"""codec/mes.py: what an MES may say, what it may not, and which message that gives."""

import contextlib
import hashlib
import hmac
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.codec.bodies import context_body
from gateway.codec.leaves import parse, seal
from gateway.codec.ledger_leaves import to_context
from gateway.codec.mes import (
    MAX_BYTES,
    MOST_FACTS,
    SYSTEM,
    MessageError,
    hears,
    mac_of,
    open_envelope,
    parse_facts,
    parse_value,
)
from gateway.config import parse_ledger
from gateway.model import Clock, ClockState, ContextFact, CountFact, What

KEY = hashlib.sha256(b"token").digest()
KEYS = {"mes": (hashlib.sha256(b"older").digest(), KEY), "other": (b"k" * 32,)}
SAID: dict[str, Any] = {
    "gateway": "gw1",
    "line": "filling",
    "what": "job",
    "value": "4711",
    "time": "2026-01-31T08:00:00+01:00",
    "id": "a-1",
}
NOON_NS = 1_769_860_800 * 10**9


def packed(said: Any) -> bytes:
    return json.dumps(said).encode()


def changed(**fields: Any) -> dict[str, Any]:
    """Return the fact with fields changed, or without those that are given as ...."""
    return {key: value for key, value in {**SAID, **fields}.items() if value is not ...}


def taken(said: Any) -> ContextFact:
    """Return the one piece of context that a message says."""
    (fact,) = parse_facts(packed(said), source="mes")
    assert isinstance(fact, ContextFact)
    return fact


def at(time: Any) -> int:
    return taken(changed(time=time)).t_ns


def refused(body: bytes) -> MessageError:
    with pytest.raises(MessageError) as caught:
        parse_facts(body, source="mes")
    assert str(caught.value) == f"{caught.value.where}: got {caught.value.got}, want {caught.value.want}"
    assert len(str(caught.value)) < 1000
    return caught.value


def test_a_fact_is_read_with_its_source() -> None:
    assert parse_facts(packed(SAID), source="mes") == (
        ContextFact(
            gateway="gw1",
            line="filling",
            what=What.JOB,
            t_ns=1_769_842_800 * 10**9,
            value="4711",
            source="mes",
            id="a-1",
        ),
    )


def test_a_list_is_read_in_its_order() -> None:
    facts = parse_facts(packed([changed(id=str(n)) for n in range(MOST_FACTS)]), source="mes")
    assert [fact.id for fact in facts] == [str(n) for n in range(MOST_FACTS)]


@pytest.mark.parametrize(
    ("time", "t_ns"),
    [
        ("2026-01-31T12:00:00Z", NOON_NS),
        ("2026-01-31T07:00:00-05:00", NOON_NS),
        ("2026-01-31T12:00:00.5Z", NOON_NS + 500_000_000),
        ("2026-01-31T12:00:00.000000001+00:00", NOON_NS + 1),
        ("1970-01-01T00:00:00Z", 0),
    ],
)
def test_a_time_is_exact_to_the_nanosecond(time: str, t_ns: int) -> None:
    assert at(time) == t_ns


@pytest.mark.parametrize(
    "time",
    [
        "2026-01-31T12:00:00",
        "2026-01-31",
        "2026-01-31 12:00:00Z",
        "2026-01-31T12:00Z",
        "2026-02-30T12:00:00Z",
        "2026-01-31T12:00:60Z",
        "2026-01-31T12:00:00+25:00",
        "1969-12-31T23:59:59.999Z",
        "0001-01-01T00:00:00+14:00",
        "9999-12-31T23:59:59-14:00",
        "٢٠٢٦-01-31T12:00:00Z",
        1_769_860_800,
        True,
        None,
    ],
)
def test_a_time_without_an_offset_or_of_no_calendar_is_refused(time: Any) -> None:
    assert refused(packed(changed(time=time))).where == "time"


def test_a_time_in_milliseconds_is_taken_instead_and_never_both() -> None:
    said = changed(time=..., timestamp_ms=NOON_NS // 10**6 + 1)
    assert taken(said).t_ns == NOON_NS + 10**6
    assert refused(packed(changed(timestamp_ms=1))).got == "both times"
    assert refused(packed(changed(time=...))).got == "nothing"
    for wrong in (1.5, "1", True, -1, 2**63, None):
        assert refused(packed(changed(time=..., timestamp_ms=wrong))).where == "timestamp_ms"


@pytest.mark.parametrize(
    ("value", "text"), [("", ""), (6, "6"), (-1, "-1"), ("Größe 0,5 l", "Größe 0,5 l"), ("x" * 200,) * 2]
)
def test_a_value_is_text_or_a_whole_number(value: Any, text: str) -> None:
    assert taken(changed(value=value)).value == text


@pytest.mark.parametrize("value", ["x" * 201, "a\nb", "\x00", "\ud800", "\u202e", 6.0, True, None, [], {}, 2**63, ...])
def test_a_value_that_is_long_unprintable_or_no_text_is_refused(value: Any) -> None:
    assert refused(packed(changed(value=value))).where == "value"


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"gateway": "GW1"}, "gateway"),
        ({"gateway": "gw1/x"}, "gateway"),
        ({"line": ""}, "line"),
        ({"line": ...}, "line"),
        ({"what": "shift"}, "what"),
        ({"what": ["job"]}, "what"),
        ({"id": ""}, "id"),
        ({"id": "x" * 101}, "id"),
        ({"id": 1}, "id"),
        ({"more": 1}, "message"),
    ],
)
def test_each_field_is_checked_and_named(fields: dict[str, Any], where: str) -> None:
    assert refused(packed(changed(**fields))).where == where
    in_list = refused(packed([SAID, changed(**fields)])).where
    assert in_list == ("[1]" if where == "message" else f"[1].{where}")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b"[[]]",
        b"1",
        b'"x"',
        b"{",
        b'{"id":"a","id":"a"}',
        b"NaN",
        b"[" * 100_000,
        b"9" * 10_000,
        b" " * (MAX_BYTES + 1),
        packed([SAID] * (MOST_FACTS + 1)),
    ],
)
def test_what_is_no_message_is_refused(body: bytes) -> None:
    refused(body)


@given(st.binary(max_size=300))
def test_any_bytes_are_facts_or_one_clear_error(body: bytes) -> None:
    with contextlib.suppress(MessageError):
        assert parse_facts(body, source="mes")
    with contextlib.suppress(MessageError):
        assert parse_value(body, topic="t", gateway="gw1", line="filling", what=What.JOB).source == "uns:t"
    with pytest.raises(MessageError):
        open_envelope(body, KEYS)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(sorted(SAID)) | st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from([*sorted(SAID), "timestamp_ms"]), JSON, max_size=3))
def test_whatever_is_taken_can_be_sealed_and_read_again(fields: dict[str, Any]) -> None:
    try:
        fact = taken({**SAID, **fields})
    except MessageError:
        return
    leaf = parse(seal("context", context_body(fact), clock=Clock(t_ns=1, state=ClockState.SYNCHRONISED, offset_ns=0)))
    assert to_context(leaf.body) == fact


def test_a_value_of_a_namespace_is_known_by_its_topic_and_time() -> None:
    payload = packed({"timestamp_ms": NOON_NS // 10**6, "value": 6})
    fact = parse_value(payload, topic="umh/v1/works/_mes/state", gateway="gw1", line="filling", what=What.STATE)
    assert (fact.value, fact.t_ns) == ("6", NOON_NS)
    assert (fact.source, fact.id) == ("uns:umh/v1/works/_mes/state", str(NOON_NS // 10**6))
    for wrong in ({"value": 6}, {"timestamp_ms": 1}, {"timestamp_ms": 1, "value": 6, "more": 1}, 6):
        with pytest.raises(MessageError):
            parse_value(packed(wrong), topic="t", gateway="gw1", line="filling", what=What.STATE)


# ---- counts

COUNTED: dict[str, Any] = {
    "gateway": "gw1",
    "line": "filling",
    "what": "counts",
    "start": "2026-01-31T12:00:00Z",
    "end": "2026-01-31T14:00:00+01:00",
    "good": 95,
    "id": "c-1",
}


@pytest.mark.parametrize(
    ("units", "good", "total"),
    [
        ({"good": 95}, 95, None),
        ({"good": ..., "total": 100}, None, 100),
        ({"total": 100}, 95, 100),
        ({"scrap": 5}, 95, 100),
        ({"good": ..., "total": 100, "scrap": 5}, 95, 100),
        ({"total": 100, "scrap": 5}, 95, 100),
        ({"good": 0}, 0, None),
    ],
)
def test_good_total_and_scrap_say_each_other(units: dict[str, Any], good: int | None, total: int | None) -> None:
    said = {key: value for key, value in {**COUNTED, **units}.items() if value is not ...}
    assert parse_facts(packed(said), source="mes") == (
        CountFact(
            gateway="gw1",
            line="filling",
            start_ns=NOON_NS,
            end_ns=NOON_NS + 3600 * 10**9,
            good=good,
            total=total,
            source="mes",
            id="c-1",
        ),
    )


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"good": ...}, "good"),
        ({"good": ..., "scrap": 5}, "good"),
        ({"total": 94}, "good"),
        ({"good": ..., "total": 5, "scrap": 6}, "good"),
        ({"total": 100, "scrap": 6}, "scrap"),
        ({"good": -1}, "good"),
        ({"good": 1.5}, "good"),
        ({"good": True}, "good"),
        ({"good": None}, "good"),
        ({"good": 10**12 + 1}, "good"),
        ({"end": "2026-01-31T12:00:00Z"}, "end"),
        ({"end": "2026-02-07T12:00:00.1Z"}, "end"),
        ({"end": ...}, "end"),
        ({"start": 1}, "start"),
        ({"value": "1"}, "message"),
        ({"time": "2026-01-31T12:00:00Z"}, "message"),
        ({"line": ...}, "line"),
        ({"id": ...}, "id"),
    ],
)
def test_a_count_that_cannot_be_is_refused(fields: dict[str, Any], where: str) -> None:
    said = {key: value for key, value in {**COUNTED, **fields}.items() if value is not ...}
    assert refused(packed(said)).where == where


# ---- envelopes


def envelope(*, system: str = "mes", message: str = "{}", key: bytes = KEY, **fields: Any) -> bytes:
    return packed({"system": system, "message": message, "mac": mac_of(system, message, key), **fields})


def test_the_mac_is_hmac_sha256_of_the_topic_and_the_message_with_the_tokens_hash() -> None:
    want = hmac.new(hashlib.sha256(b"token").digest(), b"wattseal/v1/context/mes\n[1]", hashlib.sha256).hexdigest()
    assert mac_of("mes", "[1]", KEY) == want


def shown(language: str) -> list[str]:
    """Return the blocks of docs/context.md in a language."""
    page = (Path(__file__).parent.parent / "docs" / "context.md").read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.DOTALL | re.MULTILINE)


def test_the_recipe_of_the_docs_makes_an_envelope_that_opens() -> None:
    """docs/context.md, with openssl, as a shell runs it."""
    page = (Path(__file__).parent.parent / "docs" / "context.md").read_text("utf-8")
    recipe = next(
        block for block in re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE) if "MAC=" in block
    )
    script = f"TOKEN=token\n{recipe}\nprintf '%s' \"$PAYLOAD\""
    payload = subprocess.run(["sh", "-c", script], capture_output=True, check=True, timeout=30).stdout
    fact = taken(json.loads(open_envelope(payload, KEYS).message))
    assert (fact.value, fact.id) == ("4711", "op-81")
    assert taken(json.loads(shown("json")[0])) == fact


def test_the_page_shows_a_section_that_parses() -> None:
    text = '[ledger]\nname = "l"\nkey = "k"\nfactors = "f"\n'
    text += '[broker]\nbroker = "b:1"\nca = "c"\ncert = "c"\nkey = "k"\n[gateways.gw1]\nkey = "k"\n'
    config = parse_ledger(text + "".join(shown("toml")), name="ledger.toml", folder=Path("/site"))
    assert [topic.what for topic in config.context.topics] == [What.STATE]


def test_an_envelope_opens_with_any_key_of_its_system() -> None:
    assert open_envelope(envelope(), KEYS).message == "{}"
    assert open_envelope(envelope(key=KEYS["mes"][0]), KEYS).system == "mes"


@pytest.mark.parametrize(
    "payload",
    [
        envelope(key=b"x" * 32),
        envelope(message="[]", mac=mac_of("mes", "{}", KEY)),
        envelope(system="other"),
        envelope(system="nobody"),
        envelope(mac=""),
        envelope(mac="\ud800"),
        envelope(mac=mac_of("mes", "{}", KEY).upper()),
    ],
)
def test_an_envelope_of_another_key_message_or_system_is_refused(payload: bytes) -> None:
    with pytest.raises(MessageError, match="mac") as caught:
        open_envelope(payload, KEYS)
    assert mac_of("mes", "{}", KEY) not in str(caught.value), "an error is no oracle"


@pytest.mark.parametrize("payload", [envelope(more=1), packed({"system": "mes"}), envelope(mac=1), packed([])])
def test_an_envelope_of_another_shape_is_refused(payload: bytes) -> None:
    with pytest.raises(MessageError):
        open_envelope(payload, KEYS)


@pytest.mark.parametrize("name", ["log", "receipt", "MES", "a/b", "+", "", "-a", "a" * 64, "mes\n"])
def test_a_system_cannot_be_called_so(name: str) -> None:
    assert not SYSTEM.match(name)


# ---- topics


@pytest.mark.parametrize(
    ("topic_filter", "topic", "heard"),
    [
        ("umh/v1/a", "umh/v1/a", True),
        ("umh/v1/a", "umh/v1/b", False),
        ("umh/v1/a", "umh/v1/a/b", False),
        ("umh/+/a", "umh/v1/a", True),
        ("umh/+/a", "umh/v1/x/a", False),
        ("umh/+", "umh/", True),
        ("umh/#", "umh/v1/a", True),
        ("umh/#", "umh", True),
        ("umh/v1/#", "umh", False),
    ],
)
def test_filters_hear_as_mqtt_has_it(topic_filter: str, topic: str, *, heard: bool) -> None:
    assert hears(topic_filter, topic) is heard
