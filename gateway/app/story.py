"""The demonstration's second part: one fault in plant time, from its alert to the repair."""

import asyncio
import contextlib
import json
import sys
from pathlib import Path
from typing import Any

from gateway.app.isolation import die_with_us
from gateway.errors import GatewayError

STORY = "compressor"


async def run_story(folder: Path, *, seed: int = 1) -> dict[str, Any]:
    """Replay a day and a shift of the simulated factory through the pipeline; return what hil/replay prints.

    folder: for its logs and tables; made. Raises GatewayError when it fails.
    """
    with (folder.parent / "story.log").open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "hil.plant", "replay", STORY, "--seed", str(seed), "--json", "--keep", str(folder)),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
            preexec_fn=die_with_us,
        )
        try:
            said, _ = await process.communicate()
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
    if process.returncode:
        raise GatewayError(f"demo: the story broke off; see {folder.parent / 'story.log'}")
    found: dict[str, Any] = json.loads(said)
    return found


def told(story: dict[str, Any]) -> list[str]:
    """Return a story in words, a line each, as far as its shift's report does not tell it: the alert and its causes."""
    lines = ["The same fault in plant time: a day to learn from, then a shift with a broken compressor valve."]
    if story["alert_delay_s"] is None:
        return [*lines, "  no alert"]
    lines.append(f"  alert {story['alert_delay_s'] / 60:.0f} min after the fault ({story['alert_kind']}):")
    return lines + [
        f"    {cause['name']}: {cause['share']:.0%} of the change; {'; '.join(cause['evidence'])}"
        for cause in story["causes"][:3]
    ]
