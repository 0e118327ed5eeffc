"""What a forger might do to the keys, the signatures and the form of an export."""

import json
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.carbon.audit.evidence import pack_leaves
from gateway.carbon.audit.form import MANIFEST, Subject, checkpoint_path
from gateway.carbon.audit.verify import verify
from gateway.carbon.figures import CALC_VERSION
from gateway.errors import TrustError
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.note import Signer
from tests.export_site import FILES, GW1, SITE, Site, edited, lines_of, refused, subject
from tests.line_leaves import SECOND

LEDGER = "ledger/leaves.jsonl"


# ---- keys, checkpoints, receipts


def test_replay_of_an_old_checkpoint_is_refused() -> None:
    size = SITE.sizes["gw1"] - 1
    old = {**FILES, checkpoint_path("gw1"): SITE.receipt("gw1", size)}
    refused(old, r"leaves\.jsonl: line \d+: leaf \d+")
    refused(SITE.manifested(old), r"leaves\.jsonl: line \d+: leaf \d+")
    # With only the leaves that it covers, it is not the one that the ledger's leaf accepts.
    keep = [json.loads(line)["index"] for line in lines_of(FILES, GW1)][:-2]
    shorter = SITE.gateways["gw1"].proven(keep, size)
    refused(
        SITE.manifested({**old, GW1: pack_leaves(shorter)}),
        "accepts another checkpoint of gateway 'gw1' than the one shown",
    )


def test_replay_of_an_old_ledger_checkpoint_is_refused() -> None:
    old = SITE.ledger.note(len(SITE.ledger.leaves) - 1)
    refused(SITE.manifested({**FILES, "ledger/checkpoint": old}), r"ledger/leaves\.jsonl: line \d+: leaf \d+")


def test_a_checkpoint_without_the_ledgers_cosignature_is_refused() -> None:
    bare = SITE.gateways["gw1"].note(SITE.sizes["gw1"])
    refused(SITE.manifested({**FILES, checkpoint_path("gw1"): bare}), "gateways/gw1/checkpoint: no known key signed")


def test_a_checkpoint_that_the_gateway_did_not_sign_is_refused() -> None:
    head = SITE.gateways["gw1"].checkpoint(SITE.sizes["gw1"])
    bare = checkpoints.cosign(head, SITE.ledger.signer.cosigner(), time_s=1)
    refused(SITE.manifested({**FILES, checkpoint_path("gw1"): bare}), "gateways/gw1/checkpoint: no known key signed")


def test_re_signing_everything_with_other_keys_fails_with_trust_and_shows_other_fingerprints_without() -> None:
    forged = Site()
    files = forged.export(subject())
    refused(files, r"keys\.json: .* is not a key of wattseal-ledger/test that you trust", [SITE.vkey])
    verdict = verify(files)
    assert verdict.ledger.fingerprint != verify(FILES).ledger.fingerprint
    assert not verdict.trust_given


def test_a_gateway_key_that_the_caller_names_must_be_the_one() -> None:
    own = SITE.gateways["gw1"].signer.verifier.vkey
    assert verify(FILES, [SITE.vkey, own]).gateways[0].named
    other = Signer.generate("wattseal/gw1").verifier.vkey
    refused(FILES, "is not a key of wattseal/gw1 that you trust", [SITE.vkey, other])
    refused(FILES, "is not a key of wattseal-ledger/test that you trust", [own])
    refused(FILES, "is not a key of wattseal-ledger/test that you trust", [])


def test_the_ledger_may_be_named_by_its_cosigner_key() -> None:
    assert verify(FILES, [SITE.ledger.signer.cosigner().verifier.vkey]).ledger.named


def test_a_manifest_signed_by_another_key_is_refused() -> None:
    text = FILES[MANIFEST].decode().rpartition("\n\n")[0] + "\n"
    refused(
        {**FILES, MANIFEST: Signer.generate("wattseal-ledger/test").sign_note(text)}, "^manifest: no known key signed"
    )


def test_a_signature_line_added_to_the_manifest_is_refused() -> None:
    text = FILES[MANIFEST].decode().rpartition("\n\n")[0] + "\n"
    line = Signer.generate("someone").line(text).encode()
    refused({**FILES, MANIFEST: FILES[MANIFEST] + line}, "^manifest: signed by others than the ledger")


def test_another_witness_than_the_ledger_is_refused() -> None:
    keys = json.loads(FILES["keys.json"])
    keys["witness"] = Signer.generate("wattseal-ledger/test").cosigner().verifier.vkey
    files = {**FILES, "keys.json": json.dumps(keys, sort_keys=True, separators=(",", ":")).encode() + b"\n"}
    refused(SITE.manifested(files), r"^keys\.json: witness: want the ledger's own key")


def test_an_epoch_of_another_key_is_refused() -> None:
    """The checkpoint is by the key of keys.json, and the log announces another."""
    site = Site()
    gw1 = site.gateways["gw1"]
    gw1.signer = Signer.generate("wattseal/gw1")
    site.receipts["gw1"] = site.receipt("gw1", site.sizes["gw1"])
    site.accepted["gw1"] = site.accept("gw1", site.receipts["gw1"])
    with pytest.raises(TrustError, match="no epoch leaf of the key that signed the checkpoint"):
        site.export(subject(("gw1", "packer")))


# ---- form


def test_a_dropped_manifest_line_is_named() -> None:
    text = FILES[MANIFEST].decode().rpartition("\n\n")[0] + "\n"
    for path in sorted(set(FILES) - {MANIFEST}):
        less = "".join(line for line in text.splitlines(keepends=True) if not line.endswith(f" {path}\n"))
        refused({**FILES, MANIFEST: SITE.ledger.signer.sign_note(less)}, f"^{re.escape(path)}: not in the manifest")


def test_a_manifest_line_too_many_is_named() -> None:
    text = FILES[MANIFEST].decode().rpartition("\n\n")[0] + "\n"
    more = text + f"{'0' * 64} 1 zz\n"
    refused({**FILES, MANIFEST: SITE.ledger.signer.sign_note(more)}, "^zz: in the manifest, and missing here")
    mixed = "".join(reversed(text.splitlines(keepends=True)))
    refused({**FILES, MANIFEST: SITE.ledger.signer.sign_note(mixed)}, "^manifest: not the one text")
    twice = text + text.splitlines(keepends=True)[0]
    refused({**FILES, MANIFEST: SITE.ledger.signer.sign_note(twice)}, "^manifest: line 10: ")


def test_duplicate_json_keys_are_refused() -> None:
    def double(lines: list[bytes]) -> None:
        lines[2] = lines[2].replace(b'{"hash":', b'{"hash":"00","hash":', 1)

    refused(edited(FILES, GW1, double), r"gateways/gw1/leaves\.jsonl: line 3: this JSON is not canonical")
    about = FILES["about.json"].replace(b'"what":', b'"what":"x","what":')
    refused(SITE.manifested({**FILES, "about.json": about}), r"^about\.json: this JSON is not canonical")
    keys = FILES["keys.json"].replace(b'"ledger":', b'"ledger":"x","ledger":')
    refused(SITE.manifested({**FILES, "keys.json": keys}), r"^keys\.json: this JSON is not canonical")


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        (b"T09:00:00Z", b"T09:01:00Z", "row 1: got"),
        (b"T09:07:00Z", b"T09:06:00Z", "row 13: got .*2026-01-01T09:06:00Z,2026-01-01T09:07:00Z"),
        (b'"gw1","packer"', b'"gw1","pecker"', "a schema that no line of this export asks for"),
        (b'["gw1","packer"],', b"", "a schema that no line of this export asks for"),
        (b'["gw2","boiler, old"]', b'["gw3","boiler, old"]', r"^keys\.json: want the keys of the gateways"),
        (
            f'"calc_version":"{CALC_VERSION}"'.encode(),
            b'"calc_version":"99"',
            f"this program computes '{CALC_VERSION}'",
        ),
        (b"2026-01-01T09:07:00Z", b"2026-01-01T08:07:00Z", "period: want a start and a later end"),
        (b"2026-01-01T09:07:00Z", b"2026-1-1T09:07:00Z", "the one text"),
        (b"2026-01-01T09:07:00Z", b"tomorrow", "want a time as"),
        (b'"wattseal export"', b'"something else"', "want 'wattseal export'"),
    ],
)
def test_another_subject_than_the_rows_is_refused(old: bytes, new: bytes, match: str) -> None:
    about = FILES["about.json"].replace(old, new)
    assert about != FILES["about.json"]
    files = SITE.manifested({**FILES, "about.json": about})
    refused(files, match)


GARBAGE = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"[" * 100_000 + b"\n",
            b'"\\ud800"\n',
            b"NaN\n",
            b"1" * 5000 + b"\n",
            b"null\n",
            b"{}\n",
            b"\xff\n",
            b"[]\n\n",
        ]
    ),
)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FILES)), GARBAGE)
def test_garbage_in_any_file_is_a_trust_error_and_nothing_else(path: str, garbage: bytes) -> None:
    refused({**FILES, path: garbage})
    refused({**FILES, path: FILES[path] + garbage + b"x"})
    if path != MANIFEST:
        refused(SITE.manifested({**FILES, path: garbage}))


def test_a_subject_that_no_export_can_have_is_refused() -> None:
    for start, end, lines in [
        (0, 0, (("a", "b"),)),
        (1, SECOND, (("a", "b"),)),
        (0, SECOND, ()),
        (0, SECOND, (("b", "x"), ("a", "x"))),
        (0, SECOND, (("a", "x"), ("a", "x"))),
        (0, SECOND, (("../a", "x"),)),
    ]:
        with pytest.raises(TrustError):
            Subject(start_ns=start, end_ns=end, lines=lines)
