"""What an auditor brings along to check devices, from files."""

from collections.abc import Sequence
from pathlib import Path

from gateway.app.attester import read_chain
from gateway.app.keys import read_verifier
from gateway.app.trust.anchorfiles import read_anchors, read_bounded
from gateway.attest.ek import roots_of
from gateway.carbon.audit.devices import DeviceTrust
from gateway.errors import ConfigError, TrustError
from gateway.tlog.note import SignatureKind


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
        roots, between = roots_of(one for path in ek_roots for one in read_chain(path, "--ek-root"))
    except TrustError as e:
        raise ConfigError(f"--ek-root: {e}, want the maker's certificates in PEM") from e
    if ek_roots and not roots:
        raise ConfigError("--ek-root: got authorities without a root, want the maker's root, too")
    return DeviceTrust(
        anchors=read_anchors(device_ca, crl, where="--device-ca, --crl"),
        births=tuple(map(read_bounded, births)),
        factory=None if factory is None else read_verifier(factory, "--factory", kind=SignatureKind.NOTE),
        ek_roots=roots,
        ek_between=between,
    )
