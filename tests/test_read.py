"""`wattseal read` and `commission` of devices of other protocols than Modbus, each a real server."""

import asyncio
import contextlib
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.app.look import look
from gateway.app.polled import polled
from gateway.cli import run
from gateway.errors import ConfigError, DeviceError
from gateway.model import Quality
from hil.plant.agent import Agent, agent_endpoint, agent_key
from hil.plant.factory import Plant
from tests.bacnet_places import free_port
from tests.links import HOST
from tests.northbound import until
from tests.test_agents import agents_broker, config_for, pki, running, site
from tests.test_commission import SITE
from tests.test_plant_process import process

__all__ = ["pki"]  # a fixture

DEVICES = """
[bacnet]
address = "127.0.0.1/32:{own}"
[devices.plc]
template = "wattseal-plant-opcua"
url = "{url}"
[devices.plc.opcua]
security = "None"
mode = "None"
[devices.ahu]
template = "wattseal-plant-bacnet"
url = "bacnet:4401"
[devices.ahu.bacnet]
address = "127.0.0.1:{bacnet}"
[devices.gone]
template = "wattseal-plant-opcua"
url = "opc.tcp://127.0.0.1:1/none"
timeout_s = 0.3
[devices.gone.opcua]
security = "None"
mode = "None"
"""


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Run the plant with all its servers; give a gateway.toml of them."""
    bacnet, own = free_port(), free_port()
    with process("--opcua-port", "0", "--opcua-none", "--bacnet", f"127.0.0.1/32:{bacnet}") as (_, about):
        file = tmp_path_factory.mktemp("read") / "gateway.toml"
        file.write_text(SITE + DEVICES.format(own=own, url=about["opcua"]["url"], bacnet=bacnet))
        yield file


def said(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, Any]:
    assert run([*map(str, arguments), "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_an_opcua_device_is_read_with_its_time_and_its_raw_status(
    factory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = said(capsys, "read", factory, "plc")
    points = {point["point"]: point for point in found["points"]}
    assert list(points["state"]) == ["point", "value", "unit", "quality", "words", "status", "source_time"]
    assert (points["sku"]["value"], points["sku"]["quality"], points["sku"]["status"]) == ("SKU-1", "GOOD", "")
    assert points["filler_power"]["unit"] == "W"
    dew = points["air_dew_point"]
    assert dew["quality"] == "UNCERTAIN"
    assert "UncertainSensorNotAccurate" in dew["status"]
    age_s = (datetime.now(UTC) - datetime.fromisoformat(dew["source_time"])).total_seconds()
    assert -1 < age_s < 30


def test_one_point_of_an_opcua_device_is_read_alone(factory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert [point["point"] for point in said(capsys, "read", factory, "plc.state")["points"]] == ["state"]
    assert run(["read", str(factory), "plc.nothing"]) == 2
    assert "got point 'nothing', want one of state, " in capsys.readouterr().err


def test_a_bacnet_device_is_read(factory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    points = {point["point"]: point for point in said(capsys, "read", factory, "ahu")["points"]}
    assert points["power"]["unit"] == "W"
    assert points["power"]["value"] > 1000
    assert {point["quality"] for point in points.values()} == {"GOOD"}


def test_a_server_that_is_not_there_is_exit_1(factory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["read", str(factory), "gone"]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments", [["plc", "--power", "compressor_power", "--energy", "compressor_energy"], ["ahu"]], ids=lambda a: a[0]
)
def test_any_protocols_meter_is_commissioned(
    arguments: list[str], factory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The time is the device's own; nothing is known of its registers, so of their order neither."""
    found = said(capsys, "commission", factory, *arguments, "--minutes", "0.1", "--period", "0.1")
    assert found["verdict"] == "agree", found


def test_of_several_powers_none_is_guessed(factory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["commission", str(factory), "plc"]) == 2
    assert "want one of filler_power, compressor_power" in capsys.readouterr().err


async def test_an_agent_is_heard_beside_collect_which_loses_nothing(pki: Path, tmp_path: Path) -> None:
    """It has a session of its own: collect's connection stays, and each frame still arrives there."""
    async with site(pki, tmp_path) as made:
        await until(lambda: len(made.frames) > 2)
        looks = await look(config_for(pki, made.port), "press")
        assert {each.quality for each in looks} == {Quality.GOOD}
        assert looks[0].source_time_ns > 0
        heard = len(made.frames)
        await until(lambda: len(made.frames) > heard + 2)
        assert made.driver._broker.why == ""
        numbers = [frame for frame in made.frames if frame]
        assert len(set(numbers)) == len(numbers)


async def test_an_agent_that_is_silent_says_so(pki: Path, tmp_path: Path) -> None:
    async with agents_broker(pki, tmp_path) as broker:
        with pytest.raises(DeviceError, match="agent press-1: no frame"):
            await polled(config_for(pki, broker.port), "press", listen_s=0.5)


async def test_an_agent_that_sends_later_is_waited_for(pki: Path, tmp_path: Path) -> None:
    async with agents_broker(pki, tmp_path) as broker:
        reading = asyncio.create_task(polled(config_for(pki, broker.port), "press", listen_s=10))
        await asyncio.sleep(0.5)
        agent = Agent(Plant(seed=1, noise=0), "press", agent="press-1", key=agent_key(pki, "press-1"), every_s=0.1)
        async with running(agent.run(agent_endpoint(pki, f"{HOST}:{broker.port}", "press-1"))):
            row = await asyncio.wait_for(reading, 15)
        assert row.qualities is None
        with contextlib.suppress(asyncio.CancelledError):
            await reading


async def test_agents_without_a_broker_or_a_certificate_are_an_error_of_the_file(pki: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="agents: got no section"):
        await polled(config_for(pki, 1, agents=False), "press", listen_s=0.5)
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        await polled(config_for(tmp_path, 1), "press", listen_s=0.5)
