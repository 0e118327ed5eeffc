"""From a gateway's configuration to OPC UA drivers."""

from pathlib import Path

import pytest

from gateway.app.devices import OPENERS, open_devices
from gateway.app.devices.opcua import open_opcua
from gateway.config import GatewayConfig, parse_gateway
from gateway.drivers import Follower
from gateway.drivers.opcua import OpcuaDriver
from gateway.errors import ConfigError
from tests.opcua_servers import make_pair

TEMPLATE = """
title = "A machine"
protocol = "opcua"
verified = false
sources = []
votes = 0

[points.energy]
node = "nsu=urn:plc;s=energy"
kind = "counter"
unit = "Wh"
scale = "0.1"

[points.state]
node = "nsu=urn:plc;i=7"
store = "s32"
"""

GATEWAY = """
[gateway]
id = "gw"
[seal]
key = "k"
witness = "w"
[forward]
broker = "localhost:8883"
ca = "ca"
cert = "c"
key = "k"
[devices.a]
template = "machine"
url = "opc.tcp://127.0.0.1:4840/plc"
[devices.a.opcua]
{opcua}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("site")
    pair = make_pair(made / "opcua", "own", "urn:gw")
    pair.key.rename(made / "opcua/own.key.pem")
    for name, mode in (("password", 0o600), ("open", 0o644)):
        (made / name).write_text("secret\n", encoding="utf-8")
        (made / name).chmod(mode)
    (made / "empty").touch(0o600)
    return made


def parsed(folder: Path, opcua: str) -> GatewayConfig:
    texts = {"machine": TEMPLATE}
    return parse_gateway(
        GATEWAY.format(opcua=opcua), name="gateway.toml", folder=folder, template_text=texts.__getitem__
    )


def test_a_device_is_a_bus_of_its_own_that_follows(folder: Path) -> None:
    assert OPENERS["opcua"] is open_opcua
    ((bus, found),) = open_devices(parsed(folder, "")).items()
    assert bus == "opc.tcp://127.0.0.1:4840/plc a"
    driver = found["a"]
    assert isinstance(driver, OpcuaDriver)
    assert isinstance(driver, Follower)
    assert [(c.name, c.unit, c.store) for c in driver.schema.columns] == [("energy", "Wh", "f64"), ("state", "", "s32")]
    assert driver.warnings == ()


def test_a_password_comes_from_a_file_that_no_other_may_read(folder: Path) -> None:
    access = open_opcua(parsed(folder, 'user = "reader"\npassword = "password"'))
    (found,) = access.values()
    assert "secret" not in repr(found["a"])
    for opcua, wanted in (
        ('user = "reader"\npassword = "open"', r"devices.a: opcua.password: got mode 0644.*chmod 600"),
        ('user = "reader"\npassword = "missing"', r"opcua.password: cannot read .*missing"),
        ('user = "reader"\npassword = "empty"', r"got 0 characters"),
        ('user = "reader"', r"opcua.user: got one without opcua.password"),
        ('password = "password"', r"got one without a user"),
        ('user_cert = "x.der"', r"want user_cert and user_key, or neither"),
        ('user_key = "open"\nuser_cert = "x.der"', r"opcua.user_key: got mode 0644"),
        ('security = "None"', r"want both None, or neither"),
        ('mode = "None"', r"want both None, or neither"),
    ):
        with pytest.raises(ConfigError, match=wanted):
            open_opcua(parsed(folder, opcua))


def test_no_security_needs_no_certificate_and_is_warned_of(tmp_path: Path) -> None:
    ((_, found),) = open_opcua(parsed(tmp_path, 'security = "None"\nmode = "None"')).items()
    driver = found["a"]
    assert isinstance(driver, OpcuaDriver)
    assert "neither checked, signed nor encrypted" in driver.warnings[0]


def test_without_a_certificate_of_our_own_the_fix_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"devices.a: .*own"):
        open_opcua(parsed(tmp_path, ""))
