"""What a value in a leaf may be: the predicates that the shapes of all bodies are made of."""

from collections.abc import Callable, Mapping
from typing import Any

from gateway.errors import TrustError

Check = Callable[[Any], bool]


def shaped(value: Any, shape: Mapping[str, Check], what: str, *, doc: str) -> dict[str, Any]:
    """Return a map that has just these keys, in order, with values that fit. Raises TrustError. doc: what says so."""
    if type(value) is not dict or list(value) != list(shape):
        raise TrustError(f"{what}: want a map of {', '.join(shape)}")
    for key, fits in shape.items():
        if not fits(value[key]):
            raise TrustError(f"{what}: {key} does not fit {doc}")
    return dict(value)


def is_int(value: Any) -> bool:
    """Whole, from 0, of 63 bits."""
    return type(value) is int and 0 <= value < 2**63


def is_int_or_nil(value: Any) -> bool:
    """As is_int, or nil."""
    return value is None or is_int(value)


def is_text(value: Any) -> bool:
    """Whether it is a string."""
    return type(value) is str


def is_map(value: Any) -> bool:
    """Whether it is a map."""
    return type(value) is dict


def is_list(value: Any) -> bool:
    """Whether it is an array."""
    return type(value) is list


def is_bytes(value: Any) -> bool:
    """Bytes."""
    return type(value) is bytes


def is_id(value: Any) -> bool:
    """Eight bytes: a schema's identifier."""
    return type(value) is bytes and len(value) == 8


def is_plain_map(value: Any) -> bool:
    """Whether it is a map of msgpack's plain types, at most 8 levels deep."""
    return type(value) is dict and _plain(value, 8)


def is_text_map(value: Any) -> bool:
    """Whether it is a map from text to text."""
    return type(value) is dict and all(type(key) is str and type(part) is str for key, part in value.items())


def _plain(value: Any, levels: int) -> bool:
    """Return whether a value is of msgpack's plain types, and nested no deeper: so a leaf always opens again."""
    if type(value) is list:
        return levels > 0 and all(_plain(item, levels - 1) for item in value)
    if type(value) is dict:
        return levels > 0 and all(_plain(item, levels - 1) for item in value.values())
    return type(value) in _SCALARS


_SCALARS = {type(None), bool, int, float, str, bytes}


def is_decimal(text: Any) -> bool:
    """Digits, one sign, one point; no exponent, no NaN, at most 400 characters (a small float64 has many digits)."""
    if type(text) is not str or not 0 < len(text) <= 400 or not text.isascii():
        return False
    whole, _, part = text.removeprefix("-").partition(".")
    return whole.isdecimal() and (part.isdecimal() or "." not in text)


def is_decimal_or_nil(value: Any) -> bool:
    """As is_decimal, or nil."""
    return value is None or is_decimal(value)


def is_pcrs(value: Any) -> bool:
    """Whether it is a list of [index, 32 bytes], in order, each index once."""
    return (
        type(value) is list
        and 0 < len(value) <= 24
        and all(type(one) is list and [*map(type, one)] == [int, bytes] for one in value)
        and all(0 <= index < 24 and len(digest) == 32 for index, digest in value)
        and [index for index, _ in value] == sorted({index for index, _ in value})
    )


def is_chain(value: Any) -> bool:
    """Whether it can be a chain of certificates in DER: 1 to 4 of at most 8 KB."""
    return (
        type(value) is list
        and 0 < len(value) <= 4
        and all(type(one) is bytes and 0 < len(one) <= 8192 for one in value)
    )


def is_binding(value: Any) -> bool:
    """Whether it is the binding of an epoch's key: to nothing, or to a TPM by a quote."""
    if type(value) is not dict or list(value) == ["type"]:
        return bool(value == {"type": "unattested"})
    return (
        list(value) == ["type", "t", "attest", "signature", "pcrs", "chain"]
        and value["type"] == "tpm2-quote"
        and is_int(value["t"])
        and all(type(value[key]) is bytes and 0 < len(value[key]) <= 4096 for key in ("attest", "signature"))
        and is_pcrs(value["pcrs"])
        and is_chain(value["chain"])
    )


def clean(text: Any) -> str:
    """Return a text that may stand in a schema. Raises ValueError."""
    if type(text) is not str or len(text) > 200 or any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError("want a string of at most 200 characters, without control characters")
    return text


def as_list(value: Any) -> list[Any]:
    """Return an array. Raises ValueError."""
    if type(value) is not list:
        raise ValueError("want an array")
    return value
