"""`[context]` of ledger.toml: how systems of the DMZ say what a line makes."""

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from gateway.config.values import GatewayName, HostPort, Name, Section
from gateway.errors import ConfigError
from gateway.model import What

_LEVEL = r"[^/+#\x00-\x1f\x7f]"

Filter = Annotated[
    str,
    Meta(
        pattern=rf"^(?!wattseal/|\$){_LEVEL}{{1,100}}(/(\+|{_LEVEL}{{0,100}})){{0,30}}(/#)?\Z",
        max_length=200,
        description="a filter of topics such as umh/v1/works/filling/_mes/job, its first level a plain name",
    ),
]


class TopicSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[[context.topics]]`: a topic of a unified namespace, and what it says of which line."""

    filter: Filter
    gateway: GatewayName
    line: Name
    what: What


class IntakeSection(Section, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`[context]`: what an MES may tell us, over the broker and over HTTPS.

    mqtt: whether topics of the broker are listened to: those of the systems in tokens, and topics. listen: where HTTPS
    is served, with cert and key; tokens: a file with mode 0600 of the systems that may speak. late_days: what is said
    of earlier than that is refused. per_minute: so many facts of one system are
    taken; never fewer than one message may hold.
    """

    mqtt: bool = False
    topics: tuple[TopicSection, ...] = ()
    listen: HostPort | None = None
    cert: Path | None = None
    key: Path | None = None
    tokens: Path | None = None
    late_days: Annotated[int, Meta(ge=1, le=366)] = 31
    per_minute: Annotated[int, Meta(ge=100, le=60_000)] = 600


def check_intake(section: IntakeSection, name: str) -> IntakeSection:
    """Return the section, once its keys fit each other. name: the file's. Raises ConfigError."""
    for key in ("cert", "key", "tokens") if section.listen else ():
        if getattr(section, key) is None:
            raise ConfigError(f"{name}: context.{key}: got nothing, want a file: listen is set")
    if section.mqtt and section.tokens is None and not section.topics:
        raise ConfigError(f"{name}: context.tokens: got nothing, want a file, or [[context.topics]]: mqtt is set")
    if section.topics and not section.mqtt:
        raise ConfigError(f"{name}: context.mqtt: got false, want true: there are [[context.topics]]")
    return section
