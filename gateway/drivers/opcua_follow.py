"""What a server tells by itself: one subscription, made anew from nothing whenever it is lost."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds

from gateway.drivers.driver import Tell
from gateway.drivers.opcua_replies import Subscribed
from gateway.drivers.opcua_session import UNSUPPORTED, Link, LostError, RefusedError, Session
from gateway.drivers.opcua_values import Node, status_text, time_ns
from gateway.errors import DeviceError
from gateway.model import Change, Quality, Schema

_AT_ONCE: Final = 2
"""Publish requests under way, so that the server need not wait for the next one."""
_TICK_S: Final = 1.0
_MOST_QUIET_S: Final = 3600.0
"""A server that wants longer between two keep-alives is taken for one that has lost the subscription."""
_NO_FILTER: Final = {0x80430000, 0x80440000, 0x80450000, 0x808E0000}  # invalid, unsupported, not allowed, deadband
_TIMED_OUT, _TOO_MANY_ASKED = 0x800A0000, 0x80780000


@dataclass(frozen=True, slots=True, kw_only=True)
class Following:
    """How a device is followed, in seconds.

    sampling_s: how often the server looks. publishing_s: how often it tells. queue: values that it keeps a point.
    keep_alive_s: how long the server may be silent. retry_s: how often a node that failed is tried again.
    least_wait_s, most_wait_s: between attempts, doubling.
    """

    sampling_s: float = 1.0
    publishing_s: float = 1.0
    queue: int = 10
    keep_alive_s: float = 5.0
    retry_s: float = 30.0
    least_wait_s: float = 1.0
    most_wait_s: float = 30.0


class Followed:
    """One device's columns as they were told, and the way to tell them."""

    def __init__(
        self, schema: Schema, nodes: Sequence[Node], link: Link, following: Following, clock: Callable[[], int]
    ) -> None:
        self._schema, self._nodes, self._link, self._how, self._clock = schema, nodes, link, following, clock
        self._bad: dict[int, str] = {}
        self._told: set[int] = set()
        self._notes: dict[int, str] = {}

    async def follow(self, tell: Tell) -> None:
        """Tell changes for ever: see `Follower.follow`."""
        wait_s = self._how.least_wait_s
        while True:
            _end_if_cancelled()
            try:
                session = await self._link.session()
            except DeviceError as e:
                self._lost(tell, str(e))
            else:
                if await self._follow_one(session, tell):
                    wait_s = self._how.least_wait_s
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, self._how.most_wait_s)

    async def _follow_one(self, session: Session, tell: Tell) -> bool:
        """Follow until the subscription or more is lost; return whether anything had come by it.

        Raises DeviceError where the server has no subscriptions.
        """
        how = self._how
        current: _Current | None = None
        try:
            kept = max(1, round(how.keep_alive_s / how.publishing_s))
            revised = await session.subscribe(interval_s=how.publishing_s, keep_alive=kept)
            current = _Current(session, revised, how)
            await self._create(current, range(len(self._nodes)), tell)
            await self._take(current, tell)
        except RefusedError as e:
            if (current is None or not current.notices) and e.code & 0xFFFF0000 in UNSUPPORTED:
                raise DeviceError(f"{e}: the server has no subscriptions") from e
            self._lost(tell, str(e))
        except DeviceError as e:
            self._lost(tell, str(e))
        except asyncio.CancelledError:
            if current is not None:
                session.unsubscribe(current.id)
            raise
        finally:
            if current is not None:
                current.forget()
        await session.close()  # politely where it is alive: a server has few sessions
        return current is not None and current.notices > 0

    async def _take(self, current: _Current, tell: Tell) -> None:
        """Tell what comes. Ends with a DeviceError only."""
        session = current.session
        retry_at = current.now + self._how.retry_s
        while True:
            _end_if_cancelled()
            current.ask()
            done, _ = await asyncio.wait(current.asked, timeout=_TICK_S, return_when=asyncio.FIRST_COMPLETED)
            if done:
                self._tell_notices(current, tell)
                if current.now < current.tick_at:
                    continue
            current.tick_at = current.now + _TICK_S
            await session.renew()
            await current.check_life()
            if self._bad and current.now >= retry_at:
                retry_at = current.now + self._how.retry_s
                await session.resolve()
                await self._create(current, sorted(self._bad.keys() - current.created), tell)

    def _tell_notices(self, current: _Current, tell: Tell) -> None:
        arrived_ns = self._clock()
        for notice in current.notices_done():
            changes = []
            for handle, cut in notice:
                if handle not in current.created:
                    continue
                value, quality, status = self._nodes[handle].tell(cut)
                if self._notes and handle in self._notes:
                    status = f"{status}; {self._notes.pop(handle)}" if status else self._notes.pop(handle)
                if quality is Quality.BAD:
                    self._bad[handle] = status
                elif self._bad:
                    self._bad.pop(handle, None)
                changes.append(Change(self._schema, handle, time_ns(cut, arrived_ns), value, quality, status))
            if changes:
                self._told.update([change.column for change in changes])
                tell(changes)

    async def _create(self, current: _Current, columns: Iterable[int], tell: Tell) -> None:
        """Create the monitored items of these columns; what cannot be, is told BAD. Raises DeviceError."""
        places = current.session.places
        missing = [i for i in columns if places[i] is None]
        self._fail(tell, {i: f"no namespace {self._nodes[i].uri} at the server" for i in missing})
        wanted = [i for i in columns if places[i] is not None]
        current.created.update(wanted)  # values may come before the reply
        codes = await current.create([self._item(i, places[i], filtered=True) for i in wanted])
        unfiltered = [i for i, code in zip(wanted, codes, strict=True) if code & 0xFFFF0000 in _NO_FILTER]
        found = dict(zip(wanted, codes, strict=True))
        if unfiltered:
            again = await current.create([self._item(i, places[i], filtered=False) for i in unfiltered])
            self._notes |= {i: f"{self._nodes[i].point.name}: no deadband: {status_text(found[i])}" for i in unfiltered}
            found |= dict(zip(unfiltered, again, strict=True))
        failed = {i: status_text(code) for i, code in found.items() if code & 0x80000000}
        current.created.difference_update(failed)
        self._fail(tell, failed)

    def _item(self, column: int, place: ua.NodeId | None, *, filtered: bool) -> ua.MonitoredItemCreateRequest:
        point = self._nodes[column].point
        sampling_s = self._how.sampling_s if point.sampling_s is None else point.sampling_s
        item = ua.MonitoredItemCreateRequest()
        item.ItemToMonitor = ua.ReadValueId(NodeId=place, AttributeId=ua.UInt32(AttributeIds.Value))
        item.MonitoringMode = ua.MonitoringMode.Reporting
        item.RequestedParameters.ClientHandle = ua.UInt32(column)
        item.RequestedParameters.SamplingInterval = ua.Double(sampling_s * 1000)
        item.RequestedParameters.QueueSize = ua.UInt32(self._how.queue)
        item.RequestedParameters.DiscardOldest = True
        if filtered and (point.absolute is not None or point.percent is not None):
            # The server compares raw values; an absolute deadband is said in the point's unit.
            raw = point.percent if point.absolute is None else point.absolute / abs(float(point.scale))
            kind = ua.DeadbandType.Percent if point.absolute is None else ua.DeadbandType.Absolute
            item.RequestedParameters.Filter = ua.DataChangeFilter(
                ua.DataChangeTrigger.StatusValue, ua.UInt32(kind), ua.Double(raw or 0)
            )
        return item

    def _fail(self, tell: Tell, why: dict[int, str]) -> None:
        """Tell columns BAD, unless that was what they were told last."""
        now_ns = self._clock()
        changes = []
        for column, text in why.items():
            status = f"{self._nodes[column].point.name}: {text}"
            if self._bad.get(column) != status:
                self._bad[column] = status
                changes.append(Change(self._schema, column, now_ns, None, Quality.BAD, status))
        if changes:
            self._told.update(why)
            tell(changes)

    def _lost(self, tell: Tell, why: str) -> None:
        """Tell each column BAD that was told another quality; once."""
        now_ns, status = self._clock(), why[:200]
        columns = sorted(self._told)
        self._told.clear()
        changes = [
            Change(self._schema, column, now_ns, None, Quality.BAD, status)
            for column in columns
            if column not in self._bad
        ]
        self._bad.clear()
        self._notes.clear()
        if changes:
            tell(changes)


class _Current:
    """A subscription that lives. created: the columns with a monitored item. notices: how many came."""

    def __init__(self, session: Session, revised: Subscribed, how: Following) -> None:
        self.session = session
        self.created: set[int] = set()
        self.asked: deque[asyncio.Future[Any]] = deque()
        self.notices = 0
        self.id = revised.id
        self._loop = asyncio.get_running_loop()
        self._acknowledged: list[tuple[int, int]] = []
        self._at_once = _AT_ONCE
        self._heard_at = self._probed_at = self.tick_at = self.now
        self._quiet_s = 2 * how.keep_alive_s
        kept_s = revised.keep_alive * revised.interval_ms / 1000
        self._most_s = self._quiet_s + (min(1.5 * kept_s, _MOST_QUIET_S) if kept_s > 0 else 0)

    @property
    def now(self) -> float:
        """The loop's time."""
        return self._loop.time()

    def ask(self) -> None:
        """Have as many publish requests under way as there should be. Raises LostError."""
        while len(self.asked) < self._at_once:
            self.asked.append(self.session.publish(self._acknowledged))
            self._acknowledged = []

    def notices_done(self) -> Iterable[Any]:
        """Give the changes of each notice that has come. Raises DeviceError."""
        for reply in [each for each in self.asked if each.done()]:
            self.asked.remove(reply)
            try:
                notice = self.session.notice(reply)
            except RefusedError as e:
                self._refused(e)
                continue
            self._heard_at = self.now
            if notice.subscription != self.id:
                continue  # of one that was left before
            self.notices += 1
            if notice.sequence is not None:
                self._acknowledged.append((notice.subscription, notice.sequence))
            yield notice.changes
            if notice.status is not None:
                raise LostError(f"subscription lost: {status_text(notice.status)}")

    def _refused(self, error: RefusedError) -> None:
        """Live with what a publish request may be refused for; raise LostError for all else."""
        code = error.code & 0xFFFF0000
        if code == _TOO_MANY_ASKED and self._at_once > 1:
            self._at_once = 1
        elif code != _TIMED_OUT or self.now - self._heard_at < _TICK_S:
            raise LostError(f"subscription lost: {status_text(error.code)}") from error

    async def create(self, items: Sequence[Any]) -> list[int]:
        """Create monitored items; return their status codes. Raises DeviceError."""
        return await self.session.create_items(self.id, items) if items else []

    async def check_life(self) -> None:
        """Raise DeviceError for a server that has been silent too long: any notification was a sign of life."""
        silent_s = self.now - self._heard_at
        if silent_s > self._most_s:
            raise LostError(f"no notification for {silent_s:.0f} s")
        if silent_s > self._quiet_s and self.now - self._probed_at > self._quiet_s:
            self._probed_at = self.now
            await self.session.probe()

    def forget(self) -> None:
        """Wait for no reply any more."""
        for reply in self.asked:
            reply.cancel()


def _end_if_cancelled() -> None:
    """Raise what a library may have kept to itself: asyncio.wait_for, which asyncua uses, can swallow a cancellation.

    Source: CPython gh-86296, mended in 3.12.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
