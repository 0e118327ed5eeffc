"""Commands for OPC UA: who we are, whom we trust, and what is there."""

import asyncio
import json
import logging
import socket
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import click

from gateway.app.load import load_gateway
from gateway.config.templates import OpcuaTemplate
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.drivers.opcua_browse import Found
    from gateway.drivers.opcua_cert import Certificate
    from gateway.drivers.opcua_connect import Access
    from gateway.drivers.opcua_trust import TrustList

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")
_URL = "opc.tcp://"


@click.group()
def opcua() -> None:
    """Who we are to OPC UA servers, and which servers we trust.

    \b
    Example: wattseal opcua own gateway.toml
             wattseal opcua trust gateway.toml
    """  # noqa: D301 (click's mark for a block that is not wrapped)


@opcua.command()
@_FILE
@click.option("--host", "hosts", multiple=True, help="A name or address of this machine; may be given again.")
@click.option("--days", type=click.IntRange(1, 7300), default=5 * 365, show_default=True, help="How long it is valid.")
@click.option("--force", is_flag=True, help="Write over the one that is there: each server must trust the new one.")
@_JSON
def own(file: Path, hosts: tuple[str, ...], days: int, *, force: bool, as_json: bool) -> None:
    """Make the application certificate that servers know this gateway by, and its key.

    Example: wattseal opcua own gateway.toml
    """
    from gateway.drivers.opcua_cert import make_own

    config = load_gateway(file)
    made = make_own(
        config.opcua.cert,
        config.opcua.key,
        gateway=config.gateway.id,
        hosts=hosts or (socket.gethostname(),),
        days=days,
        force=force,
    )
    text = [
        f"{config.opcua.cert}",
        *_described(made),
        "Each server must trust it: connect once, then accept it among the certificates that the server rejected.",
    ]
    _say({"cert": str(config.opcua.cert), **_fields(made)}, as_json=as_json, text="\n".join(text))


@opcua.command()
@_FILE
@click.argument("thumbprint", required=False)
@click.option("--remove", metavar="THUMBPRINT", help="Trust this certificate no more.")
@_JSON
def trust(file: Path, thumbprint: str | None, remove: str | None, *, as_json: bool) -> None:
    """List the servers' certificates; trust the one with this thumbprint.

    A server whose certificate is not trusted is refused, and its certificate is kept among the rejected ones.
    Compare the thumbprint with the one that the server itself shows before you trust it.

    \b
    Example: wattseal opcua trust gateway.toml
             wattseal opcua trust gateway.toml 5bf6476d97dbf3827d17a45d5bbbc70c8327ea41
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.drivers.opcua_trust import TrustList

    section = load_gateway(file).opcua
    if thumbprint and remove:
        raise ConfigError("opcua trust: got a thumbprint and --remove, want one of them")
    known = TrustList(trusted=section.trusted, rejected=section.rejected)
    if remove:
        path = known.remove(remove)
        _say({"removed": str(path)}, as_json=as_json, text=f"{path}: no longer trusted, from the next connection on")
    elif thumbprint:
        path, certificate = known.accept(thumbprint)
        text = [f"{path}: trusted now", *_described(certificate)]
        _say({"trusted": str(path), **_fields(certificate)}, as_json=as_json, text="\n".join(text))
    else:
        _list(file, known, section.trusted, section.rejected, as_json=as_json)


def _list(file: Path, known: "TrustList", trusted: Path, rejected: Path, *, as_json: bool) -> None:
    lists = {"trusted": known.trusted(), "rejected": known.rejected()}
    lines: list[str] = []
    for (name, found), folder in zip(lists.items(), (trusted, rejected), strict=True):
        lines.append(f"{name} ({folder}): {len(found) or 'none'}")
        for certificate in found.values():
            first, *rest = _described(certificate)
            lines += [f"  {first.strip()}", *(f"    {line.strip()}" for line in rest)]
    if lists["rejected"]:
        lines.append(f"To trust one: wattseal opcua trust {file} THUMBPRINT")
    shown = {
        name: [{"file": str(path), **_fields(certificate)} for path, certificate in found.items()]
        for name, found in lists.items()
    }
    _say(shown, as_json=as_json, text="\n".join(lines))


@click.command()
@click.argument("target", metavar="URL | FILE DEVICE")
@click.argument("device", required=False, metavar="")
@click.option("--node", default="i=85", show_default="i=85, Objects", help="Where to begin: nsu=<URI>;s=<identifier>.")
@click.option("--depth", type=click.IntRange(1, 30), default=4, show_default=True, help="Levels below it, at most.")
@click.option("--most", type=click.IntRange(1, 100_000), default=500, show_default=True, help="Nodes, at most.")
@click.option("--seconds", type=click.FloatRange(1, 3600), default=30, show_default=True, help="Time, at most.")
@click.option("--none", is_flag=True, help="Connect to a URL without security: what it shows may be forged.")
@_JSON
def browse(
    target: str,
    device: str | None,
    node: str,
    depth: int,
    most: int,
    seconds: float,
    *,
    none: bool,
    as_json: bool,
) -> None:
    """Show the nodes of an OPC UA server, as templates name them. Reads, and changes nothing.

    \b
    Example: wattseal browse gateway.toml line3
             wattseal browse gateway.toml line3 --node "nsu=urn:maker;s=Line3" --depth 2
             wattseal browse opc.tcp://192.0.2.10:4840 --none
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.drivers.opcua_browse import Walk, flat
    from gateway.drivers.opcua_browse import browse as walk_from

    logging.getLogger("asyncua").setLevel(logging.CRITICAL)  # errors are said once, in our words
    access = _open_url(target, none=none) if target.startswith(_URL) else _of_device(Path(target), device or "")
    root, cut = asyncio.run(walk_from(access, node, Walk(depth=depth, most=most, seconds=seconds)))
    if as_json:
        click.echo(json.dumps({"url": access.url, "cut": cut, "root": asdict(root)}, ensure_ascii=False))
        return
    rows = [(2 * found.depth * " " + found.name, found) for found in flat(root)]
    width = min(48, max(len(name) for name, _ in rows))
    for name, found in rows:
        click.echo(f"{name:<{width}}  {_shown(found):<36}  {found.id}".rstrip())
    if cut:
        click.echo(f"{cut}: this is not all", err=True)


def _open_url(url: str, *, none: bool) -> "Access":
    from gateway.drivers.opcua_connect import Access

    if not none:
        raise ConfigError(
            f"{url}: got no certificates to secure it with, want --none, or a device: wattseal browse gateway.toml NAME"
        )
    if not url.isprintable() or not urlsplit(url).hostname:
        raise ConfigError(f"{url!r}: want opc.tcp://host:port/path")
    return Access(url=url, security="None", mode="None")


def _of_device(file: Path, device: str) -> "Access":
    """Return how gateway.toml says to connect with a device. Raises ConfigError."""
    from gateway.app.devices.opcua_open import opcua_access

    config = load_gateway(file)
    templates = {name: config.templates[section.template] for name, section in config.devices.items()}
    devices = [name for name, template in templates.items() if isinstance(template, OpcuaTemplate)]
    if device not in devices:
        raise ConfigError(f"{file}: got device {device!r}, want one of OPC UA: {', '.join(devices) or 'none there'}")
    try:
        return opcua_access(config.devices[device], config)
    except ConfigError as e:
        raise ConfigError(f"{file}: devices.{device}: {e}") from e


def _shown(found: "Found") -> str:
    if found.kind != "Variable":
        return found.kind
    value = f"{found.value} {found.unit}".strip() or "(no value)"
    return f"{found.type} {value}" + (f" [{found.status}]" if found.status else "")


def _fields(certificate: "Certificate") -> dict[str, Any]:
    return {
        "thumbprint": certificate.thumbprint,
        "subject": certificate.subject,
        "uris": list(certificate.uris),
        "hosts": list(certificate.hosts),
        "valid_from": certificate.start.isoformat(),
        "valid_to": certificate.end.isoformat(),
    }


def _described(certificate: "Certificate") -> list[str]:
    return [
        f"  thumbprint  {certificate.thumbprint}",
        f"  subject     {certificate.subject}",
        f"  URI         {', '.join(certificate.uris) or '(none)'}",
        f"  hosts       {', '.join(certificate.hosts) or '(none)'}",
        f"  valid       {certificate.start:%Y-%m-%d} to {certificate.end:%Y-%m-%d}",
    ]


def _say(found: Mapping[str, Any], *, as_json: bool, text: str) -> None:
    click.echo(json.dumps(found) if as_json else text)


COMMANDS = (opcua, browse)
