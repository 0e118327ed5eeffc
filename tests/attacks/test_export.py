"""What a forger might do to an export, each named; and what a good one says."""

import json
import re
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.carbon.audit.export import build
from gateway.carbon.audit.form import MANIFEST, ROWS, checkpoint_path, leaves_path
from gateway.carbon.audit.verify import verify
from gateway.errors import TrustError
from tests.export_site import FILES, FILLER, GW1, NAMES, SITE, UNUSED, Site, edited, lines_of, refused, subject
from tests.line_leaves import CONSTANT, MINUTE, T0, factor

LEDGER = "ledger/leaves.jsonl"


# ---- flips


@settings(max_examples=250, deadline=None)
@given(st.data())
def test_one_flipped_bit_anywhere_is_found_and_named(data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(sorted(FILES)))
    position = data.draw(st.integers(0, len(FILES[path]) - 1))
    bit = data.draw(st.integers(0, 7))
    flipped = bytearray(FILES[path])
    flipped[position] ^= 1 << bit
    assert NAMES.search(str(refused({**FILES, path: bytes(flipped)})))


@pytest.mark.parametrize(
    "path", ["manifest", "keys.json", "about.json", "ledger/checkpoint", "gateways/gw1/checkpoint"]
)
def test_every_byte_of_the_small_files_counts(path: str) -> None:
    for position in range(len(FILES[path])):
        flipped = bytearray(FILES[path])
        flipped[position] ^= 0x01
        assert NAMES.search(str(refused({**FILES, path: bytes(flipped)})))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_flip_under_a_manifest_that_fits_is_found_and_named(data: st.DataObject) -> None:
    """Even the ledger itself cannot change a row, a leaf, a proof or a gateway's checkpoint."""
    path = data.draw(st.sampled_from([ROWS, GW1, leaves_path("gw2"), LEDGER, checkpoint_path("gw1"), "keys.json"]))
    position = data.draw(st.integers(0, len(FILES[path]) - 1))
    flipped = bytearray(FILES[path])
    flipped[position] ^= 1 << data.draw(st.integers(0, 7))
    assert NAMES.search(str(refused(SITE.manifested({**FILES, path: bytes(flipped)}))))


def test_a_flip_in_a_leaf_names_the_leaf() -> None:
    entry = json.loads(lines_of(FILES, GW1)[5])
    broken = lines_of(FILES, GW1)[5].replace(b'"leaf":"', b'"leaf":"i', 1)
    for files in (
        edited(FILES, GW1, lambda lines: lines.__setitem__(5, broken.replace(b"iho", b"ih", 1))),
        {**FILES, GW1: FILES[GW1].replace(entry["leaf"][40:60].encode(), entry["leaf"][40:60].swapcase().encode(), 1)},
    ):
        assert refused(files, r"^gateways/gw1/leaves\.jsonl: line 6").index in {None, entry["index"]}


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
        assert NAMES.search(str(refused({**FILES, path: FILES[path][:length]})))


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
    part = site.part("gw1", ["packer"])
    ledger = site.ledger_part(["gw1"], site.factors[:1])
    honest = build(subject(("gw1", "packer")), gateways={"gw1": part}, ledger=ledger, signer=site.ledger.signer)
    both = site.with_ledger_leaves(honest, [0, *site.factors, site.accepted["gw1"]])
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
