"""Configuration: a good file says what it says; each bad one is refused in one line of where, got and want."""

import tomllib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.app.load import load_gateway, load_ledger, template_text
from gateway.codec.bodies import line_body, readings_body, schema_body
from gateway.codec.checks import check_body
from gateway.codec.leaves import MAX_HEADER, MAX_LEAF
from gateway.codec.pack import unpack
from gateway.codec.registers import store_of
from gateway.config import (
    GatewayConfig,
    LedgerConfig,
    ModbusTemplate,
    parse_gateway,
    parse_ledger,
    parse_template,
    points_of,
)
from gateway.errors import ConfigError
from gateway.model import Column, Kind, LineColumn, LineSchema, Order, Point, Quality, Role, Row, Schema, WireType

FOLDER = Path("/etc/wattseal")

GATEWAY = """\
[gateway]
id = "gw1"
site = "Works North"
state = "state/gw1"

[collect]
queue_mb = 8
metrics = "127.0.0.1:9101"

[seal]
key = "/keys/epoch.key"
witness = "keys/ledger.vkey"
budget_mb = 100
keep_mb = 10
checkpoint_s = 0.5
full = "refuse"

[forward]
broker = "broker.dmz:8883"
ca = "pki/ca.pem"
cert = "pki/gw1.pem"
key = "pki/gw1.key"

[interval]
period_s = 60

[devices.m1]
template = "meter"
url = "tcp://10.0.0.5:502"
unit_id = 7
period_s = 0.25
timeout_s = 2
own_connection = true
rated_power_w = 30000
meter_class = "B"
serial = "A-1"

[devices.plc]
template = "meter"
url = "serial:///dev/ttyUSB0"

[lines.filling]
zone = "DE"
energy = ["m1.energy"]
count_good = "plc.pieces"
count_total = "plc.all"
"""

TEMPLATE = """\
title = "A meter"
verified = true
sources = ["a data sheet"]
votes = 1
function = 4
max_gap = 0
max_registers = 60
never = [[4, 100, 110]]
keep_order = true

[points.power]
address = 0
type = "f32"
unit = "kW"
order = "CDAB"
scale = "0.001"
offset = "-1.5"

[points.energy]
address = 10
type = "u32"
unit = "kWh"
scale = "0.01"
kind = "counter"
modulus = 4294967296
sentinels = [4294967295]

[points.pieces]
address = 20
type = "u16"
kind = "counter"
function = 3

[points.all]
address = 22
type = "u16"
kind = "counter"
scale_point = "factor"

[points.factor]
address = 23
type = "s16"

[points.serial]
address = 30
type = "string"
registers = 4

[points.alarm]
address = 40
type = "u16"
bit = 3
"""

LEDGER = """\
[ledger]
name = "main"
key = "keys/ledger.key"
factors = "factors.toml"
metrics = "localhost:9102"

[broker]
broker = "broker.dmz:8883"
ca = "pki/ca.pem"
cert = "pki/main.pem"
key = "pki/main.key"

[gateways.gw1]
key = "keys/gw1.vkey"

[gateways.gw2]
key = "/keys/gw2.vkey"
"""


def gateway(text: str, template: str = TEMPLATE) -> GatewayConfig:
    return parse_gateway(text, name="gateway.toml", folder=FOLDER, template_text={"meter": template}.__getitem__)


def template(text: str) -> object:
    return parse_template(text, "meter")


def ledger(text: str) -> LedgerConfig:
    return parse_ledger(text, name="ledger.toml", folder=FOLDER)


# --- good files ---


def test_a_gateway_file_says_what_it_says() -> None:
    config = gateway(GATEWAY)
    assert (config.gateway.id, config.gateway.site, config.origin) == ("gw1", "Works North", "wattseal/gw1")
    assert (config.collect.queue_mb, config.collect.metrics) == (8, "127.0.0.1:9101")
    seal = config.seal
    assert (seal.budget_mb, seal.keep_mb, seal.checkpoint_s, seal.full) == (100, 10, 0.5, "refuse")
    assert config.forward.broker == "broker.dmz:8883"
    meter = config.devices["m1"]
    assert (meter.url, meter.unit_id, meter.period_s, meter.timeout_s) == ("tcp://10.0.0.5:502", 7, 0.25, 2)
    assert (meter.own_connection, meter.rated_power_w, meter.meter_class, meter.serial) == (True, 30_000, "B", "A-1")
    assert list(config.devices) == ["m1", "plc"]


def test_relative_paths_are_taken_from_the_files_folder_and_absolute_ones_stand() -> None:
    config, of_ledger = gateway(GATEWAY), ledger(LEDGER)
    assert config.gateway.state == FOLDER / "state/gw1"
    assert (config.log_folder, config.run_folder) == (FOLDER / "state/gw1/log", FOLDER / "state/gw1/run")
    assert (config.seal.key, config.seal.witness) == (Path("/keys/epoch.key"), FOLDER / "keys/ledger.vkey")
    forward = config.forward
    assert [forward.ca, forward.cert, forward.key] == [FOLDER / "pki" / f for f in ("ca.pem", "gw1.pem", "gw1.key")]
    assert (of_ledger.ledger.state, of_ledger.ledger.factors) == (FOLDER / "ledger", FOLDER / "factors.toml")
    assert of_ledger.gateways["gw1"].key == FOLDER / "keys/gw1.vkey"
    assert of_ledger.gateways["gw2"].key == Path("/keys/gw2.vkey")
    assert of_ledger.broker.key == FOLDER / "pki/main.key"


ATTEST = """\

[attest]
tcti = "swtpm:path=/run/tpm.sock"
chain = "attest/ak.pem"
verifier = "keys/verifier.vkey"
event_log = "/sys/kernel/security/tpm0/binary_bios_measurements"
pcrs = [0, 7]
renew_h = 12
"""
RELYING = """\

[gateways.gw3]
device = "WS-0003"

[attest]
device_ca = "pki/device-ca.pem"
crl = "pki/device-crl.pem"
verifier = "keys/verifier.vkey"
"""
FILE_KEY = 'key = "/keys/epoch.key"\n'


def test_a_tpm_stands_for_a_key_file() -> None:
    """One of the two: so it is plain from the file whether a device vouches for the log."""
    config, of_ledger = gateway(GATEWAY.replace(FILE_KEY, "") + ATTEST), ledger(LEDGER + RELYING)
    assert config.seal.key is None
    assert config.attest is not None
    assert (config.attest.chain, config.attest.verifier) == (FOLDER / "attest/ak.pem", FOLDER / "keys/verifier.vkey")
    assert (config.attest.pcrs, config.attest.renew_h, config.attest.counters) == ((0, 7), 12, (0x01805753,))
    assert gateway(GATEWAY).attest is None
    assert of_ledger.attest is not None
    assert (of_ledger.attest.device_ca, of_ledger.attest.officers) == (FOLDER / "pki/device-ca.pem", None)
    assert (of_ledger.gateways["gw3"].key, of_ledger.gateways["gw3"].device) == (None, "WS-0003")
    assert ledger(LEDGER).attest is None


@pytest.mark.parametrize(
    ("parse", "text", "why"),
    [
        (gateway, GATEWAY.replace(FILE_KEY, ""), "seal.key: got nothing, want a key file, or [attest] for keys that"),
        (gateway, GATEWAY + ATTEST, "seal.key: got a key file beside [attest], want one of the two"),
        (
            gateway,
            GATEWAY.replace(FILE_KEY, "") + ATTEST.replace("[0, 7]", "[0, 7, 0]"),
            "attest.pcrs: got [0, 7, 0], want each once",
        ),
        (gateway, GATEWAY.replace(FILE_KEY, "") + ATTEST.replace("[0, 7]", "[24]"), "attest.pcrs.0: got 24"),
        (gateway, GATEWAY.replace(FILE_KEY, "") + ATTEST.replace("12", "25"), "attest.renew_h: got 25, want 0.001..24"),
        (
            ledger,
            LEDGER + RELYING.replace('device = "WS-0003"', 'device = "WS-0003"\nkey = "k"'),
            "gateways.gw3: got both of key and device, want one: a pinned key, or an attested device",
        ),
        (ledger, LEDGER + RELYING.replace('device = "WS-0003"', ""), "gateways.gw3: got neither of key and device"),
        (
            ledger,
            LEDGER + RELYING[: RELYING.index("[attest]")],
            "gateways.gw3.device: got a device and no [attest], want [attest] with device_ca and verifier",
        ),
    ],
)
def test_whose_signature_counts_must_be_plain(parse: Callable[[str], object], text: str, why: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert why in str(caught.value)


def test_what_a_file_leaves_out_has_its_default() -> None:
    least = """
[gateway]
id = "gw1"
[seal]
key = "k"
witness = "w"
[forward]
broker = "b:1"
ca = "a"
cert = "c"
key = "k"
"""
    config = gateway(least)
    assert (config.gateway.state, config.gateway.site) == (FOLDER / "state", "")
    assert (config.collect.queue_mb, config.collect.metrics, config.interval.period_s) == (32, None, 60)
    assert (config.seal.budget_mb, config.seal.keep_mb, config.seal.full) == (1024, 64, "drop-readings")
    assert (config.devices, config.lines, config.templates) == ({}, {}, {})


def test_a_line_becomes_the_schema_that_its_intervals_stand_under() -> None:
    """The modulus is in the counter's unit, exact; the rated power belongs to energy alone."""
    line = gateway(GATEWAY).lines["filling"]
    assert line == LineSchema(
        name="filling",
        site="Works North",
        zone="DE",
        period_s=60,
        columns=(
            LineColumn(
                point="m1.energy",
                unit="kWh",
                role=Role.ENERGY,
                modulus=Decimal("42949672.96"),
                rated_power_w=30_000,
                meter_class="B",
                serial="A-1",
            ),
            LineColumn(point="plc.pieces", unit="", role=Role.COUNT_GOOD),
            LineColumn(point="plc.all", unit="", role=Role.COUNT_TOTAL),
        ),
    )


def test_a_modulus_is_scaled_without_losing_a_digit() -> None:
    """A product of more than 28 digits is rounded in silence by Python's default."""
    text = TEMPLATE.replace("modulus = 4294967296", f"modulus = {2**64}").replace('"0.01"', '"1.00000000000001"')
    modulus = gateway(GATEWAY, text).lines["filling"].columns[0].modulus
    assert modulus == Decimal("18446744073709736083.44073709551616")


def test_a_template_becomes_points_in_the_order_of_its_file() -> None:
    points = points_of(parse_template(TEMPLATE, "meter"))
    assert [point.name for point in points] == ["power", "energy", "pieces", "all", "factor", "serial", "alarm"]
    assert points[0] == Point(
        name="power",
        function=4,
        address=0,
        type=WireType.F32,
        order=Order.CDAB,
        unit="kW",
        scale=Decimal("0.001"),
        offset=Decimal("-1.5"),
    )
    assert (points[1].kind, points[1].modulus, points[1].sentinels) == (Kind.COUNTER, 2**32, frozenset({2**32 - 1}))
    assert (points[2].function, points[3].scale_point) == (3, "factor")
    assert (points[5].registers, points[6].bit) == (4, 3)
    limits = parse_template(TEMPLATE, "meter")
    assert isinstance(limits, ModbusTemplate)
    assert (limits.max_gap, limits.max_registers, limits.never, limits.keep_order) == (0, 60, ((4, 100, 110),), True)


def test_each_template_that_we_ship_is_good() -> None:
    """A device is data: whoever adds a file is told here what is wrong with it."""
    names = [path.stem for path in (Path(__file__).parent.parent / "gateway" / "devices").glob("*.toml")]
    assert names
    for name in names:
        template = parse_template(template_text(name), name)
        assert points_of(template) if isinstance(template, ModbusTemplate) else template.points


def test_files_are_read_from_disk_with_the_templates_that_we_ship(tmp_path: Path) -> None:
    path = tmp_path / "gateway.toml"
    path.write_text(GATEWAY.replace('"meter"', '"abb-b23"').partition("[lines")[0], encoding="utf-8")
    assert load_gateway(path).gateway.state == tmp_path / "state/gw1"
    (tmp_path / "ledger.toml").write_text(LEDGER, encoding="utf-8")
    assert load_ledger(tmp_path / "ledger.toml").origin == "wattseal-ledger/main"


def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file or directory, want a readable file"):
        load_gateway(tmp_path / "none.toml")
    (tmp_path / "latin.toml").write_bytes(b'[gateway]\nid = "\xe9"\n')
    with pytest.raises(ConfigError, match="byte 16 is not UTF-8, want a TOML file"):
        load_gateway(tmp_path / "latin.toml")
    with pytest.raises(ConfigError):
        load_ledger(tmp_path)


# --- bad files: what is changed in the good one, and the one line that says so ---

SECTIONS = "want one of agents, attest, bacnet, collect, devices, forward, gateway, interval, lines, opcua, seal"
DEVICE_KEYS = (
    "want one of template, url, unit_id, period_s, follow, stale_s, still, report, same_as, opcua, bacnet, "
    "timeout_s, own_connection, pipeline, rated_power_w, meter_class, "
    "serial"
)
TEMPLATE_KEYS = (
    "want one of title, verified, sources, votes, protocol, function, max_gap, max_registers, never, keep_order, "
    "base, probe, points"
)
TYPES = "want one of u16, s16, u32, s32, u64, s64, f32, f64, bit, string"
TEXT = "want text of at most 60 characters, none a control character"
ZONE = "want text of 1 to 60 characters, none a control character"
NAME = "want lower-case letters, digits, - and _"
GATEWAY_NAME = "want lower-case letters, digits and -"
URL = (
    "want tcp://host:port, rtu+tcp://host:port, serial:///dev/..., opc.tcp://host:port/path, "
    "bacnet:<instance> or agent:<id>"
)
COUNTER = "want <device>.<point> of a counter"
POWER = "1..1000000000000"
SKEW = "want a period that divides interval.period_s (60 s), or energies would skew"
ONCE = "want each point once, or it would count twice"
SCALE = 'want a decimal number in quotes, such as "0.01"; never 0'
FIXED = "points.energy.modulus: got 4294967296, want none, or a scale that is positive and fixed"
HUGE = f"0x{'f' * 4000}"
M1_TEMPLATE = 'template = "meter"\nurl = "tcp'
INTERVAL = "[interval]\nperiod_s = 60"
POINTS = TEMPLATE[TEMPLATE.index("[points.power]") :]
GATEWAYS = LEDGER[LEDGER.index("[gateways.gw1]") :]

# fmt: off
BAD_GATEWAYS: list[tuple[str, str, str]] = [
    # sections and keys
    ('id = "gw1"\n', "", f"gateway.id: got nothing, {GATEWAY_NAME}"),
    ("[gateway]", "[gateway]\nname = 1", "gateway.name: got an unknown key, want one of id, site, state"),
    ("[gateway]", "x = 1\n[gateway]", f"x: got an unknown section, {SECTIONS}"),
    ("[gateway]", '"a\\nb" = 1\n[gateway]', f"'a\\nb': got an unknown section, {SECTIONS}"),
    (INTERVAL, "[[interval]]", "interval: got [{}], want a section [interval]"),
    ("unit_id = 7", "unitid = 7", f"devices.m1.unitid: got an unknown key, {DEVICE_KEYS}"),
    ("unit_id = 7", '"unit\\nid" = 7', f"devices.m1.'unit\\nid': got an unknown key, {DEVICE_KEYS}"),
    ("unit_id = 7", '"un`it" = 7', f"devices.m1.'un`it': got an unknown key, {DEVICE_KEYS}"),
    ('ca = "pki/ca.pem"\n', "", "forward.ca: got nothing, want a path"),
    ('broker = "broker.dmz:8883"\n', "", "forward.broker: got nothing, want host:port"),
    # names and text
    ('id = "gw1"', 'id = "GW1"', f"gateway.id: got 'GW1', {GATEWAY_NAME}"),
    ('id = "gw1"', 'id = "gw_1"', f"gateway.id: got 'gw_1', {GATEWAY_NAME}"),
    ('id = "gw1"', 'id = "../x"', f"gateway.id: got '../x', {GATEWAY_NAME}"),
    ('id = "gw1"', 'id = "gw1\\n"', f"gateway.id: got 'gw1\\n', {GATEWAY_NAME}"),
    ('id = "gw1"', f'id = "{"g" * 64}"', f"gateway.id: got '{'g' * 64}', {GATEWAY_NAME}"),
    ('id = "gw1"', "id = 1", f"gateway.id: got 1, {GATEWAY_NAME}"),
    ("[devices.m1]", "[devices.M1]", f"devices: got the name 'M1', {NAME}"),
    ("[devices.m1]", '[devices."m.1"]', f"devices: got the name 'm.1', {NAME}"),
    ("[lines.filling]", '[lines."a\\tb"]', f"lines: got the name 'a\\tb', {NAME}"),
    ('site = "Works North"', 'site = "a\\tb"', f"gateway.site: got 'a\\tb', {TEXT}"),
    ('serial = "A-1"', 'serial = "A\\n1"', f"devices.m1.serial: got 'A\\n1', {TEXT}"),
    ('serial = "A-1"', f'serial = "{"9" * 61}"', f"devices.m1.serial: got '{'9' * 61}', {TEXT}"),
    ('serial = "A-1"', "serial = 1", f"devices.m1.serial: got 1, {TEXT}"),
    ('meter_class = "B"', 'meter_class = "\\u007f"', f"devices.m1.meter_class: got '\\x7f', {TEXT}"),
    ('zone = "DE"', 'zone = ""', f"lines.filling.zone: got '', {ZONE}"),
    ('zone = "DE"\n', "", f"lines.filling.zone: got nothing, {ZONE}"),
    # numbers
    ("unit_id = 7", "unit_id = 300", "devices.m1.unit_id: got 300, want 0..247"),
    ("unit_id = 7", "unit_id = -1", "devices.m1.unit_id: got -1, want 0..247"),
    ("unit_id = 7", "unit_id = true", "devices.m1.unit_id: got True, want a whole number, 0..247"),
    ("unit_id = 7", "unit_id = 7.0", "devices.m1.unit_id: got 7.0, want a whole number, 0..247"),
    ("unit_id = 7", 'unit_id = "7"', "devices.m1.unit_id: got '7', want a whole number, 0..247"),
    ("unit_id = 7", f"unit_id = {10**30}", f"devices.m1.unit_id: got {10**30}, want 0..247"),
    ("unit_id = 7", f"unit_id = {HUGE}", "devices.m1.unit_id: got a number too long to print, want 0..247"),
    ("queue_mb = 8", "queue_mb = 0", "collect.queue_mb: got 0, want 1..4096"),
    ("keep_mb = 10", "keep_mb = -1", "seal.keep_mb: got -1, want 0..1048576"),
    ("rated_power_w = 30000", "rated_power_w = 0", f"devices.m1.rated_power_w: got 0, want {POWER}"),
    ("rated_power_w = 30000", "rated_power_w = 1.5",
     f"devices.m1.rated_power_w: got 1.5, want a whole number, {POWER}"),
    ("own_connection = true", "own_connection = 1", "devices.m1.own_connection: got 1, want true or false"),
    ("timeout_s = 2", "timeout_s = 0", "devices.m1.timeout_s: got 0, want 0.01..60"),
    ("timeout_s = 2", "timeout_s = nan", "devices.m1.timeout_s: got nan, want 0.01..60"),
    ("timeout_s = 2", "timeout_s = inf", "devices.m1.timeout_s: got inf, want 0.01..60"),
    ("timeout_s = 2", "timeout_s = 1979-05-27",
     "devices.m1.timeout_s: got datetime.date(1979, 5, 27), want a number, 0.01..60"),
    ("checkpoint_s = 0.5", "checkpoint_s = 0", "seal.checkpoint_s: got 0, want 0.001..86400"),
    (INTERVAL, "[interval]\nperiod_s = 0", "interval.period_s: got 0, want 1..86400"),
    (INTERVAL, "[interval]\nperiod_s = 0.5", "interval.period_s: got 0.5, want a whole number, 1..86400"),
    ("period_s = 0.25", "period_s = 7", f"devices.m1.period_s: got 7, {SKEW}"),
    ("period_s = 0.25", "period_s = 61", f"devices.m1.period_s: got 61, {SKEW}"),
    ("period_s = 0.25", "period_s = 0.0010004", f"devices.m1.period_s: got 0.0010004, {SKEW}"),
    # choices, addresses, paths
    ('full = "refuse"', 'full = "stop"', "seal.full: got 'stop', want one of drop-readings, refuse"),
    ('metrics = "127.0.0.1:9101"', 'metrics = "9101"', "collect.metrics: got '9101', want host:port"),
    ('metrics = "127.0.0.1:9101"', 'metrics = "h:65536"', "collect.metrics: got 'h:65536', want host:port"),
    ('metrics = "127.0.0.1:9101"', 'metrics = "h:0"', "collect.metrics: got 'h:0', want host:port"),
    ('metrics = "127.0.0.1:9101"', 'metrics = "a..b:1"', "collect.metrics: got 'a..b:1', want host:port"),
    ('metrics = "127.0.0.1:9101"', 'metrics = "h:\\u0661"', "collect.metrics: got 'h:\u0661', want host:port"),
    ('broker = "broker.dmz:8883"', 'broker = "mqtts://b:8883"', "forward.broker: got 'mqtts://b:8883', want host:port"),
    ('url = "tcp://10.0.0.5:502"', 'url = "10.0.0.5:502"', f"devices.m1.url: got '10.0.0.5:502', {URL}"),
    ('url = "tcp://10.0.0.5:502"', 'url = "tcp://h:99999"', f"devices.m1.url: got 'tcp://h:99999', {URL}"),
    ('url = "tcp://10.0.0.5:502"', 'url = "tcp://h"', f"devices.m1.url: got 'tcp://h', {URL}"),
    ('url = "tcp://10.0.0.5:502"', 'url = "serial://"', f"devices.m1.url: got 'serial://', {URL}"),
    ('url = "tcp://10.0.0.5:502"\n', "", f"devices.m1.url: got nothing, {URL}"),
    ('state = "state/gw1"', "state = 5", "gateway.state: got 5, want a path"),
    ('state = "state/gw1"', 'state = ""', "gateway.state: got '', want a path"),
    ('key = "/keys/epoch.key"', 'key = "a\\u0000b"', "seal.key: got 'a\\x00b', want a path"),
    # devices
    (M1_TEMPLATE, M1_TEMPLATE.replace("meter", "m"), "devices.m1.template: got 'm', want a file of gateway/devices"),
    (M1_TEMPLATE, M1_TEMPLATE.replace("meter", "../x"), f"devices.m1.template: got '../x', {NAME}"),
    ("[devices.m1]", "[devices]\nm0 = 5\n[devices.m1]", "devices.m0: got 5, want a table"),
    # lines
    ('["m1.energy"]', "[]", "lines.filling.energy: got [], want a list of 1 to 100 counters"),
    ('["m1.energy"]', '"m1.energy"', "lines.filling.energy: got 'm1.energy', want a list of 1 to 100 counters"),
    ('["m1.energy"]', '["m1.energy", 5]', "lines.filling.energy.1: got 5, want text"),
    ('["m1.energy"]', '["m2.energy"]', f"lines.filling.energy: got 'm2.energy', {COUNTER}"),
    ('["m1.energy"]', '["m1.none"]', f"lines.filling.energy: got 'm1.none', {COUNTER}"),
    ('["m1.energy"]', '["m1"]', f"lines.filling.energy: got 'm1', {COUNTER}"),
    ('["m1.energy"]', '["m1.power"]', f"lines.filling.energy: got 'm1.power', {COUNTER}"),
    ('["m1.energy"]', '["m1.pieces"]', "lines.filling.energy: got 'm1.pieces' in '', want one of Wh, kWh, MWh"),
    ('["m1.energy"]', '["m1.energy", "m1.energy"]',
     f"lines.filling: got ['m1.energy', 'm1.energy', 'plc.pieces', 'plc.all'], {ONCE}"),
    ("[lines.filling]", '[lines.packing]\nzone = "DE"\nenergy = ["m1.energy"]\n\n[lines.filling]',
     ("lines.filling: got 'm1.energy', which lines.packing books already, "
      "want each meter in one line, or it would count twice; what several lines share is a line of its own")),
    ('"plc.all"', '"plc.pieces"', f"lines.filling: got ['m1.energy', 'plc.pieces', 'plc.pieces'], {ONCE}"),
    ('"plc.all"', '""', f"lines.filling.count_total: got '', {COUNTER}"),
    ('"plc.pieces"', '"plc.power"', f"lines.filling.count_good: got 'plc.power', {COUNTER}"),
    ('"plc.pieces"', "5", "lines.filling.count_good: got 5, want text"),
]

BAD_TEMPLATES: list[tuple[str, str, str]] = [
    ('title = "A meter"\n', "", "title: got nothing, want a value"),
    ("verified = true", 'verified = "yes"', "verified: got 'yes', want true or false"),
    ("votes = 1", "vote = 1", f"vote: got an unknown key, {TEMPLATE_KEYS}"),
    ('["a data sheet"]', '"a data sheet"', "sources: got 'a data sheet', want a list"),
    ("function = 4\n", "function = 5\n", "function: got 5, want one of 1, 2, 3, 4"),
    ("function = 3", "function = 0", "points.pieces.function: got 0, want one of 1, 2, 3, 4"),
    ("max_registers = 60", "max_registers = 126", "max_registers: got 126, want 1..125"),
    ("[[4, 100, 110]]", "[[4, 100]]", "never.0: got [4, 100], want a list of length 3"),
    ("[[4, 100, 110]]", "[[4, 100, 'x']]", "never.0.2: got 'x', want a whole number"),
    (POINTS, "", "points: got none, want at least one"),
    (POINTS, "points = 5", "points: got 5, want a table"),
    (POINTS, "points = [1]", "points: got [1], want a table"),
    (POINTS, "[points]\nx = 5", "points.x: got 5, want a table"),
    ("[points.power]", "[points.Power]", f"points: got the name 'Power', {NAME}"),
    ("address = 10", "address = 65536", "points.energy.address: got 65536, want 0..65535"),
    ("address = 10\n", "", "points.energy.address: got nothing, want 0..65535"),
    ('type = "f32"', 'type = "f16"', f"points.power.type: got 'f16', {TYPES}"),
    ('type = "f32"', 'type = "x - at `$.y`"', f"points.power.type: got 'x - at `$.y`', {TYPES}"),
    ('order = "CDAB"', 'order = "ACBD"', "points.power.order: got 'ACBD', want one of ABCD, CDAB, BADC, DCBA"),
    ('unit = "kW"', 'unit = "k\\tW"', f"points.power.unit: got 'k\\tW', {TEXT}"),
    ("bit = 3", "bit = 16", "points.alarm.bit: got 16, want 0..15"),
    ("registers = 4", "registers = 126", "points.serial.registers: got 126, want 1..125"),
    ("sentinels = [4294967295]", "sentinels = ['x']", "points.energy.sentinels.0: got 'x', want a whole number"),
    ('scale_point = "factor"', 'scale_point = "none"', "points.all.scale_point: got 'none', want a point's name"),
    ('offset = "-1.5"', 'offset = "1e3"',
     "points.power.offset: got '1e3', want a decimal number in quotes, such as \"-40\""),
    ('scale = "0.001"', "scale = 0.001", f"points.power.scale: got 0.001, {SCALE}"),
    ("modulus = 4294967296", "modulus = 1", "points.energy.modulus: got 1, want 2 or more"),
    ("modulus = 4294967296", f"modulus = {2**64 + 1}", f"points.energy.modulus: got {2**64 + 1}, want 2..{2**64}"),
    ("modulus = 4294967296", f"modulus = {HUGE}",
     f"points.energy.modulus: got a number too long to print, want 2..{2**64}"),
    ('scale = "0.01"', 'scale = "-0.01"', FIXED),
    ('scale = "0.01"', 'scale_point = "factor"', FIXED),
    ('type = "u32"', 'type = "string"', "points.energy.type: got 'string', want a number's type for a counter"),
    ('type = "u32"', 'type = "bit"', "points.energy.type: got 'bit', want a number's type for a counter"),
]

BAD_LEDGERS: list[tuple[str, str, str]] = [
    ('name = "main"', 'name = "Main"', f"ledger.name: got 'Main', {NAME}"),
    (
        "[ledger]",
        "[ledger]\nx = 1",
        ("ledger.x: got an unknown key, "
        "want one of name, state, key, factors, fuel_factors, tables, plan, grid_settings, metrics"),
    ),
    ('factors = "factors.toml"\n', "", "ledger.factors: got nothing, want a path"),
    (
        "[broker]",
        "[brokr]",
        "brokr: got an unknown section, want one of attest, broker, context, feeds, gateways, ledger",
    ),
    (GATEWAYS, "", "gateways: got none, want [gateways.<id>] with the gateway's key or device"),
    ("[gateways.gw1]", "[gateways.GW1]", f"gateways: got the name 'GW1', {NAME}"),
    ('key = "keys/gw1.vkey"', "key = []", "gateways.gw1.key: got [], want a path"),
    ('metrics = "localhost:9102"', "metrics = 9102", "ledger.metrics: got 9102, want host:port"),
]
# fmt: on

Case = tuple[Callable[[str], object], str, str, str, str]
CASES: list[Case] = [
    *((gateway, GATEWAY, old, new, f"gateway.toml: {why}") for old, new, why in BAD_GATEWAYS),
    *((template, TEMPLATE, old, new, f"devices/meter.toml: {why}") for old, new, why in BAD_TEMPLATES),
    *((ledger, LEDGER, old, new, f"ledger.toml: {why}") for old, new, why in BAD_LEDGERS),
]


@pytest.mark.parametrize(("parse", "good", "old", "new", "why"), CASES, ids=[case[4][:70] for case in CASES])
def test_a_bad_value_is_refused_in_one_line_of_where_got_and_want(
    parse: Callable[[str], object], good: str, old: str, new: str, why: str
) -> None:
    assert old in good
    parse(good)
    with pytest.raises(ConfigError) as caught:
        parse(good.replace(old, new, 1))
    assert str(caught.value) == why
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "scale",
    [
        *("", "0", "-0.0", "NaN", "sNaN", "Infinity", "-inf", "1e3", "1E-3", "1e999999999", "1_000", " 1", "1 "),
        *("1\\n", "+1", ".5", "5.", "\\u0663", "0x1", "1,5", "abc", "1" * 15, "0." + "0" * 14 + "1"),
    ],
)
def test_a_scale_is_a_plain_decimal_and_not_zero(scale: str) -> None:
    """NaN and Infinity once passed, and 1e999999999 was an error that no operator could read."""
    text = TEMPLATE.replace('scale = "0.01"', f'scale = "{scale}"')
    shown = tomllib.loads(text)["points"]["energy"]["scale"]
    with pytest.raises(ConfigError) as caught:
        gateway(GATEWAY, text)
    assert str(caught.value) == (
        f"devices/meter.toml: points.energy.scale: got {shown!r}, "
        'want a decimal number in quotes, such as "0.01"; never 0'
    )


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[gateway\n", r"not TOML: .*\(at line 1, column 9\)"),
        ("[gateway]\n\n\nid = x\n", r"not TOML: .*\(at line 4, column 6\)"),
        ('[gateway]\nid = "a"\nid = "b"\n', r"not TOML: .*\(at line 3, column 9\)"),
        ("[gateway]\n[gateway]\n", r"not TOML: .*\(at line 2, column 9\)"),
        ("\ufeff[gateway]\n", r"not TOML: .*\(at line 1, column 1\)"),
        ("x = " + "9" * 5000, "not TOML: Exceeds the limit"),
        ("x = " + "[" * 3000, "not TOML: .*recursion"),
        ("x = 2021-02-30", "not TOML: "),
        ("\0", "not TOML: "),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_what_is_not_toml_is_refused_with_its_line(text: str, why: str) -> None:
    for parse, name in ((gateway, "gateway.toml"), (ledger, "ledger.toml"), (template, "devices/meter.toml")):
        with pytest.raises(ConfigError, match=f"^{name}: {why}"):
            parse(text)


def test_a_long_value_is_not_repeated_in_full() -> None:
    with pytest.raises(ConfigError) as caught:
        gateway(GATEWAY.replace('"gw1"', f'"{"g" * 100_000}"', 1))
    assert len(str(caught.value)) < 300


def test_a_device_with_more_points_than_a_leaf_can_hold_is_refused() -> None:
    """The seal would refuse its schema, and nobody could ever read its rows. The most that are taken do fit."""
    head = TEMPLATE[: TEMPLATE.index("[points.power]")]
    named = [f'[points."{"p" * 55}{i:04}"]\naddress = {i}\ntype = "u16"\n' for i in range(902)]
    wide = [f'[points.p{i}]\naddress = {i}\ntype = "string"\nregisters = 125\n' for i in range(255)]
    for points in (named, wide):
        columns = tuple(
            Column(name=point.name, unit=point.unit, store=store_of(point))
            for point in points_of(parse_template(head + "".join(points[:-1]), "meter"))
        )
        schema = Schema(device="d" * 63, columns=columns)
        values = tuple("x" * 250 if column.store == "s250" else 1 for column in columns)
        row = Row(schema=schema, source_time_ns=1, values=values, qualities=(Quality.GOOD,) * len(columns))
        assert max(len(schema_body(schema)), len(readings_body([row]))) < MAX_LEAF - MAX_HEADER - 200
        with pytest.raises(ConfigError, match=rf"^devices/meter.toml: points: got {len(points)}, want fewer: a leaf"):
            template(head + "".join(points))


def test_the_longest_line_that_is_taken_fits_into_a_leaf() -> None:
    """And what the configuration takes, the seal takes: its schema leaf is checked as the seal checks it."""
    unit, device = "kWh", "d" * 60
    devices = "".join(
        f'[devices.{device}{i:03}]\ntemplate = "meter"\nurl = "tcp://h:{i + 1}"\n'
        f'meter_class = "{"c" * 60}"\nserial = "{"s" * 60}"\nrated_power_w = 1000000000000\n'
        for i in range(100)
    )
    point = "p" * 63
    points = (
        TEMPLATE[: TEMPLATE.index("[points.power]")]
        + f'[points.{point}]\naddress = 0\ntype = "u64"\nkind = "counter"\nunit = "{unit}"\n'
        + f'modulus = {2**64}\nscale = "0.00000000000001"\n'
    )
    energy = ", ".join(f'"{device}{i:03}.{point}"' for i in range(100))
    text = GATEWAY[: GATEWAY.index("[devices.m1]")] + devices + f'[lines.x]\nzone = "{"z" * 60}"\nenergy = [{energy}]\n'
    line = gateway(text, points).lines["x"]
    assert len(line.columns) == 100
    assert len(line_body(line)) < MAX_LEAF - MAX_HEADER
    assert check_body("schema", unpack(line_body(line)))


# --- whatever an operator may write ---

VALUES: st.SearchStrategy[str] = (
    st.sampled_from(["true", "nan", "-inf", "1979-05-27", "07:32:00", "-1", "0.1", "60", "1e400", f"0x{'f' * 5000}"])
    | st.sampled_from(["[]", "{}", "[[]]", "{a = 1}", "[1, 'x', {}]", "''", '"\\u0000"', '"\\n"', '"x:1"'])
    | st.sampled_from(
        ['"m1.energy"', '["m1.energy"]', '"meter"', '"u32"', '"1"', '"counter"', '"sNaN"', '"1e999999999"']
    )
    | st.integers().map(str)
)
KEYS = [line.partition(" = ")[0] for line in (GATEWAY + TEMPLATE + LEDGER).splitlines() if " = " in line]


@settings(max_examples=300)
@given(st.data())
def test_no_value_anywhere_makes_anything_but_a_config_error(data: st.DataObject) -> None:
    """Each key's value replaced, lines moved or left out: it is taken, or refused in one line, never a traceback."""
    parse, good = data.draw(st.sampled_from([(gateway, GATEWAY), (template, TEMPLATE), (ledger, LEDGER)]))
    lines: list[str] = good.splitlines()
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(lines) - 1))
        key = lines[place].partition(" = ")[0] if " = " in lines[place] else data.draw(st.sampled_from(KEYS))
        lines[place] = data.draw(st.sampled_from(["", lines[place - 1], f"{key} = {data.draw(VALUES)}"]))
    refused_in_one_line(parse, "\n".join(lines))


@given(st.sampled_from([gateway, template, ledger]), st.text(max_size=60))
def test_no_text_makes_anything_but_a_config_error(parse: Callable[[str], Any], text: str) -> None:
    refused_in_one_line(parse, text)
    refused_in_one_line(parse, f"[gateway]\n{text} = 1\n")
    refused_in_one_line(parse, f"['{text}']\n")


def refused_in_one_line(parse: Callable[[str], Any], text: str) -> None:
    said = ""
    try:
        parse(text)
    except ConfigError as e:
        said = str(e)
    assert "\n" not in said
    assert len(said) < 600
