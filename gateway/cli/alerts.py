"""Commands for alerts: alerts, shelve, accept."""

import json
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gateway.app.load import load_ledger
from gateway.errors import ConfigError

if TYPE_CHECKING:
    from gateway.app.alerts import AlertBook
    from gateway.carbon.alerts.alert import Alert

_FILE = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for scripts.")


@click.command()
@_FILE
@click.option("--open", "only_open", is_flag=True, help="Only those that are open.")
@_JSON
def alerts(file: Path, *, only_open: bool, as_json: bool) -> None:
    """Show the ledger's alerts, the newest first: the cause, then what changed; and what is still learned.

    \b
    Example: wattseal alerts ledger.toml --open
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    book = _book(file)
    learning = _learning(file, book)
    found = [one for one in reversed(book.alerts.values()) if one.cleared_ns is None or not only_open]
    now_ns = time.time_ns()
    if as_json:
        click.echo(json.dumps({"alerts": [_fields(one) for one in found], "learning": learning}, ensure_ascii=False))
        return
    if not found:
        learned = sum(len(baselines) for baselines in book.baselines.values())
        click.echo(f"No alerts{' are open' if only_open else ''}. {learned} baselines are learned.")
    for alert in found:
        click.echo(_said(alert, now_ns))
    for one in learning:
        click.echo(_learning_said(one))


def _book(file: Path) -> "AlertBook":
    from gateway.app.alerts import read_alerts
    from gateway.store.projections import Projections

    book = Projections(load_ledger(file).ledger.state / "projections.sqlite", new=False)
    try:
        with book.reading() as connection:
            return read_alerts(connection)
    finally:
        book.close()


def _said(alert: "Alert", now_ns: int) -> str:
    from gateway.app.alerts import cause_words, change_words, state_words
    from gateway.carbon.exact import utc

    causes = [cause_words(cause, alert.unit) for cause in alert.causes] or ["undetermined"]
    head = f"{causes[0]}\n  {alert.id}  {alert.gateway}/{alert.line}  {alert.kind}  {state_words(alert, now_ns)}"
    lines = [head, f"  since {utc(alert.onset_ns)}: {change_words(alert)}"]
    lines += [f"  also {cause}" for cause in causes[1:]]
    if alert.shelved_why:
        lines.append(f"  shelved by {alert.shelved_by}: {alert.shelved_why}")
    if alert.accepted_why:
        lines.append(f"  accepted by {alert.accepted_by}: {alert.accepted_why}")
    return "\n".join(lines)


def _learning(file: Path, book: "AlertBook") -> list[dict[str, Any]]:
    """Return what is learned, as the running ledger wrote it; where an alert was accepted, since when, and which."""
    from gateway.app.learning import read

    anew = {(*line, *key): alert for line, found in book.learning.items() for key, alert in found.items()}
    rows = {tuple(row[name] for name in _OF): row for row in read(load_ledger(file).ledger.state)}
    rows |= {of: dict(zip(_OF, of, strict=True)) for of in anew if of not in rows}
    return [
        {**row, "since": alert and alert.cleared_ns, "alert": alert and alert.id}
        for row, alert in ((row, anew.get(of)) for of, row in rows.items())
    ]


_OF = ("gateway", "line", "product", "recipe")


def _learning_said(row: dict[str, Any]) -> str:
    from gateway.carbon.exact import utc

    of = ", ".join(f"{what} {row[what]}" for what in ("product", "recipe") if row[what])
    said = f"{row['gateway']}/{row['line']}" + (f", {of}" if of else "") + ": learning"
    if row["alert"]:
        said += f" since {utc(row['since'])}, when {row['alert']} was accepted"
    if "shifts" in row:
        said += f", {row['shifts']} of {row['wanted']} clean shifts so far: {row['why']}"
    return said


def _fields(alert: "Alert") -> dict[str, Any]:
    from gateway.app.alerts import cause_words

    fields = {**alert.about(), "open": alert.cleared_ns is None}
    fields["causes"] = [{**json.loads(cause.text()), "words": cause_words(cause, alert.unit)} for cause in alert.causes]
    return fields


def _until(_: click.Context, __: click.Parameter, text: str) -> int:
    try:
        then = datetime.fromisoformat(text)
    except ValueError as e:
        raise click.BadParameter(f"got {text!r}, want a time such as 2026-11-21T06:00:00Z") from e
    return int((then if then.tzinfo else then.replace(tzinfo=UTC)).timestamp()) * 1_000_000_000


@click.command()
@_FILE
@click.argument("alert")
@click.option(
    "--until", "until_ns", callback=_until, required=True, help="When it may be heard again, UTC; in 30 days."
)
@click.option("--why", required=True, help="The reason. It is sealed, with your account's name.")
@_JSON
def shelve(file: Path, alert: str, until_ns: int, why: str, *, as_json: bool) -> None:
    """Keep an open alert, and others of its kind and line, quiet until a time. The running ledger takes it up.

    \b
    Example: wattseal shelve ledger.toml 3f2a9c01 --until 2026-11-24T06:00:00Z --why "valve is ordered"
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.shelving import SHELVE

    _ask(file, SHELVE, alert, why, as_json=as_json, until_ns=until_ns)


@click.command()
@_FILE
@click.argument("alert")
@click.option("--why", required=True, help="The reason. It is sealed, with your account's name.")
@_JSON
def accept(file: Path, alert: str, why: str, *, as_json: bool) -> None:
    """Say that what an open alert shows is the new normal: it ends, and the baseline of its product is learned anew.

    \b
    Example: wattseal accept ledger.toml 3f2a9c01 --why "a second compressor, for good"
    """  # noqa: D301 (click's mark for a block that is not wrapped)
    from gateway.app.shelving import ACCEPT

    _ask(file, ACCEPT, alert, why, as_json=as_json)


def _ask(file: Path, what: str, alert: str, why: str, *, as_json: bool, until_ns: int = 0) -> None:
    """Write a request of an open alert."""
    from gateway.app.shelving import ACCEPT, account, ask
    from gateway.carbon.alerts.alert import ACCEPTABLE

    found = next((one for one in _book(file).alerts.values() if one.id == alert and one.cleared_ns is None), None)
    if found is None:
        raise ConfigError(f"{what}: got {alert!r}, want an open alert, as `wattseal alerts {file} --open` shows them")
    if what == ACCEPT and found.kind not in ACCEPTABLE:
        kinds = " or ".join(sorted(ACCEPTABLE))
        raise ConfigError(f"{what}: got {alert!r} of kind {found.kind}, want {kinds}; others can be shelved")
    if not why.strip():
        raise ConfigError(f"{what}: --why: got nothing, want the reason")
    path = ask(load_ledger(file).ledger.state, what, alert, until_ns=until_ns, why=why)
    said = {"alert": alert, "request": str(path), "by": account()}
    click.echo(json.dumps(said) if as_json else f"{alert}: asked, as {account()}. The ledger seals it within seconds.")


COMMANDS = (alerts, shelve, accept)
