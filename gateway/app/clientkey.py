"""How forward proves to the broker who it is: with a key in a file, in a TPM, or in memory.

| backend | where the key is | its certificate |
|---|---|---|
| `file` | a file; for development | a file |
| `tpm` | the TPM, new at each start; OpenSSL has it sign through its provider tpm2 (Debian 13) | as below |
| `memory` | this process alone, new at each start | issued for hours, and only after a good quote |

What is in use is tried first, and told to the seal with each challenge: the evidence says what forward has proven.
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
from gateway.attest.lenient import read_certificate
from gateway.codec.frames import Message
from gateway.codec.pack import pack, unpack
from gateway.config import GatewayConfig
from gateway.errors import ConfigError, LinkError, TrustError
from gateway.north.mqtt import Link, enrol_topic
from gateway.north.tls import Endpoint, certificate_of, prove_key

if TYPE_CHECKING:
    from gateway.north.memory_key import HeldKey

ANSWER_S = 20.0
"""How long the seal may take for one answer."""
AGAIN_S = 6.0
"""How long to wait for a reply before asking again: an issuer challenges each gateway every 5 s at most."""
TRY_S = 60.0
"""How long to go on with one request."""
RETRY_S = 120.0
"""After a renewal that failed."""
LOOK_S = 10.0
"""Between two looks at a certificate: at its end, and whether its file is another one."""
RENEW_AT = 2 / 3
"""Of a certificate's life: then the next one is due."""


class ClientKey(Protocol):
    """What forward shows the broker. backend: where its key has been proven to be: file, tpm or memory."""

    backend: str

    async def endpoint(self) -> Endpoint:
        """Return what to connect with now. Raises LinkError while there is nothing, ConfigError for a useless key."""
        ...

    async def renewed(self) -> None:
        """Return once there is something else to connect with; what `endpoint` gave holds meanwhile."""
        ...

    @property
    def life(self) -> tuple[int, int]:
        """From when to when the certificate holds, in Unix seconds; (0, 0) while there is none that can be read."""
        ...


@dataclass(slots=True)
class FileKey:
    """Certificate and key as files name them. look_s: how often to see whether they are others now."""

    place: Endpoint
    look_s: float = LOOK_S
    backend: str = "file"

    async def endpoint(self) -> Endpoint:
        """Return it."""
        return self.place

    async def renewed(self) -> None:
        """Return once the file holds another certificate, and its key signs for it: both are replaced in two steps."""
        held = self._content()
        while True:
            await asyncio.sleep(self.look_s)
            if (now := self._content()) != held and now:
                with suppress(ConfigError):
                    prove_key(self.place.cert, self.place.key)
                    return

    @property
    def life(self) -> tuple[int, int]:
        """From when to when the certificate holds that the file has now."""
        try:
            found = read_certificate(certificate_of(self.place.cert))
        except (ConfigError, TrustError):
            return 0, 0
        return found.first_s, found.last_s

    def _content(self) -> bytes:
        with suppress(OSError):
            return self.place.cert.read_bytes()
        return b""


class IssuedKey:
    """A key in memory, or in the TPM. bootstrap: the certificate that lets us ask for one, and for nothing else.

    outlet: the seal's socket: its TPM vouches for the request. backend: memory or tpm.
    """

    def __init__(
        self, gateway: str, *, bootstrap: Endpoint, outlet: Path, log: FilteringBoundLogger, backend: str = "memory"
    ) -> None:
        self._gateway, self._bootstrap, self._outlet, self._log = gateway, bootstrap, outlet, log
        self.backend = backend
        self._held: HeldKey | None = None
        self._place: Endpoint | None = None
        self._since_s = self._due_s = 0.0

    @property
    def life(self) -> tuple[int, int]:
        """From when to when the certificate in use is ours: issuers date it back, for clocks that are slow."""
        return (int(self._since_s), self._held.expires_s) if self._held else (0, 0)

    async def endpoint(self) -> Endpoint:
        """Return the endpoint of a certificate that holds, asking for one where there is none.

        Raises LinkError while there is none: the issuer is out of reach, or refuses us. Raises ConfigError when a key
        in the TPM does not sign.
        """
        if self._place is None or time.time() >= self.life[1]:
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
        """Return the endpoint of a new certificate. Raises LinkError, ConfigError."""
        key = await self._new_key()
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
        self._held, self._since_s = key, now_s
        self._due_s = now_s + (key.expires_s - now_s) * RENEW_AT
        self._log.info("forward.certified", hours=round((key.expires_s - now_s) / 3600, 2))
        return Endpoint(host=base.host, port=base.port, ca=base.ca, cert=cert, key=private)

    async def _new_key(self) -> "HeldKey":
        """Return a new key; one in the TPM has been tried. Raises LinkError, and ConfigError for one that is no use."""
        from gateway.north.memory_key import HeldKey, MemoryKey  # noqa: PLC0415 (2 MB that a key in a file needs not)

        if self.backend == "memory":
            return MemoryKey(self._gateway)
        from gateway.tpm.pem import read as read_tpm_key  # noqa: PLC0415 (3 MB that one in memory needs not)

        match await self._of_seal(["key"]):
            case ["key", bytes(private), bytes(csr)]:
                pass
            case other:
                raise LinkError(f"seal: got {str(other)[:80]}, want key")
        try:
            read_tpm_key(private.decode("ascii"))  # anything else, and OpenSSL would sign without the TPM
            key = HeldKey(self._gateway, csr=csr, private=private)
        except (TrustError, UnicodeDecodeError) as e:
            raise LinkError(f"seal: key: {e}") from e
        try:
            prove_key(*key.trial())
        except ConfigError as e:
            key.close()
            error = ConfigError if self._held is None else LinkError  # once it has worked, it is the TPM that is away
            raise error(
                "forward.key_in: got tpm, and OpenSSL does not sign with a key of the TPM, want its provider tpm2 "
                f"loaded by OPENSSL_CONF and a TPM that this process may open: see docs/tls.md ({e})"
            ) from e
        return key

    async def _ask(self, csr: bytes) -> list[bytes]:
        """Return the chain that the issuer gives for this request. Raises LinkError, TrustError."""
        gateway = self._gateway
        request = enrol_topic(gateway, "request")
        async with Link(self._bootstrap, client_id=f"enrol_{gateway}", queued=128) as link:
            await link.subscribe(enrol_topic(gateway, "reply"))
            to = hashlib.sha256(csr).digest()
            note = await _asked(link, request, pack({"v": 1, "csr": csr, "evidence": b""}), "challenge", bytes, to=to)
            match await self._of_seal(["challenge", note, to, self.backend]):
                case ["evidence", bytes(evidence)]:
                    pass
                case other:
                    raise LinkError(f"seal: got {str(other)[:80]}, want evidence")
            packed = pack({"v": 1, "csr": csr, "evidence": evidence})
            chain: list[bytes] = await _asked(link, request, packed, "chain", list, to=to)
        if not all(type(one) is bytes for one in chain):
            raise TrustError("chain: want certificates in DER")
        return chain

    async def _of_seal(self, message: Message) -> Message:
        """Return the seal's answer to one message. Raises LinkError for none, and where the seal refuses."""
        with closing(await connect(self._outlet)) as channel:
            await channel.send(message)
            try:
                async with asyncio.timeout(ANSWER_S):
                    answers = await channel.receive()
            except TimeoutError as e:
                raise LinkError(f"seal: no answer to {message[0]} within {ANSWER_S:g} s") from e
            match answers:
                case [["refused", 0, str(why)]]:
                    raise LinkError(f"seal: {why}")
                case [answer]:
                    return answer
                case other:
                    raise LinkError(f"seal: got {str(other)[:80]}, want one answer")


async def _asked(link: Link, topic: str, request: bytes, name: str, kind: type, *, to: bytes) -> Any:
    """Return the reply, asked for again and again: the issuer may be away or flooded, and nothing is kept for it."""
    while True:
        await link.publish(topic, request)
        with suppress(TimeoutError):
            async with asyncio.timeout(AGAIN_S):
                return await _reply(link, name, kind, to=to)


async def _reply(link: Link, name: str, kind: type, *, to: bytes) -> Any:
    """Return what a reply says under this name. A challenge is for whoever has the TPM; all else is `to` a request.

    What another request was told, made by who has stolen our bootstrap identity, is passed over.
    """
    while True:
        said = unpack((await anext(link)).payload)
        if type(said) is not dict or said.get("v") != 1:
            raise TrustError("reply: want a map with v = 1")
        is_ours = said.get("to") == to
        if is_ours and type(why := said.get("refused")) is str:
            raise LinkError(f"the issuer refuses: {why[:300]}")
        if type(said.get(name)) is kind and (is_ours or name == "challenge"):
            return said[name]


def client_key(config: GatewayConfig, *, log: FilteringBoundLogger) -> ClientKey:
    """Return what gateway.toml says; a key in a file is tried first. Raises ConfigError."""
    section = config.forward
    host, _, port = section.broker.rpartition(":")
    base = Endpoint(host=host, port=int(port), ca=section.ca, cert=section.cert, key=section.key)
    if section.key_in == "file":
        prove_key(section.cert, section.key)
        return FileKey(base)
    if section.key_in == "tpm" and not os.environ.get("OPENSSL_CONF"):
        raise ConfigError(
            "forward.key_in: got tpm without OPENSSL_CONF in the environment, want one that loads OpenSSL's provider "
            "tpm2 for this process: see docs/tls.md"
        )
    outlet = config.run_folder / "outlet.sock"
    return IssuedKey(config.gateway.id, bootstrap=base, outlet=outlet, log=log, backend=section.key_in)
