"""The negative self-test: what a unit that works must refuse, before it leaves the factory."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

from gateway.attest.evidence import Challenge, sign_challenge
from gateway.codec.enrol_lines import NONCE_BYTES, to_text
from gateway.errors import TrustError
from gateway.tlog.note import Signer
from provisioning.station.link import Link, Refused
from provisioning.station.order import Order, Policy
from provisioning.station.steps import AttestationKey, Endorsed, Golden, credential_for, quote, quote_request

TESTS = ("credential for another key", "stale nonce", "quote for another unit", "challenge by a stranger", "our nonce")


def refusals(
    link: Link, *, policy: Policy, order: Order, endorsed: Endorsed, ak: AttestationKey, golden: Golden, at_s: int
) -> tuple[str, ...]:
    """Return what was tried and refused. Raises TrustError when the unit, or our own check, let one of them pass,
    and when the unit refuses a good question too.
    """
    other = ak.area.name[:-1] + bytes([ak.area.name[-1] ^ 1])
    credential = credential_for(endorsed, other, secrets.token_bytes(32))
    activation = {
        "kind": endorsed.kind,
        "id_object": to_text(credential.id_object),
        "secret": to_text(credential.secret),
        "nonce": to_text(secrets.token_bytes(NONCE_BYTES)),
    }
    stranger = quote_request(f"{order.serial[:60]}.x", secrets.token_bytes(NONCE_BYTES), policy)
    asked: Mapping[str, tuple[str, Mapping[str, Any]]] = {
        TESTS[0]: ("activate", activation),
        TESTS[1]: ("quote", quote_request(order.serial, golden.answer.nonce, policy)),
        TESTS[2]: ("quote", stranger),
        TESTS[3]: ("challenge", {"note": to_text(_challenge(order, at_s=at_s))}),
    }
    for test, (operation, arguments) in asked.items():
        _refuses(test, partial(link.ask, operation, arguments, {}))
    _refuses(TESTS[4], lambda: _wrong_nonce(ak, golden))
    quote(link, policy, ak, order)  # or it refuses everything, as a unit does that lost its TPM
    return TESTS


def _wrong_nonce(ak: AttestationKey, golden: Golden) -> None:
    """Check the good quote against a nonce that was never sent: our own verifier must say no."""
    try:
        replace(golden.answer, nonce=secrets.token_bytes(NONCE_BYTES)).check_quote(ak.key, golden.pcrs)
    except TrustError as e:
        raise Refused(str(e)) from e


def _challenge(order: Order, *, at_s: int) -> bytes:
    """Return a challenge for this unit by a key that no unit knows."""
    challenge = Challenge(
        gateway=order.serial,
        purpose="attest",
        nonce=secrets.token_bytes(NONCE_BYTES),
        issued_s=at_s,
        deadline_s=at_s + 60,
    )
    return sign_challenge(challenge, Signer.generate("wattseal-verifier/stranger"))


def _refuses(test: str, attempt: Callable[[], object]) -> None:
    try:
        attempt()
    except Refused:
        return
    except TrustError as e:
        raise TrustError(f"negative self-test, {test}: got an answer, want a refusal: {e}") from e
    raise TrustError(f"negative self-test, {test}: got an answer, want a refusal")
