"""What the running ledger still learns of its lines, as a file in its state folder: `wattseal alerts` shows it."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FILE = "learning.json"
_MOST_BYTES = 10_000_000


def write(state: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write down what is learned: gateway, line, product, recipe, shifts, wanted, why. Raises OSError."""
    path = state / FILE
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
    fresh.replace(path)


def read(state: Path) -> list[dict[str, Any]]:
    """Return what was written last; nothing where there is no readable file."""
    try:
        found = json.loads((state / FILE).read_bytes()[:_MOST_BYTES])
        return [
            {name: str(row[name]) for name in ("gateway", "line", "product", "recipe", "why")}
            | {name: int(row[name]) for name in ("shifts", "wanted")}
            for row in found
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []
