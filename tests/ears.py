"""A verifier, and one result of it."""

from dataclasses import replace

from gateway.attest.ear import Result, sign_result
from gateway.tlog.note import Signer
from tests.reference_files import NOW_S

ISSUER, AUDIENCE = "wattseal-verifier/site", "wattseal-ledger/site"
VERIFIER = Signer.generate(ISSUER)
RESULT = Result(
    gateway="gw1",
    device="WS-0001",
    status="affirming",
    reason="release r1",
    nonce=bytes(range(32)),
    epoch=3,
    key=Signer.generate("wattseal/gw1").verifier.vkey,
    log_size=100,
    boot="aa:7:0",
    issued_s=NOW_S,
    expires_s=NOW_S + 600,
    verified_s=NOW_S,
    vector={"instance-identity": 2, "executables": 3, "hardware": 2},
    policy="reference.toml sha256:00",
)


def of_boot(boot: str, epoch: int, *, is_good: bool = True) -> str:
    """Return the token of a result about an epoch of a boot."""
    found = replace(RESULT, boot=boot, epoch=epoch)
    if not is_good:
        found = replace(found, status="contraindicated", verified_s=None, vector={"executables": 96})
    return sign_result(found, issuer=ISSUER, audience=AUDIENCE, signer=VERIFIER)
