"""Our two programs, `wattseal` and `provision`, as tests run them and as the docs show them."""

import re
import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


@dataclass
class Said:
    """What a command said, and its exit code."""

    code: int
    out: str
    err: str


class Shell:
    """Runs commands of one program in this process."""

    def __init__(self, run: Callable[[Sequence[str]], int], capsys: pytest.CaptureFixture[str]) -> None:
        self._run, self._capsys = run, capsys

    def __call__(self, *arguments: str | Path) -> Said:
        """Run it with these arguments."""
        code = self._run([str(argument) for argument in arguments])
        said = self._capsys.readouterr()
        return Said(code, said.out, said.err)

    def done(self, *arguments: str | Path) -> str:
        """Run a command that succeeds; return what it said."""
        said = self(*arguments)
        assert said.code == 0, said
        return said.out


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with its name, groups' commands too."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def parsed(group: click.Group, words: list[str]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return the command and its parameters, as click reads them. Raises click.ClickException."""
    command: click.Command | None = group
    path: list[str] = []
    while isinstance(command, click.Group):
        if not words:
            raise click.UsageError(f"no command behind {path}")
        with click.Context(command) as context:  # as click finds it: a group may have a command for short
            name, command, words = command.resolve_command(context, words)
        path.append(str(name))
    assert command is not None
    return tuple(path), command.make_context(" ".join(path), list(words)).params


def fenced(page: Path) -> Iterator[list[str]]:
    """Yield the words of each command of ours in a page's sh blocks; `make demo` is `wattseal demo`."""
    text = page.read_text("utf-8").replace("\\\n", " ")  # a line that goes on is one
    for block in re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE):
        for line in block.splitlines():
            words = shlex.split(line.partition("  #")[0])
            if words[:2] == ["make", "demo"]:
                yield ["wattseal", "demo", *shlex.split(" ".join(words[2:]).removeprefix("ARGS="))]
            elif words and Path(words[0]).name in {"wattseal", "provision"}:
                yield [Path(words[0]).name, *words[1:]]


def inline(page: Path) -> list[list[str]]:
    """Return the words of each `wattseal ...` and `provision ...` in a page's text and tables."""
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [shlex.split(said) for said in re.findall(r"`((?:wattseal|provision) [^`]+)`", text)]
