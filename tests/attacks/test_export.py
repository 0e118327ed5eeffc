"""What a forger might do to an export, each named; and what a good one says."""

import csv
import json
import re
from collections.abc import Callable, Mapping
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.carbon.emissions import project
from gateway.carbon.export import build
from gateway.carbon.form import MANIFEST, ROWS, Subject, checkpoint_path, leaves_path
from gateway.carbon.rows import COLUMNS
from gateway.carbon.verify import verify
from gateway.errors import TrustError
from gateway.tlog import checkpoint as checkpoints
from gateway.tlog.note import Signer
from tests.export_site import BOILER, FILLER, PACKER, UNUSED, Site, subject
from tests.line_leaves import CONSTANT, MINUTE, SECOND, T0, factor, leaf, schemas, table

SITE = Site()
FILES = SITE.export(subject())
GW1 = leaves_path("gw1")
LEDGER = "ledger/leaves.jsonl"
NAMES = re.compile(r"leaf \d+|row \d+|line \d+|" + "|".join(map(re.escape, FILES)))

Files = dict[str, bytes]


def refused(files: Mapping[str, bytes], match: str, trust: list[str] | None = None) -> TrustError:
    with pytest.raises(TrustError, match=match) as caught:
        verify(files, trust)
    return caught.value


def lines_of(files: Mapping[str, bytes], path: str) -> list[bytes]:
    return files[path].splitlines(keepends=True)


def edited(files: Mapping[str, bytes], path: str, edit: Callable[[list[bytes]], object]) -> Files:
    """Return the files with the lines of one changed, and a manifest that fits: so that what stands below it must tell."""
    lines = lines_of(files, path)
    edit(lines)
    return SITE.manifested({**files, path: b"".join(lines)})


# ---- what a good one says


def test_a_good_export_says_what_was_checked() -> None:
    verdict = verify(FILES, [SITE.vkey])
    assert (verdict.files, verdict.rows, verdict.trust_given) == (10, 7 * 2 + 7 + 7, True)
    assert [(log.origin, log.size, log.named) for log in (verdict.ledger, *verdict.gateways)] == [
        ("wattseal-ledger/test", len(SITE.ledger.leaves), True),
        ("wattseal/gw1", SITE.sizes["gw1"], False),
        ("wattseal/gw2", SITE.sizes["gw2"], False),
    ]
    assert verdict.ledger.fingerprint == SITE.ledger.signer.verifier.fingerprint()
    assert [log.receipt_s for log in verdict.gateways] == [T0 // SECOND] * 2
    assert verdict.leaves == (1 + 2 + 16) + (1 + 1 + 8) + (1 + 1 + 2)
    assert verdict.unattested == ("wattseal-ledger/test", "wattseal/gw1", "wattseal/gw2")
    filler, packer, boiler = verdict.lines
    assert (filler.intervals, filler.begins, filler.settled) == (8, True, True)
    assert (filler.totals.energy_mwh, filler.totals.co2e_g) == (875_000 * 3, Decimal(1050))
    assert filler.totals.units_good == 35
    assert filler.totals.kg_per_unit == Decimal("0.03")
    assert (packer.totals.energy_mwh, boiler.totals.energy_mwh) == (2_625_000, 700_000)


def test_rows_can_be_read_by_any_csv_reader_and_add_up() -> None:
    rows = list(csv.DictReader(FILES[ROWS].decode().splitlines()))
    assert tuple(rows[0]) == COLUMNS
    assert sum(Decimal(row["energy_kwh"]) for row in rows) == Decimal("2.625") * 2 + Decimal("0.7")
    filler = [row for row in rows if row["line_id"] == "filler"]
    assert sum(Decimal(row["units_good"] or 0) for row in filler) == 35
    assert {row["line_id"] for row in rows} == {"filler", "packer", "boiler, old"}
    assert [row["energy_quality"] for row in filler if row["meter_id"] == "m2.energy"] == [
        *["measured"] * 2, *["time_estimated"] * 3, *["measured"] * 2
    ]  # fmt: skip
    assert rows[0]["interval_start_utc"] == "2026-01-01T09:00:00Z"
    assert rows[0]["factor_value"] == "400"
    assert len({row["record_id"] for row in rows}) == len(rows)
    hashes = {json.loads(line)["index"]: json.loads(line)["hash"] for line in lines_of(FILES, GW1)}
    assert all(hashes[int(row["leaf_index"])] == row["leaf_hash"] for row in rows if row["gateway_id"] == "gw1")


def test_an_export_shows_no_leaf_of_other_lines_and_no_factor_that_it_does_not_need() -> None:
    files = SITE.export(subject(("gw1", "packer")))
    assert verify(files).leaves == (1 + 1 + 8) + (1 + 1 + 1)
    assert b"filler" not in b"".join(files.values())


def test_an_export_of_a_part_has_the_rows_of_the_whole() -> None:
    """From a clean leaf to a clean leaf: m2 is silent at minutes 3 and 4, so minute 3 needs the leaves 2 to 5."""
    part = SITE.part("gw1", ["filler"], 2, 6)
    only = subject(("gw1", "filler"), first=3, last=4)
    files = build(only, gateways={"gw1": part}, ledger=SITE.ledger_part(["gw1"]), signer=SITE.ledger.signer)
    wanted = [row for row in lines_of(FILES, ROWS) if b"T09:03:00Z,2026-01-01T09:04" in row and b"filler" in row]
    assert lines_of(files, ROWS)[1:] == wanted
    assert verify(files).lines[0].settled


def test_an_export_whose_end_may_change_yet_says_so() -> None:
    part = SITE.part("gw1", ["filler"], 0, 5)
    only = subject(("gw1", "filler"), last=3)
    files = build(only, gateways={"gw1": part}, ledger=SITE.ledger_part(["gw1"]), signer=SITE.ledger.signer)
    (line,) = verify(files).lines
    assert (line.settled, line.last_ns) == (False, T0 + 4 * MINUTE)
    assert line.totals.coverage_pct == Decimal("83.33")


def test_the_same_leaves_give_the_same_rows_as_the_ledger_computes() -> None:
    for schema, gateway in ((PACKER, "gw1"), (BOILER, "gw2")):
        held = SITE.gateways[gateway].intervals[schema.name]
        shown = [str(Decimal(n) / 8 * 3) if schema is PACKER else str(n * 100) for n in range(8)]
        leaves = [leaf(schema, index, T0 + n * MINUTE, [shown[n]]) for n, index in enumerate(held)]
        cells = project(leaves, schemas=schemas(schema), factors=table(CONSTANT)).values()
        line = next(line for line in verify(FILES).lines if line.line == schema.name)
        assert line.totals.energy_mwh == sum(cell.line.energy_mwh or 0 for cell in cells)


def test_building_twice_gives_the_same_bytes() -> None:
    assert SITE.export(subject()) == FILES


# ---- flips


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_one_flipped_bit_anywhere_is_found_and_named(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(FILES)))
    position = data.draw(st.integers(0, len(FILES[path]) - 1))
    bit = data.draw(st.integers(0, 7))
    flipped = bytearray(FILES[path])
    flipped[position] ^= 1 << bit
    assert NAMES.search(str(refused({**FILES, path: bytes(flipped)}, "")))


@pytest.mark.parametrize(
    "path", ["manifest", "keys.json", "about.json", "ledger/checkpoint", "gateways/gw1/checkpoint"]
)
def test_every_byte_of_the_small_files_counts(path: str) -> None:
    for position in range(len(FILES[path])):
        flipped = bytearray(FILES[path])
        flipped[position] ^= 0x01
        assert NAMES.search(str(refused({**FILES, path: bytes(flipped)}, "")))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_flip_under_a_manifest_that_fits_is_found_and_named(data: st.DataObject) -> None:
    """Even the ledger itself cannot change a row, a leaf, a proof or a gateway's checkpoint."""
    path = data.draw(st.sampled_from([ROWS, GW1, leaves_path("gw2"), LEDGER, checkpoint_path("gw1"), "keys.json"]))
    position = data.draw(st.integers(0, len(FILES[path]) - 1))
    flipped = bytearray(FILES[path])
    flipped[position] ^= 1 << data.draw(st.integers(0, 7))
    assert NAMES.search(str(refused(SITE.manifested({**FILES, path: bytes(flipped)}), "")))


def test_a_flip_in_a_leaf_names_the_leaf() -> None:
    entry = json.loads(lines_of(FILES, GW1)[5])
    broken = lines_of(FILES, GW1)[5].replace(b'"leaf":"', b'"leaf":"i', 1)
    for files in (
        edited(FILES, GW1, lambda lines: lines.__setitem__(5, broken.replace(b"iho", b"ih", 1))),
        {**FILES, GW1: FILES[GW1].replace(entry["leaf"][40:60].encode(), entry["leaf"][40:60].swapcase().encode(), 1)},
    ):
        assert refused(files, rf"^gateways/gw1/leaves\.jsonl: line 6").index in {None, entry["index"]}


def test_a_changed_digit_names_the_row() -> None:
    row = lines_of(FILES, ROWS)[3]
    error = refused(
        edited(FILES, ROWS, lambda lines: lines.__setitem__(3, row.replace(b"0.05", b"0.04"))), "row 3: got "
    )
    assert error.index == 3


# ---- drop, reorder, truncate, insert


@pytest.mark.parametrize("path", sorted(FILES))
def test_a_dropped_file_is_named(path: str) -> None:
    files = {name: content for name, content in FILES.items() if name != path}
    refused(files, re.escape(path))
    if path != MANIFEST:
        refused(SITE.manifested(files), re.escape(path))


@pytest.mark.parametrize("path", ["extra", "gateways/gw3/leaves.jsonl", "../rows.csv", "gateways/gw1/notes", ""])
def test_an_inserted_file_is_named(path: str) -> None:
    refused({**FILES, path: b"x"}, re.escape(path) + "'?: has no place in an export")


@pytest.mark.parametrize("path", sorted(FILES))
def test_a_truncated_file_is_named(path: str) -> None:
    for length in (0, 1, len(FILES[path]) // 2, len(FILES[path]) - 1):
        assert NAMES.search(str(refused({**FILES, path: FILES[path][:length]}, "")))


def test_a_dropped_row_is_named() -> None:
    assert refused(edited(FILES, ROWS, lambda lines: lines.pop(4)), "row 4: got").index == 4


def test_a_dropped_last_row_is_named() -> None:
    last = len(lines_of(FILES, ROWS)) - 1
    assert refused(edited(FILES, ROWS, lambda lines: lines.pop()), f"row {last}: got ''").index == last


def test_an_inserted_row_is_named() -> None:
    count = len(lines_of(FILES, ROWS))
    assert refused(
        edited(FILES, ROWS, lambda lines: lines.append(lines[1])), f"row {count}: the leaves give no such"
    ).index
    refused(edited(FILES, ROWS, lambda lines: lines.insert(2, lines[1])), "row 2: got")


def test_reordered_rows_are_named() -> None:
    refused(edited(FILES, ROWS, lambda lines: lines.append(lines.pop(1))), "row 1: got")


def test_reordered_leaves_are_named() -> None:
    refused(edited(FILES, GW1, lambda lines: lines.append(lines.pop(4))), r"leaf \d+: stands after leaf")


def test_a_leaf_shown_twice_is_named() -> None:
    refused(edited(FILES, GW1, lambda lines: lines.insert(4, lines[4])), r"leaf \d+: stands after leaf")


# ---- the chain of a line


def test_an_interval_left_out_with_its_rows_is_named() -> None:
    """A forger who hides a costly minute: the leaf and its rows are gone, all proofs and the manifest are true."""
    chain = SITE.gateways["gw1"].intervals["filler"]
    keep = [json.loads(line)["index"] for line in lines_of(FILES, GW1) if json.loads(line)["index"] != chain[3]]
    files = SITE.with_leaves(FILES, "gw1", keep)
    error = refused(SITE.manifested(files), f"leaf {chain[4]}: names leaf {chain[3]} as the one before it")
    assert error.index == chain[4]


def test_intervals_left_out_at_the_start_of_the_period_are_named() -> None:
    chain = SITE.gateways["gw1"].intervals["packer"]
    files = SITE.export(subject(("gw1", "packer")))
    keep = [json.loads(line)["index"] for line in lines_of(files, GW1)]
    rows = [row for row in lines_of(files, ROWS) if b",2026-01-01T09:00:00Z" not in row]
    cut = {**SITE.with_leaves(files, "gw1", [index for index in keep if index != chain[0]]), ROWS: b"".join(rows)}
    refused(SITE.manifested(cut), f"leaf {chain[1]}: line 'packer' begins here within the period")


def test_intervals_left_out_at_the_end_are_said_in_the_verdict() -> None:
    """Nobody can show that a log went on; the verdict says how far the line is covered."""
    part = SITE.part("gw1", ["packer"], 0, 5)
    only = subject(("gw1", "packer"))
    files = build(only, gateways={"gw1": part}, ledger=SITE.ledger_part(["gw1"]), signer=SITE.ledger.signer)
    (line,) = verify(files).lines
    assert (line.last_ns, line.settled) == (T0 + 4 * MINUTE, False)


def test_a_schema_that_stands_after_its_interval_is_named() -> None:
    """A schema sealed late to read old registers in another unit."""
    site = Site()
    late = site.gateways["gw1"]
    late.adopt(FILLER)
    site.sizes["gw1"] = len(late.leaves)
    site.receipts["gw1"] = site.receipt("gw1", len(late.leaves))
    site.accepted["gw1"] = site.accept("gw1", site.receipts["gw1"])
    with pytest.raises(TrustError, match=r"leaf \d+: schema [0-9a-f]{16} is not in the export before it"):
        site.export(subject(("gw1", "filler")))


def test_a_leaf_of_another_gateway_is_no_leaf_of_this_one() -> None:
    other = lines_of(FILES, leaves_path("gw2"))[-1]
    refused(edited(FILES, GW1, lambda lines: lines.append(other)), r"gateways/gw1/leaves\.jsonl: line \d+: leaf \d+: ")


def test_a_leaf_that_nobody_asked_for_is_named() -> None:
    event = SITE.gateways["gw1"].intervals["filler"][0] + 1
    indices = sorted([event, *(json.loads(line)["index"] for line in lines_of(FILES, GW1))])
    refused(SITE.manifested(SITE.with_leaves(FILES, "gw1", indices)), f"leaf {event}: a leaf of kind 'event'")


def test_another_line_is_not_smuggled_in() -> None:
    files = SITE.export(subject(("gw1", "packer")))
    schema = SITE.gateways["gw1"].schema_at[FILLER.id]
    indices = sorted([schema, *(json.loads(line)["index"] for line in lines_of(files, GW1))])
    refused(SITE.manifested(SITE.with_leaves(files, "gw1", indices)), f"leaf {schema}: a schema that no line")


# ---- rows against leaves


def test_a_row_that_names_the_wrong_leaf_is_named() -> None:
    first, second = SITE.gateways["gw1"].intervals["filler"][:2]
    row = lines_of(FILES, ROWS)[1]
    named = f",{first},{second},".encode()
    assert named in row
    forged = row.replace(named, f",{first},{second + 3},".encode())
    assert refused(edited(FILES, ROWS, lambda lines: lines.__setitem__(1, forged)), "row 1: got").index == 1


def test_a_changed_factor_is_found_in_the_rows_and_in_the_leaf() -> None:
    cheaper = FILES[ROWS].replace(b",400,g/kWh,", b",40,g/kWh,")
    refused(SITE.manifested({**FILES, ROWS: cheaper}), "row 1: got")
    place = next(n for n, line in enumerate(lines_of(FILES, LEDGER)) if json.loads(line)["index"] == SITE.factors[1])
    entry = json.loads(lines_of(FILES, LEDGER)[place])
    cheap = SITE.manifested(FILES)
    other = Site([UNUSED, factor("40", 0, 2**62)])
    entry["leaf"] = json.loads(lines_of(other.export(subject()), LEDGER)[place])["leaf"]
    forged = json.dumps(entry, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    refused(
        edited(cheap, LEDGER, lambda lines: lines.__setitem__(place, forged)), f"leaf {SITE.factors[1]}: its bytes hash"
    )
    with_hash = json.loads(lines_of(other.export(subject()), LEDGER)[place]) | {"proof": entry["proof"]}
    forged = json.dumps(with_hash, sort_keys=True, separators=(",", ":")).encode() + b"\n"
    refused(
        edited(cheap, LEDGER, lambda lines: lines.__setitem__(place, forged)),
        f"leaf {SITE.factors[1]} is not in the tree",
    )


def test_a_second_factor_for_the_same_window_is_not_smuggled_in() -> None:
    """The ledger seals another value for the window without superseding the first, and shows both."""
    site = Site([CONSTANT, factor("40", 0, 2**62)])
    honest = build(
        subject(),
        gateways={name: site.part(name, ["filler", "packer", "boiler, old"]) for name in ("gw1", "gw2")},
        ledger=site.ledger_part(["gw1", "gw2"], site.factors[:1]),
        signer=site.ledger.signer,
    )
    both = site.with_ledger_leaves(honest, [0, *site.factors, *site.accepted.values()])
    error = refused(site.manifested(both), f"leaf {site.factors[1]}: .* does not supersede the version in force")
    assert error.index == site.factors[1]


def test_a_factor_that_no_row_rests_on_is_not_smuggled_in() -> None:
    both = SITE.with_ledger_leaves(FILES, [0, *SITE.factors, *SITE.accepted.values()])
    refused(SITE.manifested(both), f"leaf {SITE.factors[0]}: a factor that no row rests on")


def test_a_superseded_factor_gives_way_to_the_one_that_names_it() -> None:
    site = Site([CONSTANT, factor("500", 0, 2**62, supersedes=CONSTANT.version)])
    files = site.export(subject(("gw1", "packer")))
    (line,) = verify(files).lines
    assert line.totals.co2e_g == Decimal("1312.5")
    assert f",{site.factors[1]}\n".encode() in files[ROWS]


# ---- keys, checkpoints, receipts


def test_replay_of_an_old_checkpoint_is_refused() -> None:
    size = SITE.sizes["gw1"] - 1
    old = {**FILES, checkpoint_path("gw1"): SITE.receipt("gw1", size)}
    refused(old, r"leaves\.jsonl: line \d+: leaf \d+")
    refused(SITE.manifested(old), r"leaves\.jsonl: line \d+: leaf \d+")
    # With only the leaves that it covers, it is not the one that the ledger's leaf accepts.
    keep = [json.loads(line)["index"] for line in lines_of(FILES, GW1)][:-2]
    shorter = SITE.gateways["gw1"].proven(keep, size)
    fitting = SITE.with_leaves(old, "gw1", keep) | {GW1: _packed(shorter)}
    refused(SITE.manifested(fitting), "accepts another checkpoint of gateway 'gw1' than the one shown")


def _packed(leaves: tuple[object, ...]) -> bytes:
    from gateway.carbon.evidence import pack_leaves  # noqa: PLC0415

    return pack_leaves(leaves)  # type: ignore[arg-type]


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
    with pytest.raises(TrustError, match="leaf 0: an epoch leaf of another key than the checkpoint's"):
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
        (b"T09:07:00Z", b"T09:06:00Z", "row 7: got"),
        (b"T09:07:00Z", b"T09:08:00Z", "row 8: got"),
        (b'"gw1","packer"', b'"gw1","pecker"', "a schema that no line of this export asks for"),
        (b'["gw1","packer"],', b"", "a schema that no line of this export asks for"),
        (b'["gw2","boiler, old"]', b'["gw3","boiler, old"]', r"^keys\.json: want the keys of the gateways"),
        (b'"calc_version":"1"', b'"calc_version":"2"', "this program computes '1'"),
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
    if match.startswith("row 8"):
        # An hour later in the period changes no row: only the verdict, which says that the end is not covered.
        assert not any(line.settled for line in verify(files).lines)
        return
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
    refused({**FILES, path: garbage}, "")
    refused({**FILES, path: FILES[path] + garbage + b"x"}, "")
    if path != MANIFEST:
        refused(SITE.manifested({**FILES, path: garbage}), "")


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
