"""Runs an asynchronous test on asyncio's own loop and on uvloop, which is what the processes run on: they differ."""

import asyncio
import warnings
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
import uvloop

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
WITHIN_S = 20.0


def on_both_loops(test: Callable[[Path], Coroutine[Any, Any, None]]) -> Callable[[str, Path], None]:
    """Return a test that runs this one twice, each time in a fresh folder and within a bounded time."""

    def on_loop(loop: str, tmp_path: Path) -> None:
        with warnings.catch_warnings(), asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            try:
                runner.run(asyncio.wait_for(test(tmp_path), WITHIN_S))
            except BaseException:
                # What a failed test left open is no news; and uvloop hangs over a warning that became an error.
                warnings.simplefilter("ignore", ResourceWarning)
                raise

    on_loop.__name__, on_loop.__doc__ = test.__name__, test.__doc__
    return pytest.mark.parametrize("loop", LOOPS)(on_loop)
