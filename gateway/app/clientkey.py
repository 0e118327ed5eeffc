"""How forward proves to the broker who it is: with a key in a file, in a TPM, or in memory.

| backend | where the key is | its certificate |
|---|---|---|
| `file` | a file; for development | a file |
| `tpm` | the TPM; OpenSSL asks for each signature through its provider tpm2 (Debian 13) | a file, of years |
| `memory` | this process alone, new at each start | issued for hours, and only after a good quote |
"""

import asyncio
import hashlib
import os
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from structlog.typing import FilteringBoundLogger

from gateway.app.channel import connect
from gateway.codec.pack import pack, unpack
from gateway.config import GatewayConfig
from gateway.errors import ConfigError, LinkError, TrustError
from gateway.north.mqtt import Link, enrol_topic
from gateway.north.tls import Endpoint, prove_key

if TYPE_CHECKING:
    from gateway.north.memory_key import MemoryKey

ANSWER_S = 20.0
"""How long the issuer, or the seal, may take for one answer."""
AGAIN_S = 6.0
"""How long to wait for a challenge before asking again: an issuer answers each gateway every 5 s at most."""
TRY_S = 60.0
"""How long to go on with one request."""
RETRY_S = 120.0
"""After a renewal that failed."""
_RENEW_AT = 2 / 3


class ClientKey(Protocol):
    """What forward shows the broker."""

    async def endpoint(self) -> Endpoint:
        """Return what to connect with now. Raises LinkError while there is nothing, ConfigError for a useless key."""
        ...

    async def renewed(self) -> None:
        """Return once there is something else to connect with; what `endpoint` gave holds meanwhile."""
        ...


@dataclass(frozen=True, slots=True)
class FileKey:
    """Certificate and key as files name them; a key in a TPM is one, too, to whoever only reads paths."""

    place: Endpoint

    async def endpoint(self) -> Endpoint:
        """Return it."""
        return self.place

    async def renewed(self) -> None:
        """Wait for ever."""
        await asyncio.get_running_loop().create_future()


class IssuedKey:
    """A key in memory. bootstrap: the certificate that lets us ask for one, and for nothing else.

    outlet: the seal's socket: its TPM vouches for the request.
    """

    def __init__(self, gateway: str, *, bootstrap: Endpoint, outlet: Path, log: FilteringBoundLogger) -> None:
        self._gateway, self._bootstrap, self._outlet, self._log = gateway, bootstrap, outlet, log
        self._held: MemoryKey | None = None
        self._place: Endpoint | None = None
        self._due_s = self._expires_s = 0.0

    async def endpoint(self) -> Endpoint:
        """Return the endpoint of a certificate that holds, asking for one where there is none.

        Raises LinkError while there is none: the issuer is out of reach, or refuses us.
        """
        if self._place is None or time.time() >= self._expires_s:
            self._place = await self._certified()
        return self._place

    async def renewed(self) -> None:
        """Ask for a new certificate when two thirds of the life of this one are over, and return once it is there.

        The one that holds serves on meanwhile, whatever the issuer says.
        """
        is_kept = False
        while True:
            await asyncio.sleep(self._due_s - time.time())
            try:
                self._place = await self._certified()
            except LinkError as e:
                if not is_kept:
                    self._log.warning("forward.certificate_kept", why=str(e))
                is_kept, self._due_s = True, time.time() + RETRY_S
            else:
                return

    async def _certified(self) -> Endpoint:
        """Return the endpoint of a new certificate. Raises LinkError."""
        from gateway.north.memory_key import MemoryKey  # noqa: PLC0415 (2 MB that a key in a file needs not)

        key = MemoryKey(self._gateway)
        try:
            async with asyncio.timeout(TRY_S):
                cert, private = key.adopt(await self._ask(key.csr))
            prove_key(cert, private)
        except (TrustError, ConfigError) as e:
            key.close()
            raise LinkError(f"certificate: {e}") from e
        except TimeoutError as e:
            key.close()
            raise LinkError(f"certificate: no answer from the issuer within {TRY_S:g} s") from e
        except BaseException:
            key.close()
            raise
        if self._held is not None:
            self._held.close()
        now_s, base = time.time(), self._bootstrap
        self._held, self._expires_s = key, key.expires_s
        self._due_s = now_s + (key.expires_s - now_s) * _RENEW_AT
        self._log.info("forward.certified", hours=round((key.expires_s - now_s) / 3600, 2))
        return Endpoint(host=base.host, port=base.port, ca=base.ca, cert=cert, key=private)

    async def _ask(self, csr: bytes) -> list[bytes]:
        """Return the chain that the issuer gives for this request. Raises LinkError, TrustError."""
        gateway = self._gateway
        request = enrol_topic(gateway, "request")
        async with Link(self._bootstrap, client_id=f"enrol_{gateway}", queued=4) as link:
            await link.subscribe(enrol_topic(gateway, "reply"))
            first = await self._greet(link, request, pack({"v": 1, "csr": csr, "evidence": b""}))
            note = _field(first, "challenge", bytes)
            evidence = await self._quote(note, hashlib.sha256(csr).digest())
            await link.publish(request, pack({"v": 1, "csr": csr, "evidence": evidence}))
            chain: list[bytes] = _field(await _reply(link), "chain", list)
        if not all(type(one) is bytes for one in chain):
            raise TrustError("chain: want certificates in DER")
        return chain

    async def _greet(self, link: Link, topic: str, request: bytes) -> dict[str, Any]:
        """Return the reply to a request, made again and again: the issuer may be away, and nothing is kept for it."""
        while True:
            await link.publish(topic, request)
            with suppress(TimeoutError):
                return await _reply(link, within_s=AGAIN_S)

    async def _quote(self, note: bytes, bound: bytes) -> bytes:
        with closing(await connect(self._outlet)) as channel:
            await channel.send(["challenge", note, bound])
            async with asyncio.timeout(ANSWER_S):
                match await channel.receive():
                    case [["evidence", bytes(evidence)]]:
                        return evidence
                    case [["refused", 0, str(why)]]:
                        raise LinkError(f"seal: {why}")
                    case other:
                        raise LinkError(f"seal: got {str(other)[:80]}, want evidence")


async def _reply(link: Link, within_s: float = ANSWER_S) -> dict[str, Any]:
    async with asyncio.timeout(within_s):
        said = unpack((await anext(link)).payload)
    if type(said) is not dict or said.get("v") != 1:
        raise TrustError("reply: want a map with v = 1")
    if type(why := said.get("refused")) is str:
        raise LinkError(f"the issuer refuses: {why[:300]}")
    return said


def _field(said: dict[str, Any], name: str, kind: type) -> Any:
    if type(said.get(name)) is not kind:
        raise TrustError(f"reply: got {sorted(map(str, said))[:8]}, want {name}")
    return said[name]


def client_key(config: GatewayConfig, *, log: FilteringBoundLogger) -> ClientKey:
    """Return what gateway.toml says; a key in a file, or in a TPM, is tried first. Raises ConfigError."""
    section = config.forward
    host, _, port = section.broker.rpartition(":")
    base = Endpoint(host=host, port=int(port), ca=section.ca, cert=section.cert, key=section.key)
    if section.key_in == "memory":
        return IssuedKey(config.gateway.id, bootstrap=base, outlet=config.run_folder / "outlet.sock", log=log)
    if section.key_in == "tpm" and not os.environ.get("OPENSSL_CONF"):
        raise ConfigError(
            "forward.key_in: got tpm without OPENSSL_CONF in the environment, want one that loads OpenSSL's provider "
            "tpm2 for this process: see docs/tls.md"
        )
    prove_key(section.cert, section.key)
    return FileKey(base)
