"""Signed notes and keys: published notes first, then everything that a note or a key must not be."""

from __future__ import annotations

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.errors import ConfigError, TrustError
from gateway.tlog.lines import MAX_NOTE_BYTES
from gateway.tlog.note import Cosigner, Note, SignatureKind, Signer, Verifier, open_note, sign_note

VECTORS: list[dict[str, Any]] = json.loads((Path(__file__).parent / "vectors" / "notes.json").read_text())["notes"]
C2SP_VKEY = VECTORS[0]["vkeys"][0]
C2SP_NOTE = VECTORS[0]["note"].encode()
TEXT = "first line\nsecond line\n"
ALICE = Signer.generate("example.com/alice")
BOB = Signer.generate("example.com/bob")
ORDER = 2**252 + 27742317777372353535851937790883648493  # of Ed25519's group: RFC 8032, 5.1


def b64(content: bytes) -> str:
    return base64.b64encode(content).decode()


def line(name: str, content: bytes) -> str:
    """Return a signature line, whatever its parts."""
    return f"\N{EM DASH} {name} {b64(content)}\n"


def signed(text: str, signer: Signer = ALICE) -> bytes:
    """Return a note with a true signature over text that sign_note may not take."""
    content = signer.verifier.key_id + signer._key.sign(text.encode())
    return (text + "\n" + line(signer.name, content)).encode()


def opened(note: bytes, *verifiers: Verifier) -> Note:
    return open_note(note, verifiers or [ALICE.verifier])


def refused(note: bytes, *verifiers: Verifier, why: str | None = None) -> None:
    with pytest.raises(TrustError, match=why):
        opened(note, *verifiers)


def signature_of(note: bytes) -> bytes:
    """Return what a note's one line holds behind the key id."""
    return base64.b64decode(note.split(b" ")[-1])[4:]


# --- published notes and keys ---


@pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["about"])
def test_published_notes_open(vector: dict[str, Any]) -> None:
    """With all their keys, and with each alone; the other lines are then of unknown keys."""
    verifiers = [Verifier.from_vkey(vkey) for vkey in vector["vkeys"]]
    text = vector["note"].split("\n\n")[0] + "\n"
    note = opened(vector["note"].encode(), *verifiers)
    assert note.text == text
    assert [one.verifier.vkey for one in note.verified] == vector["vkeys"]
    for verifier in verifiers:
        alone = opened(vector["note"].encode(), verifier)
        assert [one.verifier for one in alone.verified] == [verifier]
        assert alone.verified[0].time_s is None


def test_the_key_id_is_c2sps() -> None:
    """SHA-256 over name, newline, type and key, cut to 4 bytes: the published id, and the other type's differs."""
    verifier = Verifier.from_vkey(C2SP_VKEY)
    assert verifier.vkey == C2SP_VKEY
    assert verifier.key_id.hex() == "530d903a"
    other = Verifier(name=verifier.name, kind=SignatureKind.COSIGNATURE, public_key=verifier.public_key)
    named = b"example.com/foo\n\x04" + verifier.public_key
    assert other.key_id == hashlib.sha256(named).digest()[:4]


def test_the_fingerprint_is_the_hash_of_the_vkey() -> None:
    digest = hashlib.sha256(C2SP_VKEY.encode()).digest()
    fingerprint = Verifier.from_vkey(C2SP_VKEY).fingerprint()
    assert fingerprint == "SHA256:" + b64(digest).rstrip("=")


def test_every_other_vkey_text_than_the_published_one_is_refused() -> None:
    """Each part of it, and each change of one character, to its neighbour and to a few that parsers like to skip."""
    for start in range(len(C2SP_VKEY)):
        for end in range(start, len(C2SP_VKEY) + 1):
            if end - start < len(C2SP_VKEY):
                with pytest.raises(TrustError):
                    Verifier.from_vkey(C2SP_VKEY[start:end])
    for i, c in enumerate(C2SP_VKEY):
        for other in {chr(ord(c) + 1), "\n", " ", "+", "=", "A", "\u0660", "\0", c.swapcase()} - {c}:
            with pytest.raises(TrustError):
                Verifier.from_vkey(C2SP_VKEY[:i] + other + C2SP_VKEY[i + 1 :])
            with pytest.raises(TrustError):
                Verifier.from_vkey(C2SP_VKEY[:i] + other + C2SP_VKEY[i:])
    with pytest.raises(TrustError):
        Verifier.from_vkey(C2SP_VKEY + "\n")


def vkey_of(name: str, content: bytes) -> str:
    """Return a vkey whose id fits whatever it holds."""
    key_id = hashlib.sha256(name.encode(errors="surrogatepass") + b"\n" + content).digest()[:4]
    return f"{name}+{key_id.hex()}+{b64(content)}"


@pytest.mark.parametrize("length", [0, 1, 31, 33, 64])
def test_a_vkey_with_a_key_of_another_length_is_refused(length: int) -> None:
    with pytest.raises(TrustError, match="32 bytes"):
        Verifier.from_vkey(vkey_of("a", b"\x01" + b"\x07" * length))


@pytest.mark.parametrize("kind", [0x00, 0x02, 0x03, 0x05, 0x06, 0xFF])
def test_a_vkey_of_another_type_is_refused(kind: int) -> None:
    with pytest.raises(TrustError, match="type"):
        Verifier.from_vkey(vkey_of("a", bytes([kind]) + ALICE.verifier.public_key))


def test_a_vkey_whose_id_is_not_that_of_its_key_is_refused() -> None:
    """As when someone swaps the key under a name and id that people know."""
    known = ALICE.verifier.vkey.split("+", 2)
    swapped = BOB.verifier.vkey.split("+", 2)
    with pytest.raises(TrustError, match="says id"):
        Verifier.from_vkey("+".join([known[0], known[1], swapped[2]]))


def test_an_endless_vkey_is_refused_at_once() -> None:
    with pytest.raises(TrustError, match="joined by plus signs"):
        Verifier.from_vkey("a+00000000+" + "A" * 10_000_000)


BAD_NAMES = {
    "empty": "",
    "space": "a b",
    "no-break space": "a\u00a0b",
    "ideographic space": "a\u3000b",
    "line separator": "a\u2028b",
    "plus": "a+b",
    "newline": "a\nb",
    "carriage return": "a\rb",
    "tab": "a\tb",
    "nul": "a\0b",
    "delete": "a\x7fb",
    "terminal control": "a\x9bb",
    "surrogate": "a\udc80b",
    "256 bytes": "\u00e9" * 128,
}


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_key_name_that_c2sp_rules_out_cannot_be_had(name: str) -> None:
    """Neither for a new key, nor in a verifier key or a private key."""
    with pytest.raises(TrustError):
        Signer.generate(name)
    with pytest.raises(TrustError):
        Verifier.from_vkey(vkey_of(name, b"\x01" + ALICE.verifier.public_key))
    with pytest.raises(ConfigError):
        Signer.from_text(ALICE.to_text().replace(ALICE.name, name))


@settings(deadline=None)
@given(st.text(min_size=1, max_size=60))
def test_a_name_is_either_refused_or_kept_through_vkey_and_note(name: str) -> None:
    try:
        signer = Signer.generate(name)
    except TrustError:
        return
    assert Verifier.from_vkey(signer.verifier.vkey) == signer.verifier
    assert opened(signer.sign_note(TEXT), signer.verifier).verified[0].verifier == signer.verifier
    assert Signer.from_text(signer.to_text()).verifier == signer.verifier


P = 2**255 - 19
ORDER_8_Y = 0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7
LOW_ORDER = {
    "order 1": 1,
    "order 2": P - 1,
    "order 4": 0,
    "order 8": ORDER_8_Y,
    "order 8, the other": P - ORDER_8_Y,
    "order 4, not canonical": P,
    "order 1, not canonical": P + 1,
}


@pytest.mark.parametrize("sign", [0, 1])
@pytest.mark.parametrize("y", LOW_ORDER.values(), ids=LOW_ORDER)
def test_a_key_under_which_one_signature_fits_any_text_is_refused(y: int, sign: int) -> None:
    """Its owner could deny all that it signed: a point whose order divides 8."""
    with pytest.raises(TrustError, match="point"):
        Verifier.from_vkey(vkey_of("a", b"\x01" + (y | sign << 255).to_bytes(32, "little")))


def test_a_key_that_is_no_point_of_the_curve_verifies_nothing() -> None:
    verifier = Verifier.from_vkey(vkey_of("a", b"\x01" + (2).to_bytes(32, "little")))
    for signature in (bytes(64), b"\x01" + bytes(63), signature_of(ALICE.sign_note(TEXT))):
        refused(f"{TEXT}\n{line('a', verifier.key_id + signature)}".encode(), verifier, why="is wrong")


# --- private keys ---


def test_a_private_key_survives_as_text() -> None:
    """In the form of Go's note package, with or without a final newline."""
    name, key_id, rest = ALICE.to_text().removeprefix("PRIVATE+KEY+").split("+", 2)
    assert (name, key_id) == (ALICE.name, ALICE.verifier.key_id.hex())
    assert base64.b64decode(rest) == b"\x01" + ALICE._key.private_bytes_raw()
    for text in (ALICE.to_text(), ALICE.to_text() + "\n"):
        again = Signer.from_text(text)
        assert again.verifier == ALICE.verifier
        assert again.sign_note(TEXT) == ALICE.sign_note(TEXT)


def test_a_mangled_private_key_is_refused_and_not_quoted() -> None:
    """Each change of one character, and each part: a ConfigError, for a person has to put the right file there."""
    text = ALICE.to_text()
    secret = text.split("+", 4)[4]
    for i, c in enumerate(text):
        for mangled in (text[:i], text[i + 1 :], text[:i] + chr(ord(c) + 1) + text[i + 1 :], text[:i] + " " + text[i:]):
            with pytest.raises(ConfigError) as caught:
                Signer.from_text(mangled)
            assert secret[:12] not in str(caught.value)


def test_the_text_of_a_verifier_key_is_no_private_key() -> None:
    with pytest.raises(ConfigError):
        Signer.from_text(ALICE.verifier.vkey)
    with pytest.raises(ConfigError):
        Signer.from_text(ALICE.to_text().removeprefix("PRIVATE+KEY+"))


def test_two_new_keys_differ() -> None:
    assert Signer.generate("a").verifier.public_key != Signer.generate("a").verifier.public_key


def test_a_private_key_does_not_show_itself() -> None:
    """Neither a log line nor a traceback that prints a signer has its key."""
    assert ALICE.to_text().split("+", 4)[4] not in repr(ALICE) + str(ALICE) + repr(ALICE.cosigner())


# --- signing and opening ---


@settings(deadline=None)
@given(st.text().map(lambda text: text + "\n"))
@example("\n")
@example("\n\n")
@example("a\n\n\N{EM DASH} b AAAAAAAA\n")
def test_a_text_is_either_refused_or_kept_whole(text: str) -> None:
    """What a note says is what was signed, also when the text has empty lines or looks like signature lines."""
    try:
        note = sign_note(text, [ALICE, BOB])
    except ValueError:
        return
    again = opened(note, BOB.verifier, ALICE.verifier)
    assert again.text == text
    assert [one.verifier for one in again.verified] == [ALICE.verifier, BOB.verifier]


@pytest.mark.parametrize("text", ["", "no newline", "a\rb\n", "a\tb\n", "a\0\n", "a\x7f\n", "a\x85\n", "a\udc80\n"])
def test_a_text_that_cannot_be_opened_again_is_not_signed(text: str) -> None:
    with pytest.raises(ValueError, match="cannot stand"):
        ALICE.sign_note(text)


def test_a_note_that_is_too_long_is_not_signed() -> None:
    with pytest.raises(ValueError, match="too long"):
        ALICE.sign_note("a" * MAX_NOTE_BYTES + "\n")


def test_a_note_has_each_signer_once_and_16_at_most() -> None:
    many = [Signer.generate(f"signer/{i}") for i in range(17)]
    assert len(opened(sign_note(TEXT, many[:16]), *(one.verifier for one in many)).verified) == 16
    for signers in ([], [ALICE, ALICE], many):
        with pytest.raises(ValueError, match="1 to 16"):
            sign_note(TEXT, signers)


# --- attacks: signatures ---


def test_one_changed_bit_anywhere_in_a_note_is_refused() -> None:
    for i in range(len(C2SP_NOTE)):
        for bit in range(8):
            forged = C2SP_NOTE[:i] + bytes([C2SP_NOTE[i] ^ 1 << bit]) + C2SP_NOTE[i + 1 :]
            refused(forged, Verifier.from_vkey(C2SP_VKEY))


def test_each_cut_of_a_note_is_refused() -> None:
    for i in range(len(C2SP_NOTE)):
        refused(C2SP_NOTE[:i], Verifier.from_vkey(C2SP_VKEY))
        refused(C2SP_NOTE[i + 1 :], Verifier.from_vkey(C2SP_VKEY))


def test_one_more_byte_anywhere_in_a_note_is_refused() -> None:
    for i in range(len(C2SP_NOTE) + 1):
        for byte in b"\n \r\0A=+\xff":
            refused(C2SP_NOTE[:i] + bytes([byte]) + C2SP_NOTE[i:], Verifier.from_vkey(C2SP_VKEY))


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_no_bytes_are_a_note_by_chance(note: bytes) -> None:
    """Whatever comes, the answer is TrustError."""
    refused(note)
    refused(b"text\n\n\xe2\x80\x94 " + note)


def test_a_note_whose_signature_was_removed_is_refused() -> None:
    """With and without the empty line; and with another's signature left."""
    refused(TEXT.encode())
    refused((TEXT + "\n").encode())
    refused(BOB.sign_note(TEXT), why="no known key")


def test_a_note_opened_without_any_key_is_refused() -> None:
    with pytest.raises(TrustError, match="no known key"):
        open_note(ALICE.sign_note(TEXT), [])


def test_the_signature_of_another_text_is_refused() -> None:
    moved = ALICE.sign_note("another\n").split(b"\n\n")[1]
    refused(TEXT.encode() + b"\n" + moved, why="is wrong")


def test_the_signature_of_another_key_under_a_known_name_and_id_is_refused() -> None:
    forged = ALICE.verifier.key_id + signature_of(BOB.sign_note(TEXT))
    refused((TEXT + "\n" + line(ALICE.name, forged)).encode(), why="is wrong")


def test_a_known_key_with_a_wrong_signature_is_refused_whoever_else_signed() -> None:
    wrong = line(BOB.name, BOB.verifier.key_id + bytes(64)).encode()
    note = ALICE.sign_note(TEXT) + wrong
    assert opened(note, ALICE.verifier).text == TEXT
    refused(note, ALICE.verifier, BOB.verifier, why="is wrong")


def test_a_known_name_with_another_key_id_is_another_key() -> None:
    """It is ignored, and so signs nothing, however good its signature."""
    namesake = Signer.generate(ALICE.name)
    refused(namesake.sign_note(TEXT), why="no known key")
    assert len(opened(sign_note(TEXT, [namesake, ALICE])).verified) == 1


def test_a_known_key_id_under_another_name_is_another_key() -> None:
    renamed = ALICE.sign_note(TEXT).replace(b"alice", b"malory")
    refused(renamed, why="no known key")


def test_a_name_that_only_looks_like_a_known_one_is_another_key() -> None:
    """Cyrillic a, other case, composed or not: names are compared by code point."""
    for name in ("ex\u0430mple.com/alice", "example.com/Alice", "example.com/alice/", "example.com/alic\u00e9"):
        content = ALICE.verifier.key_id + signature_of(ALICE.sign_note(TEXT))
        refused((TEXT + "\n" + line(name, content)).encode(), why="no known key")


@pytest.mark.parametrize("length", [1, 63, 65, 72, 128])
def test_a_signature_of_wrong_length_is_refused(length: int) -> None:
    content = (signature_of(ALICE.sign_note(TEXT)) * 2)[:length]
    refused((TEXT + "\n" + line(ALICE.name, ALICE.verifier.key_id + content)).encode(), why="not a note signature")


@pytest.mark.parametrize("length", [0, 1, 3, 4])
def test_a_line_without_a_signature_is_refused(length: int) -> None:
    refused(ALICE.sign_note(TEXT) + line(BOB.name, BOB.verifier.key_id[:length]).encode())


def test_a_signature_made_anew_from_a_good_one_is_refused() -> None:
    """S plus the group's order solves the same equation: RFC 8032 rules it out."""
    good = signature_of(ALICE.sign_note(TEXT))
    bent = good[:32] + (int.from_bytes(good[32:], "little") + ORDER).to_bytes(32, "little")
    refused((TEXT + "\n" + line(ALICE.name, ALICE.verifier.key_id + bent)).encode(), why="is wrong")


def test_two_signature_lines_of_one_key_are_refused() -> None:
    """Of a known key or an unknown one, alike or not, side by side or apart."""
    alice = ALICE.sign_note(TEXT)
    again = alice.split(b"\n\n")[1]
    bob = BOB.sign_note(TEXT).split(b"\n\n")[1]
    refused(alice + again, why="two signature lines")
    refused(alice + bob + again, why="two signature lines")
    refused(alice + bob + bob, why="two signature lines")
    refused(alice + bob + line(BOB.name, BOB.verifier.key_id + b"other").encode(), why="two signature lines")
    refused(alice + line(ALICE.name, ALICE.verifier.key_id + bytes(64)).encode(), why="two signature lines")


def test_two_known_keys_that_collide_in_name_and_id_are_refused() -> None:
    """The id has only 32 bits: who picks keys can make two alike, and which one verifies would be his choice."""
    twin = Signer.generate(ALICE.name).verifier
    object.__setattr__(twin, "key_id", ALICE.verifier.key_id)  # instead of 2**32 tries
    refused(ALICE.sign_note(TEXT), ALICE.verifier, twin, why="two known keys")
    assert opened(ALICE.sign_note(TEXT), ALICE.verifier, ALICE.verifier).text == TEXT


# --- attacks: cosignatures as note signatures and the reverse ---


def cosigned(cosigner: Cosigner, text: str, time_s: int) -> bytes:
    return (text + "\n" + cosigner.line(text, time_s=time_s)).encode()


def test_a_cosignature_opens_with_its_time() -> None:
    cosigner = ALICE.cosigner()
    note = opened(cosigned(cosigner, TEXT, 1_700_000_000), cosigner.verifier)
    assert (note.text, note.verified[0].time_s) == (TEXT, 1_700_000_000)


def test_a_cosignature_is_not_taken_for_a_note_signature_over_the_cosigned_message() -> None:
    """The message that a cosigner signs is itself a text, and its key may be a note key too."""
    message = f"cosignature/v1\ntime 5\n{TEXT}"
    signature = signature_of(cosigned(ALICE.cosigner(), TEXT, 5))[8:]
    refused((message + "\n" + line(ALICE.name, ALICE.verifier.key_id + signature)).encode(), why="not a note signature")


def test_a_text_that_could_pass_for_a_cosigned_message_is_not_signed() -> None:
    with pytest.raises(ValueError, match="cannot stand"):
        ALICE.sign_note("cosignature/v1\ntime 5\nwattseal/g1\n")


def test_a_note_signature_is_not_taken_for_a_cosignature() -> None:
    """Not even when the text is what a cosigner would have signed."""
    cosigner = ALICE.cosigner().verifier
    refused(ALICE.sign_note(TEXT), cosigner, why="no known key")
    signature = signature_of(signed(f"cosignature/v1\ntime 5\n{TEXT}"))
    content = cosigner.key_id + (6).to_bytes(8, "big") + signature
    refused((TEXT + "\n" + line(ALICE.name, content)).encode(), cosigner, why="is wrong")


def test_one_key_may_sign_and_cosign_the_same_note() -> None:
    cosigner = ALICE.cosigner()
    note = ALICE.sign_note(TEXT) + cosigner.line(TEXT, time_s=7).encode()
    verified = opened(note, ALICE.verifier, cosigner.verifier).verified
    assert [(one.verifier.kind, one.time_s) for one in verified] == [(1, None), (4, 7)]


def test_a_cosignature_with_another_time_is_refused() -> None:
    cosigner = ALICE.cosigner()
    content = base64.b64decode(cosigned(cosigner, TEXT, 5).split(b" ")[-1])
    later = content[:4] + (6).to_bytes(8, "big") + content[12:]
    refused((TEXT + "\n" + line(ALICE.name, later)).encode(), cosigner.verifier, why="is wrong")


@pytest.mark.parametrize("time_s", [2**63, 2**64 - 1])
def test_a_cosignature_of_an_impossible_time_is_refused(time_s: int) -> None:
    """Though its signature is true; and it is never made."""
    cosigner = ALICE.cosigner()
    signature = cosigner._key.sign(f"cosignature/v1\ntime {time_s}\n{TEXT}".encode())
    content = cosigner.verifier.key_id + time_s.to_bytes(8, "big") + signature
    refused((TEXT + "\n" + line(ALICE.name, content)).encode(), cosigner.verifier, why="impossible time")
    with pytest.raises(ValueError, match="time"):
        cosigner.line(TEXT, time_s=time_s)


@pytest.mark.parametrize("length", [1, 8, 64, 71, 73])
def test_a_cosignature_of_wrong_length_is_refused(length: int) -> None:
    cosigner = ALICE.cosigner()
    content = (signature_of(cosigned(cosigner, TEXT, 5)) * 2)[:length]
    note = f"{TEXT}\n{line(ALICE.name, cosigner.verifier.key_id + content)}".encode()
    refused(note, cosigner.verifier, why=f"has {length} bytes")


# --- attacks: form ---


MALFORMED_BASE64 = {
    "non-zero trailing bits": lambda good: good[:-2] + chr(ord(good[-2]) + 1) + "=",
    "missing padding": lambda good: good.rstrip("="),
    "too much padding": lambda good: good + "=",
    "padding in the middle": lambda good: good[:8] + "====" + good[8:],
    "data behind the padding": lambda good: good + "AAAA",
    "a space inside": lambda good: good[:8] + " " + good[8:],
    "a newline inside": lambda good: good[:8] + "\n" + good[8:],
    "the URL alphabet": lambda good: "-_-_" + good[4:],
    "a letter beyond ASCII": lambda good: "\u0410" + good[1:],
    "a foreign letter that decoders skip": lambda good: good[:8] + "!" + good[8:],
    "nothing": lambda _: "",
}


@pytest.mark.parametrize("mangle", MALFORMED_BASE64.values(), ids=MALFORMED_BASE64)
def test_a_signature_in_base64_that_is_not_canonical_is_refused(mangle: Any) -> None:
    """Of a known key, and of an unknown one beside a good signature."""
    for signer in (ALICE, BOB):
        # 68 bytes leave one padding sign and so two spare bits in the letter before it.
        good = b64(signer.verifier.key_id + signature_of(signer.sign_note(TEXT)))
        assert good[-1] == "="
        mangled = f"\N{EM DASH} {signer.name} {mangle(good)}\n"
        before = ALICE.sign_note(TEXT) if signer is BOB else (TEXT + "\n").encode()
        refused(before + mangled.encode())


GOOD = ALICE.sign_note(TEXT)
MALFORMED_NOTES = {
    "empty": b"",
    "a newline": b"\n",
    "no final newline": GOOD[:-1],
    "an empty line at the end": GOOD + b"\n",
    "spaces at the end": GOOD[:-1] + b" \n",
    "trailing data": GOOD + b"x\n",
    "trailing data without a newline": GOOD + b"x",
    "no empty line": GOOD.replace(b"\n\n", b"\n"),
    "no text": GOOD.split(b"\n\n")[1],
    "only a line, which signs an empty text": ALICE.sign_note("\n").split(b"\n\n")[1],
    "CR LF": GOOD.replace(b"\n", b"\r\n"),
    "hyphen for the dash": GOOD.replace("\N{EM DASH}".encode(), b"-"),
    "en dash": GOOD.replace("\N{EM DASH}".encode(), "\N{EN DASH}".encode()),
    "no space behind the dash": GOOD.replace("\N{EM DASH} ".encode(), "\N{EM DASH}".encode()),
    "two spaces behind the dash": GOOD.replace("\N{EM DASH} ".encode(), "\N{EM DASH}  ".encode()),
    "no name": GOOD.replace(ALICE.name.encode() + b" ", b""),
    "three parts": GOOD.replace(ALICE.name.encode(), b"a b"),
    "a text line among the signatures": GOOD + b"text\n" + BOB.sign_note(TEXT).split(b"\n\n")[1],
    "byte order mark": b"\xef\xbb\xbf" + GOOD,
}


@pytest.mark.parametrize("note", MALFORMED_NOTES.values(), ids=MALFORMED_NOTES)
def test_a_malformed_note_is_refused(note: bytes) -> None:
    refused(note)


@pytest.mark.parametrize("name", BAD_NAMES.values(), ids=BAD_NAMES)
def test_a_line_with_a_malformed_name_is_refused_beside_a_good_signature(name: str) -> None:
    refused(GOOD + line(name, b"1234567890").encode(errors="surrogatepass"))


@pytest.mark.parametrize("c", ["\0", "\x01", "\t", "\x0b", "\x0c", "\r", "\x1b", "\x1f", "\x7f", "\x85", "\x9b"])
def test_a_control_character_in_the_text_is_refused_though_truly_signed(c: str) -> None:
    refused(signed(f"a{c}b\n"), why="control character")


NOT_UTF8 = {
    "a stray byte": b"\xff",
    "a cut sequence": b"\xe2\x80",
    "an overlong newline": b"\xc0\x8a",
    "a surrogate": b"\xed\xa0\x80",
    "beyond Unicode": b"\xf5\x80\x80\x80",
}


@pytest.mark.parametrize("piece", NOT_UTF8.values(), ids=NOT_UTF8)
def test_invalid_utf8_in_the_text_is_refused_though_truly_signed(piece: bytes) -> None:
    text = b"a" + piece + b"b\n"
    content = ALICE.verifier.key_id + ALICE._key.sign(text)
    refused(text + b"\n" + line(ALICE.name, content).encode(), why="UTF-8")


def test_a_note_of_a_megabyte_is_opened_and_a_longer_one_refused_before_work() -> None:
    room = MAX_NOTE_BYTES - len(ALICE.sign_note("\n"))
    largest = ALICE.sign_note("a" * room + "\n")
    assert len(largest) == MAX_NOTE_BYTES
    assert len(opened(largest).text) == room + 1
    refused(signed("a" * (room + 1) + "\n"), why="more than 1000000")
    # Nothing of it is looked at: neither its encoding nor its lines are what is complained of.
    refused(b"\xff" * (MAX_NOTE_BYTES + 1), why="more than 1000000")


def test_16_signature_lines_are_taken_and_a_17th_refused_before_work() -> None:
    others = [line(f"witness/{i}", b"%d 56789" % i) for i in range(16)]
    assert opened(GOOD + "".join(others[:15]).encode()).text == TEXT
    refused(GOOD + "".join(others).encode(), why="more than 16")
    refused(GOOD + b"\xff\n" * 16, why="more than 16")
