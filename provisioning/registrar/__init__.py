"""The registrar: which units there are, whose they are, and what became of them."""

from provisioning.registrar.checking import Held, rebuild, verify
from provisioning.registrar.export import Exported, export, verify_exported
from provisioning.registrar.place import Place, make_place
from provisioning.registrar.registrar import Registrar
from provisioning.registrar.unit import AK, EK, State, Unit

__all__ = [
    "AK",
    "EK",
    "Exported",
    "Held",
    "Place",
    "Registrar",
    "State",
    "Unit",
    "export",
    "make_place",
    "rebuild",
    "verify",
    "verify_exported",
]
