"""Linters and the type check are tests."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def check(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=600, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff_finds_nothing() -> None:
    check("ruff", "check", "--no-cache", ".")


def test_ruff_would_format_nothing() -> None:
    check("ruff", "format", "--no-cache", "--check", ".")


def test_mypy_strict_finds_nothing() -> None:
    check("mypy")


def committed() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


def test_no_committed_file_names_a_registry_or_holds_a_key() -> None:
    """Dependencies are locked with hashes, not addresses; keys are made, never committed."""
    host = re.compile(
        "py" + r"pi\.org|python" + r"hosted|registry\.np" + r"m|deb\.deb" + r"ian\.|BEGIN [A-Z ]*PRIV" + r"ATE KEY"
    )
    found = []
    for path in committed():
        text = path.read_bytes().decode("utf-8", "replace")
        found += [str(path.relative_to(ROOT))] if host.search(text) else []
    assert not found


def test_modules_stay_small() -> None:
    """A module past 300 lines wants a new cut."""
    sizes = {
        str(p.relative_to(ROOT)): len(p.read_text().splitlines())
        for p in committed()
        if p.suffix == ".py" and "tests" not in p.parts
    }
    assert not {name: size for name, size in sizes.items() if size > 300}
