"""From ledger.toml to whose signature counts on each gateway's log."""

from collections.abc import Callable

from gateway.app.keys import read_verifier
from gateway.app.trust.anchorfiles import AnchorFiles
from gateway.app.trust.signedby import Attested, Pinned, SignedBy
from gateway.config import LedgerConfig
from gateway.config.ledger import GatewayKeySection
from gateway.errors import ConfigError
from gateway.tlog.note import SignatureKind, Verifier


def pinned_key(section: GatewayKeySection, gateway: str) -> Verifier | None:
    """Return the key that the operator has pinned for a gateway, None where a device vouches. Raises ConfigError."""
    if section.key is None:
        return None
    return read_verifier(section.key, f"gateways.{gateway}.key", kind=SignatureKind.NOTE, name=f"wattseal/{gateway}")


def signers_of(config: LedgerConfig, *, say: Callable[[str], None], now_s: Callable[[], float]) -> dict[str, SignedBy]:
    """Return whose signature counts, by gateway. say: told what is wrong with a file later. Raises ConfigError."""
    attest = config.attest
    anchors = None if attest is None else AnchorFiles(attest.device_ca, attest.crl, say=say)
    made: dict[str, SignedBy] = {}
    for gateway, section in config.gateways.items():
        key = pinned_key(section, gateway)
        if key is not None:
            made[gateway] = Pinned(key)
        elif anchors is None or section.device is None:
            raise ConfigError(f"gateways.{gateway}: got no key, want one, or a device and [attest]")
        else:
            made[gateway] = Attested(f"wattseal/{gateway}", serial=section.device, anchors=anchors, now_s=now_s)
    return made
