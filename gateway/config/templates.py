"""Device templates as frozen structs: one kind a protocol."""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

import msgspec
from msgspec import Meta

from gateway.config.values import Offset, Scale, Section, Text
from gateway.model import Kind, Order, WireType

Modulus = Annotated[int, Meta(ge=2)]
NodeName = Annotated[
    str,
    Meta(
        pattern=r"^(nsu=[^;\x00-\x20]{1,500};)?[isgb]=[^\x00-\x1f]{1,500}\Z",
        description="nsu=<namespace URI>;s=<identifier>, never ns=<number>",
    ),
]
ObjectName = Annotated[
    str, Meta(pattern=r"^[a-z]+(-[a-z]+)*,[0-9]{1,7}\Z", description="an object such as analog-input,3")
]
PropertyName = Annotated[str, Meta(pattern=r"^[a-z]+(-[a-z]+)*\Z", description="a property such as present-value")]
CounterKind = Annotated[
    str, Meta(pattern=r"^(total|partial|tariff [1-9])\Z", description='"total", "partial" or "tariff 1"')
]
Store = Literal["f32", "f64", "i64", "u64", "bool", "s32", "s64", "s128"]


class PointSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the points of every protocol have: `[points.<name>]`.

    scale, offset: value = raw * scale + offset, exact. modulus: where a counter wraps, in raw units.
    """

    unit: Text = ""
    kind: Kind = Kind.GAUGE
    scale: Scale = "1"
    offset: Offset = "0"
    modulus: Modulus | None = None


class ModbusPointSection(PointSection, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[points.<name>]` of a Modbus template.

    displayed: the number that the maker's list gives to the address; see the template's `base`.
    counter: what a counter leaves out: nothing, what came before a reset (partial), or other tariffs.
    direction: of an energy, which way it counts; of a power, which way is positive.
    """

    address: Annotated[int, Meta(ge=0, le=65_535)]
    type: WireType
    function: Literal[1, 2, 3, 4] | None = None
    order: Order = Order.ABCD
    registers: Annotated[int, Meta(ge=1, le=125)] | None = None
    bit: Annotated[int, Meta(ge=0, le=15)] | None = None
    scale_point: str | None = None
    sentinels: tuple[int, ...] = ()
    displayed: Annotated[int, Meta(ge=0, le=465_536)] | None = None
    counter: CounterKind | None = None
    direction: Literal["import", "export"] | None = None


class ProbeSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[probe]` of a Modbus template: a register that tells this model from others.

    equals: raw numbers that it may hold. text: what a "string" there begins with.
    """

    address: Annotated[int, Meta(ge=0, le=65_535)]
    type: WireType = WireType.U16
    function: Literal[3, 4] | None = None
    order: Order = Order.ABCD
    registers: Annotated[int, Meta(ge=1, le=125)] | None = None
    equals: tuple[int, ...] = ()
    text: Text = ""


class OpcuaPointSection(PointSection, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[points.<name>]` of an OPC UA template.

    node: `nsu=<namespace URI>;s=<identifier>` (or i=, g=, b=): by URI, since a server may number its namespaces anew.
    absolute, percent: the server's own deadband, one of them: in `unit`, or of the node's EURange.
    """

    node: NodeName
    store: Store = "f64"
    sampling_s: Annotated[float, Meta(ge=0, le=86_400)] | None = None
    absolute: Annotated[float, Meta(gt=0)] | None = None
    percent: Annotated[float, Meta(gt=0, le=100)] | None = None


class BacnetPointSection(PointSection, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[points.<name>]` of a BACnet template. unit: ours; the object's own engineering unit is converted to it."""

    object: ObjectName
    property: PropertyName = "present-value"
    store: Store = "f32"
    cov_increment: Annotated[float, Meta(gt=0)] | None = None


class AgentPointSection(PointSection, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[points.<name>]` of an agent's template.

    index: the point's number in the agent's frames; none for its energy register.
    """

    index: Annotated[int, Meta(ge=0, le=255)] | None = None


class _Template(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What every template says: which device, and who says so.

    can_follow: devices of its protocol tell changes by themselves.
    shares_socket: all of them are reached by one socket.
    """

    can_follow: ClassVar[bool] = True
    shares_socket: ClassVar[bool] = False

    title: str
    verified: bool
    sources: tuple[str, ...]
    votes: int


class ModbusTemplate(_Template, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A Modbus device as data: one file of gateway/devices.

    base: the number that the maker's list gives to PDU address 0: 0, 1, 30001, 40001.
    """

    can_follow: ClassVar[bool] = False

    protocol: Literal["modbus"] = "modbus"
    function: Literal[1, 2, 3, 4] = 3
    max_gap: Annotated[int, Meta(ge=0, le=124)] = 8
    max_registers: Annotated[int, Meta(ge=1, le=125)] = 125
    never: tuple[tuple[int, int, int], ...] = ()
    keep_order: bool = False
    base: Annotated[int, Meta(ge=0, le=400_001)] | None = None
    probe: ProbeSection | None = None
    points: dict[str, ModbusPointSection] = msgspec.field(default_factory=dict)


class OpcuaTemplate(_Template, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The nodes of an OPC UA server that are read."""

    protocol: Literal["opcua"]
    points: dict[str, OpcuaPointSection] = msgspec.field(default_factory=dict)


class BacnetTemplate(_Template, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The objects of a BACnet device that are read."""

    shares_socket: ClassVar[bool] = True

    protocol: Literal["bacnet"]
    points: dict[str, BacnetPointSection] = msgspec.field(default_factory=dict)


class AgentTemplate(_Template, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The points of an ESP32 agent's frames."""

    shares_socket: ClassVar[bool] = True

    protocol: Literal["agent"]
    points: dict[str, AgentPointSection] = msgspec.field(default_factory=dict)


Template = ModbusTemplate | OpcuaTemplate | BacnetTemplate | AgentTemplate

TEMPLATES: Mapping[str, tuple[type[Template], type[PointSection]]] = {
    "modbus": (ModbusTemplate, ModbusPointSection),
    "opcua": (OpcuaTemplate, OpcuaPointSection),
    "bacnet": (BacnetTemplate, BacnetPointSection),
    "agent": (AgentTemplate, AgentPointSection),
}
"""By protocol: a template's struct, and its points'."""

SCHEMES: Mapping[str, tuple[str, ...]] = {
    "modbus": ("tcp:", "rtu+tcp:", "serial:"),
    "opcua": ("opc.tcp:",),
    "bacnet": ("bacnet:",),
    "agent": ("agent:",),
}
"""By protocol: how its devices' URLs begin."""
