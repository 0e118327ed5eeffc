"""OPC UA devices from their configuration: nodes, security, identities."""

import stat
from decimal import Decimal
from pathlib import Path

from gateway.config import DeviceSection, GatewayConfig
from gateway.config.templates import OpcuaTemplate
from gateway.drivers.opcua import Access, Following, OpcuaDriver, OpcuaPoint
from gateway.drivers.opcua_connect import NONE
from gateway.drivers.opcua_trust import TrustList, own_identity
from gateway.errors import ConfigError

_MOST_PASSWORD = 1000


def opcua_access(section: DeviceSection, config: GatewayConfig) -> Access:
    """Return how to speak with a device's server. Raises ConfigError."""
    own = section.opcua
    secured = own.security != NONE or own.mode != NONE
    if own.user and own.password is None:
        raise ConfigError("opcua.user: got one without opcua.password, want a file that holds it")
    if own.user_key is not None:
        _check_secret(own.user_key, "opcua.user_key")
    return Access(
        url=section.url,
        security=own.security,
        mode=own.mode,
        user=own.user,
        password=_password(own.password) if own.password is not None else "",
        user_cert=own.user_cert,
        user_key=own.user_key,
        timeout_s=section.timeout_s,
        trust=TrustList(trusted=config.opcua.trusted, rejected=config.opcua.rejected) if secured else None,
        own=own_identity(config.opcua.cert, config.opcua.key) if secured else None,
    )


def opcua_points(template: OpcuaTemplate) -> tuple[OpcuaPoint, ...]:
    """Return the nodes of a template in the file's order."""
    return tuple(
        OpcuaPoint(
            name=name,
            node=entry.node,
            store=entry.store,
            unit=entry.unit,
            kind=entry.kind,
            scale=Decimal(entry.scale),
            offset=Decimal(entry.offset),
            sampling_s=entry.sampling_s,
            absolute=entry.absolute,
            percent=entry.percent,
        )
        for name, entry in template.points.items()
    )


def opcua_driver(name: str, section: DeviceSection, template: OpcuaTemplate, config: GatewayConfig) -> OpcuaDriver:
    """Return a device's driver. Nothing is connected yet. Raises ConfigError."""
    own = section.opcua
    return OpcuaDriver(
        name=name,
        points=opcua_points(template),
        access=opcua_access(section, config),
        following=Following(sampling_s=own.sampling_s, publishing_s=own.publishing_s, queue=own.queue),
    )


def _password(path: Path) -> str:
    _check_secret(path, "opcua.password")
    try:
        text = path.read_text(encoding="utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as e:
        raise ConfigError(f"opcua.password: cannot read {path}: {e}") from e
    if not 0 < len(text) <= _MOST_PASSWORD:
        raise ConfigError(f"opcua.password: got {len(text)} characters in {path}, want 1..{_MOST_PASSWORD}")
    return text


def _check_secret(path: Path, where: str) -> None:
    """Refuse a secret that others may read."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except OSError as e:
        raise ConfigError(f"{where}: cannot read {path}: {e.strerror}") from e
    if mode & 0o077:
        raise ConfigError(f"{where}: got mode {mode:04o} for {path}, want 0600: chmod 600 {path}")
