"""What a station is told to make, and what it may believe of a unit."""

from collections.abc import Mapping
from dataclasses import dataclass

STRICT, LENIENT = "strict", "lenient"


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One unit of a work order. address: how to reach it. image_sha256: of the image that it must run, in hex."""

    serial: str
    address: str
    model: str
    order: str
    operator: str
    image_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What holds for every unit of a station.

    roots, intermediates: of the TPM makers that are accepted, DER. ek_policy: STRICT refuses an EK certificate that
    strays from the norm, LENIENT takes it and keeps the remark. ek_kinds: which EK to use, the first that has a
    certificate.
    anchors: files that every unit gets. nv_index, nv_floor: the counter against older releases, and where it starts.
    pcrs: of the golden quote.
    """

    station: str
    roots: tuple[bytes, ...]
    intermediates: tuple[bytes, ...]
    ek_policy: str
    ek_kinds: tuple[str, ...]
    anchors: Mapping[str, bytes]
    nv_index: int
    nv_floor: int
    pcrs: tuple[int, ...]
    timeout_s: float
    image_timeout_s: float
