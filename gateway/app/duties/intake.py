"""What systems of the DMZ say a line makes, over the broker and over HTTPS, into the ledger's log.

Both ways end in one queue and one task that seals, so that an error of the log stops the process whoever asked.
"""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from structlog.typing import FilteringBoundLogger

from gateway.app.budget import Budget
from gateway.app.duties.duty import Desk
from gateway.app.tokens import TokenFile
from gateway.carbon.counted import has_counter, overlap
from gateway.carbon.exact import utc
from gateway.codec.bodies import context_body, counts_body
from gateway.codec.mes import TOPIC, MesFact, MessageError, hears, open_envelope, parse_facts, parse_value, place
from gateway.config.intake import IntakeSection, TopicSection
from gateway.errors import TrustError
from gateway.model import CountFact, What
from gateway.store import projections as tables
from gateway.web.clerk import BusyError, LineNow, Taken, Word

AHEAD_NS = 300 * 10**9
"""A system's clock may be so far ahead of ours."""
MOST_WAITING = 256
"""So many messages wait to be sealed at most."""
MOST_TOPICS = 10_000
"""Of so many topics of a namespace the newest value is remembered."""
RETRY_S = 5
QUIET_NS = 60 * 10**9
_DAY_NS = 86_400 * 10**9


class _Batch(NamedTuple):
    """Facts that wait to be sealed, and who waits for it; nobody, where they came by the broker."""

    facts: Sequence[MesFact]
    answer: "asyncio.Future[Taken] | None"

    def refuse(self, why: str) -> None:
        """Tell whoever waits to come again: what is sealed already is known then."""
        self.fail(BusyError(why, retry_s=RETRY_S, crowded=False))

    def fail(self, why: MessageError | BusyError) -> None:
        """Tell whoever waits what is wrong."""
        if self.answer is not None and not self.answer.done():
            self.answer.set_exception(why)


@dataclass(slots=True)
class _Door:
    """Where HTTPS is served, its certificate read."""

    listen: str
    tls: ssl.SSLContext


class Intake:
    """The duty. Raises ConfigError for files that cannot be used."""

    name = "intake"

    def __init__(self, section: IntakeSection, desk: Desk, log: FilteringBoundLogger) -> None:
        self._section, self._desk, self._log = section, desk, log
        self._tokens = None
        if section.tokens is not None:
            self._tokens = TokenFile(section.tokens, say=lambda why: log.error("context.tokens", why=why))
        self._door: _Door | None = None
        if section.listen and section.cert and section.key:
            from gateway.web.serve import server_context  # noqa: PLC0415 (a ledger without HTTPS loads no web server)

            self._door = _Door(section.listen, server_context(section.cert, section.key, "context"))
        self._budget = Budget(section.per_minute)
        self._queue: asyncio.Queue[_Batch] = asyncio.Queue(MOST_WAITING)
        self._lines: set[tuple[str, str]] = set()
        self._read_ns = -QUIET_NS
        self._newest: dict[str, tuple[int, str]] = {}
        self._said: dict[str, int] = {}

    # ---- as a duty

    def look(self, now_ns: int) -> None:  # noqa: ARG002 (the file's own time says whether it has changed)
        """Read the tokens again if they have changed."""
        if self._tokens is not None:
            self._tokens.look()

    async def run(self) -> None:
        """Seal what comes, and serve HTTPS, until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._work(), name="intake.work")
            if self._door is not None:
                tasks.create_task(self._serve(self._door), name="intake.https")

    async def _serve(self, door: _Door) -> None:
        from gateway.web.context import context_app  # noqa: PLC0415 (as above)
        from gateway.web.serve import serve_https  # noqa: PLC0415

        app = context_app(self, say=lambda why: self._log.error("context.failed", why=why[:300]))
        await serve_https(app, listen=door.listen, context=door.tls, where="context.listen")

    async def _work(self) -> None:
        try:
            while True:
                batch = await self._queue.get()
                await self._seal(batch)
        finally:
            while not self._queue.empty():
                self._queue.get_nowait().refuse("the ledger stops")

    async def _seal(self, batch: _Batch) -> None:
        try:
            taken = self._sealed(batch)
            while taken is None and batch.answer is None:
                await asyncio.sleep(RETRY_S)
                taken = self._sealed(batch)
        except MessageError as e:
            self._desk.counts.context_refused += 1
            batch.fail(e)
            return
        except asyncio.CancelledError:
            batch.refuse("the ledger stops")
            raise
        if taken is None:
            batch.refuse("no room")
        elif batch.answer is not None and not batch.answer.done():
            batch.answer.set_result(taken)

    def _sealed(self, batch: _Batch) -> Taken | None:
        """Seal what is new in a batch; None where there is no room. Raises MessageError."""
        facts = dict.fromkeys(batch.facts)
        known = {fact: index for fact in facts if (index := self._desk.facts.known(fact)) is not None}
        news = [fact for fact in facts if fact not in known]
        for fact in news:
            self._check_counts(fact, "")  # what came since it was admitted may cover it by now
        sealed = self._desk.seal_all([_leaf(fact) for fact in news]) if news else []
        if sealed is None:
            return None
        self._desk.counts.context += len(sealed)
        self._desk.counts.context_known += len(known)
        return Taken(sealed=sealed, known=list(known.values()))

    # ---- over HTTPS

    def system_of(self, token: str) -> str:
        """Return which system speaks with a token. Raises TrustError for none."""
        if self._tokens is None:
            raise TrustError("token: there is no tokens file")
        return self._tokens.system_of(token)

    async def take(self, system: str, body: bytes) -> Taken:
        """Seal what is new in a message. Raises MessageError, and then nothing is sealed; BusyError."""
        answer: asyncio.Future[Taken] = asyncio.get_running_loop().create_future()
        try:
            self._admit(system, _Batch(parse_facts(body, source=system), answer))
        except (MessageError, BusyError):
            self._desk.counts.context_refused += 1
            raise
        return await answer

    def lines(self) -> list[LineNow]:
        """Return the lines that can be spoken of."""
        now_ns = self._desk.clock.read().t_ns
        with self._desk.book.reading() as connection:
            figures = {(one.gateway, one.line): one for one in tables.latest(connection)}
            known = tables.lines(connection)
        found = []
        for gateway, line in known:
            said = self._desk.facts.said(gateway, line)
            words = {str(what): told for what in What if (told := said.at(what, now_ns)) is not None}
            newest = figures.get((gateway, line))
            found.append(
                LineNow(
                    gateway=gateway,
                    line=line,
                    site="" if newest is None else newest.site,
                    said={what: Word(value=told.value or "", since=utc(told.t_ns)) for what, told in words.items()},
                    figure_end="" if newest is None else utc(newest.end_ns),
                    **(dict.fromkeys(_SETTING, "") if newest is None else newest.setting._asdict()),
                )
            )
        return found

    # ---- over the broker

    @property
    def filters(self) -> Sequence[str]:
        """The topics to subscribe to."""
        own = (f"{TOPIC}+",) if self._section.mqtt and self._tokens is not None else ()
        return (*own, *(topic.filter for topic in self._section.topics))

    def hear(self, topic: str, payload: bytes) -> None:
        """Take a message, if the topic is ours; one that is wrong is counted, and said now and then."""
        try:
            if topic.startswith(TOPIC):
                self._hear_system(topic.removeprefix(TOPIC), payload)
            for section in self._section.topics:
                if hears(section.filter, topic):
                    self._hear_value(section, topic, payload)
        except (TrustError, BusyError) as e:
            self._desk.counts.context_refused += 1
            if self._may_say(topic[:100]):
                self._log.warning("context.refused", topic=topic[:100], why=str(e)[:300])

    def _hear_system(self, system: str, payload: bytes) -> None:
        envelope = open_envelope(payload, {} if self._tokens is None else self._tokens.keys)
        if envelope.system != system:
            raise MessageError("system", envelope.system, f"that of the topic: {system[:63]}")
        message = envelope.message.encode("utf-8", "surrogatepass")
        self._admit(system, _Batch(parse_facts(message, source=system), None))

    def _hear_value(self, section: TopicSection, topic: str, payload: bytes) -> None:
        """Take a value of a namespace; one that says what the one before said is no news."""
        fact = parse_value(payload, topic=topic, gateway=section.gateway, line=section.line, what=section.what)
        before = self._newest.get(topic)
        is_newest = before is None or before[0] <= fact.t_ns
        if before is not None and is_newest and before[1] == fact.value:
            return
        self._admit(f"uns:{section.filter}", _Batch([fact], None))
        if len(self._newest) >= MOST_TOPICS:
            self._newest.clear()
        if is_newest:
            self._newest[topic] = (fact.t_ns, fact.value)

    # ---- both ways

    def _admit(self, source: str, batch: _Batch) -> None:
        """Put a batch in the queue. Raises BusyError; MessageError: a line not ours, a time out of range."""
        now_ns = self._desk.clock.read().t_ns
        self._budget.spend(source, len(batch.facts), now_ns)
        for number, fact in enumerate(batch.facts):
            at = place(number) if len(batch.facts) > 1 else ""
            if not self._is_known(fact.gateway, fact.line, now_ns):
                known = ", ".join(sorted("/".join(one) for one in self._lines)) or "none yet"
                raise MessageError(f"{at}line", f"{fact.gateway}/{fact.line}", f"one that has sealed: {known[:1000]}")
            for name, t_ns in _times(fact):
                if t_ns > now_ns + AHEAD_NS:
                    raise MessageError(f"{at}{name}", utc(t_ns), f"at most 5 minutes after now, {utc(now_ns)}")
                if t_ns < now_ns - self._section.late_days * _DAY_NS:
                    raise MessageError(f"{at}{name}", utc(t_ns), f"at most {self._section.late_days} days ago")
            if self._desk.facts.known(fact) is None:
                self._check_counts(fact, at, batch.facts[:number])
        try:
            self._queue.put_nowait(batch)
        except asyncio.QueueFull:
            raise BusyError("too many messages wait", retry_s=RETRY_S, crowded=True) from None

    def _check_counts(self, fact: MesFact, at: str, before: Sequence[MesFact] = ()) -> None:
        """Raise MessageError for a count of a line that counts for itself, or of a time that another count covers.

        before: what stands before it in its message.
        """
        if not isinstance(fact, CountFact):
            return
        with self._desk.book.reading() as connection:
            schemas = [schema for _, schema in tables.schemas(connection, fact.gateway) if schema.name == fact.line]
        if schemas and has_counter(schemas[-1]):
            raise MessageError(f"{at}what", "counts", f"none of {fact.line}, which has a counter of its own")
        others = [one for one in before if isinstance(one, CountFact) and overlap(fact, one)]
        others += filter(None, [self._desk.facts.counts(fact.gateway, fact.line).overlapped(fact)])
        for other in others:
            window = f"{utc(other.start_ns)} to {utc(other.end_ns)}"
            raise MessageError(f"{at}start", utc(fact.start_ns), f"a time outside of {other.id!r}, which has {window}")

    def _is_known(self, gateway: str, line: str, now_ns: int) -> bool:
        """Return whether a line has sealed an interval; the tables are asked once a second at most."""
        if (gateway, line) not in self._lines and abs(now_ns - self._read_ns) > 10**9:
            self._read_ns = now_ns
            with self._desk.book.reading() as connection:
                self._lines = set(tables.lines(connection))
        return (gateway, line) in self._lines

    def _may_say(self, what: str) -> bool:
        now_ns = self._desk.clock.read().t_ns
        if abs(now_ns - self._said.get(what, -QUIET_NS)) < QUIET_NS:
            return False
        if len(self._said) >= MOST_TOPICS:
            self._said.clear()
        self._said[what] = now_ns
        return True


def _times(fact: MesFact) -> Sequence[tuple[str, int]]:
    return [("start", fact.start_ns), ("end", fact.end_ns)] if isinstance(fact, CountFact) else [("time", fact.t_ns)]


def _leaf(fact: MesFact) -> tuple[str, bytes]:
    return ("counts", counts_body(fact)) if isinstance(fact, CountFact) else ("context", context_body(fact))


_SETTING = ("state", "product", "recipe", "job", "shift")


def intake_of(section: IntakeSection, desk: Desk, log: FilteringBoundLogger) -> list[Intake]:
    """Return the duty, none where nobody is to be heard. Raises ConfigError."""
    return [Intake(section, desk, log)] if section.mqtt or section.listen else []
