"""The sections of our files as frozen structs: names, ranges and defaults stand here alone."""

from pathlib import Path
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from gateway.model import Kind, LineSchema, Order, WireType

Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}\Z", description="lower-case letters, digits, - and _")]
GatewayName = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z", description="lower-case letters, digits and -")
]
Seconds = Annotated[float, Meta(ge=0.001, le=86_400)]

_HOST = r"[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63}){0,30}"
_PORT = r"([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"  # 1..65535
_DECIMAL = r"-?[0-9]{1,14}(\.[0-9]{1,14})?\Z"

HostPort = Annotated[str, Meta(pattern=rf"^{_HOST}:{_PORT}\Z", description="host:port")]
Url = Annotated[
    str,
    Meta(
        pattern=rf"^(tcp|rtu\+tcp)://{_HOST}:{_PORT}\Z|^serial:///[!-~]{{1,200}}\Z",
        description="tcp://host:port, rtu+tcp://host:port or serial:///dev/...",
    ),
]

# What stands in a schema leaf: docs/log.md forbids control characters there, and a leaf has room for so much.
Text = Annotated[
    str,
    Meta(pattern=r"^[^\x00-\x1f\x7f]{0,60}\Z", description="text of at most 60 characters, none a control character"),
]
Zone = Annotated[
    str,
    Meta(pattern=r"^[^\x00-\x1f\x7f]{1,60}\Z", description="text of 1 to 60 characters, none a control character"),
]
Counters = Annotated[tuple[str, ...], Meta(min_length=1, max_length=100, description="a list of 1 to 100 counters")]

# TOML's own numbers are binary, and 0.1 is not: a factor that figures rest on is text.
Scale = Annotated[
    str, Meta(pattern=rf"^(?=.*[1-9]){_DECIMAL}", description='a decimal number in quotes, such as "0.01"; never 0')
]
Offset = Annotated[str, Meta(pattern=rf"^{_DECIMAL}", description='a decimal number in quotes, such as "-40"')]


class _Section(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A table of a file: unknown keys are refused."""


class GatewaySection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[gateway]`: who this gateway is and where it keeps its state."""

    id: GatewayName
    site: Text = ""
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
    url: Url
    unit_id: Annotated[int, Meta(ge=0, le=247)] = 1
    period_s: Seconds = 1.0
    timeout_s: Annotated[float, Meta(ge=0.01, le=60)] = 1.0
    own_connection: bool = False
    pipeline: Annotated[int, Meta(ge=1, le=16)] = 1
    rated_power_w: Annotated[int, Meta(ge=1, le=1_000_000_000_000)] | None = None
    meter_class: Text = ""
    serial: Text = ""


class LineSection(_Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[lines.<name>]`: the counters behind one line's figure, as `<device>.<point>`."""

    zone: Zone
    energy: Counters
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
    unit: Text = ""
    scale: Scale = "1"
    offset: Offset = "0"
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
