"""The devices of the plant: which register shows what. Written apart from gateway/devices on purpose.

The gateway's templates and these maps are two encodings of the same facts; tests hold one against
the other.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Quantity = Callable[[float], float]
"""A quantity as a function of plant seconds: W, Wh or units."""
Start = int | Literal["wrap"]
"""Where a register starts, in its own steps; `wrap`: so that it rolls over soon."""
ROUNDING = 1e-6
"""Of a step: what floating point may lose, so that a step that is due is shown."""


@dataclass(slots=True, kw_only=True)
class Counter:
    """A register that counts a quantity up, in steps.

    step: how much of the quantity one count is. modulus: None for a float register, which never wraps.
    """

    source: Quantity
    step: float
    start: int
    modulus: int | None = None
    base: float = 0.0

    def __call__(self, t: float) -> float:
        """Return what the register shows at plant second t: whole steps, unless it is a float."""
        steps = (self.source(t) - self.base) / self.step
        if self.modulus is None:
            return self.start + steps
        return (self.start + math.floor(steps + ROUNDING)) % self.modulus

    def swap(self, t: float) -> None:
        """Start again at 0, as the register of a new device does."""
        self.base, self.start = self.source(t), 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """One value in a device's registers. layout: a big-endian struct of one number."""

    address: int
    layout: struct.Struct
    value: Quantity


@dataclass(slots=True, kw_only=True)
class Device:
    """One device behind a unit id.

    windows: register ranges that answer; whatever no field covers reads as fill.
    bits: what FC 1 and 2 read, from address 0; none: the device does not know these functions.
    """

    unit: int
    asset: str
    template: str
    function: int
    windows: tuple[range, ...]
    fields: tuple[Field, ...]
    counters: tuple[Counter, ...]
    fill: bytes = b"\0\0"
    bits: tuple[Callable[[float], bool], ...] = ()
    alive: bool = True

    @property
    def functions(self) -> frozenset[int]:
        """The function codes that the device knows."""
        return frozenset({self.function, 1, 2} if self.bits else {self.function})

    def read(self, function: int, address: int, count: int, t: float) -> bytes:
        """Return the bytes that stand there at plant second t. Raises LookupError where nothing does."""
        if function < 3:
            return self._read_bits(address, count, t)
        for window in self.windows:
            if window.start <= address and address + count <= window.stop:
                break
        else:
            raise LookupError(f"{self.template} has no registers {address}..{address + count - 1}")
        image = bytearray(self.fill * len(window))
        for field in self.fields:
            if field.address in window:
                field.layout.pack_into(image, 2 * (field.address - window.start), field.value(t))
        first = 2 * (address - window.start)
        return bytes(image[first : first + 2 * count])

    def _read_bits(self, address: int, count: int, t: float) -> bytes:
        if address + count > len(self.bits):
            raise LookupError(f"{self.template} has no bits {address}..{address + count - 1}")
        packed = sum(bit(t) << i for i, bit in enumerate(self.bits[address : address + count]))
        return packed.to_bytes((count + 7) // 8, "little")

    def swap(self, t: float) -> None:
        """Replace the device by a new one of the same kind: all counters start at 0."""
        for counter in self.counters:
            counter.swap(t)


def _whole(value: Quantity) -> Quantity:
    return lambda t: round(value(t))


def _starting(start: Start, modulus: int, steps: float) -> int:
    return modulus - max(1, round(steps)) if start == "wrap" else start % modulus


WRAP_WH = 5_000.0
"""A meter that starts at `wrap` rolls over after about this much energy; a counter after WRAP_UNITS."""
WRAP_UNITS = 20


def sdm630(unit: int, asset: str, power: Quantity, energy: Quantity, start: Start) -> Device:
    """Eastron SDM630. Its kWh are float32: steps of 1 Wh from 8,192 kWh on, 2 Wh from 16,384, 8 Wh from 65,536."""
    if start == "wrap":
        raise ValueError(f"unit {unit}: a float register never wraps; take an integer one")
    kwh = Counter(source=energy, step=1000.0, start=start)
    float32 = struct.Struct(">f")
    return Device(
        unit=unit,
        asset=asset,
        template="eastron-sdm630",
        function=4,
        windows=(range(0x0158),),
        fields=(
            Field(address=0x0034, layout=float32, value=power),
            Field(address=0x0048, layout=float32, value=kwh),
            Field(address=0x0156, layout=float32, value=kwh),  # total: import and export, and we export none
        ),
        counters=(kwh,),
    )


def b23(unit: int, asset: str, power: Quantity, energy: Quantity, start: Start) -> Device:
    """ABB B23. What it does not measure reads as all ones."""
    count = Counter(source=energy, step=10.0, start=_starting(start, 1 << 64, WRAP_WH / 10), modulus=1 << 64)
    return Device(
        unit=unit,
        asset=asset,
        template="abb-b23",
        function=3,
        windows=(range(0x5000, 0x5038), range(0x5B00, 0x5B42)),
        fields=(
            Field(address=0x5000, layout=struct.Struct(">Q"), value=count),
            Field(address=0x5004, layout=struct.Struct(">Q"), value=lambda _: 0),
            Field(address=0x5B14, layout=struct.Struct(">i"), value=_whole(lambda t: 100 * power(t))),
        ),
        counters=(count,),
        fill=b"\xff\xff",
    )


def iem3000(unit: int, asset: str, power: Quantity, energy: Quantity, start: Start) -> Device:
    """Schneider iEM3000. Addresses are PDU addresses: one less than the register numbers of its maker."""
    count = Counter(source=energy, step=1.0, start=_starting(start, 1 << 63, WRAP_WH), modulus=1 << 63)
    return Device(
        unit=unit,
        asset=asset,
        template="schneider-iem3000",
        function=3,
        windows=(range(2999, 3111), range(3203, 3211)),
        fields=(
            Field(address=3059, layout=struct.Struct(">f"), value=lambda t: power(t) / 1000),
            Field(address=3203, layout=struct.Struct(">q"), value=count),
        ),
        counters=(count,),
    )


def eem_ma370(unit: int, asset: str, power: Quantity, energy: Quantity, start: Start) -> Device:
    """Phoenix EEM-MA370: whole kWh in 32 bits, the coarsest of all. The map is unverified."""
    count = Counter(source=energy, step=1000.0, start=_starting(start, 1 << 32, WRAP_WH / 1000), modulus=1 << 32)
    return Device(
        unit=unit,
        asset=asset,
        template="phoenix-eem-ma370",
        function=3,
        windows=(range(0xC550, 0xC590), range(0xC650, 0xC660)),
        fields=(
            Field(address=0xC568, layout=struct.Struct(">i"), value=_whole(lambda t: power(t) / 10)),
            Field(address=0xC652, layout=struct.Struct(">I"), value=count),
        ),
        counters=(count,),
    )


def line_plc(
    unit: int,
    start: Start,
    *,
    good: Quantity,
    total: Quantity,
    state: Quantity,
    sku: Quantity,
    job: Quantity,
    recipe: Quantity,
) -> Device:
    """Return the filling line's controller: counters, PackML state, SKU, job and recipe; bit 0 is `executing`."""
    first, modulus = _starting(start, 1 << 32, WRAP_UNITS), 1 << 32
    counts = [Counter(source=source, step=1.0, start=first, modulus=modulus) for source in (good, total)]
    uint16, uint32 = struct.Struct(">H"), struct.Struct(">I")
    return Device(
        unit=unit,
        asset="line",
        template="wattseal-plant-plc",
        function=3,
        windows=(range(16),),
        fields=(
            Field(address=0, layout=uint32, value=counts[0]),
            Field(address=2, layout=uint32, value=counts[1]),
            Field(address=4, layout=uint16, value=state),
            Field(address=5, layout=uint16, value=sku),
            Field(address=6, layout=uint32, value=job),
            Field(address=8, layout=uint16, value=recipe),
        ),
        counters=tuple(counts),
        bits=(lambda t: state(t) == 6,),
    )
