"""JSON of which there is one text for each value, so that it can be signed and compared byte for byte."""

import json
from typing import Any

from gateway.errors import TrustError


def pack_json(value: Any) -> bytes:
    """Return the one JSON text of value: sorted keys, no spaces."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def unpack_json(packed: bytes) -> Any:
    """Return what this JSON says. Raises TrustError unless it is the one text for it: so no key stands twice."""
    try:
        value = json.loads(packed)
        canonical = pack_json(value)
    except (ValueError, RecursionError) as e:  # ValueError covers bad UTF-8, lone surrogates, NaN and long numbers
        raise TrustError("this is not canonical JSON") from e
    if canonical != packed:
        raise TrustError("this JSON is not canonical: keys sorted, none twice, no spaces")
    return value
