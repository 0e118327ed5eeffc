"""verifier.toml."""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.config.convert import named, placed, section, tables
from gateway.config.sections import BrokerSection
from gateway.config.values import HostPort, Name, Section
from gateway.errors import ConfigError

_Seconds = Annotated[float, Meta(ge=0.1, le=86_400)]


class VerifierSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[verifier]`: who the verifier is, whom it believes, and how often it asks.

    key: a note key named wattseal-verifier/<name>. device_ca: the roots of the device authority, PEM; crl: its lists
    of the revoked, PEM. reference: what good devices look like. ledger: the origin of the ledger that relies on
    results. period_s: each gateway is asked so often. deadline_s: an answer later than that counts as none.
    result_s: how long a result holds.
    """

    name: Name
    key: Path
    state: Path = Path("verifier")
    device_ca: Path
    crl: Path | None = None
    reference: Path
    ledger: Annotated[str, Meta(pattern=r"^wattseal-ledger/[a-z0-9][a-z0-9_-]{0,62}\Z")]
    period_s: _Seconds = 300.0
    deadline_s: _Seconds = 30.0
    result_s: Annotated[int, Meta(ge=1, le=900)] = 900
    metrics: HostPort | None = None


class GatewayDeviceSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateways.<id>]` of verifier.toml. device: the serial number in the device's certificates."""

    device: Annotated[
        str,
        Meta(pattern=r"^[!-~]{1,64}\Z", description="a serial number: 1 to 64 printable ASCII characters, no space"),
    ]


class IssueSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[issue]`: give short-lived certificates to gateways whose key is in memory.

    authority: the folder of the authority for operation. unlock: a file with its password or PIN, 0600; else
    WATTSEAL_CA_UNLOCK. hours: how long a certificate holds.
    """

    authority: Path
    unlock: Path | None = None
    hours: Annotated[float, Meta(ge=0.01, le=168)] = 24.0


class VerifierConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All of verifier.toml."""

    verifier: VerifierSection
    broker: BrokerSection
    gateways: dict[str, GatewayDeviceSection]
    issue: IssueSection | None

    @property
    def issuer(self) -> str:
        """The name of the verifier's key, and who results are by."""
        return f"wattseal-verifier/{self.verifier.name}"

    @property
    def run_folder(self) -> Path:
        """Where the socket of the metrics is."""
        return self.verifier.state / "run"

    @property
    def database(self) -> Path:
        """What is remembered of each gateway."""
        return self.verifier.state / "verifier.db"


def parse_verifier(text: str, *, name: str, folder: Path) -> VerifierConfig:
    """Return the verifier's configuration; relative paths are joined to folder. Raises ConfigError."""
    found = tables(text, name, {"verifier", "broker", "gateways", "issue"})
    gateways = named(found.get("gateways", {}), GatewayDeviceSection, f"{name}: gateways")
    owners: dict[str, str] = {}
    for gateway, one in gateways.items():
        if "_" in gateway:
            raise ConfigError(f"{name}: gateways: got {gateway!r}, want lower-case letters, digits and -")
        if owners.setdefault(one.device, gateway) != gateway:
            raise ConfigError(
                f"{name}: gateways.{gateway}.device: got {one.device!r}, which is {owners[one.device]}'s, want its own"
            )
    head = section(found, "verifier", VerifierSection, name)
    for key, low, high in (("period_s", head.deadline_s, "deadline_s"), ("result_s", head.period_s, "period_s")):
        if getattr(head, key) <= low:
            raise ConfigError(f"{name}: verifier.{key}: got {getattr(head, key):g}, want more than {high}, {low:g}")
    return VerifierConfig(
        verifier=placed(head, folder, "key", "state", "device_ca", "crl", "reference"),
        broker=placed(section(found, "broker", BrokerSection, name), folder, "ca", "cert", "key"),
        gateways=gateways,
        issue=placed(section(found, "issue", IssueSection, name), folder, "authority", "unlock")
        if "issue" in found
        else None,
    )


def load_verifier(file: Path) -> VerifierConfig:
    """Return the configuration in a file. Raises ConfigError."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as e:
        raise ConfigError(f"{file}: {e.strerror}, want a readable file") from e
    except UnicodeDecodeError as e:
        raise ConfigError(f"{file}: byte {e.start} is not UTF-8, want a TOML file") from e
    return parse_verifier(text, name=file.name, folder=file.parent)
