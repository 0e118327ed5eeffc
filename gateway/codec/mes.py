"""What an MES says, from JSON to facts: strict, bounded, one clear error.

Normative form: docs/wire.md, section 4, "Context". Pure: whether a line is known, and what the time is, others say.
"""

import hashlib
import hmac
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from gateway.codec.pack import shown
from gateway.errors import TrustError
from gateway.model import ContextFact, CountFact, What

MAX_BYTES = 256 * 1024
MOST_FACTS = 100
MOST_VALUE = 200
MOST_ID = 100

TOPIC = "wattseal/v1/context/"
"""Before a system's name: where it speaks. It stands in what is signed too, so that a MAC serves here alone."""

SYSTEM = re.compile(r"(?!(?:log|receipt)\Z)[a-z0-9][a-z0-9-]{0,62}\Z")
"""A system's name. Not `log`: that topic would be the one of a gateway called `context`."""

_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}\Z")
_TIME = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?(Z|[+-][0-9]{2}:[0-9]{2})\Z"
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_FIELDS = {"gateway", "line", "what", "value", "time", "timestamp_ms", "id"}
_COUNT_FIELDS = {"gateway", "line", "what", "start", "end", "good", "total", "scrap", "id"}

COUNTS = "counts"
"""What a message says that counts units, instead of one of What."""

MOST_UNITS = 10**12
MOST_SPAN_NS = 7 * 86_400 * 10**9

MesFact = ContextFact | CountFact


class MessageError(TrustError):
    """Raised when a message of an MES cannot be taken as it is; sent again it will not be taken either.

    where: the field, as `[3].time`. got, want: in words.
    """

    def __init__(self, where: str, got: str, want: str) -> None:
        super().__init__(f"{where}: got {got}, want {want}")
        self.where, self.got, self.want = where, got, want


class Envelope(NamedTuple):
    """A message on the broker, and who vouches for it. mac: hexadecimal."""

    system: str
    message: str
    mac: str


def parse_facts(body: bytes, *, source: str) -> tuple[MesFact, ...]:
    """Return the facts of a message, one or a list of up to MOST_FACTS, in its order. Raises MessageError."""
    said = _json(body)
    if type(said) is not list:
        return (_fact(said, source, ""),)
    if not 0 < len(said) <= MOST_FACTS:
        raise MessageError("message", f"{len(said)} facts", f"1 to {MOST_FACTS}")
    return tuple(_fact(one, source, place(number)) for number, one in enumerate(said))


def place(number: int) -> str:
    """Return what stands before a field's name in `where`, for a fact in a list."""
    return f"[{number}]."


def parse_value(payload: bytes, *, topic: str, gateway: str, line: str, what: What) -> ContextFact:
    """Return the fact that a topic of a unified namespace says: `{"timestamp_ms", "value"}`. Raises MessageError."""
    said = _json(payload)
    _map(said, {"timestamp_ms", "value"}, "message")
    t_ns = _instant(said, "")
    return ContextFact(
        gateway=gateway,
        line=line,
        what=what,
        t_ns=t_ns,
        value=_value(said, ""),
        source=f"uns:{topic}",
        id=str(t_ns // 1_000_000),
    )


def open_envelope(payload: bytes, keys: Mapping[str, Sequence[bytes]]) -> Envelope:
    """Return the envelope, once its MAC is by a key of its system. Raises MessageError for one that is not.

    keys: of the systems that may speak. What the message says is not read yet.
    """
    said = _json(payload)
    fields = set(Envelope._fields)
    _map(said, fields, "envelope")
    for field in Envelope._fields:
        if type(said.get(field)) is not str:
            raise MessageError(field, shown(said.get(field)), "text")
    envelope = Envelope(**said)
    macs = [mac_of(envelope.system, envelope.message, key) for key in keys.get(envelope.system, ())]
    # All are compared, so that the time it takes says nothing of which key there is.
    if not any([hmac.compare_digest(mac.encode(), envelope.mac.encode("utf-8", "replace")) for mac in macs]):  # noqa: C419
        raise MessageError("mac", "another one", "HMAC-SHA256 with the system's key")
    return envelope


def mac_of(system: str, message: str, key: bytes) -> str:
    """Return the hexadecimal HMAC-SHA256 of a system's message. key: SHA-256 of its token."""
    signed = f"{TOPIC}{system}\n{message}".encode("utf-8", "surrogatepass")
    return hmac.digest(key, signed, hashlib.sha256).hex()


def hears(topic_filter: str, topic: str) -> bool:
    """Return whether a topic is one that a valid filter asks for (MQTT 3.1.1, 4.7)."""
    wanted, levels = topic_filter.split("/"), topic.split("/")
    if wanted[-1] == "#":
        wanted = wanted[:-1]
        levels = levels[: len(wanted)]
    return len(wanted) == len(levels) and all(want in {"+", level} for want, level in zip(wanted, levels, strict=True))


def _json(body: bytes) -> Any:
    if len(body) > MAX_BYTES:
        raise MessageError("message", f"{len(body)} bytes", f"at most {MAX_BYTES}")
    try:
        return json.loads(body.decode(), object_pairs_hook=_pairs, parse_constant=_no_constant)
    except (ValueError, RecursionError) as e:
        # ValueError: not UTF-8, not JSON, a key twice, a number of more digits than Python reads.
        raise MessageError("message", str(e)[:200] or "no JSON", "JSON") from None


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise ValueError("an object with a key twice")
    return made


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def _map(said: Any, known: set[str], where: str) -> None:
    if type(said) is not dict:
        raise MessageError(where, shown(said), "an object")
    for key in said:
        if key not in known:
            raise MessageError(where, f"the key {shown(key)}", f"only {', '.join(sorted(known))}")


def _fact(said: Any, source: str, at: str) -> MesFact:
    if type(said) is dict and said.get("what") == COUNTS:
        return _counts(said, source, at)
    _map(said, _FIELDS, at[:-1] or "message")
    return ContextFact(
        gateway=_name(said, "gateway", at),
        line=_name(said, "line", at),
        what=_what(said, at),
        t_ns=_instant(said, at),
        value=_value(said, at),
        source=source,
        id=_id(said, at),
    )


def _counts(said: dict[str, Any], source: str, at: str) -> CountFact:
    _map(said, _COUNT_FIELDS, at[:-1] or "message")
    start_ns, end_ns = (_of_text(said.get(key), f"{at}{key}") for key in ("start", "end"))
    if not 0 < end_ns - start_ns <= MOST_SPAN_NS:
        raise MessageError(f"{at}end", shown(said["end"]), "a time after start, by 7 days at most")
    good, made, scrap = (_units(said, key, at) for key in ("good", "total", "scrap"))
    if made is None and good is not None and scrap is not None:
        made = good + scrap
    elif good is None and made is not None and scrap is not None:
        good = made - scrap
    if (good is None and made is None) or (made is not None and not 0 <= (good or 0) <= made):
        raise MessageError(f"{at}good", shown(said.get("good")), "good or total, and no more good units than all")
    if scrap is not None and (made or 0) - (good or 0) != scrap:
        raise MessageError(f"{at}scrap", str(scrap), "total less good")
    return CountFact(
        gateway=_name(said, "gateway", at),
        line=_name(said, "line", at),
        start_ns=start_ns,
        end_ns=end_ns,
        good=good,
        total=made,
        source=source,
        id=_id(said, at),
    )


def _units(said: dict[str, Any], key: str, at: str) -> int | None:
    got = said.get(key)
    if key not in said:
        return None
    if type(got) is not int or not 0 <= got <= MOST_UNITS:
        raise MessageError(f"{at}{key}", shown(got), f"a whole number of units, 0..{MOST_UNITS}")
    return got


def _name(said: dict[str, Any], key: str, at: str) -> str:
    got = said.get(key)
    if type(got) is not str or not _NAME.match(got):
        raise MessageError(f"{at}{key}", shown(got), f"the name of a {key}")
    return got


def _what(said: dict[str, Any], at: str) -> What:
    got = said.get("what")
    if type(got) is not str or got not in set(What):
        raise MessageError(f"{at}what", shown(got), f"one of {', '.join([*What, COUNTS])}")
    return What(got)


def _value(said: dict[str, Any], at: str) -> str:
    got = said.get("value")
    text = str(got) if type(got) is int and abs(got) < 2**63 else got
    if type(text) is not str or len(text) > MOST_VALUE or not text.isprintable():
        raise MessageError(
            f"{at}value",
            shown(got),
            f'text of at most {MOST_VALUE} printable characters ("" for none), or a whole number',
        )
    return text


def _id(said: dict[str, Any], at: str) -> str:
    got = said.get("id")
    if type(got) is not str or not 0 < len(got) <= MOST_ID or not got.isprintable():
        raise MessageError(f"{at}id", shown(got), f"text of 1 to {MOST_ID} printable characters")
    return got


def _instant(said: dict[str, Any], at: str) -> int:
    """Return the time of a fact in UTC nanoseconds, from whichever field says it."""
    if ("time" in said) == ("timestamp_ms" in said):
        raise MessageError(f"{at}time", "both times" if "time" in said else "nothing", "either time or timestamp_ms")
    if "time" not in said:
        return _of_ms(said["timestamp_ms"], at)
    return _of_text(said["time"], f"{at}time")


def _of_text(got: Any, where: str) -> int:
    want = "a time with seconds and an offset, as 2026-01-31T08:00:00+01:00"
    match = _TIME.match(got) if type(got) is str else None
    if match is None:
        raise MessageError(where, shown(got), want)
    try:
        then = datetime.fromisoformat(match[1] + match[3])
    except ValueError:
        raise MessageError(where, shown(got), want) from None
    t_ns = (then - _EPOCH) // timedelta(seconds=1) * 1_000_000_000 + int((match[2] or "").ljust(9, "0"))
    return _sane(t_ns, got, where)


def _of_ms(got: Any, at: str) -> int:
    if type(got) is not int:
        raise MessageError(f"{at}timestamp_ms", shown(got), "a whole number of milliseconds since 1970")
    return _sane(got * 1_000_000, got, f"{at}timestamp_ms")


def _sane(t_ns: int, got: Any, where: str) -> int:
    if not 0 <= t_ns < 2**63:
        raise MessageError(where, shown(got), "a time from 1970 to 2262")
    return t_ns
