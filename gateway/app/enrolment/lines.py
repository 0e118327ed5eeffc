"""A unit's lines in and out: from a pipe, an SSH session or a serial line, in bounded memory."""

import os
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from gateway.codec import enrol_lines as lines
from gateway.errors import ConfigError

_PIECE = 4096
_EMPTY = {"", "none", "default string", "to be filled by o.e.m.", "not specified", "system serial number", "0"}
"""What boards say that were never given a serial, in lower case."""


def serve(answer: Callable[[bytes], bytes | None], source: int, sink: int, *, is_done: Callable[[], bool]) -> None:
    """Answer each line that comes from the descriptor source, until it ends; a line without an end is dropped."""
    with _raw(source):
        rest, is_dropping = b"", False
        while piece := _read(source):
            *whole, rest = (rest + piece).split(b"\n")
            for line in whole:
                reply = None if is_dropping else answer(line.rstrip(b"\r"))
                is_dropping = False
                if reply is not None:
                    _write(sink, reply)
            if len(rest) > lines.MAX_LINE:
                rest, is_dropping = b"", True
            if is_done():
                return


def hardware_serial(file: Path) -> str:
    """Return the serial that the hardware has, "" for none. Raises ConfigError for one that cannot be used."""
    try:
        said = file.read_bytes()[:200].decode("ascii", "replace").strip(" \n\r\t\0")
    except OSError:
        return ""
    if said.lower() in _EMPTY:
        return ""
    try:
        return str(lines.serial(said))
    except ValueError as e:
        raise ConfigError(f"{file}: {e}") from e


def about() -> dict[str, str]:
    """Return what a unit says of its software."""
    return {"version": metadata.version("wattseal"), "kernel": os.uname().release, "machine": os.uname().machine}


def _read(source: int) -> bytes:
    try:
        return os.read(source, _PIECE)
    except OSError:  # a serial line whose other end went away
        return b""


def _write(sink: int, content: bytes) -> None:
    while content:
        content = content[os.write(sink, content) :]


@contextmanager
def _raw(source: int) -> Iterator[None]:
    """Make a terminal pass bytes on as they come: no echo, no limit of 4,096 characters a line."""
    if not os.isatty(source):
        yield
        return
    before = termios.tcgetattr(source)
    tty.setraw(source)
    try:
        yield
    finally:
        termios.tcsetattr(source, termios.TCSANOW, before)
