"""The few DER values that cryptography does not write for us. Pure. Source: X.690."""


def _value(tag: int, content: bytes) -> bytes:
    length = len(content)
    if length < 128:
        return bytes([tag, length]) + content
    size = length.to_bytes((length.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(size)]) + size + content


def sequence(*parts: bytes) -> bytes:
    """Return a SEQUENCE of encoded values."""
    return _value(0x30, b"".join(parts))


def octets(content: bytes) -> bytes:
    """Return an OCTET STRING."""
    return _value(0x04, content)


def integer(number: int) -> bytes:
    """Return an INTEGER from 0 on."""
    return _value(0x02, number.to_bytes(number.bit_length() // 8 + 1, "big"))


def oid(dotted: str) -> bytes:
    """Return an OBJECT IDENTIFIER."""
    first, second, *rest = map(int, dotted.split("."))
    content = bytearray()
    for arc in (40 * first + second, *rest):
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.append(0x80 | arc & 0x7F)
        content += bytes(reversed(groups))
    return _value(0x06, bytes(content))
