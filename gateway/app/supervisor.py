"""`wattseal run`: the three processes as children, started again when they end.

An appliance leaves this to systemd, with a network namespace each; here they share the user's.
"""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from gateway.app.isolation import die_with_us
from gateway.app.logs import start_logs
from gateway.errors import ConfigError

STEADY_S = 10.0
"""A child that ran this long starts again at once; one that did not waits longer each time."""
MOST_WAIT_S = 30.0
EXIT_CONFIG = 2


class Child:
    """One process that is kept running.

    errors: where its standard error goes; ours if None. most_wait_s: between an end and the next start.
    released: set to let it end for good.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        on_start: Callable[[str, int], None],
        errors: IO[bytes] | None = None,
        most_wait_s: float = MOST_WAIT_S,
    ) -> None:
        self.name = name
        self._command, self._on_start, self._errors, self._most_wait_s = command, on_start, errors, most_wait_s
        self.released = False
        self.process: asyncio.subprocess.Process | None = None
        self.starts = 0

    async def keep(self) -> int:
        """Run the command again and again; return only when it says that its configuration is wrong."""
        wait_s = 0.2
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            self.process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stderr=self._errors,
                preexec_fn=die_with_us,
                start_new_session=True,  # a terminal's Ctrl-C is for us alone: we end them in order
            )
            self.starts += 1
            self._on_start(self.name, self.process.pid)
            code = await self.process.wait()
            if code == EXIT_CONFIG or self.released:
                return code
            wait_s = 0.2 if loop.time() - began > STEADY_S else min(wait_s * 2, self._most_wait_s)
            await asyncio.sleep(wait_s)

    async def stop(self, within_s: float = 10.0) -> None:
        """End the process: politely, and after a while not."""
        if self.process is None or self.process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            self.process.terminate()
            try:
                async with asyncio.timeout(within_s):
                    await self.process.wait()
            except TimeoutError:
                self.process.kill()
                await self.process.wait()


def wattseal(*arguments: str) -> list[str]:
    """Return the command line of `wattseal ARGUMENTS` in this very Python."""
    return [sys.executable, "-m", "gateway.cli", *arguments]


async def run_gateway(config_file: Path, *, command: Callable[..., Sequence[str]] = wattseal) -> None:
    """Run seal, forward and collect until cancelled; collect ends first, so that what it holds gets sealed.

    command: the command line of `<name> <file>`. Raises ConfigError when a child says that its configuration is
    wrong; why, the child has said itself.
    """
    log = start_logs("run")

    def started(name: str, pid: int) -> None:
        log.info("run.started", child=name, pid=pid)

    names = ("seal", "forward", "collect")
    children = [Child(name, command(name, str(config_file)), on_start=started) for name in names]
    tasks = [asyncio.create_task(child.keep(), name=f"run.{child.name}") for child in children]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        names_ended = [task.get_name().removeprefix("run.") for task in ended if task.result() == EXIT_CONFIG]
        raise ConfigError(f"{config_file.name}: {', '.join(names_ended)} cannot use it, as said above")
    finally:
        for task in tasks:
            task.cancel()
        for child in reversed(children):
            await child.stop()
