"""How a device is named in its certificates: IEEE 802.1AR's subject, and its serial number as a hardwareModuleName.

Source: IEEE 802.1AR-2018, 8.6 and 8.10; RFC 4108, 5 (HardwareModuleName). The subject's CN and serialNumber and the
module's number are one: the serial. Its OU is the model.
"""

import re
from typing import Final

from cryptography import x509
from cryptography.x509.oid import NameOID

from gateway.attest.der import OCTETS, OID, SEQUENCE, children, encode, oid_text, read_whole
from gateway.errors import TrustError

HARDWARE_MODULE_NAME: Final = x509.ObjectIdentifier("1.3.6.1.5.5.7.8.4")
HW_TYPE: Final = "1.3.6.1.4.1.32473.1"
"""A type of devices in the arc that IANA keeps for examples (RFC 5612), for a maker that has not named its own."""

_SERIAL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", re.ASCII)
_HW_TYPE = re.compile(r"(?:[01]\.[1-3]?[0-9]|2\.(?:0|[1-9][0-9]{0,8}))(?:\.(?:0|[1-9][0-9]{0,9})){1,20}", re.ASCII)
_MODEL = re.compile(r"[ -~]{1,64}", re.ASCII)
_ATTRIBUTES = {
    "CN": NameOID.COMMON_NAME,
    "serialNumber": NameOID.SERIAL_NUMBER,
    "OU": NameOID.ORGANIZATIONAL_UNIT_NAME,
}


def check_serial(serial: str) -> str:
    """Return a device's serial number, if it can be one: letters, digits, `.`, `_` and `-`, up to 64. TrustError."""
    if not _SERIAL.fullmatch(serial):
        raise TrustError(f"serial {serial[:64]!r}: want letters, digits, '.', '_' and '-', at most 64")
    return serial


def check_model(model: str) -> str:
    """Return a model's name, if it can be one: printable ASCII, up to 64 characters. Raises TrustError."""
    if not _MODEL.fullmatch(model):
        raise TrustError(f"model {model[:64]!r}: want 1 to 64 printable ASCII characters")
    return model


def device_name(serial: str, model: str) -> x509.Name:
    """Return the subject of a device's certificates. Raises TrustError."""
    texts = {"CN": check_serial(serial), "serialNumber": serial, "OU": check_model(model)}
    return x509.Name([x509.NameAttribute(_ATTRIBUTES[name], text) for name, text in texts.items()])


def check_hw_type(hw_type: str) -> str:
    """Return a type of devices, if it can be one: an object identifier in the maker's own arc. Raises TrustError."""
    if not _HW_TYPE.fullmatch(hw_type):
        raise TrustError(f"hwType {hw_type[:80]!r}: want an object identifier such as {HW_TYPE}")
    return hw_type


def hardware_module_name(serial: str, hw_type: str = HW_TYPE) -> x509.OtherName:
    """Return the alternative name that says which device it is. Raises TrustError."""
    arc = encode(OID, _oid_bytes(check_hw_type(hw_type)))
    number = encode(OCTETS, check_serial(serial).encode())
    return x509.OtherName(HARDWARE_MODULE_NAME, encode(SEQUENCE, arc + number))


def read_hardware_module_name(name: x509.OtherName) -> str:
    """Return the serial number in a hardwareModuleName. Raises TrustError.

    Of any type: which devices are ours is what the authority says that signed it.
    """
    parts = children(read_whole(name.value, SEQUENCE))
    if name.type_id != HARDWARE_MODULE_NAME or [part.tag for part in parts] != [OID, OCTETS]:
        raise TrustError("certificate: this alternative name is not a hardwareModuleName")
    hw_type, number = parts
    check_hw_type(oid_text(hw_type.content))
    return check_serial(number.content.decode("ascii", "replace"))


def read_device_name(certificate: x509.Certificate, alternative: x509.SubjectAlternativeName) -> tuple[str, str]:
    """Return the serial and the model that a device's certificate names, if all its names agree. Raises TrustError."""
    serial, number, model = (_only(certificate.subject, name) for name in _ATTRIBUTES)
    modules = [one for one in alternative if isinstance(one, x509.OtherName) and one.type_id == HARDWARE_MODULE_NAME]
    if len(modules) != 1:
        raise TrustError(f"certificate: got {len(modules)} hardwareModuleNames, want one")
    module = read_hardware_module_name(modules[0])
    if not check_serial(serial) == number == module:
        raise TrustError(f"certificate: CN {serial}, serialNumber {number[:64]!r} and module {module} differ")
    return serial, check_model(model)


def _only(subject: x509.Name, name: str) -> str:
    found = subject.get_attributes_for_oid(_ATTRIBUTES[name])
    if len(found) != 1 or not isinstance(found[0].value, str):
        raise TrustError(f"certificate: want one {name} in its subject, got {len(found)}")
    return found[0].value


def _oid_bytes(oid: str) -> bytes:
    first, second, *rest = map(int, oid.split("."))
    out = bytearray()
    for arc in (40 * first + second, *rest):
        septets = [arc & 0x7F]
        while arc := arc >> 7:
            septets.append(arc & 0x7F | 0x80)
        out += bytes(reversed(septets))
    return bytes(out)
