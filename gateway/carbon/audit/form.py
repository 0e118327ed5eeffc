"""The small files of an export: shared by those who make one and those who check one."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gateway.carbon.audit.rows import SCHEMA_VERSION
from gateway.carbon.exact import utc
from gateway.carbon.figures import CALC_VERSION
from gateway.codec.canonical import pack_json, unpack_json
from gateway.errors import TrustError
from gateway.tlog.note import SignatureKind, Verifier

ROWS = "rows.csv"
ABOUT = "about.json"
KEYS = "keys.json"
MANIFEST = "manifest"
LEDGER_CHECKPOINT = "ledger/checkpoint"
LEDGER_LEAVES = "ledger/leaves.jsonl"

_WHAT = "wattseal export"
_GATEWAY = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
_ENTRY = re.compile(r"([0-9a-f]{64}) (0|[1-9][0-9]{0,18}) ([a-z0-9][a-z0-9._/-]*)")
_SECOND_NS = 1_000_000_000

LineName = tuple[str, str]
"""Gateway and line."""


def checkpoint_path(gateway: str) -> str:
    """Return where a gateway's checkpoint stands."""
    return f"gateways/{gateway}/checkpoint"


def leaves_path(gateway: str) -> str:
    """Return where a gateway's leaves stand."""
    return f"gateways/{gateway}/leaves.jsonl"


def paths_of(gateways: Iterable[str]) -> set[str]:
    """Return all files of an export over these gateways."""
    own = {path(gateway) for gateway in gateways for path in (checkpoint_path, leaves_path)}
    return own | {ROWS, ABOUT, KEYS, MANIFEST, LEDGER_CHECKPOINT, LEDGER_LEAVES}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What an export is about: all cells of these lines that start in [start_ns, end_ns).

    Raises TrustError for what no export can be about. Times are whole seconds; lines are sorted, each once.
    """

    start_ns: int
    end_ns: int
    lines: tuple[LineName, ...]

    def __post_init__(self) -> None:
        """Refuse what cannot be written down."""
        if not 0 <= self.start_ns < self.end_ns or self.start_ns % _SECOND_NS or self.end_ns % _SECOND_NS:
            raise TrustError("period: want a start and a later end, in whole seconds")
        if not self.lines or list(self.lines) != sorted(set(self.lines)):
            raise TrustError("lines: want at least one, sorted, each once")
        for gateway, _ in self.lines:
            if not _GATEWAY.fullmatch(gateway):
                raise TrustError(f"lines: got gateway {gateway!r}, want lower-case letters, digits, - and _")

    @property
    def gateways(self) -> tuple[str, ...]:
        """The gateways of these lines, sorted."""
        return tuple(sorted({gateway for gateway, _ in self.lines}))

    def lines_of(self, gateway: str) -> frozenset[str]:
        """Return the lines of one gateway."""
        return frozenset(line for its, line in self.lines if its == gateway)

    def pack(self) -> bytes:
        """Return about.json."""
        about = {
            "calc_version": CALC_VERSION,
            "end_utc": utc(self.end_ns),
            "lines": [list(line) for line in self.lines],
            "schema_version": SCHEMA_VERSION,
            "start_utc": utc(self.start_ns),
            "what": _WHAT,
        }
        return pack_json(about) + b"\n"

    @classmethod
    def unpack(cls, content: bytes) -> "Subject":
        """Return what about.json says. Raises TrustError, also for another calculation than this program's."""
        about = _fields(content, ["calc_version", "end_utc", "lines", "schema_version", "start_utc", "what"])
        if about["what"] != _WHAT:
            raise TrustError(f"what: got {str(about['what'])[:60]!r}, want {_WHAT!r}")
        for key, own in (("calc_version", CALC_VERSION), ("schema_version", SCHEMA_VERSION)):
            if about[key] != own:
                raise TrustError(f"{key}: got {str(about[key])[:20]!r}, and this program computes {own!r}")
        if type(about["lines"]) is not list or not all(_is_line(line) for line in about["lines"]):
            raise TrustError("lines: want a list of [gateway, line]")
        lines = tuple((gateway, line) for gateway, line in about["lines"])
        made = cls(start_ns=_instant(about["start_utc"]), end_ns=_instant(about["end_utc"]), lines=lines)
        if made.pack() != content:
            raise TrustError("this is not the one text for what it says")
        return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The keys of an export's checkpoints. The ledger's own signs the manifest too, and cosigns for the gateways."""

    gateways: Mapping[str, Verifier]
    ledger: Verifier

    @property
    def witness(self) -> Verifier:
        """The ledger's key as a cosigner."""
        return Verifier(name=self.ledger.name, kind=SignatureKind.COSIGNATURE, public_key=self.ledger.public_key)

    def pack(self) -> bytes:
        """Return keys.json."""
        gateways = {gateway: key.vkey for gateway, key in self.gateways.items()}
        return pack_json({"gateways": gateways, "ledger": self.ledger.vkey, "witness": self.witness.vkey}) + b"\n"

    @classmethod
    def unpack(cls, content: bytes) -> "Keys":
        """Return what keys.json says. Raises TrustError."""
        said = _fields(content, ["gateways", "ledger", "witness"])
        if type(said["gateways"]) is not dict or not all(map(_GATEWAY.fullmatch, said["gateways"])):
            raise TrustError("gateways: want a map from gateway to key")
        gateways = {gateway: _key(vkey) for gateway, vkey in said["gateways"].items()}
        made = cls(gateways=gateways, ledger=_key(said["ledger"]))
        for gateway, key in gateways.items():
            if key.name != f"wattseal/{gateway}":
                raise TrustError(f"gateways: got a key of {key.name}, want one of wattseal/{gateway}")
        if not made.ledger.name.startswith("wattseal-ledger/"):
            raise TrustError(f"ledger: got a key of {made.ledger.name}, want one of a ledger")
        if made.pack() != content:
            raise TrustError("witness: want the ledger's own key, as a cosigner")
        return made


def _fields(content: bytes, keys: list[str]) -> dict[str, Any]:
    if not content.endswith(b"\n"):
        raise TrustError("the last line does not end")
    said = unpack_json(content[:-1])
    if type(said) is not dict or list(said) != keys:
        raise TrustError(f"want {', '.join(keys)}")
    return said


def _is_line(line: Any) -> bool:
    return type(line) is list and len(line) == 2 and all(type(part) is str for part in line)


def _key(vkey: Any) -> Verifier:
    if type(vkey) is not str:
        raise TrustError("want a verifier key as text")
    verifier = Verifier.from_vkey(vkey)
    if verifier.kind is not SignatureKind.NOTE:
        raise TrustError(f"got the cosigner key of {verifier.name}, want the one that signs notes")
    return verifier


def _instant(said: Any) -> int:
    try:
        return int(datetime.strptime(said, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp()) * _SECOND_NS
    except (TypeError, ValueError) as e:
        raise TrustError(f"got {str(said)[:40]!r}, want a time as 2026-01-01T00:00:00Z") from e


def pack_manifest(files: Mapping[str, bytes]) -> str:
    """Return the text of a manifest: SHA-256, size and path of each file, a line each, sorted by path."""
    return "".join(f"{hashlib.sha256(files[path]).hexdigest()} {len(files[path])} {path}\n" for path in sorted(files))


def check_manifest(text: str, files: Mapping[str, bytes], only: Iterable[str] | None = None) -> None:
    """Check files against a verified manifest's text; only: some of them. Raises TrustError that names the file."""
    listed: dict[str, str] = {}
    for number, line in enumerate(text.removesuffix("\n").split("\n"), 1):
        match = _ENTRY.fullmatch(line)
        if match is None or match[3] in listed:
            raise TrustError(f"{MANIFEST}: line {number}: want SHA-256, size and path, each path once")
        listed[match[3]] = line + "\n"
    for path in sorted(files) if only is None else only:
        if path not in listed:
            raise TrustError(f"{path}: not in the manifest")
        if pack_manifest({path: files[path]}) != listed[path]:
            raise TrustError(f"{path}: not the file that the manifest says")
    if only is None:
        for path in sorted(set(listed) - set(files)):
            raise TrustError(f"{path}: in the manifest, and missing here")
        if text != pack_manifest(files):
            raise TrustError(f"{MANIFEST}: not the one text for what it says: want the paths sorted")
