"""How a process starts and stops: one loop, one main task, SIGTERM and SIGINT cancel it."""

import asyncio
import contextlib
import signal
from collections.abc import Coroutine
from typing import Any

import uvloop

from gateway.errors import GatewayError, LogError


def run_until_stopped(main: Coroutine[Any, Any, None]) -> None:
    """Run main to its end, or until SIGTERM or SIGINT cancels it; a cancelled end is an ordinary one.

    Of errors of ours that come as a group, from a task group, one is raised alone, a LogError before all others: what
    is done next is decided by its class. A group with any other error in it is a bug, and comes as it is.
    """

    async def guarded() -> None:
        task = asyncio.ensure_future(main)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(guarded())
        except BaseExceptionGroup as group:
            if group.split(GatewayError)[1] is not None:
                raise
            ours = _flat(group)
            raise next((error for error in ours if isinstance(error, LogError)), ours[0]) from group


def _flat(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [inner for one in error.exceptions for inner in _flat(one)]
    return [error]
