"""ledger.toml."""

from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.config.convert import named, placed, section, tables
from gateway.config.feeds import FeedSection, check_feeds
from gateway.config.intake import IntakeSection, check_intake
from gateway.config.sections import BrokerSection
from gateway.config.values import HostPort, Name, Section
from gateway.errors import ConfigError


class LedgerSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[ledger]`: who the ledger is, its folder, its key, its static factors.

    fuel_factors: fuels.toml, the operator's own factors of fuels, if there is one. tables: of annual factors that come
    with the program. plan: carbon.toml, if there is one. grid_settings: grid-settings.json, if there may be one.
    """

    name: Name
    state: Path = Path("ledger")
    key: Path
    factors: Path
    fuel_factors: Path | None = None
    tables: tuple[str, ...] = ()
    plan: Path | None = None
    grid_settings: Path | None = None
    metrics: HostPort | None = None


class GatewayKeySection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateways.<id>]` of ledger.toml: whose checkpoints count, one of the two.

    key: a pinned verifier key, and then no attestation. device: the serial number in the device's certificates.
    """

    key: Path | None = None
    device: Annotated[str, Meta(min_length=1, max_length=64)] | None = None


class RelyingSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[attest]` of ledger.toml: whom the ledger relies on for the state of devices.

    device_ca: the roots of the device authority, PEM. crl: its lists of the revoked, PEM; read again when they change.
    verifier: the verifier key of the attestation service. officers: who may decide on quarantined leaves, one
    verifier key a line.
    """

    device_ca: Path
    crl: Path | None = None
    verifier: Path
    officers: Path | None = None


class LedgerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All of ledger.toml."""

    ledger: LedgerSection
    broker: BrokerSection
    gateways: dict[str, GatewayKeySection]
    attest: RelyingSection | None
    feeds: dict[str, FeedSection]
    context: IntakeSection

    @property
    def origin(self) -> str:
        """The origin line of the ledger's own log, and the name of its keys."""
        return f"wattseal-ledger/{self.ledger.name}"


def parse_ledger(text: str, *, name: str, folder: Path) -> LedgerConfig:
    """Return the ledger's configuration; relative paths are joined to folder. Raises ConfigError."""
    found = tables(text, name, {"ledger", "broker", "gateways", "attest", "feeds", "context"})
    gateways = named(found.get("gateways", {}), GatewayKeySection, f"{name}: gateways")
    if not gateways:
        raise ConfigError(f"{name}: gateways: got none, want [gateways.<id>] with the gateway's key or device")
    attest = section(found, "attest", RelyingSection, name) if "attest" in found else None
    for gateway, keys in gateways.items():
        _check_gateway(keys, attest, f"{name}: gateways.{gateway}")
    feeds = named(found.get("feeds", {}), FeedSection, f"{name}: feeds")
    check_feeds(feeds, f"{name}: feeds")
    return LedgerConfig(
        ledger=placed(
            section(found, "ledger", LedgerSection, name),
            folder,
            *("state", "key", "factors", "fuel_factors", "plan", "grid_settings"),
        ),
        broker=placed(section(found, "broker", BrokerSection, name), folder, "ca", "cert", "key"),
        gateways={key: placed(keys, folder, "key") for key, keys in gateways.items()},
        attest=None if attest is None else placed(attest, folder, "device_ca", "crl", "verifier", "officers"),
        feeds={key: placed(feed, folder, "credentials") for key, feed in feeds.items()},
        context=check_intake(
            placed(section(found, "context", IntakeSection, name), folder, "cert", "key", "tokens"), name
        ),
    )


def _check_gateway(section: GatewayKeySection, attest: RelyingSection | None, where: str) -> None:
    """Refuse a gateway of which it is not plain whose signature counts."""
    if (section.key is None) == (section.device is None):
        got = "neither" if section.key is None else "both"
        raise ConfigError(f"{where}: got {got} of key and device, want one: a pinned key, or an attested device")
    if section.device is not None and attest is None:
        raise ConfigError(f"{where}.device: got a device and no [attest], want [attest] with device_ca and verifier")
