"""The replay server as a process, as a newcomer starts it."""

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from hil.plant.grid.electricity_maps import TOKEN
from hil.plant.grid.server import FAULTS, PROVIDERS, GridServer

ROOT = Path(__file__).parent.parent


def test_a_replay_server_runs_as_a_process_and_ends_when_told() -> None:
    command = [sys.executable, "-m", "hil.plant", "grid", "--provider", "electricitymaps", "--port", "0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"] + "/carbon-intensity/latest?zone=DE"
            request = urllib.request.Request(url, headers={"auth-token": TOKEN})
            with urllib.request.urlopen(request, timeout=10) as answer:
                assert json.load(answer)["zone"] == "DE"
            with pytest.raises(urllib.error.HTTPError, match="401") as caught:
                urllib.request.urlopen(url, timeout=10)
            caught.value.close()
        finally:
            process.terminate()
        assert process.wait(10) == 0


def test_an_unknown_fault_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="429"):
        GridServer("neso", faults=("418",))


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_server_can_be_told_each_fault(provider: str) -> None:
    async with GridServer(provider, faults=tuple(FAULTS)) as server:
        assert server.faults == set(FAULTS)
        assert server.url.startswith("http://127.0.0.1:")
