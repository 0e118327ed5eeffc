"""The result of an appraisal as an EAR: a JWT that a verifier signs for one relying party.

draft-ietf-rats-ear (profile `tag:github.com,2023:veraison/ear`), narrowed to one form: one algorithm, one submodule,
and only the claims that are below. What that leaves out a relying party need not reason about. The draft has receivers
ignore unknown claims; both ends are ours here, and a claim that one of them does not know is a mistake.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey

from gateway.attest.appraisal import CLAIMS, MAX_REASON, STATUSES, worded, worst
from gateway.errors import TrustError
from gateway.tlog.note import SignatureKind, Signer, Verifier

PROFILE = "tag:github.com,2023:veraison/ear"
SUBMOD = "wattseal"
MAX_TOKEN = 16 * 1024
MAX_AGE_S = 15 * 60
LEEWAY_S = 60

# RFC 9864 gives Ed25519 a name of its own, and deprecates EdDSA. RFC 9782 registers application/eat+jwt.
_ALGORITHM = "Ed25519"
_HEADER = {"alg": _ALGORITHM, "typ": "eat+jwt"}
_VERIFIER_ID = {"developer": "wattseal", "build": "wattseal-verifier/v1"}
_TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What a verifier found of a gateway. Times: Unix seconds of the verifier's clock.

    device: the serial in its certificate, "" where none was seen. status, vector, policy: as in Appraisal.
    nonce: of the challenge, 32 bytes; b"" where there was none. epoch, key, log_size: as the evidence claims them.
    boot: the start of the device that its quote is of, "" without one: alike for all epochs between two TPM startups.
    verified_s: when it was last found good, None for never; of an affirming result, issued_s.
    """

    gateway: str
    device: str
    status: str
    reason: str
    nonce: bytes
    epoch: int
    key: str
    log_size: int
    boot: str
    issued_s: int
    expires_s: int
    verified_s: int | None
    vector: Mapping[str, int]
    policy: str


def sign_result(result: Result, *, issuer: str, audience: str, signer: Signer) -> str:
    """Return the token. issuer: the verifier's key name. audience: the ledger's origin.

    The reason is made printable, and cut where it is too long. Raises TrustError for a result that verify_result
    would refuse: what is in it may be a device's word.
    """
    claims: dict[str, Any] = {
        "eat_profile": PROFILE,
        "iss": issuer,
        "aud": audience,
        "iat": result.issued_s,
        "exp": result.expires_s,
        "eat_nonce": _encoded(result.nonce),
        "ear.verifier-id": _VERIFIER_ID,
        "submods": {
            SUBMOD: {
                "ear.status": result.status,
                "ear.trustworthiness-vector": dict(result.vector),
                "ear.appraisal-policy-id": result.policy,
                "wattseal.gateway": result.gateway,
                "wattseal.device": result.device,
                "wattseal.epoch": result.epoch,
                "wattseal.key": result.key,
                "wattseal.log-size": result.log_size,
                "wattseal.boot": result.boot,
                "wattseal.reason": worded(result.reason),
                "wattseal.verified": result.verified_s,
            }
        },
    }
    if not result.nonce:
        del claims["eat_nonce"]
    if not result.vector:
        del claims["submods"][SUBMOD]["ear.trustworthiness-vector"]
    _accepted(claims, issuer=issuer, audience=audience, now_s=result.issued_s)
    signing_input = f"{_json(_HEADER)}.{_json(claims)}"
    token = f"{signing_input}.{_encoded(signer.sign_token(signing_input))}"
    _check_length(token)
    return token


def verify_result(token: str, *, issuer: str, audience: str, verifier: Verifier, now_s: int | None) -> Result:
    """Return what a verifier says of a gateway to this audience, once its signature holds and its time is now.

    now_s: None for a result that is kept, and was taken at its time.
    Raises TrustError for anything else. The header is compared with the one that we make before any key is used: no
    algorithm, key or parameter is taken from the token.
    """
    _check_length(token)
    if not _TOKEN.fullmatch(token):
        raise TrustError("result: this is not a signed token")
    if _object(_decoded(token.partition(".")[0])) != _HEADER:
        raise TrustError(f"result: the header: want alg {_ALGORITHM} and typ {_HEADER['typ']}, and no other")
    return _accepted(_object(_signed_payload(token, verifier)), issuer=issuer, audience=audience, now_s=now_s)


def boot_of(token: str) -> str:
    """Return the boot that a token says, "" where it says none. For tokens whose signature others check, or have."""
    try:
        claims = _object(_decoded(token.split(".")[1]))
        _check_shape(claims, _CLAIMS, "result")
        _check_shape(claims["submods"][SUBMOD], _APPRAISAL, "result: appraisal")
    except (IndexError, TrustError):
        return ""
    return str(claims["submods"][SUBMOD]["wattseal.boot"])


def _check_length(token: str) -> None:
    if len(token) > MAX_TOKEN:
        raise TrustError(f"result: got {len(token)} characters, want at most {MAX_TOKEN}")


def _accepted(claims: Mapping[str, Any], *, issuer: str, audience: str, now_s: int | None) -> Result:
    _check_shape(claims, _CLAIMS, "result")
    _check_shape(claims["submods"][SUBMOD], _APPRAISAL, "result: appraisal")
    if claims["iss"] != issuer:
        raise TrustError(f"result: got one by {claims['iss'][:100]!r}, want one by {issuer!r}")
    if claims["aud"] != audience:
        raise TrustError(f"result: got one for {claims['aud'][:100]!r}, want one for {audience!r}")
    result = _result(claims, claims["submods"][SUBMOD])
    return _timely(result, result.issued_s if now_s is None else now_s)


def _result(claims: Mapping[str, Any], said: Mapping[str, Any]) -> Result:
    return Result(
        gateway=said["wattseal.gateway"],
        device=said["wattseal.device"],
        status=said["ear.status"],
        reason=said["wattseal.reason"],
        nonce=_decoded(claims.get("eat_nonce", "")),
        epoch=said["wattseal.epoch"],
        key=said["wattseal.key"],
        log_size=said["wattseal.log-size"],
        boot=said["wattseal.boot"],
        issued_s=claims["iat"],
        expires_s=claims["exp"],
        verified_s=said["wattseal.verified"],
        vector=said.get("ear.trustworthiness-vector", {}),
        policy=said["ear.appraisal-policy-id"],
    )


def _timely(result: Result, now_s: int) -> Result:
    """Return a result that may be used now. Raises TrustError; clocks may differ by LEEWAY_S."""
    if not 0 < result.expires_s - result.issued_s <= MAX_AGE_S:
        raise TrustError(f"result: it lives {result.expires_s - result.issued_s} s, want 1..{MAX_AGE_S}")
    if result.issued_s > now_s + LEEWAY_S:
        raise TrustError(f"result: it was issued {result.issued_s - now_s} s from now")
    if result.expires_s <= now_s - LEEWAY_S:
        raise TrustError(f"result: it expired {now_s - result.expires_s} s ago")
    if result.verified_s is not None and result.verified_s > result.issued_s:
        raise TrustError("result: it says that the device was found good after it was issued")
    at_best = worst(result.vector)
    if STATUSES[at_best] > STATUSES[result.status] or (result.status == "affirming" != at_best):
        raise TrustError(f"result: {result.status}, though its vector says {at_best}")
    return result


def _signed_payload(token: str, verifier: Verifier) -> bytes:
    if verifier.kind is not SignatureKind.NOTE:
        raise TrustError("result: the verifier's key is one for cosignatures")
    key = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": _encoded(verifier.public_key)})
    try:
        signed = jws.deserialize_compact(token, key, algorithms=[_ALGORITHM])
    except (JoseError, ValueError) as e:
        raise TrustError(f"result: the signature of {verifier.name} is wrong") from e
    return bytes(signed.payload)


def _json(value: Mapping[str, Any]) -> str:
    return _encoded(json.dumps(value, separators=(",", ":")).encode())


def _encoded(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).decode().rstrip("=")


def _decoded(text: str) -> bytes:
    """Return what base64url without padding says. Raises TrustError for any other spelling of the same."""
    try:
        content = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as e:
        raise TrustError("result: not base64url") from e
    if _encoded(content) != text:
        raise TrustError("result: not base64url")
    return content


def _object(text: bytes) -> dict[str, Any]:
    """Return a JSON object, no key of which comes twice, and no number of which is a fraction. Raises TrustError."""
    try:
        found = json.loads(text.decode(), object_pairs_hook=_once, parse_float=_refuse, parse_constant=_refuse)
    except (ValueError, RecursionError) as e:
        raise TrustError("result: not JSON of whole numbers, with each key once") from e
    if type(found) is not dict:
        raise TrustError("result: want a JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key comes twice")
    return found


def _refuse(number: str) -> None:
    raise ValueError(f"got {number[:20]}")


def _check_shape(value: Any, shape: Mapping[str, Callable[[Any], bool]], what: str) -> None:
    if type(value) is not dict or not shape.keys() - _OPTIONAL <= value.keys() <= shape.keys():
        raise TrustError(f"{what}: want the claims {', '.join(shape)}, and no other")
    for name, found in value.items():
        if not shape[name](found):
            raise TrustError(f"{what}: {name} does not fit docs/references.md")


def _is_number(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**63


def _is_text(most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is str and len(value) <= most and value.isprintable()


def _is_vector(value: Any) -> bool:
    return (
        type(value) is dict
        and 0 < len(value) == len(value.keys() & set(CLAIMS))
        and all(type(one) is int and -128 <= one <= 127 for one in value.values())
    )


# Left out where there is nothing to say: EAT has no empty nonce, and AR4SI no empty vector.
_OPTIONAL = {"eat_nonce", "ear.trustworthiness-vector"}
_CLAIMS: dict[str, Callable[[Any], bool]] = {
    "eat_profile": lambda value: value == PROFILE,
    "iss": _is_text(300),
    "aud": _is_text(300),
    "iat": _is_number,
    "exp": _is_number,
    "eat_nonce": lambda value: type(value) is str and len(value) == 43,
    "ear.verifier-id": lambda value: value == _VERIFIER_ID,
    "submods": lambda value: type(value) is dict and list(value) == [SUBMOD],
}
_APPRAISAL: dict[str, Callable[[Any], bool]] = {
    "ear.status": lambda value: type(value) is str and value in STATUSES,
    "ear.trustworthiness-vector": _is_vector,
    "ear.appraisal-policy-id": _is_text(200),
    "wattseal.gateway": lambda value: type(value) is str and bool(re.fullmatch(r"[a-z0-9][a-z0-9-]{0,62}", value)),
    "wattseal.device": _is_text(100),
    "wattseal.epoch": _is_number,
    "wattseal.key": _is_text(300),
    "wattseal.log-size": _is_number,
    "wattseal.boot": _is_text(100),
    "wattseal.reason": _is_text(MAX_REASON),
    "wattseal.verified": lambda value: value is None or _is_number(value),
}
