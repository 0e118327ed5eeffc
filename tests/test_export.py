"""What a good export says."""

import csv
import json
from decimal import Decimal

from gateway.carbon.audit.export import build
from gateway.carbon.audit.form import ROWS
from gateway.carbon.audit.rows import COLUMNS, header
from gateway.carbon.audit.rows import lines_of as rows_of_cells
from gateway.carbon.audit.verify import verify
from gateway.carbon.emissions import project
from tests.export_site import (
    BOILER,
    FILES,
    GW1,
    PACKER,
    SITE,
    lines_of,
    subject,
)
from tests.line_leaves import CONSTANT, MINUTE, SECOND, T0, energy, facts, leaf, line, minutes, schemas

LEDGER = "ledger/leaves.jsonl"


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
        cells = project(leaves, schemas=schemas(schema), facts=facts(CONSTANT)).values()
        line = next(line for line in verify(FILES).lines if line.line == schema.name)
        assert line.totals.energy_mwh == sum(cell.line.energy_mwh or 0 for cell in cells)


def test_a_name_that_a_spreadsheet_would_take_for_a_formula_is_written_as_text() -> None:
    schema = line(energy('=HYPERLINK("http://x")', serial="+1", meter_class="-", unit="Wh"), name="@line")
    held = project(minutes(schema, ["-5", "-4"]), schemas=schemas(schema), facts=facts(CONSTANT))
    (row,) = csv.DictReader([header(), *rows_of_cells(held.values())])
    assert (row["meter_id"], row["meter_serial"]) == ('\'=HYPERLINK("http://x")', "'+1")
    assert (row["meter_class"], row["line_id"], row["register_start"]) == ("'-", "'@line", "-5")


def test_building_twice_gives_the_same_bytes() -> None:
    assert SITE.export(subject()) == FILES
