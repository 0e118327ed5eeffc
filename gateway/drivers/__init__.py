"""Field protocols: each a Driver that reads one device, and the table of all of them."""

from __future__ import annotations

from typing import Final

from gateway.drivers.driver import Driver, Poll
from gateway.drivers.modbus import ModbusDriver

__all__ = ["DRIVERS", "Driver", "Poll"]

DRIVERS: Final = {"modbus": ModbusDriver}
