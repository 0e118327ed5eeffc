"""`wattseal` and `provision`: each command explains itself, and the docs show commands that there are."""

import contextlib
import re
import shlex

import click
import pytest

from gateway.cli import run as run_wattseal
from gateway.cli import wattseal
from provisioning.cli import provision
from provisioning.cli import run as run_provision
from tests.programs import PAGES, ROOT, Shell, commands, fenced, inline, parsed

PROGRAMS = {"wattseal": (wattseal, run_wattseal), "provision": (provision, run_provision)}
COMMANDS = {(name, *path): one for name, (group, _) in PROGRAMS.items() for path, one in commands(group)}
FENCED = [(page.name, words) for page in PAGES for words in fenced(page)]
INLINE = [(page.name, words) for page in PAGES for words in inline(page)]


def shell_of(program: str, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(PROGRAMS[program][1], capsys)


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_each_command_has_a_help_text_with_examples_that_hold(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    program, *own = path
    said = shell_of(program, capsys)(*own, "--help")
    assert (said.code, said.err) == (0, "")
    assert f"Usage: {' '.join(path)} " in said.out
    examples = re.findall(rf"(?:Example: | {{11}})({program} .+)", said.out)
    assert examples, said.out
    for example in examples:
        assert parsed(PROGRAMS[program][0], shlex.split(example)[1:])[0] == tuple(own)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_first_help_text_names_every_command(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = shell_of(program, capsys)("--help")
    assert all(re.search(rf"^  {name} ", said.out, re.MULTILINE) for name in PROGRAMS[program][0].commands)


@pytest.mark.parametrize(("page", "words"), FENCED, ids=[f"{page}: {shlex.join(words)}" for page, words in FENCED])
def test_a_command_that_the_docs_show_can_be_given(page: str, words: list[str]) -> None:
    """With these options and arguments, whole."""
    assert parsed(PROGRAMS[words[0]][0], words[1:]), page


@pytest.mark.parametrize(("page", "words"), INLINE, ids=[f"{page}: {shlex.join(words)}" for page, words in INLINE])
def test_a_command_that_the_docs_mention_exists(page: str, words: list[str]) -> None:
    """Its options, too; arguments may be left out in running text, and a group may stand for its commands."""
    group = PROGRAMS[words[0]][0]
    assert words[1:], page
    if len(words) == 2 and isinstance(group.commands.get(words[1]), click.Group):
        return
    with contextlib.suppress(click.MissingParameter):
        parsed(group, words[1:])


def test_the_docs_name_every_command() -> None:
    assert len(FENCED) > 5
    assert len(INLINE) > 10
    named = {tuple(words) for _, words in (*FENCED, *INLINE)}
    lacking = [path for path in COMMANDS if not any(words[: len(path)] == path for words in named)]
    readme = (ROOT / "README.md").read_text("utf-8")
    assert [path for path in lacking if f"`{path[1]}`" not in readme] == []


@pytest.mark.parametrize("path", [path for path in COMMANDS if path[0] == "provision"], ids=" ".join)
def test_the_docs_name_every_option_of_the_factorys_commands(path: tuple[str, ...]) -> None:
    """On the pages that show or mention the command; --json and --help are the same everywhere, and in README."""
    pages = [page for page in PAGES if re.search(rf"\b{' '.join(path)}\b", page.read_text("utf-8"))]
    assert pages, f"no page names {' '.join(path)}"
    said = "".join(page.read_text("utf-8") for page in pages)
    options = {option for one in COMMANDS[path].params for option in one.opts if option.startswith("--")}
    assert not [option for option in sorted(options) if f"{option}" not in said], pages
