"""The smallest assets of a line as one, where all of them are too many for the leaf of a baseline."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from math import fsum

from gateway.carbon.alerts.windows import REST, Window

OTHERS = "others"
"""The name of the smallest assets, put together."""
MOST_BYTES = 56_000
_ASSET_BYTES = 320
"""What the seven numbers of an asset take in a leaf, at most."""


def to_keep(windows: Sequence[Window]) -> frozenset[str] | None:
    """Return the assets that keep their names; None where all have room.

    The rest of the line comes first, then the assets whose starts are counted, then the largest by energy.
    """
    energy = {name: fsum(window.energy_kwh[name] for window in windows) for name in windows[0].energy_kwh}
    if sum(map(_size, energy)) <= MOST_BYTES:
        return None
    counted = {name for window in windows for name in window.starts}
    kept, room = set(), MOST_BYTES - _size(OTHERS)
    for name in sorted(energy, key=lambda one: (one != REST, one not in counted, -energy[one], one)):
        room -= _size(name)
        if room < 0:
            break
        if name != OTHERS:
            kept.add(name)
    return frozenset(kept)


def pooled(energy_kwh: Mapping[str, float], kept: Collection[str]) -> dict[str, float]:
    """Return energy by asset, that of all not kept under OTHERS."""
    found = {name: kwh for name, kwh in energy_kwh.items() if name in kept}
    found[OTHERS] = fsum(kwh for name, kwh in energy_kwh.items() if name not in kept)
    return found


def digest(names: Iterable[str]) -> str:
    """Return a short digest of names, so that a leaf says which they are without naming them."""
    return hashlib.sha256("\n".join(sorted(names)).encode()).hexdigest()[:16]


def _size(name: str) -> int:
    return len(name.encode()) + _ASSET_BYTES
