"""What the filling line's people have it do: which job of which product, and whether it runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

EXECUTE, IDLE, RESETTING, STOPPED = 6, 4, 15, 2
"""StateCurrent of PackML, OPC 30050."""
PRODUCING_MODE, MANUAL_MODE = 1, 3
"""UnitModeCurrent of PackML."""
STATES: Mapping[str, int] = {"run": EXECUTE, "idle": IDLE, "setup": RESETTING}
"""By command: the state that it brings the line to."""
HEAVY = 2
"""The product that takes more energy and more time a unit."""
PRODUCTS = (1, HEAVY)
MOST_JOB = 2**32 - 1
COMMANDS = "job NUMBER [PRODUCT] | run | idle | setup"


@dataclass(slots=True)
class Production:
    """One job at a time: a new one does not start the line, and a state does not end it."""

    job: int = 1001
    product: int = 1
    state: int = EXECUTE

    @property
    def mode(self) -> int:
        """The unit's mode: by hand while it is set up."""
        return MANUAL_MODE if self.state == RESETTING else PRODUCING_MODE

    def takes(self, words: Sequence[str]) -> bool:
        """Return whether `do` knows this command."""
        match words:
            case [verb]:
                return verb in STATES
            case ["job", number]:
                return _is_one_of(number, range(1, MOST_JOB + 1))
            case ["job", number, product]:
                return _is_one_of(number, range(1, MOST_JOB + 1)) and _is_one_of(product, PRODUCTS)
        return False

    def do(self, words: Sequence[str]) -> None:
        """Do a command that it takes."""
        if words[0] in STATES:
            self.state = STATES[words[0]]
            return
        self.job = int(words[1])
        if len(words) > 2:
            self.product = int(words[2])


def _is_one_of(text: str, numbers: Sequence[int]) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 12 and int(text) in numbers
