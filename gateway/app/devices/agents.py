"""ESP32 agents: all behind one broker, over one connection of ours."""

from decimal import Decimal
from functools import partial

from gateway.codec.agent_leaves import AgentColumn, AgentSource
from gateway.config import GatewayConfig, counters_of
from gateway.config.sections import AgentsSection
from gateway.config.templates import AgentTemplate
from gateway.drivers import Driver
from gateway.drivers.agents import AgentBroker, AgentDriver, Connect
from gateway.errors import ConfigError

QUEUED, QUEUED_BYTES = 4096, 2 << 20


def open_agents(config: GatewayConfig) -> dict[str, dict[str, Driver]]:
    """Return the drivers by name, all on one bus. Nothing is connected yet. Raises ConfigError."""
    templates = {
        name: template
        for name, section in config.devices.items()
        if isinstance(template := config.templates[section.template], AgentTemplate)
    }
    if not templates:
        return {}
    if config.agents is None:
        raise ConfigError(
            f"agents: got no section, want [agents] with the broker, as devices.{next(iter(templates))} is one"
        )
    broker = AgentBroker(connection(config.agents, client_id=f"{config.gateway.id}-agents"))
    opened: dict[str, Driver] = {}
    taken: dict[str, str] = {}
    for name, template in templates.items():
        section = config.devices[name]
        if not section.follow:
            raise ConfigError(f"devices.{name}.follow: got false, want true: an agent cannot be asked, it only tells")
        agent = section.url.removeprefix("agent:")
        if agent in taken:
            raise ConfigError(
                f"devices.{name}.url: got {section.url!r}, want another agent than devices.{taken[agent]}'s"
            )
        taken[agent] = name
        opened[name] = AgentDriver(
            source=source_of(name, agent, template),
            counters=frozenset(counters_of(template)),
            broker=broker,
            stale_s=section.stale_s,
        )
    return {"agents": opened}


def source_of(device: str, agent: str, template: AgentTemplate) -> AgentSource:
    """Return where the columns of a device come from. Raises ConfigError where two come from one."""
    columns = {}
    taken: dict[int | None, str] = {}
    for name, point in template.points.items():
        if point.index in taken:
            what = "no index, the energy register" if point.index is None else f"index {point.index}"
            raise ConfigError(f"devices.{device}: points.{name}: got {what}, which points.{taken[point.index]} has")
        taken[point.index] = name
        columns[name] = (point.unit, AgentColumn(point.index, Decimal(point.scale), Decimal(point.offset)))
    return AgentSource.of(agent, device, columns)


def connection(section: AgentsSection, *, client_id: str) -> Connect:
    """Return what makes a connection to the agents' broker: the same link as to the DMZ's, in the other zone."""
    from gateway.north.mqtt import Link  # noqa: PLC0415 (8 MB that only a gateway with agents needs)
    from gateway.north.tls import Endpoint  # noqa: PLC0415

    host, _, port = section.broker.rpartition(":")
    endpoint = Endpoint(host=host, port=int(port), ca=section.ca, cert=section.cert, key=section.key)
    return partial(Link, endpoint, client_id=client_id, queued=QUEUED, queued_bytes=QUEUED_BYTES, keep_session=True)
