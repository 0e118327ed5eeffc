"""Checkpoints and receipts: a published one first, then every way in which one must not be taken."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import TrustError
from gateway.tlog.checkpoint import (
    Checkpoint,
    cosign,
    read_unverified,
    sign,
    verify,
    verify_cosignature,
)
from gateway.tlog.merkle import EMPTY_ROOT, leaf_hash
from gateway.tlog.note import Signer, Verifier

VECTOR: dict[str, Any] = json.loads((Path(__file__).parent / "vectors" / "notes.json").read_text())["checkpoint"]
PUBLISHED = VECTOR["note"].encode()
PUBLISHED_ORIGIN = PUBLISHED.split(b"\n")[0].decode()

ORIGIN = "wattseal/g1"
LOG = Signer.generate(ORIGIN)
LEDGER = Signer.generate("wattseal-ledger/main")
WITNESS = LEDGER.cosigner()
ROOT = leaf_hash(b"a leaf")
CHECKPOINT = Checkpoint(origin=ORIGIN, size=7, root=ROOT)
EMPTY = Checkpoint(origin=ORIGIN, size=0, root=EMPTY_ROOT)
NOTE = sign(CHECKPOINT, LOG)
RECEIPT = cosign(NOTE, WITNESS, time_s=1_700_000_000)
ROOT_TEXT = base64.b64encode(ROOT).decode()
EMPTY_ROOT_TEXT = base64.b64encode(EMPTY_ROOT).decode()


def refused(note: bytes, why: str | None = None, *, origin: str = ORIGIN, verifier: Verifier = LOG.verifier) -> None:
    with pytest.raises(TrustError, match=why):
        verify(note, origin=origin, verifier=verifier)


def refused_receipt(
    note: bytes, why: str | None = None, *, origin: str = ORIGIN, witness: Verifier = WITNESS.verifier
) -> None:
    with pytest.raises(TrustError, match=why):
        verify_cosignature(note, origin=origin, witness=witness)


def refused_everywhere(text: str, why: str | None = None) -> None:
    """Fail unless this text is refused under a true signature, a true cosignature, unverified, and for cosigning."""
    signed = LOG.sign_note(text)
    refused(signed, why)
    refused_receipt(signed + WITNESS.line(text, time_s=5).encode(), why)
    with pytest.raises(TrustError, match=why):
        read_unverified(signed, origin=ORIGIN)
    with pytest.raises(TrustError, match=why):
        cosign(signed, WITNESS, time_s=5)


def lines_of(note: bytes) -> list[bytes]:
    return note.split(b"\n\n")[1].splitlines(keepends=True)


def without_line(note: bytes, index: int) -> bytes:
    lines = lines_of(note)
    del lines[index]
    return note.split(b"\n\n")[0] + b"\n\n" + b"".join(lines)


# --- published ---


def test_a_published_checkpoint_is_verified_by_its_log() -> None:
    checkpoint = verify(PUBLISHED, origin=PUBLISHED_ORIGIN, verifier=Verifier.from_vkey(VECTOR["log"]))
    assert checkpoint.size == VECTOR["size"]
    assert base64.b64encode(checkpoint.root).decode() == VECTOR["root"]
    assert checkpoint.text.encode() == PUBLISHED.split(b"\n\n")[0] + b"\n"


@pytest.mark.parametrize("vkey", VECTOR["witnesses"])
def test_published_cosignatures_are_verified(vkey: str) -> None:
    witness = Verifier.from_vkey(vkey)
    checkpoint, time_s = verify_cosignature(PUBLISHED, origin=PUBLISHED_ORIGIN, witness=witness)
    assert (checkpoint.size, time_s) == (VECTOR["size"], VECTOR["time_s"])


@pytest.mark.parametrize("old_new", [(b"1432088532", b"1432088533"), (b"U7WM79", b"U7WM78")])
def test_a_published_checkpoint_with_other_words_is_refused(old_new: tuple[bytes, bytes]) -> None:
    forged = PUBLISHED.replace(*old_new)
    assert forged != PUBLISHED
    refused(forged, "is wrong", origin=PUBLISHED_ORIGIN, verifier=Verifier.from_vkey(VECTOR["log"]))
    for vkey in VECTOR["witnesses"]:
        refused_receipt(forged, "is wrong", origin=PUBLISHED_ORIGIN, witness=Verifier.from_vkey(vkey))


# --- honest ---


def test_the_text_is_origin_size_and_root_and_nothing_else() -> None:
    assert CHECKPOINT.text == f"wattseal/g1\n7\n{ROOT_TEXT}\n"
    assert NOTE.startswith(CHECKPOINT.text.encode() + b"\n\xe2\x80\x94 wattseal/g1 ")
    assert NOTE.count(b"\n") == 5


@settings(deadline=None)
@given(size=st.integers(1, 2**63 - 1), root=st.binary(min_size=32, max_size=32), time_s=st.integers(0, 2**63 - 1))
def test_every_checkpoint_survives_signing_and_cosigning(size: int, root: bytes, time_s: int) -> None:
    checkpoint = Checkpoint(origin=ORIGIN, size=size, root=root)
    note = sign(checkpoint, LOG)
    receipt = cosign(note, WITNESS, time_s=time_s)
    assert receipt.startswith(note)
    assert verify(note, origin=ORIGIN, verifier=LOG.verifier) == checkpoint
    assert verify(receipt, origin=ORIGIN, verifier=LOG.verifier) == checkpoint
    assert verify_cosignature(receipt, origin=ORIGIN, witness=WITNESS.verifier) == (checkpoint, time_s)
    assert read_unverified(note, origin=ORIGIN) == checkpoint


def test_the_receipt_of_an_empty_log_needs_no_signature_of_the_log() -> None:
    """It has signed nothing yet: the cosignature is the only line."""
    receipt = cosign(EMPTY, WITNESS, time_s=9)
    assert len(lines_of(receipt)) == 1
    assert verify_cosignature(receipt, origin=ORIGIN, witness=WITNESS.verifier) == (EMPTY, 9)
    refused(receipt, "no known key")


def test_two_ledgers_may_cosign_one_checkpoint() -> None:
    other = Signer.generate("wattseal-ledger/other").cosigner()
    both = cosign(RECEIPT, other, time_s=8)
    assert verify_cosignature(both, origin=ORIGIN, witness=WITNESS.verifier)[1] == 1_700_000_000
    assert verify_cosignature(both, origin=ORIGIN, witness=other.verifier)[1] == 8


# --- attacks: who signed ---


def test_a_checkpoint_whose_signature_was_removed_is_refused() -> None:
    """All lines, or only the log's: the cosignature does not stand in for it."""
    refused(CHECKPOINT.text.encode())
    refused(CHECKPOINT.text.encode() + b"\n")
    refused(without_line(RECEIPT, 0), "no known key")


def test_a_receipt_whose_cosignature_was_removed_is_refused() -> None:
    refused_receipt(NOTE, "no known key")
    refused_receipt(without_line(RECEIPT, 1), "no known key")


def test_a_checkpoint_signed_anew_by_another_key_of_the_same_name_is_refused() -> None:
    refused(sign(CHECKPOINT, Signer.generate(ORIGIN)), "no known key")


def test_a_receipt_cosigned_anew_by_another_key_of_the_same_name_is_refused() -> None:
    forger = Signer.generate(WITNESS.name).cosigner()
    refused_receipt(cosign(NOTE, forger, time_s=5), "no known key")


def test_a_receipt_is_not_accepted_from_a_note_signature_of_the_ledger() -> None:
    """The ledger signs its own log with the same key; that says nothing of a gateway's."""
    refused_receipt(LEDGER.sign_note(CHECKPOINT.text), "no known key")
    refused_receipt(LEDGER.sign_note(CHECKPOINT.text), "not one that cosigns", witness=LEDGER.verifier)


def test_a_checkpoint_is_not_accepted_from_a_cosignature_of_the_log() -> None:
    note = cosign(CHECKPOINT, LOG.cosigner(), time_s=5)
    refused(note, "no known key")
    refused(note, "does not sign checkpoints", verifier=LOG.cosigner().verifier)


def test_a_key_whose_name_is_not_the_origin_does_not_sign_for_it() -> None:
    """Neither made nor taken: gateway 2 cannot speak for gateway 1."""
    other = Signer.generate("wattseal/g2")
    with pytest.raises(ValueError, match="does not sign for"):
        sign(CHECKPOINT, other)
    refused(other.sign_note(CHECKPOINT.text), "does not sign checkpoints", verifier=other.verifier)


def test_a_checkpoint_of_another_log_is_refused() -> None:
    """Though the key is the right one, by name too: the text must say so."""
    for origin in ("wattseal/g2", "wattseal/g1x", "wattseal/G1", "wattseal/g"):
        note = LOG.sign_note(f"{origin}\n7\n{ROOT_TEXT}\n")
        refused(note, "another log")
        refused_receipt(note + WITNESS.line(f"{origin}\n7\n{ROOT_TEXT}\n", time_s=5).encode(), "another log")
        with pytest.raises(TrustError, match="another log"):
            read_unverified(note, origin=ORIGIN)


def test_a_receipt_for_another_gateway_is_refused() -> None:
    refused_receipt(RECEIPT, "another log", origin="wattseal/g2")


def test_a_cosignature_moved_to_another_checkpoint_is_refused() -> None:
    """A receipt for 7 leaves does not become one for 8, nor one for another root."""
    for other in (Checkpoint(origin=ORIGIN, size=8, root=ROOT), Checkpoint(origin=ORIGIN, size=7, root=bytes(32))):
        refused_receipt(sign(other, LOG) + lines_of(RECEIPT)[1], "is wrong")
        refused(other.text.encode() + b"\n" + lines_of(RECEIPT)[0], "is wrong")


def test_a_cosignature_with_a_later_time_is_refused() -> None:
    content = base64.b64decode(lines_of(RECEIPT)[1].split(b" ")[-1])
    later = content[:4] + (1_700_000_001).to_bytes(8, "big") + content[12:]
    forged = NOTE + b"\xe2\x80\x94 wattseal-ledger/main " + base64.b64encode(later) + b"\n"
    refused_receipt(forged, "is wrong")


def test_a_second_signature_line_of_the_log_is_refused() -> None:
    refused(NOTE + lines_of(NOTE)[0], "two signature lines")
    refused_receipt(RECEIPT + lines_of(NOTE)[0], "two signature lines")


def test_a_second_cosignature_of_one_ledger_is_refused() -> None:
    """Of another time, too: which one counts would be the reader's choice. And it is not made."""
    second = WITNESS.line(CHECKPOINT.text, time_s=5).encode()
    refused_receipt(RECEIPT + second, "two signature lines")
    refused(RECEIPT + second, "two signature lines")
    with pytest.raises(TrustError, match="already"):
        cosign(RECEIPT, WITNESS, time_s=5)


def test_a_note_with_16_lines_is_not_cosigned() -> None:
    note = NOTE
    for i in range(15):
        note = cosign(note, Signer.generate(f"witness/{i}").cosigner(), time_s=5)
    with pytest.raises(TrustError, match="no room"):
        cosign(note, WITNESS, time_s=5)


@pytest.mark.parametrize("note", [b"", b"\n", CHECKPOINT.text.encode(), NOTE[:-1], NOTE + b"x", b"\xff" + NOTE])
def test_what_is_no_note_is_not_cosigned(note: bytes) -> None:
    with pytest.raises(TrustError):
        cosign(note, WITNESS, time_s=5)


@pytest.mark.parametrize("time_s", [-1, 2**63])
def test_an_impossible_time_is_not_cosigned(time_s: int) -> None:
    with pytest.raises(ValueError, match="time"):
        cosign(NOTE, WITNESS, time_s=time_s)


# --- attacks: what is signed ---


BAD_SIZES = {
    "empty": "",
    "leading zero": "07",
    "two zeros": "00",
    "plus": "+7",
    "minus": "-7",
    "minus zero": "-0",
    "space before": " 7",
    "space behind": "7 ",
    "underscore": "1_0",
    "Arabic digit": "\u0667",
    "Arabic digit behind a plain one": "1\u0667",
    "full width digit": "\uff17",
    "superscript": "\u00b2",
    "decimal point": "7.0",
    "exponent": "7e0",
    "hexadecimal": "0x7",
    "2**63": "9223372036854775808",
    "2**64 + 7": "18446744073709551623",
    "19 nines": "9" * 19,
    "20 digits": "1" + "0" * 19,
    "5000 digits": "9" * 5000,
}


@pytest.mark.parametrize("size", BAD_SIZES.values(), ids=BAD_SIZES)
def test_a_size_that_is_not_plain_decimal_below_63_bits_is_refused(size: str) -> None:
    refused_everywhere(f"{ORIGIN}\n{size}\n{ROOT_TEXT}\n")


def test_the_largest_size_is_taken() -> None:
    note = LOG.sign_note(f"{ORIGIN}\n9223372036854775807\n{ROOT_TEXT}\n")
    assert verify(note, origin=ORIGIN, verifier=LOG.verifier).size == 2**63 - 1


# The last letter before the padding holds two spare bits: "A" to "D" would all decode to the same byte.
SPARE_BITS = ROOT_TEXT[:-2] + chr(ord(ROOT_TEXT[-2]) + 1) + "="
BAD_ROOTS = {
    "empty": "",
    "31 bytes": base64.b64encode(bytes(31)).decode(),
    "33 bytes": base64.b64encode(bytes(33)).decode(),
    "64 bytes": base64.b64encode(bytes(64)).decode(),
    "hexadecimal": ROOT.hex(),
    "non-zero trailing bits": SPARE_BITS,
    "missing padding": ROOT_TEXT.rstrip("="),
    "too much padding": ROOT_TEXT + "=",
    "data behind the padding": ROOT_TEXT + "AAAA",
    "space before": " " + ROOT_TEXT,
    "space behind": ROOT_TEXT + " ",
    "space inside": ROOT_TEXT[:8] + " " + ROOT_TEXT[8:],
    "the URL alphabet": "-_" + ROOT_TEXT[2:],
    "a letter beyond ASCII": "\u0410" + ROOT_TEXT[1:],
}


def test_the_bent_root_would_decode_to_the_true_one() -> None:
    """So that the test below is of the check, and not of another root."""
    assert SPARE_BITS != ROOT_TEXT
    assert base64.b64decode(SPARE_BITS) == ROOT


@pytest.mark.parametrize("root", BAD_ROOTS.values(), ids=BAD_ROOTS)
def test_a_root_that_is_not_32_bytes_in_canonical_base64_is_refused(root: str) -> None:
    refused_everywhere(f"{ORIGIN}\n7\n{root}\n")


BAD_TEXTS = {
    "an extension line": f"{ORIGIN}\n7\n{ROOT_TEXT}\nextension\n",
    "an empty extension line": f"{ORIGIN}\n7\n{ROOT_TEXT}\n\n",
    "no root": f"{ORIGIN}\n7\n",
    "no size": f"{ORIGIN}\n{ROOT_TEXT}\n",
    "only the origin": f"{ORIGIN}\n",
    "an empty line": "\n",
    "an empty line before": f"\n{ORIGIN}\n7\n{ROOT_TEXT}\n",
    "an empty line between": f"{ORIGIN}\n\n7\n{ROOT_TEXT}\n",
    "an empty origin": f"\n7\n{ROOT_TEXT}\n",
    "space behind the origin": f"{ORIGIN} \n7\n{ROOT_TEXT}\n",
    "plus in the origin": f"{ORIGIN}+a\n7\n{ROOT_TEXT}\n",
    "a line separator for a newline": f"{ORIGIN}\n7\u2028{ROOT_TEXT}\n",
    "an empty tree with a root": f"{ORIGIN}\n0\n{ROOT_TEXT}\n",
}


@pytest.mark.parametrize("text", BAD_TEXTS.values(), ids=BAD_TEXTS)
def test_a_text_that_is_no_checkpoint_is_refused_though_truly_signed(text: str) -> None:
    refused_everywhere(text)


@pytest.mark.parametrize("end", ["\r\n", "\x85", "\x0b", "\x0c", "\x1e"])
def test_a_line_end_other_than_newline_is_refused_though_truly_signed(end: str) -> None:
    text = f"{ORIGIN}{end}7{end}{ROOT_TEXT}\n"
    signature = base64.b64encode(LOG.verifier.key_id + LOG._key.sign(text.encode())).decode()
    refused(f"{text}\n\N{EM DASH} {LOG.name} {signature}\n".encode(), "control character")


@pytest.mark.parametrize(
    ("origin", "size", "root"),
    [
        ("", 7, ROOT),
        ("a b", 7, ROOT),
        ("a\nb", 7, ROOT),
        ("a+b", 7, ROOT),
        (ORIGIN, -1, ROOT),
        (ORIGIN, 2**63, ROOT),
        (ORIGIN, 7, ROOT[1:]),
        (ORIGIN, 0, ROOT),
    ],
)
def test_a_checkpoint_that_no_log_could_have_cannot_be_built(origin: str, size: int, root: bytes) -> None:
    with pytest.raises(TrustError):
        Checkpoint(origin=origin, size=size, root=root)


def test_one_changed_bit_anywhere_in_a_receipt_is_refused_by_one_who_knows_both_keys() -> None:
    """The log's reader or the receipt's refuses it, and both do where the text was changed."""
    for i in range(len(RECEIPT)):
        forged = RECEIPT[:i] + bytes([RECEIPT[i] ^ 1]) + RECEIPT[i + 1 :]
        refusals = 0
        try:
            verify(forged, origin=ORIGIN, verifier=LOG.verifier)
        except TrustError:
            refusals += 1
        try:
            verify_cosignature(forged, origin=ORIGIN, witness=WITNESS.verifier)
        except TrustError:
            refusals += 1
        assert refusals == 2 if i <= len(CHECKPOINT.text) else refusals >= 1


@settings(deadline=None)
@given(st.binary(max_size=200))
def test_no_bytes_are_a_checkpoint_by_chance(note: bytes) -> None:
    """Whatever comes, the answer is TrustError."""
    refused(note)
    refused_receipt(note)
    with pytest.raises(TrustError):
        read_unverified(note, origin=ORIGIN)
