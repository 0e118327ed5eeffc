"""Requests to shelve an alert, or to accept it: a file in the ledger's state folder, which the running ledger takes up.

Who asks is whom the file belongs to, not what it says.
"""

import json
import os
import pwd
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from gateway.errors import ConfigError

SHELVE, ACCEPT = "shelve", "accept"
"""What may be asked for: a folder each."""
_MOST = 100
_MOST_BYTES = 4_000


class Request(NamedTuple):
    """One request. what: SHELVE or ACCEPT. until_ns: to shelve, 0 else. by: the account to which its file belongs."""

    what: str
    alert: str
    until_ns: int
    why: str
    by: str


def ask(state: Path, what: str, alert: str, *, why: str, until_ns: int = 0) -> Path:
    """Write a request; return its file. Raises ConfigError where that cannot be done."""
    folder = state / what
    path = folder / f"{alert}.json"
    try:
        folder.mkdir(exist_ok=True)
        fresh = path.with_suffix(".new")
        fresh.write_text(json.dumps({"alert": alert, "until_ns": until_ns, "why": why}), encoding="utf-8")
        fresh.replace(path)
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}, want the state folder of a ledger that you may write to") from e
    return path


def take(state: Path) -> Iterator[Request | str]:
    """Yield the requests that wait, and why one is useless; each once: its file is deleted first."""
    for what in (SHELVE, ACCEPT):
        try:
            paths = sorted((state / what).glob("*.json"))[:_MOST]
        except OSError:
            continue
        yield from _taken(what, paths)


def _taken(what: str, paths: Iterable[Path]) -> Iterator[Request | str]:
    for path in paths:
        try:
            owner = path.lstat().st_uid
            text = path.read_bytes()[:_MOST_BYTES]
            path.unlink()
        except OSError as e:
            yield f"{path.name}: {e.strerror}"
            continue
        try:
            found = json.loads(text)
            yield Request(what, str(found["alert"]), int(found["until_ns"]), str(found["why"])[:500], _name(owner))
        except (ValueError, KeyError, TypeError):
            yield f"{path.name}: want a request as `wattseal {what}` writes it"


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def account() -> str:
    """Return whose requests this process writes."""
    return _name(os.getuid())
