"""The folder is the layer: imports point only inward, and each third party has one home."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

RINGS = {
    "gateway.model": 0,
    "gateway.errors": 0,
    "gateway.config": 1,
    "gateway.codec": 1,
    "gateway.tlog": 1,
    "gateway.carbon": 1,
    "gateway.attest": 1,
    "gateway.clock": 2,
    "gateway.drivers": 2,
    "gateway.store": 2,
    "gateway.north": 2,
    "gateway.tpm": 2,
    "gateway.app": 3,
    "gateway.web": 3,
    "gateway.cli": 3,
}
"""Each package or module of gateway, and its ring."""

HOMES = {
    "aiomqtt": {"gateway.north.mqtt"},
    "asyncua": {"gateway.drivers"},
    "bacpypes3": {"gateway.drivers"},
    "click": {"gateway.cli"},
    "cryptography": {
        "gateway.tlog.note",
        "gateway.attest",
        "gateway.north.pki",
        "gateway.north.memory_key",
        "gateway.tpm.keys",
        "gateway.drivers.opcua_cert",
        "gateway.drivers.opcua_connect",
    },
    "joserfc": {"gateway.attest.ear"},
    "litestar": {"gateway.web"},
    "httpx2": {"gateway.north.factors.http"},
    "msgpack": {"gateway.codec.pack"},
    "msgspec": {"gateway.config"},
    "prometheus_client": {"gateway.app.metrics"},
    "pymodbus": {"gateway.drivers"},
    "rich": {"gateway.cli"},
    "serial": {"gateway.drivers"},
    "sqlalchemy": {"gateway.store.projections"},
    "structlog": {"gateway.app"},
    "sunspec2": {"gateway.drivers.sunspec"},
    "tpm2_pytss": {"gateway.tpm"},
    "uvicorn": {"gateway.web"},
    "uvloop": {"gateway.app.entry"},
}
"""Where a third party may be imported: a module, or a package with all in it."""

PROVISIONING_HOMES = {
    "click": {"provisioning.cli"},
    "cryptography": {"provisioning.ca", "provisioning.station"},
    "msgspec": {"provisioning.station.settings", "provisioning.verifier"},
    "pkcs11": {"provisioning.ca"},
    "rich": {"provisioning.cli"},
    "segno": {"provisioning.label"},
    "serial": {"provisioning.station.transport"},
    "sqlalchemy": {"provisioning.registrar", "provisioning.verifier"},
}
"""The same for the factory's tools."""

SIDE_EFFECTS = {"socket", "ssl", "subprocess", "asyncio", "os", "time", "random", "secrets", "threading", "tempfile"}
"""What ring 1 must not import: sockets, files, clocks, chance and the environment."""


def modules(package: str) -> Iterator[tuple[str, Path]]:
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        yield ".".join(part for part in parts if part != "__init__"), path


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            yield module
            yield from (f"{module}.{alias.name}" for alias in node.names if module.count(".") < 2)


def within(module: str, home: str) -> bool:
    return module == home or module.startswith(home + ".")


def ring(module: str) -> tuple[str, int] | None:
    return next(((home, number) for home, number in RINGS.items() if within(module, home)), None)


GATEWAY = list(modules("gateway"))


@pytest.mark.parametrize(("module", "path"), GATEWAY, ids=[name for name, _ in GATEWAY])
def test_imports_point_only_inward(module: str, path: Path) -> None:
    """A module imports from its own ring or one further in; an adapter never imports another adapter."""
    if module == "gateway":
        return
    own = ring(module)
    assert own is not None, f"{module} has no ring: add it to RINGS"
    for imported in imports(path):
        other = ring(imported)
        if other is None:
            assert not within(imported, "hil"), f"{module} imports {imported}: products never import rigs"
            continue
        assert other[1] <= own[1], f"{module} (ring {own[1]}) imports {imported} (ring {other[1]})"
        if own[1] == other[1] == 2:
            assert own[0] == other[0], f"{module} imports {imported}: adapters never import adapters"


@pytest.mark.parametrize(("module", "path"), GATEWAY, ids=[name for name, _ in GATEWAY])
def test_third_party_has_one_home(module: str, path: Path) -> None:
    """Each third party is imported only where HOMES says, so that replacing it changes one place."""
    for imported in imports(path):
        top = imported.partition(".")[0]
        if top in sys.stdlib_module_names or top in {"gateway", "hil", "provisioning"}:
            continue
        assert top in HOMES, f"{module} imports {imported}, which no dependency list of ours names"
        assert any(within(module, home) for home in HOMES[top]), f"{module} imports {top}, whose home is {HOMES[top]}"


@pytest.mark.parametrize(("module", "path"), [m for m in GATEWAY if (ring(m[0]) or ("", 9))[1] <= 1], ids=str)
def test_pure_rings_have_no_side_effects(module: str, path: Path) -> None:
    """Rings 0 and 1 import no socket, file, clock, chance or environment."""
    found = {imported.partition(".")[0] for imported in imports(path)} & SIDE_EFFECTS
    assert not found, f"{module} imports {found}"


def test_every_home_is_still_used() -> None:
    """A dependency that nothing imports any more is removed from the list."""
    used = {imported.partition(".")[0] for _, path in GATEWAY for imported in imports(path)}
    assert set(HOMES) - used <= {"serial"}, "pyserial is imported by pymodbus for serial lines"


def test_hil_and_provisioning_use_the_gateway_and_not_the_other_way() -> None:
    """The rigs may import the gateway; nothing but tests imports the rigs."""
    for package in ("provisioning",):
        for module, path in modules(package):
            assert not any(within(imported, "hil") for imported in imports(path)), module
