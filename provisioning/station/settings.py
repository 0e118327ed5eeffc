"""station.toml: what a station makes, whom it believes, and where it writes."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.config.convert import placed, section, tables
from gateway.config.values import Name, Section
from gateway.errors import ConfigError

_Plain = Annotated[str, Meta(pattern=r"^[!-~]([ -~]{0,118}[!-~])?\Z", description="1 to 120 printable characters")]
_Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z", description="a SHA-256, 64 hexadecimal digits")]
_Seconds = Annotated[float, Meta(ge=0.1, le=86_400)]
_Kind = Literal["rsa2048", "p256", "p384"]
_Pcrs = Annotated[tuple[Annotated[int, Meta(ge=0, le=23)], ...], Meta(min_length=1, max_length=24)]


class StationSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[station]`: which station this is, and the work order.

    operator, order: whoever starts the station may say them instead. image_sha256: of the image that units must run.
    """

    name: Name
    operator: _Plain | None = None
    order: _Plain | None = None
    model: _Plain
    image_sha256: _Digest
    jobs: Annotated[int, Meta(ge=1, le=64)] = 4


class UnitSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[unit]`: how units are reached.

    command: that runs the unit's side, here or over SSH. known_hosts, ssh_key: files of ssh; its own without them.
    timeout_s: for one answer; image_timeout_s: for the hash of the image.
    """

    command: Annotated[tuple[str, ...], Meta(min_length=1, max_length=32)] = ("wattseal", "enrol")
    known_hosts: Path | None = None
    ssh_key: Path | None = None
    timeout_s: _Seconds = 30.0
    image_timeout_s: _Seconds = 600.0


class CaSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[ca]`: the device authority. unlock: a file with its password or PIN, 0600; else WATTSEAL_CA_UNLOCK."""

    folder: Path
    unlock: Path | None = None


class RegistrarSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[registrar]`: the book of units, in the folder that `provision registrar init` made.

    Its factory key signs birth records too.
    """

    folder: Path


class EkSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[ek]`: which TPM makers are believed.

    roots: a folder of PEM files; what is signed by itself is a root, the rest stands between. policy: strict refuses
    an EK certificate that strays from the norm, lenient takes it and keeps the remark. kinds: in order of preference.
    """

    roots: Path
    policy: Literal["strict", "lenient"] = "lenient"
    kinds: Annotated[tuple[_Kind, ...], Meta(min_length=1, max_length=3)] = ("rsa2048", "p256", "p384")


class AnchorsSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[anchors]`: what units are to trust, beside the device authority and the factory.

    verifier: the key of the attestation service. ledger: the witness key of the ledger.
    """

    verifier: Path
    ledger: Path


class FloorSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[floor]`: the NV counter against older releases. value: what it must have at least."""

    index: Annotated[int, Meta(ge=0x01800000, le=0x01FFFFFF)] = 0x01805753
    value: Annotated[int, Meta(ge=1, le=1024)] = 1


class QuoteSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[quote]`: which PCRs of the SHA-256 bank the golden quote is over."""

    pcrs: _Pcrs = (*range(10), 11, 14)


class LabelSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[label]`: where labels go, and in which form."""

    folder: Path = Path("labels")
    format: Literal["svg", "pdf"] = "svg"


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All of station.toml."""

    station: StationSection
    unit: UnitSection
    ca: CaSection
    registrar: RegistrarSection
    ek: EkSection
    anchors: AnchorsSection
    floor: FloorSection
    quote: QuoteSection
    label: LabelSection


_SECTIONS = {field.name: field.type for field in msgspec.structs.fields(Settings)}
_PATHS = {
    "unit": ("known_hosts", "ssh_key"),
    "ca": ("folder", "unlock"),
    "registrar": ("folder",),
    "ek": ("roots",),
    "anchors": ("verifier", "ledger"),
    "label": ("folder",),
}


def parse_station(text: str, *, name: str, folder: Path) -> Settings:
    """Return what a station.toml says; relative paths are joined to folder. Raises ConfigError."""
    found = tables(text, name, set(_SECTIONS))
    read = {
        key: placed(section(found, key, kind, name), folder, *_PATHS.get(key, ())) for key, kind in _SECTIONS.items()
    }
    settings = Settings(**read)
    if list(settings.quote.pcrs) != sorted(set(settings.quote.pcrs)):
        raise ConfigError(f"{name}: quote.pcrs: got {list(settings.quote.pcrs)}, want each index once, in order")
    return settings


def load_station(path: Path) -> Settings:
    """Return the configuration in a file. Raises ConfigError."""
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"{path}: {e}, want a station.toml") from e
    return parse_station(text, name=path.name, folder=path.parent)
