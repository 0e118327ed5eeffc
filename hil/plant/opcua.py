"""The plant's OPC UA server: real security policies, and the misfortunes that a plant's servers have.

async with OpcuaServer(plant, port=0, folder=tmp) as server:
    ...  # server.url, server.certificate
    server.do("drop-node Compressor.Starts")
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Self, cast

from asyncua import ua
from asyncua.server.server import Server
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.status_codes import StatusCodes

from hil.plant.factory import CommandError, Plant
from hil.plant.opcua_entry import URI, Clients, Users, make_certificate
from hil.plant.opcua_nodes import NAMESPACE, NODES, UNITS, Cell, PlantNode, read_plant

COMMANDS = "opcua restart [SECONDS] | opcua renew | opcua drop-node NODE | opcua restore-node NODE"
_PADDING = "urn:wattseal:hil:another-namespace"
_SECURED = [
    ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt,
    ua.SecurityPolicyType.Basic256Sha256_Sign,
    ua.SecurityPolicyType.Aes128Sha256RsaOaep_SignAndEncrypt,
    ua.SecurityPolicyType.Aes128Sha256RsaOaep_Sign,
    ua.SecurityPolicyType.Aes256Sha256RsaPss_SignAndEncrypt,
    ua.SecurityPolicyType.Aes256Sha256RsaPss_Sign,
]


class OpcuaServer:
    """Serve the plant's values; an async context manager.

    folder: where the server's certificate and key are, or are made. clients: a folder of the certificates that
    clients may have; None takes any sound one. none: offer connections without security too.
    users: passwords by name; when there are some, nobody else may come in.
    Each restart numbers the namespaces anew, and forgets all sessions and subscriptions.
    """

    def __init__(
        self,
        plant: Plant,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        folder: Path,
        clients: Path | None = None,
        none: bool = False,
        users: Mapping[str, str] | None = None,
        period_s: float = 0.25,
    ) -> None:
        self._plant, self._host, self._port, self._period_s = plant, host, port, period_s
        self._clients, self._none, self._users = clients, none, dict(users or {})
        self.certificate, self._key = folder / "server.der", folder / "server.key.pem"
        self._dropped: set[str] = set()
        self._starts = 0
        self._todo: deque[list[str]] = deque()
        self._wake = asyncio.Event()
        self._server: Server | None = None
        self._last: dict[str, tuple[Cell | None, int]] = {}

    @property
    def url(self) -> str:
        """Where it listens; the same after each restart."""
        return f"opc.tcp://{self._host}:{self._port}/plant"

    def about(self) -> dict[str, str]:
        """Return what a client needs, as JSON can hold it."""
        return {
            "url": self.url,
            "namespace": NAMESPACE,
            "certificate": str(self.certificate),
            "thumbprint": self.thumbprint,
        }

    @property
    def thumbprint(self) -> str:
        """Its certificate's thumbprint, to compare with what a client shows."""
        return hashlib.sha1(self.certificate.read_bytes()).hexdigest()

    async def __aenter__(self) -> Self:
        if not self.certificate.exists():
            make_certificate(self.certificate, self._key)
        await self._start()
        self._task = asyncio.create_task(self._run(), name="plant-opcua")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        with suppress(asyncio.CancelledError):
            await self._task
        await self._stop()

    def do(self, command: str) -> None:
        """Do one of COMMANDS, without the word opcua, soon. Raises CommandError."""
        words = self.check(command)
        self._todo.append(words)
        self._wake.set()

    @staticmethod
    def check(command: str) -> list[str]:
        """Return the words of a command that `do` takes. Raises CommandError."""
        words = command.split()
        match words:
            case ["restart"] | ["renew"]:
                pass
            case ["restart", seconds] if seconds.replace(".", "", 1).isdecimal():
                pass
            case ["drop-node" | "restore-node", name] if any(node.id == name for node in NODES):
                pass
            case _:
                names = ", ".join(node.id for node in NODES)
                raise CommandError(f"got {'opcua ' + command!r}, want {COMMANDS}; NODE {names}")
        return words

    async def _run(self) -> None:
        while True:
            await self._show()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._period_s)
            self._wake.clear()
            while self._todo:
                await self._obey(self._todo.popleft())

    async def _obey(self, words: list[str]) -> None:
        match words:
            case ["restart" | "renew" as verb, *seconds]:
                await self._stop()
                if verb == "renew":
                    make_certificate(self.certificate, self._key)
                await asyncio.sleep(float(seconds[0]) if seconds else 0)
                await self._start()
            case ["drop-node", name] if name not in self._dropped:
                self._dropped.add(name)
                await self._drop(name)
            case ["restore-node", name] if name in self._dropped:
                self._dropped.discard(name)
                await self._add(next(node for node in NODES if node.id == name))

    async def _start(self) -> None:
        server = Server(user_manager=Users(self._users))  # type: ignore[arg-type]  # it asks for get_user alone
        await server.init()
        server.set_endpoint(self.url)
        server.set_server_name("Simulated plant")
        await server.set_application_uri(URI)
        tokens: list[type] = [ua.UserNameIdentityToken] if self._users else [ua.AnonymousIdentityToken]
        server.set_identity_tokens(tokens)
        server.set_security_policy([*_SECURED, *([ua.SecurityPolicyType.NoSecurity] if self._none else [])])
        await server.load_certificate(self.certificate)
        await server.load_private_key(self._key)
        server.set_certificate_validator(Clients(self._clients).check)
        if self._starts % 2:
            await server.register_namespace(_PADDING)
        self._index = await server.register_namespace(NAMESPACE)
        self._starts += 1
        self._server = server
        self._last.clear()
        for node in NODES:
            if node.id not in self._dropped:
                await self._add(node)
        await self._show()
        await server.start()
        assert server.bserver is not None
        self._port = server.bserver.port

    async def _stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop()

    async def _show(self) -> None:
        """Write each value that is new since the last time."""
        if self._server is None:
            return
        now, reading = cast("ua.DateTime", datetime.now(UTC)), read_plant(self._plant)
        for node in NODES:
            if node.id in self._dropped:
                continue
            dead = node.unit_id in reading.dead
            value = None if dead else node.value(reading)
            status = int(StatusCodes.BadNoCommunication) if dead else int(node.status)
            if self._last.get(node.id) == (value, status):
                continue
            self._last[node.id] = (value, status)
            content = ua.Variant() if dead else ua.Variant(value, node.type)
            shown = ua.DataValue(content, ua.StatusCode(ua.UInt32(status)), SourceTimestamp=now)
            await self._server.write_attribute_value(self._node_id(node.id), shown)

    async def _add(self, node: PlantNode) -> None:
        assert self._server is not None
        *folders, name = node.id.split(".")
        parent = self._server.nodes.objects
        for depth, folder in enumerate(["Plant", *folders]):
            key = self._node_id(".".join(["Plant", *folders][1 : depth + 1]) or "Plant")
            known = key in self._server.iserver.aspace
            parent = self._server.get_node(key) if known else await parent.add_object(key, self._name(folder))
        zero = ua.Variant(_ZEROS[node.type], node.type)
        made = await parent.add_variable(self._node_id(node.id), self._name(name), zero)
        self._last.pop(node.id, None)
        if node.unit is None:
            return
        code, title = UNITS[node.unit]
        unit = ua.EUInformation(
            NamespaceUri="http://www.opcfoundation.org/UA/units/un/cefact",
            UnitId=int.from_bytes(code.encode(), "big"),
            DisplayName=ua.LocalizedText(node.unit),
            Description=ua.LocalizedText(title),
        )
        for property_name, content in (
            ("EURange", ua.Range(Low=node.low, High=node.high)),
            ("EngineeringUnits", unit),
        ):
            key = self._node_id(f"{node.id}.{property_name}")
            if key not in self._server.iserver.aspace:
                await made.add_property(key, ua.QualifiedName(property_name, 0), content)

    async def _drop(self, name: str) -> None:
        """Delete a node; who watches it is told so, once, and hears no more."""
        assert self._server is not None
        key = self._node_id(name)
        gone = ua.DataValue(ua.Variant(), ua.StatusCode(ua.UInt32(StatusCodes.BadNodeIdUnknown)))
        await self._server.write_attribute_value(key, gone)
        space = self._server.iserver.aspace
        for handle in tuple(space[key].attributes[AttributeIds.Value].datachange_callbacks):
            space.delete_datachange_callback(handle)
        await self._server.delete_nodes([self._server.get_node(key)], recursive=True)

    def _node_id(self, name: str) -> ua.NodeId:
        return ua.NodeId(ua.String(name), ua.Int16(self._index))

    def _name(self, name: str) -> ua.QualifiedName:
        return ua.QualifiedName(name, self._index)


_ZEROS: Mapping[ua.VariantType, Cell] = {
    ua.VariantType.Boolean: False,
    ua.VariantType.String: "",
    ua.VariantType.Float: 0.0,
    ua.VariantType.Double: 0.0,
    ua.VariantType.Int32: 0,
    ua.VariantType.UInt16: 0,
    ua.VariantType.UInt32: 0,
    ua.VariantType.UInt64: 0,
}
