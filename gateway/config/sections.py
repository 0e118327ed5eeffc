"""The sections of our files as frozen structs: names, ranges and defaults stand here alone."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.config.templates import Template
from gateway.config.values import (
    BacnetAddress,
    Counters,
    GatewayName,
    HostPort,
    Instance,
    Name,
    Seconds,
    Section,
    Text,
    Url,
    Zone,
)
from gateway.model import LineSchema


class GatewaySection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateway]`: who this gateway is and where it keeps its state."""

    id: GatewayName
    site: Text = ""
    state: Path = Path("state")


class CollectSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[collect]`: what waits for the seal, at most; where metrics are served, if at all."""

    queue_mb: Annotated[int, Meta(ge=1, le=4096)] = 32
    metrics: HostPort | None = None


class SealSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[seal]`: the log's keys and bounds.

    key: the log's key as a file, where no [attest] says which TPM vouches for keys in memory.
    budget_mb: leaf bodies on disk, at most. keep_mb: how much of what has a receipt is kept all the same.
    agents: a folder with each agent's key, <id>.key.
    clock_error_s, clock_holdover_h: beyond them our clock is suspect: off by so much, or so long not synchronised.
    """

    key: Path | None = None
    witness: Path
    budget_mb: Annotated[int, Meta(ge=1, le=1_048_576)] = 1024
    keep_mb: Annotated[int, Meta(ge=0, le=1_048_576)] = 64
    checkpoint_s: Seconds = 1.0
    full: Literal["drop-readings", "refuse"] = "drop-readings"
    agents: Path | None = None
    clock_error_s: Annotated[float, Meta(gt=0, le=16)] = 5.0
    clock_holdover_h: Annotated[float, Meta(ge=0, le=8784)] = 24.0


class BrokerSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[forward]` and the ledger's `[broker]`: one MQTTS connection with a client certificate."""

    broker: HostPort
    ca: Path
    cert: Path
    key: Path
    metrics: HostPort | None = None


class ForwardSection(BrokerSection, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[forward]`: key_in: where our client key is held.

    file: in `key`. tpm: in the TPM, which OpenSSL's provider tpm2 has sign. memory: in this process alone. In the last
    two `cert` and `key` are the bootstrap identity, which may ask for a certificate and nothing else.
    """

    key_in: Literal["file", "tpm", "memory"] = "file"


class AttestSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[attest]` of gateway.toml: the TPM that vouches for the log's keys; without it, `[seal] key` is a file.

    tcti: how to reach the TPM. chain: the attestation key's certificate and those above it, PEM.
    verifier: the verifier key of whoever may ask for evidence. pcrs: quoted, of the SHA-256 bank.
    event_log: the firmware's. counters: NV indices of counters to certify; the factory's floor, as a rule.
    renew_h: how often the epoch key is made anew.
    """

    tcti: Annotated[str, Meta(min_length=1, max_length=200)] = "device:/dev/tpmrm0"
    chain: Path
    verifier: Path
    pcrs: Annotated[tuple[Annotated[int, Meta(ge=0, le=23)], ...], Meta(min_length=1, max_length=24)] = (
        *range(10),
        11,
        14,
    )
    event_log: Path | None = None
    counters: Annotated[tuple[int, ...], Meta(max_length=8)] = (0x01805753,)
    renew_h: Annotated[float, Meta(ge=0.001, le=24)] = 24.0


class IntervalSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[interval]`: how often counters are sealed for figures, in whole seconds of UTC.

    interpolate: a device's period need not divide it; its counters are then interpolated between two polls.
    """

    period_s: Annotated[int, Meta(ge=1, le=86_400)] = 60
    interpolate: bool = False


class OpcuaSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[opcua]`: who we are to OPC UA servers, and whom we trust.

    cert, key: our application certificate, whose URI is our ApplicationUri. trusted: a folder of certificates that
    servers may have. rejected: a folder where others are put, for a person to look at.
    """

    cert: Path = Path("opcua/own.der")
    key: Path = Path("opcua/own.key.pem")
    trusted: Path = Path("opcua/trusted")
    rejected: Path = Path("opcua/rejected")


class OpcuaDeviceSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[devices.<name>.opcua]`: how to speak with one server.

    password: a file that holds it, with mode 0600. user_cert, user_key: an identity of a certificate instead.
    sampling_s, publishing_s: how often the server looks, and how often it tells. queue: values that it keeps a point.
    """

    security: Literal["Basic256Sha256", "Aes128_Sha256_RsaOaep", "Aes256_Sha256_RsaPss", "None"] = "Basic256Sha256"
    mode: Literal["SignAndEncrypt", "Sign", "None"] = "SignAndEncrypt"
    user: Annotated[str, Meta(max_length=100)] = ""
    password: Path | None = None
    user_cert: Path | None = None
    user_key: Path | None = None
    sampling_s: Seconds = 1.0
    publishing_s: Seconds = 1.0
    queue: Annotated[int, Meta(ge=1, le=1000)] = 10


class BacnetSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[bacnet]`: our own place in the BACnet/IP network.

    address: of ours, with the bits of its network, and the UDP port. instance: our device instance.
    bbmd: where we register as a foreign device, for ttl_s at a time; none when we stand in the devices' own subnet.
    """

    address: BacnetAddress
    instance: Instance = 4_194_000
    bbmd: HostPort | None = None
    ttl_s: Annotated[int, Meta(ge=10, le=65_535)] = 300


class BacnetDeviceSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[devices.<name>.bacnet]`: how to speak with one device.

    address: where it is when it cannot be found by its instance: an IP address, or network:MAC behind a router.
    cov_lifetime_s: how long a subscription lives; it is renewed at half of that.
    """

    address: Annotated[str, Meta(max_length=100)] = ""
    cov_lifetime_s: Annotated[int, Meta(ge=10, le=86_400)] = 300


class AgentsSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[agents]`: the broker on the OT side that agents publish to; TLS alone."""

    broker: HostPort
    ca: Path
    cert: Path
    key: Path


class DeadbandSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[devices.<name>.report.points.<point>]`: what change of a value is worth telling.

    absolute: in its unit. percent: of the value told last. With both, the larger one counts.
    bypass: a step of this size is told with the value before it, however short it is.
    """

    absolute: Annotated[float, Meta(ge=0)] | None = None
    percent: Annotated[float, Meta(ge=0, le=100)] | None = None
    bypass: Annotated[float, Meta(gt=0)] | None = None


class ReportSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[devices.<name>.report]`: report on change instead of every row. heartbeat_s: told at least so often."""

    heartbeat_s: Seconds = 60.0
    points: dict[str, DeadbandSection] = msgspec.field(default_factory=dict)


class SameSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[devices.<name>.same_as.<point>]`: another point that must agree with this one.

    point: `<device>.<point>`. absolute, percent: by how much they may differ; the larger one counts.
    polls: an event after more than so many polls in a row that contradict it.
    """

    point: Annotated[str, Meta(max_length=127)]
    absolute: Annotated[float, Meta(ge=0)] = 0.0
    percent: Annotated[float, Meta(ge=0, le=100)] = 0.0
    polls: Annotated[int, Meta(ge=0, le=1000)] = 3


class DeviceSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[devices.<name>]`: which device stands where.

    period_s: how often it is polled whole; by default 1 s, and where it tells its changes by itself, once an interval.
    follow: whether it shall tell its changes by itself, where its protocol can.
    stale_s: how long a value may stand still before that is an event; 0 for ever. still: points that always may.
    same_as: by point, another one that must agree with it.
    """

    template: Name
    url: Url
    unit_id: Annotated[int, Meta(ge=0, le=247)] = 1
    period_s: Seconds | None = None
    follow: bool = True
    stale_s: Annotated[float, Meta(ge=0, le=604_800)] = 0.0
    still: tuple[str, ...] = ()
    report: ReportSection | None = None
    same_as: dict[str, SameSection] = msgspec.field(default_factory=dict)
    opcua: OpcuaDeviceSection = OpcuaDeviceSection()
    bacnet: BacnetDeviceSection = BacnetDeviceSection()
    timeout_s: Annotated[float, Meta(ge=0.01, le=60)] = 1.0
    own_connection: bool = False
    pipeline: Annotated[int, Meta(ge=1, le=16)] = 1
    rated_power_w: Annotated[int, Meta(ge=1, le=1_000_000_000_000)] | None = None
    meter_class: Text = ""
    serial: Text = ""


class LineSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[lines.<name>]`: the counters behind one line's figure, and what says what it is making, as `<device>.<point>`.

    fuel: counters of gas, oil and the like, for Scope 1.
    count_scrap: without count_good, the good units are count_total less this.
    """

    zone: Zone
    energy: Counters
    fuel: Annotated[tuple[str, ...], Meta(max_length=100)] = ()
    count_good: str | None = None
    count_total: str | None = None
    count_scrap: str | None = None
    state: str | None = None
    product: str | None = None
    recipe: str | None = None
    job: str | None = None


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All of gateway.toml, with the templates that it names."""

    gateway: GatewaySection
    collect: CollectSection
    seal: SealSection
    attest: AttestSection | None
    forward: ForwardSection
    interval: IntervalSection
    opcua: OpcuaSection
    bacnet: BacnetSection | None
    agents: AgentsSection | None
    devices: dict[str, DeviceSection]
    templates: dict[str, Template]
    lines: dict[str, LineSchema]

    def period_s(self, device: str) -> float:
        """Return how often a device is polled whole."""
        section = self.devices[device]
        if section.period_s is not None:
            return section.period_s
        follows = section.follow and self.templates[section.template].can_follow
        return float(self.interval.period_s) if follows else 1.0

    @property
    def log_folder(self) -> Path:
        """The folder of the log; the seal's alone."""
        return self.gateway.state / "log"

    @property
    def run_folder(self) -> Path:
        """The folder of the unix sockets."""
        return self.gateway.state / "run"

    @property
    def origin(self) -> str:
        """The log's origin line."""
        return f"wattseal/{self.gateway.id}"
