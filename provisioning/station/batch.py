"""Many units, a few at once: one that fails stops no other, and what is done is not done again."""

import csv
import statistics
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gateway.attest.names import check_model
from gateway.codec import enrol_lines
from gateway.errors import ConfigError, TrustError
from provisioning.registrar.unit import checked_text
from provisioning.station.enrolment import Enrolled, StepError, Way
from provisioning.station.order import Order

COLUMNS = ("serial", "address", "model", "order", "image_sha256")
MOST_UNITS = 100_000
_LOOK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How it went with one unit. why, mend: what was wrong and what to do, "" when it is ok, but for a silent one.

    steps: seconds by name. way: None when it failed. ak_fingerprint, birth_sha256, label: "" then.
    ek_remarks: in what its EK certificate strays from the norm, and was taken.
    """

    serial: str
    steps: Mapping[str, float]
    way: Way | None = None
    ak_fingerprint: str = ""
    birth_sha256: str = ""
    label: str = ""
    ek_remarks: tuple[str, ...] = ()
    step: str = ""
    why: str = ""
    mend: str = ""

    @property
    def is_ok(self) -> bool:
        """Whether it is enrolled."""
        return self.way is not None

    @property
    def seconds(self) -> float:
        """Of all steps but `connect`, which waits for the unit."""
        return sum(seconds for name, seconds in self.steps.items() if name != "connect")

    def fields(self) -> dict[str, Any]:
        """Return it for JSON."""
        said: dict[str, Any] = {
            "serial": self.serial,
            "ok": self.is_ok,
            "seconds": round(self.seconds, 4),
            "steps": {name: round(seconds, 4) for name, seconds in self.steps.items()},
        }
        if self.way is None:
            return said | {"step": self.step, "error": self.why, "mend": self.mend}
        said |= {name: getattr(self, name) for name in ("way", "ak_fingerprint", "birth_sha256", "label")}
        return said | {"ek_remarks": list(self.ek_remarks)} | ({"silence": self.why} if self.why else {})


class Enrols(Protocol):
    """A station, as a batch needs it."""

    def enrol(self, order: Order, *, told: Callable[[str], None]) -> Enrolled:
        """Enrol one unit. For several threads at once. Raises StepError for what is wrong with this unit.

        Anything else, such as a log that cannot be trusted, ends the batch.
        """


def run_batch(
    station: Enrols,
    orders: Iterable[Order],
    *,
    jobs: int,
    told: Callable[[str, str], None],
    done: Callable[[Outcome], None],
) -> list[Outcome]:
    """Enrol units, so many at once; return how it went, in the order in which they ended.

    told: hears (serial, step) of each step that is begun. done: of each unit. Both from one thread at a time.
    An interruption lets the units under way end.
    """
    waiting, found, turn, stop = iter(orders), list[Outcome](), threading.Lock(), threading.Event()

    def tell(serial: str, step: str) -> None:
        with turn:
            told(serial, step)

    def work() -> None:
        while not stop.is_set():
            with turn:
                order = next(waiting, None)
            if order is None:
                return
            try:
                found.append(outcome := _one(station, order, tell))
            except BaseException:
                stop.set()
                raise
            with turn:
                done(outcome)

    with ThreadPoolExecutor(jobs, thread_name_prefix="enrol") as pool:
        workers = [pool.submit(work) for _ in range(jobs)]
        try:
            for worker in workers:
                while not worker.done():  # Ctrl-C may come to another thread: we hear of it when this one wakes
                    wait([worker], timeout=_LOOK_S)
                worker.result()
        finally:
            stop.set()
    return found


def _one(station: Enrols, order: Order, tell: Callable[[str, str], None]) -> Outcome:
    try:
        enrolled = station.enrol(order, told=lambda step: tell(order.serial, step))
    except StepError as e:
        return Outcome(serial=order.serial, steps=dict(e.seconds), step=e.step, why=e.why, mend=e.mend)
    birth = enrolled.record.birth
    return Outcome(
        serial=order.serial,
        steps=dict(enrolled.seconds),
        way=enrolled.way,
        ak_fingerprint=birth.ak_certificate_sha256,
        birth_sha256=enrolled.record.sha256,
        label=str(enrolled.label),
        ek_remarks=birth.ek_remarks,
        why=enrolled.silence,
    )


def summary(outcomes: Sequence[Outcome], *, total_s: float, is_interrupted: bool = False) -> dict[str, Any]:
    """Return a batch for JSON: the units, and how long they took. per_unit_s: of those that were enrolled now."""
    seconds = sorted(one.seconds for one in outcomes if one.way is Way.ENROLLED)
    return {
        "interrupted": is_interrupted,
        "units": [one.fields() for one in outcomes],
        "ok": sum(one.is_ok for one in outcomes),
        "failed": sum(not one.is_ok for one in outcomes),
        "total_s": round(total_s, 3),
        "per_unit_s": {"median": round(statistics.median(seconds), 4), "p95": round(_p95(seconds), 4)}
        if seconds
        else {"median": None, "p95": None},
    }


def _p95(ordered: Sequence[float]) -> float:
    return ordered[min(len(ordered) - 1, round(0.95 * (len(ordered) - 1) + 0.5) if len(ordered) > 1 else 0)]


def read_units(path: Path, *, default: Order) -> list[Order]:
    """Return the units of a CSV file. default: what holds where a row has no such column, or nothing in it.

    Columns: serial and address; model, order and image_sha256 if need be. Raises ConfigError, with the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            orders = list(_rows(csv.DictReader(file, strict=True), path, default))
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise ConfigError(f"{path}: {e}, want a CSV file with the columns serial and address") from e
    return unique(orders, str(path))


def _rows(reader: "csv.DictReader[str]", path: Path, default: Order) -> Iterator[Order]:
    names = reader.fieldnames or []
    if not {"serial", "address"} <= set(names) or not set(names) <= set(COLUMNS) or len(set(names)) != len(names):
        raise ConfigError(
            f"{path}: got the columns {', '.join(names)}, want serial, address and, if need be, "
            "model, order, image_sha256"
        )
    for row in reader:
        where = f"{path}: line {reader.line_num}"
        if None in row or None in row.values():
            raise ConfigError(f"{where}: got another number of columns than the first line has")
        if reader.line_num > MOST_UNITS + 1:
            raise ConfigError(f"{where}: want at most {MOST_UNITS} units")
        said = {name: row.get(name, "").strip() or getattr(default, name) for name in COLUMNS}
        yield make_order(said, operator=default.operator, where=where)


def make_order(said: Mapping[str, str], *, operator: str, where: str) -> Order:
    """Return an order from plain texts. Raises ConfigError."""
    try:
        enrol_lines.serial(said["serial"])
    except ValueError as e:
        raise ConfigError(f"{where}: serial: {e}") from e
    lacking = [name for name in COLUMNS if not said[name]]
    if lacking:
        raise ConfigError(f"{where}: {lacking[0]}: got nothing, want it here, as an option or in station.toml")
    digest = said["image_sha256"]
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise ConfigError(f"{where}: image_sha256: got {digest[:70]!r}, want 64 hexadecimal digits")
    try:
        check_model(said["model"])
        checked_text("operator", operator)
    except TrustError as e:
        raise ConfigError(f"{where}: {e}") from e
    try:
        enrol_lines.name(said["order"])
    except ValueError as e:
        raise ConfigError(f"{where}: order: {e}") from e
    return Order(operator=operator, **said)


def unique(orders: Sequence[Order], where: str) -> list[Order]:
    """Return the orders, if each serial and each address is there once. Raises ConfigError."""
    for name in ("serial", "address"):
        seen: set[str] = set()
        for order in orders:
            value = getattr(order, name)
            if value.casefold() in seen:
                raise ConfigError(f"{where}: {name}: got {value} twice, want each unit once")
            seen.add(value.casefold())
    return list(orders)
