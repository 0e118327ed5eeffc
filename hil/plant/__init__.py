"""A simulated factory behind real protocol servers.

plant = Plant(seed=1, speed=300)
async with serve(plant) as server:
    ...  # 127.0.0.1, server.port, unit ids 1 to 5
    plant.do("fault compressor-valve")
    plant.truth().energy_wh["compressor"]
"""

from hil.plant.factory import FAULTS, CommandError, Plant, Truth
from hil.plant.hostile import Hostile
from hil.plant.serve import serve, serve_serial
from hil.plant.server import SerialServer, Server

__all__ = ["FAULTS", "CommandError", "Hostile", "Plant", "SerialServer", "Server", "Truth", "serve", "serve_serial"]
