"""Units: what BACnet and OPC UA call them, what we call them, and the exact way from one to another. Pure.

Sources: ASHRAE 135-2020, BACnetEngineeringUnits (the numbers); UNECE Recommendation 20 (the codes); OPC UA part 8,
5.6.4.3 (the code as a number); NIST SP 811, appendix B, for exact factors. Units that two standards define differently
(therm, ton, month) or whose factor is no fraction (degrees and radians) are named and never converted.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Final

_INCH: Final = Fraction("0.0254")
_FOOT: Final = Fraction("0.3048")
_POUND: Final = Fraction("0.45359237")
_G: Final = Fraction("9.80665")
_BTU: Final = Fraction("1055.05585262")  # the International Table's
_US_GALLON: Final = 231 * _INCH**3
_UK_GALLON: Final = Fraction("0.00454609")
_MERCURY: Final = Fraction("13595.1") * _G  # Pa/m: the conventional one
_WATER: Final = 1000 * _G  # Pa/m: the conventional one
_HOUR: Final = 3600
_ZERO_C: Final = Fraction("273.15")

_DIMENSIONS: Final[Mapping[str, Mapping[str, int | str | Fraction]]] = {
    "number": {"1": 1, "%": "0.01", "%RH": "0.01", "per mille": "0.001", "ppm": "1e-6", "ppb": "1e-9"},
    "energy": {
        "J": 1,
        "kJ": 10**3,
        "MJ": 10**6,
        "GJ": 10**9,
        "Wh": _HOUR,
        "kWh": 10**3 * _HOUR,
        "MWh": 10**6 * _HOUR,
        "GWh": 10**9 * _HOUR,
        "BTU": _BTU,
        "kBTU": 10**3 * _BTU,
        "MBTU": 10**6 * _BTU,
        "ton.h": 12_000 * _BTU,
    },
    "power": {
        "mW": "0.001",
        "W": 1,
        "kW": 10**3,
        "MW": 10**6,
        "GW": 10**9,
        "J/h": Fraction(1, _HOUR),
        "BTU/h": _BTU / _HOUR,
        "kBTU/h": 10**3 * _BTU / _HOUR,
        "ton_refrigeration": 12_000 * _BTU / _HOUR,
        "hp": 550 * _FOOT * _POUND * _G,
    },
    "apparent power": {"VA": 1, "kVA": 10**3, "MVA": 10**6},
    "reactive power": {"var": 1, "kvar": 10**3, "Mvar": 10**6},
    "apparent energy": {"VAh": 1, "kVAh": 10**3, "MVAh": 10**6},
    "reactive energy": {"varh": 1, "kvarh": 10**3, "Mvarh": 10**6},
    "current": {"mA": "0.001", "A": 1, "kA": 10**3},
    "voltage": {"mV": "0.001", "V": 1, "kV": 10**3, "MV": 10**6},
    "resistance": {"mohm": "0.001", "ohm": 1, "kohm": 10**3, "Mohm": 10**6},
    "conductance": {"uS": "1e-6", "mS": "0.001", "S": 1},
    "charge": {"As": 1, "Ah": _HOUR},
    "frequency": {
        "Hz": 1,
        "kHz": 10**3,
        "MHz": 10**6,
        "1/s": 1,
        "1/min": Fraction(1, 60),
        "1/h": Fraction(1, _HOUR),
        "rpm": Fraction(1, 60),
    },
    "temperature": {"K": 1, "degC": 1, "degF": Fraction(5, 9)},
    "temperature difference": {"delta_K": 1, "delta_degC": 1, "delta_degF": Fraction(5, 9)},
    "temperature rate": {
        "K/h": Fraction(1, _HOUR),
        "K/min": Fraction(1, 60),
        "degC/h": Fraction(1, _HOUR),
        "degC/min": Fraction(1, 60),
        "degF/h": Fraction(5, 9 * _HOUR),
        "degF/min": Fraction(5, 9 * 60),
    },
    "degree days": {"degC.d": 1, "degF.d": Fraction(5, 9)},
    "pressure": {
        "Pa": 1,
        "hPa": 100,
        "kPa": 10**3,
        "MPa": 10**6,
        "mbar": 100,
        "bar": 10**5,
        "psi": _POUND * _G / _INCH**2,
        "mmH2O": _WATER / 1000,
        "cmH2O": _WATER / 100,
        "inH2O": _WATER * _INCH,
        "mmHg": _MERCURY / 1000,
        "cmHg": _MERCURY / 100,
        "inHg": _MERCURY * _INCH,
    },
    "length": {"um": "1e-6", "mm": "0.001", "cm": "0.01", "m": 1, "km": 10**3, "in": _INCH, "ft": _FOOT},
    "area": {"cm2": "0.0001", "m2": 1, "in2": _INCH**2, "ft2": _FOOT**2},
    "volume": {
        "ml": "1e-6",
        "l": "0.001",
        "m3": 1,
        "ft3": _FOOT**3,
        "gal_us": _US_GALLON,
        "gal_uk": _UK_GALLON,
    },
    "flow": {
        "m3/s": 1,
        "m3/min": Fraction(1, 60),
        "m3/h": Fraction(1, _HOUR),
        "m3/d": Fraction(1, 24 * _HOUR),
        "l/s": "0.001",
        "l/min": Fraction(1, 60_000),
        "l/h": Fraction(1, 1000 * _HOUR),
        "ml/s": "1e-6",
        "ft3/s": _FOOT**3,
        "ft3/min": _FOOT**3 / 60,
        "ft3/h": _FOOT**3 / _HOUR,
        "ft3/d": _FOOT**3 / (24 * _HOUR),
        "gal_us/min": _US_GALLON / 60,
        "gal_us/h": _US_GALLON / _HOUR,
        "gal_uk/min": _UK_GALLON / 60,
    },
    "mass": {"mg": "1e-6", "g": "0.001", "kg": 1, "t": 1000, "lb": _POUND},
    "mass flow": {
        "kg/s": 1,
        "kg/min": Fraction(1, 60),
        "kg/h": Fraction(1, _HOUR),
        "g/s": "0.001",
        "g/min": Fraction(1, 60_000),
        "t/h": Fraction(1000, _HOUR),
        "lb/s": _POUND,
        "lb/min": _POUND / 60,
        "lb/h": _POUND / _HOUR,
    },
    "speed": {
        "m/s": 1,
        "mm/s": "0.001",
        "mm/min": Fraction(1, 60_000),
        "m/min": Fraction(1, 60),
        "m/h": Fraction(1, _HOUR),
        "km/h": Fraction(1000, _HOUR),
        "ft/s": _FOOT,
        "ft/min": _FOOT / 60,
        "mi/h": 5280 * _FOOT / _HOUR,
    },
    "time": {"ms": "0.001", "cs": "0.01", "s": 1, "min": 60, "h": _HOUR, "d": 24 * _HOUR, "wk": 168 * _HOUR},
    "density": {"kg/m3": 1, "g/l": 1, "g/m3": "0.001", "mg/l": "0.001", "mg/m3": "1e-6", "ug/m3": "1e-9"},
    "specific energy": {"J/kg": 1, "kJ/kg": 10**3, "BTU/lb": _BTU / _POUND},
    "irradiance": {"W/m2": 1, "W/ft2": 1 / _FOOT**2},
    "energy of an area": {
        "kWh/m2": 10**3 * _HOUR,
        "MJ/m2": 10**6,
        "kWh/ft2": 10**3 * _HOUR / _FOOT**2,
        "MJ/ft2": 10**6 / _FOOT**2,
    },
    "energy of a volume": {"J/m3": 1, "Wh/m3": _HOUR},
    "illuminance": {"lx": 1, "foot_candle": 1 / _FOOT**2},
}
"""By dimension: each unit's size in the first unit that has the size 1."""

_ZEROS: Final[Mapping[str, Fraction]] = {"degC": _ZERO_C, "degF": _ZERO_C - Fraction(160, 9)}
"""Where a temperature scale's zero stands, in K."""

_SIZES: Final = {
    unit: (dimension, Fraction(size)) for dimension, units in _DIMENSIONS.items() for unit, size in units.items()
}

_ALIASES: Final[Mapping[str, str]] = {
    "": "1",
    "°C": "degC",
    "°F": "degF",
    "%rh": "%RH",
    "m²": "m2",
    "m³": "m3",
    "m³/h": "m3/h",
    "m³/s": "m3/s",
    "m³/min": "m3/min",
    "L": "l",
    "L/s": "l/s",
    "L/min": "l/min",
    "L/h": "l/h",
    "Ω": "ohm",
    "min-1": "1/min",
}


def convert(have: str, want: str) -> tuple[Fraction, Fraction] | None:
    """Return the exact (scale, offset) with which value_want = value_have * scale + offset; None where there is none.

    A unit that we do not know is converted to nothing but itself. "" is the number 1.
    """
    if have == want:
        return Fraction(1), Fraction(0)
    have, want = _ALIASES.get(have, have), _ALIASES.get(want, want)
    if have == want:
        return Fraction(1), Fraction(0)
    if have not in _SIZES or want not in _SIZES:
        return None
    (dimension, size), (wanted, step) = _SIZES[have], _SIZES[want]
    if dimension != wanted:
        return None
    return size / step, (_ZEROS.get(have, Fraction(0)) - _ZEROS.get(want, Fraction(0))) / step


def unece_code(unit_id: int) -> str:
    """Return the UNECE code that an EUInformation's unitId holds, "" where it holds none.

    Source: OPC UA part 8, 5.6.4.3: the characters' codes, the first one highest.
    """
    if not 0 < unit_id < 2**32:
        return ""
    code = unit_id.to_bytes(4, "big").lstrip(b"\x00")
    return code.decode("ascii") if code.isalnum() else ""


# fmt: off
BACNET_UNITS: Final[Mapping[int, str]] = MappingProxyType(
    {
        0: "m2", 1: "ft2", 2: "mA", 3: "A", 4: "ohm", 5: "V", 6: "kV", 7: "MV", 8: "VA", 9: "kVA", 10: "MVA",
        11: "var", 12: "kvar", 13: "Mvar", 14: "deg", 15: "1", 16: "J", 17: "kJ", 18: "Wh", 19: "kWh", 20: "BTU",
        21: "therm", 22: "ton.h", 23: "J/kg", 24: "BTU/lb", 25: "1/h", 26: "1/min", 27: "Hz", 28: "g/kg",
        29: "%RH", 30: "mm", 31: "m", 32: "in", 33: "ft", 34: "W/ft2", 35: "W/m2", 36: "lm", 37: "lx",
        38: "foot_candle", 39: "kg", 40: "lb", 41: "ton", 42: "kg/s", 43: "kg/min", 44: "kg/h", 45: "lb/min",
        46: "lb/h", 47: "W", 48: "kW", 49: "MW", 50: "BTU/h", 51: "hp", 52: "ton_refrigeration", 53: "Pa",
        54: "kPa", 55: "bar", 56: "psi", 57: "cmH2O", 58: "inH2O", 59: "mmHg", 60: "cmHg", 61: "inHg",
        62: "degC", 63: "K", 64: "degF", 65: "degC.d", 66: "degF.d", 67: "a", 68: "mo", 69: "wk", 70: "d",
        71: "h", 72: "min", 73: "s", 74: "m/s", 75: "km/h", 76: "ft/s", 77: "ft/min", 78: "mi/h", 79: "ft3",
        80: "m3", 81: "gal_uk", 82: "l", 83: "gal_us", 84: "ft3/min", 85: "m3/s", 86: "gal_uk/min", 87: "l/s",
        88: "l/min", 89: "gal_us/min", 90: "deg", 91: "degC/h", 92: "degC/min", 93: "degF/h", 94: "degF/min",
        95: "1", 96: "ppm", 97: "ppb", 98: "%", 99: "%/s", 100: "1/min", 101: "1/s", 103: "rad", 104: "rpm",
        115: "in2", 116: "cm2", 117: "BTU/lb", 118: "cm", 119: "lb/s", 120: "delta_degF", 121: "delta_K",
        122: "kohm", 123: "Mohm", 124: "mV", 125: "kJ/kg", 126: "MJ", 127: "J/K", 128: "J/(kg.K)", 129: "kHz",
        130: "MHz", 131: "1/h", 132: "mW", 133: "hPa", 134: "mbar", 135: "m3/h", 136: "l/h", 137: "kWh/m2",
        138: "kWh/ft2", 139: "MJ/m2", 140: "MJ/ft2", 141: "W/(m2.K)", 142: "ft3/s", 145: "mohm", 146: "MWh",
        147: "kBTU", 148: "MBTU", 149: "kJ/kg", 153: "N", 154: "g/s", 155: "g/min", 156: "ton/h", 157: "kBTU/h",
        158: "cs", 159: "ms", 160: "N.m", 161: "mm/s", 162: "mm/min", 163: "m/min", 164: "m/h", 165: "m3/min",
        166: "m/s2", 170: "F", 171: "H", 173: "S", 177: "V/m", 179: "cd", 180: "cd/m2", 181: "K/h", 182: "K/min",
        184: "rad/s", 186: "kg/m3", 190: "uS", 191: "ft3/h", 192: "gal_us/h", 193: "km", 194: "um", 195: "g",
        196: "mg", 197: "ml", 198: "ml/s", 199: "dB", 202: "mS", 203: "varh", 204: "kvarh", 205: "Mvarh",
        206: "mmH2O", 207: "per mille", 210: "g/kg", 214: "g/l", 215: "mg/l", 217: "g/m3", 218: "mg/m3",
        219: "ug/m3", 232: "dBA", 233: "NTU", 234: "pH", 238: "As", 239: "VAh", 240: "kVAh", 241: "MVAh",
        242: "varh", 243: "kvarh", 244: "Mvarh", 247: "J/h", 248: "ft3/d", 249: "m3/d", 250: "Wh/m3", 251: "J/m3",
    }
)
"""By BACnet's number of an engineering unit: ours. Currencies and what no plant has are left out."""

UNECE_UNITS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "C62": "1", "P1": "%", "59": "ppm", "61": "ppb", "NX": "per mille",
        "JOU": "J", "KJO": "kJ", "3B": "MJ", "GV": "GJ", "WHR": "Wh", "KWH": "kWh", "MWH": "MWh", "GWH": "GWh",
        "C31": "mW", "WTT": "W", "KWT": "kW", "MAW": "MW", "A90": "GW", "BTU": "BTU", "2I": "BTU/h",
        "D46": "VA", "KVA": "kVA", "MVA": "MVA", "D44": "var", "KVR": "kvar", "MAR": "Mvar",
        "K3": "kvarh", "MAH": "Mvarh", "C79": "kVAh",
        "4K": "mA", "AMP": "A", "B22": "kA", "2Z": "mV", "VLT": "V", "KVT": "kV", "OHM": "ohm", "B49": "kohm",
        "HTZ": "Hz", "KHZ": "kHz", "MHZ": "MHz", "RPM": "rpm", "C97": "1/s", "C94": "1/min", "AMH": "Ah",
        "CEL": "degC", "FAH": "degF", "KEL": "K", "DD": "deg", "C81": "rad",
        "PAL": "Pa", "A97": "hPa", "KPA": "kPa", "MPA": "MPa", "MBR": "mbar", "BAR": "bar", "PS": "psi",
        "MMT": "mm", "CMT": "cm", "MTR": "m", "KMT": "km", "INH": "in", "FOT": "ft", "MTK": "m2",
        "MLT": "ml", "LTR": "l", "MTQ": "m3", "FTQ": "ft3",
        "MQS": "m3/s", "MQH": "m3/h", "G51": "l/s", "L2": "l/min", "E32": "l/h",
        "MGM": "mg", "GRM": "g", "KGM": "kg", "TNE": "t", "LBR": "lb", "KGS": "kg/s", "F31": "kg/min", "E93": "kg/h",
        "MTS": "m/s", "KMH": "km/h", "NEW": "N", "NU": "N.m", "LUX": "lx", "LUM": "lm", "D54": "W/m2",
        "C26": "ms", "SEC": "s", "MIN": "min", "HUR": "h", "DAY": "d", "WEE": "wk",
        "KMQ": "kg/m3", "2N": "dB", "Q30": "pH",
    }
)
"""By UNECE code, as OPC UA's EUInformation carries it: ours."""
# fmt: on
