"""What is there on an OPC UA server: a bounded walk with the Browse and Read services, and no other."""

import asyncio
import base64
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIdNames, ObjectIds
from asyncua.ua.uaerrors import UaError

from gateway.drivers.opcua_connect import FOREIGN, Access, connect
from gateway.drivers.opcua_session import Session
from gateway.errors import ConfigError, DeviceError

OBJECTS: Final = "i=85"
_SERVER: Final = ua.NodeId(ua.Int32(ObjectIds.Server))
_AT_ONCE: Final = 100
_MOST_REFERENCES: Final = 1000
_MOST_TEXT: Final = 100
_UNPRINTABLE: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")


@dataclass(slots=True, kw_only=True)
class Found:
    """One node. id: `nsu=<namespace URI>;s=<identifier>`, as templates have it.

    value: as text; "" for what has none. status: in words where it is not good.
    """

    id: str
    name: str
    kind: str
    depth: int
    type: str = ""
    value: str = ""
    unit: str = ""
    range: str = ""
    status: str = ""
    children: list["Found"] = field(default_factory=list)


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """How far to go: levels below the first node, nodes, seconds."""

    depth: int = 4
    most: int = 500
    seconds: float = 30.0


async def browse(access: Access, start: str, walk: Walk) -> tuple[Found, str]:
    """Connect, and return the tree from a node on, and why it is not whole; "" when it is.

    The server's own node is not opened unless one starts there. Raises ConfigError for a node that cannot be, and
    DeviceError for one that is not there, and for whatever a server does.
    """
    opened = await connect(access)
    session = Session(opened, (), access.timeout_s)
    try:
        return await _walk(opened.client, start, walk)
    except FOREIGN as e:
        why = opened.wire.why or ("no reply in time" if isinstance(e, TimeoutError) else _line(str(e)))
        raise DeviceError(f"{access.url}: {why or type(e).__name__}") from e
    finally:
        await session.close()


async def _walk(client: Client, start: str, walk: Walk) -> tuple[Found, str]:
    names = await _read(client, [ua.NodeId(ua.Int32(ObjectIds.Server_NamespaceArray))], AttributeIds.Value)
    content = names[0].Value.Value if names and names[0].Value is not None else None
    uris = [str(uri) for uri in content] if isinstance(content, list) else []
    first = node_of(start, uris)
    browser = _Browser(client, uris, walk)
    root = await browser.root(first)
    try:
        async with asyncio.timeout(walk.seconds) as limit:
            await browser.descend(root, first)
    except TimeoutError:
        if not limit.expired():
            raise  # one request had no answer
        browser.cut = f"stopped after {walk.seconds:g} s"
    return root, browser.cut


def flat(found: Found) -> Iterator[Found]:
    """Give a tree's nodes, each before what is below it."""
    yield found
    for child in found.children:
        yield from flat(child)


def node_of(text: str, uris: Sequence[str]) -> ua.NodeId:
    """Return the node that `nsu=<URI>;s=<identifier>` names on a server with these namespaces. Raises ConfigError."""
    index = 0
    rest = text
    if text.startswith("nsu="):
        uri, _, rest = text.removeprefix("nsu=").partition(";")
        if uri not in uris:
            raise ConfigError(f"--node: got the namespace {uri!r}, want one of the server's: {', '.join(uris)}")
        index = uris.index(uri)
    elif text.startswith("ns="):
        raise ConfigError(
            f"--node: got {text!r}, want nsu=<namespace URI>;...: a server may number its namespaces anew"
        )
    try:
        return ua.NodeId.from_string(f"ns={index};{rest}")
    except (UaError, ValueError) as e:
        raise ConfigError(f"--node: got {text!r}, want such as nsu=urn:maker;s=Line1.Energy, or i=85") from e


def text_of(node: ua.NodeId, uris: Sequence[str]) -> str:
    """Return a node's name as templates have it."""
    identifier = node.Identifier
    if isinstance(identifier, bytes):
        rest = f"b={base64.b64encode(identifier).decode()}"
    elif isinstance(identifier, str):
        rest = f"s={identifier}"
    else:
        rest = f"i={identifier}" if isinstance(identifier, int) else f"g={identifier}"
    index = node.NamespaceIndex
    if not index:
        return _line(rest)
    return _line(f"nsu={uris[index]};{rest}" if index < len(uris) else f"ns={index};{rest}", 1000)


class _Browser:
    """One walk: breadth first, so that what a bound cuts off is what lies deepest."""

    def __init__(self, client: Client, uris: Sequence[str], walk: Walk) -> None:
        self._client, self._uris, self._walk = client, uris, walk
        self._seen: set[ua.NodeId] = set()
        self.cut = ""

    async def root(self, node: ua.NodeId) -> Found:
        kinds, names = [
            (await _read(self._client, [node], attribute))[0]
            for attribute in (AttributeIds.NodeClass, AttributeIds.BrowseName)
        ]
        if kinds.Value is None or kinds.Value.Value is None:
            raise DeviceError(f"{text_of(node, self._uris)}: the server says {_status(kinds) or 'nothing'}")
        name = names.Value.Value if names.Value is not None else None
        title = name.Name if isinstance(name, ua.QualifiedName) else ""
        kind = _kind(kinds.Value.Value)
        found = Found(id=text_of(node, self._uris), name=_line(title or ""), kind=kind, depth=0)
        if kind == "Variable":
            await self._read_values([(found, node)])
        return found

    async def descend(self, root: Found, first: ua.NodeId) -> None:
        level = [(root, first)]
        self._seen.add(first)
        for _ in range(self._walk.depth):
            below: list[tuple[Found, ua.NodeId]] = []
            for at in range(0, len(level), _AT_ONCE):
                below += await self._open(level[at : at + _AT_ONCE])
            await self._read_values([(found, node) for found, node in below if found.kind == "Variable"])
            level = below
            if not level or self.cut:
                break
        else:
            if any(found.kind == "Object" for found, _ in level):
                self.cut = self.cut or f"stopped at depth {self._walk.depth}"

    async def _open(self, level: list[tuple[Found, ua.NodeId]]) -> list[tuple[Found, ua.NodeId]]:
        """Add the children of some nodes to them, and return them; properties become the node's own."""
        level = [(found, node) for found, node in level if node != _SERVER or found.depth == 0]
        below: list[tuple[Found, ua.NodeId]] = []
        properties: list[tuple[Found, str, ua.NodeId]] = []
        for (found, _), references in zip(level, await self._references([n for _, n in level]), strict=True):
            for reference in references:
                node = self._plain(reference.NodeId)
                if node is None:
                    continue
                if reference.ReferenceTypeId == ua.NodeId(ua.Int32(ObjectIds.HasProperty)):
                    if reference.BrowseName.Name in {"EngineeringUnits", "EURange"}:
                        properties.append((found, reference.BrowseName.Name, node))
                    continue
                if node in self._seen:
                    continue
                if len(self._seen) >= self._walk.most:
                    self.cut = f"stopped at {self._walk.most} nodes"
                    break
                self._seen.add(node)
                child = Found(
                    id=text_of(node, self._uris),
                    name=_line(str(reference.BrowseName.Name)),
                    kind=_kind(reference.NodeClass),
                    depth=found.depth + 1,
                )
                found.children.append(child)
                below.append((child, node))
        await self._read_properties(properties)
        return below

    async def _references(self, nodes: Sequence[ua.NodeId]) -> list[list[ua.ReferenceDescription]]:
        if not nodes:
            return []
        wanted = ua.BrowseParameters()
        wanted.View.ViewId = ua.NodeId()
        wanted.RequestedMaxReferencesPerNode = ua.UInt32(_MOST_REFERENCES)
        for node in nodes:
            each = ua.BrowseDescription()
            each.NodeId = node
            each.BrowseDirection = ua.BrowseDirection.Forward
            each.ReferenceTypeId = ua.NodeId(ua.Int32(ObjectIds.HierarchicalReferences))
            each.IncludeSubtypes = True
            each.ResultMask = ua.UInt32(ua.BrowseResultMask.All)
            wanted.NodesToBrowse.append(each)
        results = await self._client.uaclient.browse(wanted)
        if len(results) != len(nodes):
            raise DeviceError(f"the server answers for {len(results)} nodes, want {len(nodes)}")
        return [await self._all(result) for result in results]

    async def _all(self, result: ua.BrowseResult) -> list[ua.ReferenceDescription]:
        """Return a node's references, with those that the server held back, as far as there is room for them."""
        references = list(result.References or ())
        point = result.ContinuationPoint
        while point:
            more = ua.BrowseNextParameters()
            more.ContinuationPoints = [point]
            more.ReleaseContinuationPoints = len(references) >= self._walk.most
            answers = await self._client.uaclient.browse_next(more)
            if more.ReleaseContinuationPoints or not answers or not answers[0].References:
                break
            references += answers[0].References
            point = answers[0].ContinuationPoint
        return references

    async def _read_values(self, variables: list[tuple[Found, ua.NodeId]]) -> None:
        for at in range(0, len(variables), _AT_ONCE):
            part = variables[at : at + _AT_ONCE]
            nodes = [node for _, node in part]
            types = await _read(self._client, nodes, AttributeIds.DataType)
            values = await _read(self._client, nodes, AttributeIds.Value)
            for (found, _), kind, value in zip(part, types, values, strict=True):
                node = kind.Value.Value if kind.Value is not None else None
                found.type = self._type(node) if isinstance(node, ua.NodeId) else ""
                found.status = _status(value)
                shown = value.Value.Value if value.Value is not None else None
                found.value = "" if shown is None else _line(str(shown))

    async def _read_properties(self, properties: list[tuple[Found, str, ua.NodeId]]) -> None:
        for at in range(0, len(properties), _AT_ONCE):
            part = properties[at : at + _AT_ONCE]
            values = await _read(self._client, [node for _, _, node in part], AttributeIds.Value)
            for (found, _, _), value in zip(part, values, strict=True):
                content = value.Value.Value if value.Value is not None else None
                if isinstance(content, ua.EUInformation):
                    found.unit = _line(content.DisplayName.Text or "")
                elif isinstance(content, ua.Range):
                    found.range = f"{content.Low:g}..{content.High:g}"

    def _plain(self, node: ua.NodeId) -> ua.NodeId | None:
        """Return a reference's target as a node of this server; None for one of another."""
        index = node.NamespaceIndex
        if isinstance(node, ua.ExpandedNodeId):
            if node.ServerIndex:
                return None
            if node.NamespaceUri:
                if node.NamespaceUri not in self._uris:
                    return None
                index = ua.Int16(self._uris.index(node.NamespaceUri))
        return ua.NodeId(node.Identifier, index)

    def _type(self, node: ua.NodeId) -> str:
        if node.NamespaceIndex == 0 and isinstance(node.Identifier, int):
            return ObjectIdNames.get(node.Identifier, f"i={node.Identifier}")
        return text_of(node, self._uris)


async def _read(client: Client, nodes: Sequence[ua.NodeId], attribute: AttributeIds) -> list[ua.DataValue]:
    if not nodes:
        return []
    values = await client.uaclient.read_attributes(list(nodes), attribute)
    if len(values) != len(nodes):
        raise DeviceError(f"the server answers for {len(values)} nodes, want {len(nodes)}")
    return values


def _kind(number: int) -> str:
    try:
        return ua.NodeClass(number).name
    except ValueError:
        return str(number)


def _status(value: ua.DataValue) -> str:
    status = value.StatusCode
    return "" if status is None or status.is_good() else status.name


def _line(text: str, most: int = _MOST_TEXT) -> str:
    """Return a stranger's text as one line that a terminal shows and does not obey."""
    plain = _UNPRINTABLE.sub("?", text)
    return plain if len(plain) <= most else plain[: most - 1] + "…"
