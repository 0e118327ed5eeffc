"""How a process starts and stops: one loop, one main task, SIGTERM and SIGINT cancel it."""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any

import uvloop


def run_until_stopped(main: Coroutine[Any, Any, None]) -> None:
    """Run main to its end, or until SIGTERM or SIGINT cancels it; a cancelled end is an ordinary one."""

    async def guarded() -> None:
        task = asyncio.ensure_future(main)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(guarded())
