"""How a process ends: asked to, or not."""

import asyncio

import pytest

from gateway.app.entry import run_until_stopped


def test_a_cancellation_that_nobody_asked_for_is_no_ordinary_end() -> None:
    """A library that leaks one must not end a process as if it had been told to: who restarts on failure would not."""

    async def leaks() -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    with pytest.raises(RuntimeError, match="cancelled by nobody"):
        run_until_stopped(leaks())
