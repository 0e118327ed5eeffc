"""The one home of msgpack: strict both ways.

Only nil, bool, int, float, str, bin, array and map pass; a map has string keys and none twice.
Known hole: msgpack hands a timestamp (extension type -1) to no hook of ours. So it passes here, and is
refused where its type is asked for, as everywhere in checks.py, leaves.py and frames.py.
"""

import reprlib
from typing import Any

import msgpack

from gateway.errors import TrustError


def pack(value: Any) -> bytes:
    """Return the msgpack bytes of value; the shortest form of each item."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def unpack(packed: bytes) -> Any:
    """Return what packed says; lists for arrays.

    Raises TrustError for anything malformed: trailing bytes, a key twice, extension types.
    """
    try:
        return msgpack.unpackb(
            packed, raw=False, strict_map_key=True, use_list=True, object_pairs_hook=_map, ext_hook=_no_extension
        )
    except (ValueError, TypeError, msgpack.UnpackException) as e:
        # ValueError covers ExtraData, FormatError, StackError, bad UTF-8 and the hooks below.
        raise TrustError(f"msgpack: {str(e) or type(e).__name__}") from e


def shown(value: Any) -> str:
    """Return what a message may say of a foreign value: short, however large or deeply nested it is."""
    return reprlib.repr(value)


def _map(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs) or not all(type(key) is str for key in made):
        raise ValueError("a map with a key twice, or with a key that is no string")
    return made


def _no_extension(code: int, _: bytes) -> None:
    raise ValueError(f"extension type {code}")
