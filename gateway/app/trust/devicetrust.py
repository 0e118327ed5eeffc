"""What an auditor brings along to check devices, from files."""

from collections.abc import Sequence
from pathlib import Path

from gateway.app.attester import read_chain
from gateway.app.keys import read_verifier
from gateway.attest.chain import Anchors
from gateway.carbon.audit.devices import DeviceTrust
from gateway.errors import ConfigError, TrustError
from gateway.tlog.note import SignatureKind

MOST_SMALL = 16 << 20


def read_device_trust(
    device_ca: Path | None,
    *,
    crl: Path | None = None,
    births: Sequence[Path] = (),
    factory: Path | None = None,
    ek_roots: Sequence[Path] = (),
) -> DeviceTrust | None:
    """Return what an auditor trusts of devices, None for nothing. Raises ConfigError for files that do not fit."""
    if device_ca is None:
        if crl or births or factory or ek_roots:
            raise ConfigError("verify: got files about devices without --device-ca, want that first")
        return None
    if bool(births) != (factory is not None) or bool(births) != bool(ek_roots):
        raise ConfigError("verify: --birth, --factory and --ek-root go together, want all of them or none")
    try:
        anchors = Anchors.read(_small(device_ca), b"" if crl is None else _small(crl))
    except TrustError as e:
        raise ConfigError(f"--device-ca, --crl: {e}") from e
    return DeviceTrust(
        anchors=anchors,
        births=tuple(map(_small, births)),
        factory=None if factory is None else read_verifier(factory, "--factory", kind=SignatureKind.NOTE),
        ek_roots=tuple(one for path in ek_roots for one in read_chain(path, "--ek-root")),
    )


def _small(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_SMALL + 1)
    except OSError as e:
        raise ConfigError(f"{path}: {e.strerror}, want a readable file") from e
    if len(content) > MOST_SMALL:
        raise ConfigError(f"{path}: got more than {MOST_SMALL} bytes")
    return content
