"""Who publishes grid factors: one small client a provider."""

from typing import Protocol

from gateway.north.factors.electricity_maps import ElectricityMaps
from gateway.north.factors.entsoe import Entsoe
from gateway.north.factors.http import Http
from gateway.north.factors.neso import Neso
from gateway.north.factors.source import Ask, FactorSource, Place, Region, Secret
from gateway.north.factors.watttime import WattTime

__all__ = ["SOURCES", "Ask", "FactorSource", "Http", "Opener", "Place", "Region", "Secret"]


class Opener(Protocol):
    """Makes a source. http: its way out, where it is not the usual one."""

    def __call__(self, ask: Ask, secret: Secret, *, http: Http | None = None) -> FactorSource:
        """Return the source. Raises ConfigError for a useless URL."""
        ...


SOURCES: dict[str, Opener] = {
    "electricitymaps": ElectricityMaps,
    "watttime": WattTime,
    "neso": Neso,
    "entsoe": Entsoe,
}
"""By the name that ledger.toml has for it."""
