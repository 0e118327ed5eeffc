"""The sections of our files as frozen structs: names, ranges and defaults stand here alone."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.model import Kind, LineSchema, Order, WireType

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}\Z", description="lower-case letters, digits, - and _")]
Seconds = Annotated[float, Meta(ge=0.001, le=86_400)]
HostPort = Annotated[str, Meta(pattern=r"^[^\s:/]+:\d{1,5}\Z", description="host:port")]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a file: unknown keys are refused."""


class GatewaySection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateway]`: who this gateway is and where it keeps its state."""

    id: Name
    site: str = ""
    state: Path = Path("state")


class CollectSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[collect]`: what waits for the seal, at most; where metrics are served, if at all."""

    queue_mb: Annotated[int, Meta(ge=1, le=4096)] = 32
    metrics: HostPort | None = None


class SealSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[seal]`: the log's keys and bounds.

    budget_mb: leaf bodies on disk, at most. keep_mb: how much of what has a receipt is kept all the same.
    """

    key: Path
    witness: Path
    budget_mb: Annotated[int, Meta(ge=1, le=1_048_576)] = 1024
    keep_mb: Annotated[int, Meta(ge=0, le=1_048_576)] = 64
    checkpoint_s: Seconds = 1.0
    full: Literal["drop-readings", "refuse"] = "drop-readings"


class BrokerSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[forward]` and the ledger's `[broker]`: one MQTTS connection with a client certificate."""

    broker: HostPort
    ca: Path
    cert: Path
    key: Path
    metrics: HostPort | None = None


class IntervalSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[interval]`: how often counters are sealed for figures, in whole seconds of UTC."""

    period_s: Annotated[int, Meta(ge=1, le=86_400)] = 60


class DeviceSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[devices.<name>]`: which device stands where."""

    template: Name
    url: Annotated[
        str,
        Meta(
            pattern=r"^(tcp|rtu\+tcp)://[^\s/]+:\d{1,5}\Z|^serial:///\S+\Z",
            description="tcp://host:port, rtu+tcp://host:port or serial:///dev/...",
        ),
    ]
    unit_id: Annotated[int, Meta(ge=0, le=247)] = 1
    period_s: Seconds = 1.0
    timeout_s: Annotated[float, Meta(ge=0.01, le=60)] = 1.0
    own_connection: bool = False
    rated_power_w: Annotated[int, Meta(ge=1)] | None = None
    meter_class: str = ""
    serial: str = ""


class LineSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[lines.<name>]`: the counters behind one line's figure, as `<device>.<point>`."""

    zone: Annotated[str, Meta(min_length=1, max_length=60)]
    energy: Annotated[tuple[str, ...], Meta(min_length=1)]
    count_good: str | None = None
    count_total: str | None = None


class PointSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[points.<name>]` of a device template."""

    address: Annotated[int, Meta(ge=0, le=65_535)]
    type: WireType
    function: Literal[1, 2, 3, 4] | None = None
    order: Order = Order.ABCD
    registers: Annotated[int, Meta(ge=1, le=125)] | None = None
    bit: Annotated[int, Meta(ge=0, le=15)] | None = None
    unit: str = ""
    scale: str = "1"
    offset: str = "0"
    scale_point: str | None = None
    sentinels: tuple[int, ...] = ()
    kind: Kind = Kind.GAUGE
    modulus: Annotated[int, Meta(ge=2)] | None = None


class Template(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A device as data: one file of gateway/devices."""

    title: str
    verified: bool
    sources: tuple[str, ...]
    votes: int
    function: Literal[1, 2, 3, 4] = 3
    max_gap: Annotated[int, Meta(ge=0, le=124)] = 8
    max_registers: Annotated[int, Meta(ge=1, le=125)] = 125
    never: tuple[tuple[int, int, int], ...] = ()
    keep_order: bool = False
    points: dict[str, PointSection] = {}


class GatewayConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All of gateway.toml, with the templates that it names."""

    gateway: GatewaySection
    collect: CollectSection
    seal: SealSection
    forward: BrokerSection
    interval: IntervalSection
    devices: dict[str, DeviceSection]
    templates: dict[str, Template]
    lines: dict[str, LineSchema]

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


class LedgerSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[ledger]`: who the ledger is, its folder, its key, its static factors."""

    name: Name
    state: Path = Path("ledger")
    key: Path
    factors: Path
    metrics: HostPort | None = None


class GatewayKeySection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateways.<id>]` of ledger.toml: the verifier key that a gateway's checkpoints must carry."""

    key: Path


class LedgerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """All of ledger.toml."""

    ledger: LedgerSection
    broker: BrokerSection
    gateways: dict[str, GatewayKeySection]

    @property
    def origin(self) -> str:
        """The origin line of the ledger's own log, and the name of its keys."""
        return f"wattseal-ledger/{self.ledger.name}"
