"""The TPM's own structures, read from bytes that a stranger sent: exact lengths, known algorithms, nothing left over.

Source: TCG, Trusted Platform Module Library, Part 2: Structures, revision 1.59: 10.12 (TPMS_ATTEST), 11.3
(TPMT_SIGNATURE), 12.2 (TPMT_PUBLIC), 13.5 (TPMS_NV_PUBLIC). All numbers are big-endian.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway.attest.octets import Octets

MAGIC: Final = 0xFF544347
RSA, ECC, NULL = 0x0001, 0x0023, 0x0010
RSASSA, RSAES, ECDSA, ECDAA = 0x0014, 0x0015, 0x0018, 0x001A
AES, CFB = 0x0006, 0x0043
SHA256: Final = 0x000B
HASHES: Final = {SHA256: "sha256", 0x000C: "sha384", 0x000D: "sha512"}
"""TPM_ALG_ID of each hash that is accepted, and its name in hashlib."""
CURVES: Final = {0x0003: ec.SECP256R1(), 0x0004: ec.SECP384R1()}
KINDS: Final = {0x8014: "nv", 0x8017: "certify", 0x8018: "quote"}

FIXED_TPM, FIXED_PARENT, SENSITIVE_ORIGIN = 1 << 1, 1 << 4, 1 << 5
RESTRICTED, DECRYPT, SIGN = 1 << 16, 1 << 17, 1 << 18
NV_COUNTER, NV_WRITTEN = 1, 1 << 29

_MAX_SELECTIONS = 16
_OWN = FIXED_TPM | FIXED_PARENT | SENSITIVE_ORIGIN
_SCHEMES_WITH_HASH = {RSASSA, 0x0016, 0x0017, ECDSA, 0x0019, 0x001B, 0x001C, 0x001D}

PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Quoted:
    """What a quote is about. selection: each bank's TPM_ALG_ID and its PCRs, in order. digest: over their values."""

    selection: tuple[tuple[int, frozenset[int]], ...]
    digest: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Certified:
    """What TPM2_Certify is about: an object, by its name."""

    name: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class NvCertified:
    """What TPM2_NV_Certify is about: an index by its name, and what stands in it from offset on."""

    name: bytes
    offset: int
    contents: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Attest:
    """What a TPM signed. Nothing of it holds before its signature does.

    signer: the key's qualified name. extra: what the asker gave. reset_count: starts of the device; restart_count:
    resumes since. is_safe: whether no larger clock value can have been lost.
    """

    kind: str
    signer: bytes
    extra: bytes
    clock_ms: int
    reset_count: int
    restart_count: int
    is_safe: bool
    firmware: int
    attested: Quoted | Certified | NvCertified


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """A TPM's signature. packed: DER for ECDSA, as it stands for RSASSA."""

    scheme: int
    digest: str
    packed: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Public:
    """The public area of a key in a TPM. packed: the bytes it was read from.

    name_hash: hashlib's name. symmetric_bits: of the AES key that protects its children, 0 where it has none.
    """

    key: PublicKey
    name_hash: str
    attributes: int
    policy: bytes
    symmetric_bits: int
    packed: bytes

    @property
    def name(self) -> bytes:
        """The key's name: what other structures know it by."""
        return _name(self.name_hash, self.packed)

    def stands_in(self, certificate: bytes) -> bool:
        """Return whether a certificate, in DER, can be for this key: cheap, and enough to find a mix-up."""
        return self.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) in certificate

    @property
    def is_own(self) -> bool:
        """Whether the TPM made this key itself and never lets it out."""
        return self.attributes & _OWN == _OWN

    @property
    def is_restricted_signing(self) -> bool:
        """Whether it is a TPM's own key that signs only what the TPM itself made: an attestation key."""
        return self.is_own and self.attributes & (RESTRICTED | SIGN | DECRYPT) == RESTRICTED | SIGN

    @property
    def is_restricted_decrypt(self) -> bool:
        """Whether it is a TPM's own storage key, as endorsement keys are."""
        return self.is_own and self.attributes & (RESTRICTED | SIGN | DECRYPT) == RESTRICTED | DECRYPT


@dataclass(frozen=True, slots=True, kw_only=True)
class NvPublic:
    """The public area of an NV index. size: of its contents, in bytes."""

    index: int
    name_hash: str
    attributes: int
    policy: bytes
    size: int
    packed: bytes

    @property
    def name(self) -> bytes:
        """The index's name."""
        return _name(self.name_hash, self.packed)

    @property
    def is_counter(self) -> bool:
        """Whether it is a counter, which only ever rises, that was written."""
        return self.attributes >> 4 & 0xF == NV_COUNTER and bool(self.attributes & NV_WRITTEN) and self.size == 8


def parse_attest(blob: bytes) -> Attest:
    """Return a TPMS_ATTEST of a quote, of a certified key, or of certified NV contents. Raises TrustError."""
    source = Octets(blob, "attest")
    if source.number(4) != MAGIC:
        raise source.wrong("it was not made by a TPM")
    kind = source.one_of(KINDS, "type")
    signer, extra = source.sized(68), source.sized(66)
    clock_ms, reset_count, restart_count, safe = source.number(8), source.number(4), source.number(4), source.number(1)
    if safe > 1:
        raise source.wrong(f"safe: got {safe}, want 0 or 1")
    firmware = source.number(8)
    attested = _ATTESTED[kind](source)
    source.end()
    return Attest(
        kind=kind,
        signer=signer,
        extra=extra,
        clock_ms=clock_ms,
        reset_count=reset_count,
        restart_count=restart_count,
        is_safe=bool(safe),
        firmware=firmware,
        attested=attested,
    )


def _quoted(source: Octets) -> Quoted:
    count = source.number(4)
    if count > _MAX_SELECTIONS:
        raise source.wrong(f"got {count} PCR banks, want at most {_MAX_SELECTIONS}")
    banks = []
    for _ in range(count):
        bank, size = source.number(2), source.number(1)
        if size > 4:
            raise source.wrong(f"got a PCR selection of {size} bytes, want at most 4")
        bits = int.from_bytes(source.take(size), "little")
        banks.append((bank, frozenset(n for n in range(32) if bits >> n & 1)))
    return Quoted(selection=tuple(banks), digest=source.sized(64))


def _certified(source: Octets) -> Certified:
    name, _qualified_name = source.sized(68), source.sized(68)
    return Certified(name=name)


def _nv_certified(source: Octets) -> NvCertified:
    return NvCertified(name=source.sized(68), offset=source.number(2), contents=source.sized(2048))


_ATTESTED: Final[Mapping[str, Callable[[Octets], Quoted | Certified | NvCertified]]] = {
    "quote": _quoted,
    "certify": _certified,
    "nv": _nv_certified,
}


def parse_signature(blob: bytes) -> Signature:
    """Return a TPMT_SIGNATURE, ECDSA or RSASSA over SHA-256 or SHA-384. Raises TrustError."""
    source = Octets(blob, "signature")
    scheme = source.number(2)
    if scheme not in {ECDSA, RSASSA}:
        raise source.wrong(f"got scheme 0x{scheme:04x}, want ECDSA or RSASSA")
    digest = source.one_of({SHA256: "sha256", 0x000C: "sha384"}, "hash")
    if scheme == ECDSA:
        r, s = (int.from_bytes(source.sized(48), "big") for _ in range(2))
        packed = encode_dss_signature(r, s)
    else:
        packed = source.sized(512)
    source.end()
    return Signature(scheme=scheme, digest=digest, packed=packed)


def parse_public(blob: bytes) -> Public:
    """Return a TPMT_PUBLIC of an RSA or elliptic curve key (P-256, P-384). Raises TrustError."""
    source = Octets(blob, "public area")
    kind = source.number(2)
    if kind not in {RSA, ECC}:
        raise source.wrong(f"got type 0x{kind:04x}, want RSA or ECC")
    name_hash = source.one_of(HASHES, "name algorithm")
    attributes, policy = source.number(4), source.sized(64)
    symmetric_bits = _symmetric(source)
    key = _rsa_key(source) if kind == RSA else _curve_key(source)
    source.end()
    return Public(
        key=key, name_hash=name_hash, attributes=attributes, policy=policy, symmetric_bits=symmetric_bits, packed=blob
    )


def _symmetric(source: Octets) -> int:
    """Read a TPMT_SYM_DEF_OBJECT: the bits of an AES key for CFB, or 0."""
    algorithm = source.number(2)
    if algorithm == NULL:
        return 0
    bits, mode = source.number(2), source.number(2)
    if (algorithm, mode) != (AES, CFB) or bits not in {128, 192, 256}:
        raise source.wrong(f"got symmetric algorithm 0x{algorithm:04x}, {bits} bits, mode 0x{mode:04x}, want AES-CFB")
    return bits


def _scheme(source: Octets) -> None:
    """Read a TPMT_RSA_SCHEME, TPMT_ECC_SCHEME or TPMT_KDF_SCHEME; each signature says its own scheme again."""
    scheme = source.number(2)
    if scheme == ECDAA:
        source.take(4)
    elif scheme in _SCHEMES_WITH_HASH or scheme in {0x0007, 0x0020, 0x0021, 0x0022}:
        source.take(2)
    elif scheme not in {NULL, RSAES}:
        raise source.wrong(f"got scheme 0x{scheme:04x}, which is unknown")


def _rsa_key(source: Octets) -> rsa.RSAPublicKey:
    _scheme(source)
    bits, exponent, number = source.number(2), source.number(4), int.from_bytes(source.sized(512), "big")
    if not 2048 <= bits <= 4096 or number.bit_length() != bits:
        raise source.wrong(f"got an RSA key of {number.bit_length()} bits that says {bits}, want 2048 to 4096")
    try:
        return rsa.RSAPublicNumbers(exponent or 65537, number).public_key()
    except ValueError as e:
        raise source.wrong(f"this is no RSA key: {e}") from e


def _curve_key(source: Octets) -> ec.EllipticCurvePublicKey:
    _scheme(source)
    number = source.number(2)
    _scheme(source)
    if (curve := CURVES.get(number)) is None:
        raise source.wrong(f"got curve 0x{number:04x}, want P-256 or P-384")
    x, y = (int.from_bytes(source.sized(curve.key_size // 8), "big") for _ in range(2))
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve).public_key()
    except ValueError as e:
        raise source.wrong(f"this is no point of {curve.name}") from e


def parse_nv_public(blob: bytes) -> NvPublic:
    """Return a TPMS_NV_PUBLIC. Raises TrustError."""
    source = Octets(blob, "NV public area")
    index = source.number(4)
    if index >> 24 != 1:
        raise source.wrong(f"got handle 0x{index:08x}, want an NV index")
    name_hash = source.one_of(HASHES, "name algorithm")
    attributes, policy, size = source.number(4), source.sized(64), source.number(2)
    source.end()
    return NvPublic(index=index, name_hash=name_hash, attributes=attributes, policy=policy, size=size, packed=blob)


def _name(name_hash: str, packed: bytes) -> bytes:
    numbers = {name: number for number, name in HASHES.items()}
    return numbers[name_hash].to_bytes(2, "big") + hashlib.new(name_hash, packed).digest()
