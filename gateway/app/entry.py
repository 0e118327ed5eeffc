"""How a process starts and stops: one loop, one main task, SIGTERM and SIGINT cancel it."""

import asyncio
import gc
import resource
import signal
from collections.abc import Coroutine
from typing import Any

import uvloop

from gateway.errors import GatewayError, LogError


def run_until_stopped(main: Coroutine[Any, Any, None]) -> None:
    """Run main to its end, or until SIGTERM or SIGINT cancels it; that is an ordinary end.

    A cancellation that nobody asked for is a bug, and raised: else the process would end well, and nobody know why.
    Of errors of ours that come as a group, from a task group, one is raised alone, a LogError before all others: what
    is done next is decided by its class. A group with any other error in it is a bug, and comes as it is.
    """

    async def guarded() -> None:
        task = asyncio.ensure_future(main)
        loop = asyncio.get_running_loop()
        is_asked = False

        def stop() -> None:
            nonlocal is_asked
            is_asked = True
            task.cancel()

        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop)
        try:
            await task
        except asyncio.CancelledError as e:
            if not is_asked:
                raise RuntimeError("cancelled by nobody") from e

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(guarded())
        except BaseExceptionGroup as group:
            if group.split(GatewayError)[1] is not None:
                raise
            ours = _flat(group)
            raise next((error for error in ours if isinstance(error, LogError)), ours[0]) from group


def allow_open_files() -> None:
    """Raise the soft limit of open files to the hard one: each log that is open takes up to nine."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def settle() -> None:
    """Tell the garbage collector that all that stands now will stay, and to look less often; at the end of a start.

    What a poll makes has no cycles; looking for some took a tenth of collect's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 20, 20)


def _flat(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [inner for one in error.exceptions for inner in _flat(one)]
    return [error]
