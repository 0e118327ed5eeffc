"""One BACnet device in the network, known by its instance: where it is, and what it can take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from gateway.codec import bacnet_apdu as apdu
from gateway.codec import bacnet_tags as tags
from gateway.codec.bacnet_requests import read_property
from gateway.drivers.bacnet_app import Application, Key, NoAnswerError, RefusedError, key_of
from gateway.errors import DeviceError

_SETTLE_S: Final = 0.3
"""How long we wait for a second device of the same instance, at most."""
_MOST_CLAIMS: Final = 4
_LEAST_APDU: Final = 50
_USUAL_APDU: Final = 480
"""What we take a device for that did not say: an MS/TP device's."""
_MAX_APDU: Final = 62

Hear = Callable[[apdu.Notification], None]


class ConflictError(DeviceError):
    """Raised when two devices say that they are this instance: no value of either can be trusted."""


class Station:
    """A device, found when it is first needed, and again whenever there is doubt.

    address: where it is, when it cannot be found by its instance; then no I-Am from elsewhere moves it.
    timeout_s: for the search, and for each request. at_once: requests under way to it.
    """

    def __init__(
        self, app: Application, instance: int, *, address: Any = None, timeout_s: float = 1.0, at_once: int = 1
    ) -> None:
        self.instance = instance
        self.max_apdu = _USUAL_APDU
        self.where: Any = None
        self.stirred = asyncio.Event()
        """Set when it may have restarted, or moved, or fallen silent: whoever follows it shall look."""
        self.restarts = 0
        """How often it has introduced itself without being asked: what it was told before may be lost."""
        self.hear: Hear | None = None
        self._app = app
        self._pinned = address
        self._timeout_s = timeout_s
        self._slots = asyncio.Semaphore(at_once)
        self._finding = asyncio.Lock()
        self._doubted = False
        self._suspects: dict[Key, Any] = {}
        self._claims: dict[Key, tuple[Any, apdu.IAm]] | None = None
        self._claimed = asyncio.Event()
        app.join(self)

    @property
    def device_id(self) -> int:
        """Its Device object."""
        return apdu.object_id(apdu.DEVICE, self.instance)

    async def close(self) -> None:
        """Give it up."""
        self._place(None)
        await self._app.leave(self)

    async def ready(self) -> None:
        """Find the device, if it is not known where it is, or not for sure.

        Raises NoAnswerError, ConflictError, and DeviceError where our socket or the way to it fails.
        """
        await self._app.open()
        async with self._finding:
            if self.where is None or self._doubted:
                await self._find()

    async def ask(self, build: Callable[[int], bytes], service: int, *, wants_body: bool = True) -> bytes:
        """Return what the device answers: see `Application.ask`. A silent one has to be found anew."""
        async with self._slots:
            where = self.where
            if where is None:
                raise NoAnswerError(f"device {self.instance} is not found")
            try:
                return await self._app.ask(where, build, service, timeout_s=self._timeout_s, wants_body=wants_body)
            except NoAnswerError:
                self.lose()
                raise

    def lose(self) -> None:
        """Forget where it is: it fell silent, or another device answers there."""
        self._place(None)
        self.stirred.set()

    def on_i_am(self, source: Any, said: apdu.IAm) -> None:
        """See `Listener`."""
        if self._claims is not None:
            if len(self._claims) < _MOST_CLAIMS:
                self._claims[key_of(source)] = (source, said)
            self._claimed.set()
        elif self.where is None:
            self.stirred.set()
        elif key_of(source) == key_of(self.where):
            self.restarts += 1
            self.max_apdu = max(said.max_apdu, _LEAST_APDU)
            self.stirred.set()
        elif self._pinned is None:
            self._suspect(source)

    def on_stranger(self) -> None:
        """See `Listener`."""
        if self._claims is None:
            self._doubted = True
            self.stirred.set()

    def on_change(self, source: Any, told: apdu.Notification) -> None:
        """See `Listener`."""
        if self.hear is not None and self.where is not None and key_of(source) == key_of(self.where):
            self.hear(told)

    def _suspect(self, source: Any) -> None:
        """Note another address of the same instance, to be asked beside the one we know."""
        if len(self._suspects) < _MOST_CLAIMS:
            self._suspects[key_of(source)] = source
        self._doubted = True
        self.stirred.set()

    def _place(self, where: Any) -> None:
        """Note where it is now; None for unknown. Wherever it is found anew, it may be another device, or restarted."""
        was = self.where
        if was is where or (was is not None and where is not None and key_of(was) == key_of(where)):
            return
        self._app.settle(self, was, where)
        self.where = where
        if where is not None:
            self.restarts += 1
            self.stirred.set()

    async def _find(self) -> None:
        """Ask who the instance is, and draw the conclusion."""
        was = self.where
        if was is not None:
            self._suspects[key_of(was)] = was
        claims: dict[Key, tuple[Any, apdu.IAm]] = {}
        self._claims = claims
        try:
            await self._search(claims)
        finally:
            self._claims = None
        if self._pinned is not None:
            await self._confirm(claims)
        elif len(claims) > 1:
            self._place(None)
            self._suspects = {key: source for key, (source, _) in claims.items()}
            places = " and ".join(sorted(str(source) for source, _ in claims.values()))
            raise ConflictError(f"device {self.instance} answers from two addresses: {places}")
        elif not claims:
            self._place(None)
            self._suspects.clear()
            raise NoAnswerError(f"device {self.instance}: no I-Am within {self._timeout_s:g} s")
        else:
            ((source, said),) = claims.values()
            self._settled(source, said.max_apdu)

    async def _search(self, claims: dict[Key, tuple[Any, apdu.IAm]]) -> None:
        """Gather I-Ams: until one came and no other followed, or all whom we suspect have answered."""
        targets = [self._pinned] if self._pinned is not None else [None, *self._suspects.values()]
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout_s / (1 if self._pinned is None else 2)
        again = loop.time() + self._timeout_s / 3
        asked = 0
        while (now := loop.time()) < end and not (claims and claims.keys() >= self._suspects.keys()):
            if asked == 0 or (asked == 1 and now >= again):
                asked += 1
                await self._who_is(targets)
            await self._claim(min(end, again if asked == 1 else end) - loop.time())
        if claims and self._pinned is None:
            await asyncio.sleep(min(_SETTLE_S, self._timeout_s / 4))

    async def _claim(self, within_s: float) -> None:
        self._claimed.clear()
        try:
            async with asyncio.timeout(max(0.0, within_s)):
                await self._claimed.wait()
        except TimeoutError:
            return

    async def _who_is(self, targets: list[Any]) -> None:
        """Ask all of them. Raises DeviceError where there is no way to any."""
        failed: list[DeviceError] = []
        for target in targets:
            try:
                await self._app.who_is(self.instance, target, timeout_s=self._timeout_s)
            except DeviceError as e:
                failed.append(e)
        if len(failed) == len(targets):
            raise failed[0]

    async def _confirm(self, claims: dict[Key, tuple[Any, apdu.IAm]]) -> None:
        """Take the device at its configured address if it said that it is there, or has the right Device object."""
        claim = claims.get(key_of(self._pinned))
        if claim is not None:
            self._settled(self._pinned, claim[1].max_apdu)
            return
        self._place(None)
        try:
            body = await self._app.ask(
                self._pinned,
                lambda invoke: read_property(invoke, self.device_id, _MAX_APDU),
                apdu.READ_PROPERTY,
                timeout_s=self._timeout_s / 2,
            )
            said = apdu.read_ack(body)
        except RefusedError as e:
            raise DeviceError(f"{self._pinned} is not device {self.instance}: {e}") from e
        except ValueError as e:
            raise DeviceError(f"{self._pinned} sent a malformed answer: {e}") from e
        size = said.value.content if isinstance(said.value, tags.Plain) else b""
        if said.object_id != self.device_id:
            raise DeviceError(f"{self._pinned} is not device {self.instance}")
        self._settled(self._pinned, int.from_bytes(size, "big") if 1 <= len(size) <= 4 else _USUAL_APDU)

    def _settled(self, where: Any, max_apdu: int) -> None:
        self.max_apdu = max(max_apdu, _LEAST_APDU)
        self._place(where)
        self._doubted = False
        self._suspects.clear()
