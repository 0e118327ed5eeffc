"""A unit's side of factory enrolment: it does what a station asks, from a short list, and gives out no secret.

Each request is one line and has one reply. A request that came twice, as on a serial line, is answered as before and
not done again. Normative form: docs/provisioning.md.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gateway.app.enrolment.identity import ANCHORS, GIVEN, MARKER, SERIAL, TLS_KEY, Identity
from gateway.attest.credential import Credential
from gateway.attest.evidence import read_challenge
from gateway.attest.request import make_request
from gateway.codec import enrol_lines as lines
from gateway.codec.enrol_lines import EK_KINDS, NONCE_BYTES, PROTOCOL, credential_proof, to_text
from gateway.errors import ConfigError, GatewayError, TrustError
from gateway.tlog.note import Verifier
from gateway.tpm import Tpm
from gateway.tpm.keys import KeyBlob, TpmPrivateKey

MAX_FILE = 16 * 1024
MAX_RAISE = 1024
_MOST_NONCES = 64
_PIECE = 1024 * 1024

_NONCE = lines.blob(NONCE_BYTES, least=NONCE_BYTES)
_WHOLE = {"install", "finish"}
"""Operations whose arguments are files, by name."""
_OPEN = {"hello", "identify", "ek", "activate", "finish"}
"""What an enrolled unit answers too: that it is the one of the factory's book, and no more. Nothing of it signs."""
_ANCHOR_FILES = {name: lines.optional(lines.blob(MAX_FILE)) for name in ANCHORS}


def _any(value: Any) -> Any:
    return value


class Enrolee:
    """Answers a station's lines. serial: by the hardware, "" where it has none. image: what runs, a file or a slot."""

    def __init__(
        self, *, tpm: Tpm, identity: Identity, image: Path | None, serial: str, about: Mapping[str, str]
    ) -> None:
        self._tpm = tpm
        self._identity = identity
        self._image = image
        self._hardware = serial
        self._about = dict(about)
        self._last: tuple[str, bytes] | None = None
        self._nonces: deque[bytes] = deque(maxlen=_MOST_NONCES)
        self._is_identified = False
        self._operations: dict[str, tuple[Mapping[str, lines.Field], Callable[..., dict[str, Any]]]] = {
            "hello": ({}, self._hello),
            "identify": ({"serial": lines.serial, "order": lines.name}, self._identify),
            "image": ({}, self._image_hash),
            "ek": ({"kind": lines.choice(*EK_KINDS)}, self._ek),
            "ak": ({}, self._ak),
            "activate": (
                {
                    "kind": lines.choice(*EK_KINDS),
                    "id_object": lines.blob(1024),
                    "secret": lines.blob(1024),
                    "nonce": _NONCE,
                },
                self._activate,
            ),
            "certify": ({"nonce": _NONCE}, self._certify),
            "request": ({"model": lines.name}, self._request),
            "install": (_ANCHOR_FILES, self._install),
            "floor": (
                {"index": lines.whole(0x01800000, 0x01FFFFFF), "value": lines.whole(0, MAX_RAISE), "nonce": _NONCE},
                self._floor,
            ),
            "quote": ({"serial": lines.serial, "nonce": _NONCE, "pcrs": lines.indices}, self._quote),
            "challenge": ({"note": lines.blob(4096)}, self._challenge),
            "finish": ({name: lines.blob(MAX_FILE) for name in GIVEN}, self._finish),
        }

    def answer(self, line: bytes) -> bytes | None:
        """Return the reply to a line, None to noise. Raises nothing for anything that a station may send."""
        try:
            said = lines.read_line(line)
        except TrustError:
            return None
        if said is None or "op" not in said:
            return None  # an echo of a reply of ours, perhaps
        if self._last is not None and self._last[0] == said["id"]:
            return self._last[1]
        try:
            reply: dict[str, Any] = {"ok": self._do(said)}
        except GatewayError as e:
            reply = {"refused": str(e)[:400]}
        try:
            packed = lines.pack_line({"id": said["id"], **reply})
        except ValueError as e:  # four anchors of the longest, say
            packed = lines.pack_line({"id": said["id"], "refused": f"reply: {e}"})
        self._last = said["id"], packed
        return packed

    def _do(self, said: dict[str, Any]) -> dict[str, Any]:
        asked = lines.fields_of(said, {"id": _any, "op": lines.choice(*self._operations), "args": _any}, "request")
        fields, operation = self._operations[asked["op"]]
        arguments = lines.fields_of(said["args"], fields, asked["op"])
        if asked["op"] not in _OPEN and self._identity.is_enrolled:
            raise TrustError("this unit is enrolled, want a factory reset before it is enrolled again")
        if asked["op"] not in {"hello", "identify"} and not self._is_identified:
            raise TrustError(f"{asked['op']}: want identify first")
        if "nonce" in arguments:
            self._use(arguments["nonce"])
        if asked["op"] in _WHOLE:
            return operation(arguments)
        return operation(**arguments)

    def _use(self, nonce: bytes) -> None:
        """Refuse a nonce that came before: whoever asks again asks anew."""
        if nonce in self._nonces:
            raise TrustError("nonce: this one was used before, want a fresh one")
        self._nonces.append(nonce)

    def _serial(self) -> str:
        kept = self._identity.read(SERIAL)
        return self._hardware or ("" if kept is None else kept.decode("ascii", "replace").strip())

    def _hello(self) -> dict[str, Any]:
        return {
            "protocol": PROTOCOL,
            "serial": self._serial(),
            "enrolled": self._identity.is_enrolled,
            "birth": hashlib.sha256(self._identity.read("birth.note") or b"").hexdigest(),
            "about": self._about | dict(self._tpm.describe()),
        }

    def _identify(self, *, serial: str, order: str) -> dict[str, Any]:
        """Say whether this is the unit that the order means; a unit without a serial of its own takes this one."""
        own = self._serial()
        if own and own != serial:
            raise TrustError(f"identify: got serial {serial}, this unit is {own[:63]}")
        if not own:
            self._identity.write(SERIAL, f"{serial}\n".encode())
        self._is_identified = True
        return {"serial": serial, "order": order}

    def _image_hash(self) -> dict[str, Any]:
        if self._image is None:
            raise ConfigError("image: this unit was not told which image it runs, want `wattseal enrol --image`")
        hashed, size = hashlib.sha256(), 0
        try:
            with self._image.open("rb") as file:
                while piece := file.read(_PIECE):
                    hashed.update(piece)
                    size += len(piece)
        except OSError as e:
            raise ConfigError(f"image: {self._image}: {e.strerror or e}") from e
        return {"sha256": hashed.hexdigest(), "bytes": size}

    def _ek(self, *, kind: str) -> dict[str, Any]:
        certificate = self._tpm.ek_certificate(kind)
        if certificate is None:
            return {"certificate": None, "public": None}
        return {"certificate": to_text(certificate), "public": to_text(self._tpm.ek_public(kind))}

    def _ak(self) -> dict[str, Any]:
        return {"public": to_text(self._tpm.ak_public())}

    def _activate(self, *, kind: str, id_object: bytes, secret: bytes, nonce: bytes) -> dict[str, Any]:
        opened = self._tpm.activate(kind, Credential(id_object=id_object, secret=secret))
        return {"proof": to_text(credential_proof(opened, nonce))}

    def _tls_key(self) -> KeyBlob:
        """Return the key of the IDevID, made once."""
        kept = self._identity.read(TLS_KEY)
        if kept is not None:
            return KeyBlob.from_pem(kept.decode("ascii", "replace"))
        key = self._tpm.create_key()
        self._identity.write(TLS_KEY, key.pem.encode())
        return key

    def _certify(self, *, nonce: bytes) -> dict[str, Any]:
        key = self._tls_key()
        attest, signature = self._tpm.certify(key, nonce)
        return {"public": to_text(key.public), "attest": to_text(attest), "signature": to_text(signature)}

    def _request(self, *, model: str) -> dict[str, Any]:
        key = TpmPrivateKey(self._tpm, self._tls_key())
        return {"csr": to_text(make_request(key, serial=self._serial(), model=model))}

    def _install(self, files: Mapping[str, bytes | None]) -> dict[str, Any]:
        """Install trust anchors, and give back what then stands on the disk."""
        for name, content in files.items():
            if content is not None and self._identity.read(name) != content:
                self._identity.write(name, content)
        found = {name: self._identity.read(name) for name in ANCHORS}
        return {name: None if content is None else to_text(content) for name, content in found.items()}

    def _floor(self, *, index: int, value: int, nonce: bytes) -> dict[str, Any]:
        self._tpm.counter_define(index)
        while self._tpm.counter_read(index) < value:
            self._tpm.counter_increment(index)
        counter = self._tpm.counter_certify(index, nonce)
        return {name: to_text(getattr(counter, name)) for name in ("public", "attest", "signature")}

    def _quote(self, *, serial: str, nonce: bytes, pcrs: tuple[int, ...]) -> dict[str, Any]:
        if serial != self._serial():
            raise TrustError(f"quote: got a request for {serial}, this unit is {self._serial()[:63]}")
        quoted = self._tpm.quote(nonce, pcrs)
        values = [[index, quoted.pcrs[index].hex()] for index in sorted(quoted.pcrs)]
        return {"attest": to_text(quoted.attest), "signature": to_text(quoted.signature), "pcrs": values}

    def _challenge(self, *, note: bytes) -> dict[str, Any]:
        """Judge a challenge as the gateway will: by the installed key of the attestation service. Answers no quote."""
        key = self._identity.read("verifier.vkey")
        if key is None:
            raise TrustError("challenge: no verifier key is installed")
        verifier = Verifier.from_vkey(key.decode("ascii", "replace").strip())
        read_challenge(note, verifier=verifier, gateway=self._serial())
        return {"accepted": True}

    def _finish(self, files: Mapping[str, bytes]) -> dict[str, Any]:
        """Take the certificates and the birth record; the marker last. Done again with the same, it changes nothing."""
        if self._identity.is_enrolled:
            if any(self._identity.read(name) != content for name, content in files.items()):
                raise TrustError("this unit is enrolled, want a factory reset before it is enrolled again")
        else:
            for name, content in files.items():
                self._identity.write(name, content)
            self._identity.write(MARKER, hashlib.sha256(files["birth.note"]).hexdigest().encode() + b"\n")
        return {"birth": hashlib.sha256(files["birth.note"]).hexdigest()}
