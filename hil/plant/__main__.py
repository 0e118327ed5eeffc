"""`python -m hil.plant`: run the plant, or many equal meters for a benchmark, as a process."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import uvloop

from hil.plant.bench import Bench, serve_bench
from hil.plant.control import Control, parse_timetable
from hil.plant.devices import Start
from hil.plant.factory import COMMANDS, FAULTS, Plant
from hil.plant.hostile import SYNTAX, Hostile
from hil.plant.serve import serve, serve_serial

if TYPE_CHECKING:
    from hil.plant.bacnet import BacnetDevice
    from hil.plant.opcua import OpcuaServer

_PLANT_HELP = f"""\
examples:
  python -m hil.plant --port 5020
  python -m hil.plant --port 0 --speed 300 --seed 1 --control /tmp/plant.sock \\
      --timetable "12s:fault compressor-valve,40s:repair compressor-valve"
  echo "fault compressor-valve" | nc -U /tmp/plant.sock
  python -m hil.plant --hostile late-every=5:2.0,cap=50,wrong-unit=0.01,drop=0.01
  python -m hil.plant --opcua-port 4840 --opcua-none
  python -m hil.plant --bacnet 127.0.0.1/32:47808
  python -m hil.plant --agent press-1=press --agents-broker localhost:8883 --agents-pki agents
  python -m hil.plant bench --meters 100          (see bench --help)
  python -m hil.plant grid --provider neso        (see grid --help)
  python -m hil.plant replay compressor           (see replay --help)

units:
  1 compressor  eastron-sdm630     2 press  abb-b23     3 hvac  schneider-iem3000
  4 filler      abb-b23            5 line   wattseal-plant-plc

commands, by --control and --timetable:
  {COMMANDS} | stop
  NAME: {", ".join(FAULTS)}
  with --opcua-port: opcua restart [SECONDS] | opcua renew | opcua drop-node NODE | opcua restore-node NODE
  with --bacnet: bacnet reboot [SECONDS] | bacnet lapse | bacnet fault OBJECT | bacnet repair OBJECT

--hostile, a comma-separated list:
{SYNTAX}

Prints one line of JSON when it listens. SIGTERM, SIGINT and `stop` end it.
Registers count plant time, power registers show W or kW as they are: with --speed 300 an energy
register moves 300 times as fast as the power says.
"""

_BENCH_HELP = f"""\
example:
  python -m hil.plant bench --meters 100 --registers 120 --port 0

FC 1 to 4 read the same image. Each float32 tells its meter, index and generation: see hil/plant/bench.py.
With more than 247 meters a port there are more ports. --hostile, a comma-separated list:
{SYNTAX}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until told to stop; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["replay"]:
        from hil.replay.command import main as replay  # noqa: PLC0415 - it brings all of the gateway along

        return replay(given[1:])
    try:
        if given[:1] == ["grid"]:
            from hil.plant.grid.command import main as grid  # noqa: PLC0415 - only this one wants HTTP

            return grid(given[1:])
        if given[:1] == ["bench"]:
            uvloop.run(_run_bench(_bench_options(given[1:])))
        else:
            uvloop.run(_run_plant(_plant_options(given)))
    except (ValueError, OSError) as e:
        _die(str(e))
    return 0


def _die(message: str) -> NoReturn:
    print(f"hil.plant: {message}", file=sys.stderr)
    raise SystemExit(2)


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument("--port", type=int, default=0, help="first TCP port; 0: any free one (0)")
    parser.add_argument("--framing", choices=("tcp", "rtu"), default="tcp", help="Modbus TCP, or RTU over TCP (tcp)")
    parser.add_argument("--hostile", default="", metavar="LIST", help="misbehave; see below")


def _plant_options(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m hil.plant",
        description="A simulated factory behind Modbus servers.",
        epilog=_PLANT_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _common(parser)
    parser.add_argument("--ports", choices=("one", "each"), default="one", help="all units on one port, or each on one")
    parser.add_argument("--serial", type=Path, metavar="PATH", help="also serve RTU on a pseudo-terminal at PATH")
    parser.add_argument("--speed", type=float, default=1.0, help="plant seconds a second (1)")
    parser.add_argument("--seed", type=int, default=0, help="of the noise (0)")
    parser.add_argument("--noise", type=float, default=0.02, help="standard deviation of each power, as a share (0.02)")
    parser.add_argument("--scrap", type=float, default=0.02, help="share of the units made that is not good (0.02)")
    parser.add_argument("--filler", choices=("abb-b23", "phoenix-eem-ma370"), default="abb-b23", help="meter of unit 4")
    parser.add_argument(
        "--start",
        action="append",
        default=[],
        metavar="UNIT=RAW",
        help="first value of a unit's counters, in register steps; `wrap`: they roll over soon",
    )
    parser.add_argument("--control", type=Path, metavar="PATH", help="unix socket for commands")
    parser.add_argument("--timetable", default="", metavar="LIST", help="commands at seconds since the start")
    parser.add_argument("--bacnet", metavar="ADDRESS", help="also serve an air handler at e.g. 192.0.2.9/24:47808")
    agents = parser.add_argument_group("agents")
    agents.add_argument("--agent", action="append", default=[], metavar="ID=ASSET", help="also run an agent there")
    agents.add_argument("--agents-broker", metavar="HOST:PORT", help="the broker that agents send to")
    agents.add_argument("--agents-pki", type=Path, metavar="FOLDER", help="what `wattseal dev-agents` made")
    opcua = parser.add_argument_group("OPC UA")
    opcua.add_argument("--opcua-port", type=int, metavar="PORT", help="also serve OPC UA; 0: any free port")
    opcua.add_argument("--opcua-none", action="store_true", help="take connections without security too")
    opcua.add_argument("--opcua-folder", type=Path, metavar="FOLDER", help="where its certificate is kept, or made")
    opcua.add_argument("--opcua-clients", type=Path, metavar="FOLDER", help="certificates of the only clients to take")
    opcua.add_argument("--opcua-user", metavar="NAME:PASSWORD", help="the only user to take")
    return parser.parse_args(given)


def _bench_options(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m hil.plant bench",
        description="Many equal meters, for benchmarks.",
        epilog=_BENCH_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _common(parser)
    parser.add_argument("--meters", type=int, default=100, help="how many (100)")
    parser.add_argument("--registers", type=int, default=120, help="registers a meter, two a float32 (120)")
    parser.add_argument("--ports", default="one", metavar="one|each|N", help="how many ports share them (one)")
    parser.add_argument("--change", type=float, default=1.0, metavar="S", help="seconds between new contents (1)")
    return parser.parse_args(given)


def _starts(items: list[str]) -> dict[int, Start]:
    starts: dict[int, Start] = {}
    for item in items:
        unit, _, value = item.partition("=")
        if not unit.isdigit() or not (value.isdigit() or value == "wrap"):
            raise ValueError(f"--start: got {item!r}, want UNIT=RAW or UNIT=wrap")
        starts[int(unit)] = "wrap" if value == "wrap" else int(value)
    return starts


def _hostile(options: argparse.Namespace) -> Hostile | None:
    return Hostile.parse(options.hostile) if options.hostile else None


def _stop_on_signals() -> asyncio.Event:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    return stopped


async def _run_plant(options: argparse.Namespace) -> None:
    hostile = _hostile(options)
    plant = Plant(
        seed=options.seed,
        speed=options.speed,
        noise=options.noise,
        scrap=options.scrap,
        starts=_starts(options.start),
        filler=options.filler,
    )
    stopped = _stop_on_signals()
    for after_s, command in parse_timetable(options.timetable):
        if command == "stop":
            asyncio.get_running_loop().call_later(after_s, stopped.set)
        elif not command.startswith(("opcua ", "bacnet ")):
            plant.schedule(after_s, command)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            serve(
                plant,
                options.host,
                options.port,
                ports=options.ports,
                framing=options.framing,
                hostile=hostile,
            )
        )
        if options.serial:
            await stack.enter_async_context(serve_serial(plant, options.serial, hostile=hostile))
        opcua = None if options.opcua_port is None else await stack.enter_async_context(_opcua(plant, options, stack))
        _schedule(options.timetable, "opcua", opcua, "--opcua-port")
        bacnet = None if options.bacnet is None else await stack.enter_async_context(_bacnet(plant, options))
        _schedule(options.timetable, "bacnet", bacnet, "--bacnet")
        if options.agent:
            from hil.plant.agent import running_agents  # noqa: PLC0415 - only agents want MQTT

            given = running_agents(plant, options.agent, options.agents_broker, options.agents_pki)
            await stack.enter_async_context(given)
        if options.control:
            obey = None if opcua is None else opcua.do
            tell = None if bacnet is None else bacnet.do
            await stack.enter_async_context(Control(plant, options.control, stop=stopped.set, opcua=obey, bacnet=tell))
        about_opcua = {} if opcua is None else {"opcua": opcua.about()}
        about_bacnet = {} if bacnet is None else {"bacnet": bacnet.about()}
        _announce(
            listening=server.listening(),
            devices={unit: {"asset": d.asset, "template": d.template} for unit, d in plant.devices.items()},
            serial=str(options.serial) if options.serial else None,
            control=str(options.control) if options.control else None,
            speed=plant.speed,
            seed=plant.seed,
            agents=options.agent,
            **about_opcua,
            **about_bacnet,
        )
        await stopped.wait()


def _schedule(timetable: str, word: str, server: OpcuaServer | BacnetDevice | None, option: str) -> None:
    """Let a server do its own commands of a timetable. Raises ValueError."""
    for after_s, command in parse_timetable(timetable):
        if command.startswith(f"{word} "):
            if server is None:
                raise ValueError(f"--timetable: got {command!r}, want {option} with it")
            server.check(command.removeprefix(f"{word} "))
            asyncio.get_running_loop().call_later(after_s, server.do, command.removeprefix(f"{word} "))


def _bacnet(plant: Plant, options: argparse.Namespace) -> BacnetDevice:
    from hil.plant.bacnet import BacnetDevice  # noqa: PLC0415 - it takes a second to load

    return BacnetDevice(plant, address=options.bacnet)


def _opcua(plant: Plant, options: argparse.Namespace, stack: AsyncExitStack) -> OpcuaServer:
    from hil.plant.opcua import OpcuaServer  # noqa: PLC0415 - it takes a second to load

    folder = options.opcua_folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="plant-opcua-")))
    name, _, password = (options.opcua_user or "").partition(":")
    return OpcuaServer(
        plant,
        host=options.host,
        port=options.opcua_port,
        folder=folder,
        clients=options.opcua_clients,
        none=options.opcua_none,
        users={name: password} if name else None,
    )


async def _run_bench(options: argparse.Namespace) -> None:
    hostile = _hostile(options)
    bench = Bench(meters=options.meters, registers=options.registers)
    words = {"one": 1, "each": options.meters}
    ports = words.get(options.ports) or int(options.ports)
    if not 1 <= ports <= options.meters:
        raise ValueError(f"--ports: got {options.ports}, want one, each or 1..{options.meters}")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    stopped = _stop_on_signals()
    async with serve_bench(
        bench,
        options.host,
        options.port,
        ports=ports,
        change_s=options.change,
        framing=options.framing,
        hostile=hostile,
    ) as server:
        _announce(listening=server.listening(), meters=options.meters, floats=bench.floats)
        await stopped.wait()


def _announce(**about: object) -> None:
    print(json.dumps({**about, "pid": os.getpid()}), flush=True)


if __name__ == "__main__":
    sys.exit(main())
