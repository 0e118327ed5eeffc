"""What a device was when it left the factory: one record, signed by the factory, a leaf of the factory's log.

A C2SP signed note; its text is a label and one line of canonical JSON. Normative form: docs/provisioning.md.
"""

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gateway.codec.canonical import pack_json
from gateway.errors import TrustError
from gateway.tlog.lines import CONTROL, decode_base64
from gateway.tlog.note import Signer, Verifier, open_note

LABEL = "wattseal-birth/v1"
MAX_BIRTH = 64 * 1024
MAX_TEXT = 200
MAX_CERTIFICATE = 8192
MAX_REMARKS = 16
NAME_BYTES = 34
"""Of a TPM object's name with SHA-256: the algorithm's two bytes and the digest."""

_TIME = "%Y-%m-%dT%H:%M:%SZ"
_NAMES = ("serial", "model", "order", "operator", "station")
_DIGESTS = ("image_sha256", "ak_certificate_sha256", "idevid_sha256")
_KEYS = {*_NAMES, *_DIGESTS, "ek_certificate", "ek_remarks", "ak_name", "golden", "nv_floor", "made"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """What the factory says of one device.

    image_sha256, ak_certificate_sha256, idevid_sha256: in hex. ek_certificate: DER. ek_remarks: in what its maker
    strayed from the norm. ak_name: of the attestation key. golden: PCRs of the SHA-256 bank after the factory's own
    start. nv_index, nv_value: the counter that holds the version floor, and its value. made_s: Unix seconds.
    """

    serial: str
    model: str
    order: str
    operator: str
    station: str
    image_sha256: str
    ek_certificate: bytes
    ek_remarks: tuple[str, ...]
    ak_name: bytes
    ak_certificate_sha256: str
    idevid_sha256: str
    golden: Mapping[int, bytes]
    nv_index: int
    nv_value: int
    made_s: int

    @property
    def text(self) -> str:
        """The text of the signed note."""
        said: dict[str, Any] = {name: getattr(self, name) for name in (*_NAMES, *_DIGESTS)}
        said["ek_certificate"] = base64.b64encode(self.ek_certificate).decode()
        said["ek_remarks"] = list(self.ek_remarks)
        said["ak_name"] = self.ak_name.hex()
        said["golden"] = {str(index): digest.hex() for index, digest in self.golden.items()}
        said["nv_floor"] = {"index": self.nv_index, "value": self.nv_value}
        said["made"] = datetime.fromtimestamp(self.made_s, UTC).strftime(_TIME)
        return f"{LABEL}\n{pack_json(said).decode()}\n"


def sign_birth(birth: Birth, signer: Signer) -> bytes:
    """Return the record, signed by the factory's key. Raises TrustError for one that read_birth would refuse."""
    if _read(birth.text) != birth:
        raise TrustError("birth record: it does not read as it was written")
    return signer.sign_note(birth.text)


def read_birth(note: bytes, *, verifier: Verifier) -> Birth:
    """Return the record that this factory signed. Raises TrustError for anything else."""
    if len(note) > MAX_BIRTH:
        raise TrustError(f"birth record: got {len(note)} bytes, want at most {MAX_BIRTH}")
    return _read(open_note(note, [verifier]).text)


def _read(text: str) -> Birth:
    """Return the record in a text. One record has one text: any other way to write the same is refused."""
    parts = text.split("\n")
    if len(parts) != 3 or parts[0] != LABEL or parts[2]:
        raise TrustError("birth record: this is not one")
    try:
        said = json.loads(parts[1])
        made = _birth(said)
        again = made.text
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as e:
        raise TrustError("birth record: its fields do not fit docs/provisioning.md") from e
    if again != text:
        raise TrustError("birth record: this is not canonical")
    return made


def _birth(said: Any) -> Birth:
    """Return the record that JSON says. Raises ValueError and its like."""
    if type(said) is not dict or set(said) != _KEYS or type(said["nv_floor"]) is not dict:
        raise ValueError("fields")
    floor = said["nv_floor"]
    golden = {int(index): bytes.fromhex(digest) for index, digest in said["golden"].items()}
    if not golden or not all(0 <= index < 24 and len(digest) == 32 for index, digest in golden.items()):
        raise ValueError("golden")
    certificate = decode_base64(said["ek_certificate"])
    ak_name = bytes.fromhex(said["ak_name"])
    if (
        not 0 < len(certificate) <= MAX_CERTIFICATE
        or len(ak_name) != NAME_BYTES
        or len(said["ek_remarks"]) > MAX_REMARKS
    ):
        raise ValueError("sizes")
    made = datetime.strptime(said["made"], _TIME).replace(tzinfo=UTC)
    return Birth(
        **{name: _plain(said[name]) for name in _NAMES},
        **{name: _digest(said[name]) for name in _DIGESTS},
        ek_certificate=certificate,
        ek_remarks=tuple(_plain(remark) for remark in said["ek_remarks"]),
        ak_name=ak_name,
        golden=golden,
        nv_index=_whole(floor["index"], 2**32),
        nv_value=_whole(floor["value"], 2**63),
        made_s=int(made.timestamp()),
    )


def _plain(text: Any) -> str:
    if type(text) is not str or not 0 < len(text) <= MAX_TEXT or CONTROL.search(text) or "\n" in text:
        raise ValueError("text")
    return text


def _digest(text: Any) -> str:
    if type(text) is not str or bytes.fromhex(text).hex() != text or len(text) != 64:
        raise ValueError("digest")
    return text


def _whole(number: Any, end: int) -> int:
    if type(number) is not int or not 0 <= number < end:
        raise ValueError("number")
    return number
