"""What a forger might do to the evidence behind carbon figures: plans, context, counts, factors, statements."""

import json
from base64 import b64decode, b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from gateway.app.handover import Wish, gather
from gateway.carbon.audit.form import LEDGER_CHECKPOINT, LEDGER_LEAVES, MANIFEST, ROWS, pack_manifest
from gateway.carbon.audit.rows import COLUMNS, lines_of
from gateway.carbon.audit.verify import verify
from gateway.carbon.emissions import project
from gateway.carbon.facts import Facts
from gateway.codec.bodies import counts_body, document_body, factor_body, statement_body
from gateway.codec.canonical import pack_json
from gateway.codec.leaves import CHAINED, parse, seal
from gateway.errors import GatewayError, TrustError
from gateway.model import UNTIL_FURTHER_NOTICE_NS, ContextColumn, CountFact, Document, Statement, Told, What
from gateway.tlog.merkle import leaf_hash
from tests.attacks.test_carbon_decoders import ledger_leaf
from tests.leaf_cases import CLOCK
from tests.line_leaves import CONSTANT, MINUTE, T0, energy, factor, facts, leaf, line, schemas
from tests.sealing import WITNESS
from tests.shifts import HOUR, PLAN, SIX, Shop, hours

Files = Mapping[str, bytes]
LATER = f"""{PLAN}
[lines.gw1.filling.meters.hall]
point = "m1.energy"
[lines.gw1.filling.meters.press]
point = "m2.energy"
parent = "hall"
"""


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """Give a plant with two plans, settings of the grid, words of an MES and its counts, and some hours of it."""
    made = Shop(tmp_path_factory.mktemp("shop"), memory=False)
    made.plan()
    made.offer(hours("400", "300", "200"))
    for number, (minutes, value) in enumerate(((10, "j1"), (40, "j2"), (70, "=cmd|' /C calc'!A1"))):
        made.say(What.JOB, SIX + minutes * MINUTE, value, str(number))
    for number in range(3):
        start = SIX + number * 10 * MINUTE
        fact = CountFact(
            gateway="gw1", line="filling", start_ns=start, end_ns=start + 9, good=1, total=2, source="m", id=f"{number}"
        )
        made.hall.ledger.seal("counts", counts_body(fact))
    made.run(4)
    made.plan(LATER, SIX + 30 * MINUTE)
    made.plan(LATER + "\n", SIX + 45 * MINUTE)
    settings = Document(name="grid-settings", from_ns=SIX + 80 * MINUTE, content=b'{"emission_factor": 0.123}')
    made.hall.ledger.seal("document", document_body(settings))
    stated = Statement(record="r", version=1, supersedes="", reason="", subject=(("a", "b"),), figures=(("c", "1"),))
    made.hall.ledger.seal("statement", statement_body(stated))
    made.run(4)
    yield made
    made.hall.ledger.close()


@pytest.fixture(scope="module")
def files(shop: Shop) -> Files:
    """Give its export."""
    return gather(shop.hall.config, Wish())


def forged(files: Files) -> Files:
    """Return files with a manifest that fits: what the ledger's own key can do."""
    rest = {path: content for path, content in files.items() if path != MANIFEST}
    return {**rest, MANIFEST: WITNESS.sign_note(pack_manifest(rest))}


def entries(files: Files) -> list[dict[str, Any]]:
    """Return the ledger's leaves as the file has them, each with its kind."""
    found = [json.loads(one) for one in files[LEDGER_LEAVES].splitlines()]
    return [{**one, "kind": kind_of(one)} for one in found]


def kind_of(entry: Mapping[str, Any]) -> str:
    return parse(b64decode(entry["leaf"])).kind


def with_entries(files: Files, shown: Sequence[Mapping[str, Any]]) -> Files:
    """Return the files with just these leaves of the ledger."""
    lines = [pack_json({key: held for key, held in one.items() if key != "kind"}) + b"\n" for one in shown]
    return forged({**files, LEDGER_LEAVES: b"".join(lines)})


def refused(files: Files, match: str) -> TrustError:
    with pytest.raises(TrustError, match=match) as caught:
        verify(files, [WITNESS.verifier.vkey])
    return caught.value


def test_the_honest_export_verifies_with_all_this_evidence(files: Files) -> None:
    assert verify(files, [WITNESS.verifier.vkey]).rows > 8
    kinds = [one["kind"] for one in entries(files)]
    assert [kinds.count(kind) for kind in ("document", "context", "counts")] == [4, 3, 3]


@pytest.mark.parametrize("kind", ["document", "context", "counts"])
@pytest.mark.parametrize("which", [0, 1])
def test_a_leaf_left_out_of_a_chain_is_named(files: Files, kind: str, which: int) -> None:
    shown = entries(files)
    of_kind = [place for place, one in enumerate(shown) if one["kind"] == kind]
    gone = shown.pop(of_kind[which])
    error = refused(with_entries(files, shown), f"a leaf of kind {kind} was left out")
    assert error.index is not None
    assert error.index > gone["index"]


@pytest.mark.parametrize("kind", ["document", "context"])
def test_the_newest_of_a_chain_left_out_shows_in_the_rows(files: Files, kind: str) -> None:
    """An older plan, or an older word: nothing names the newest, but the rows that rest on it are others."""
    shown = entries(files)
    shown.pop(max(place for place, one in enumerate(shown) if one["kind"] == kind))
    refused(with_entries(files, shown), r"rows\.csv: row \d+: got")


@pytest.mark.parametrize("kind", ["document", "context", "counts", "factor"])
def test_two_leaves_in_each_others_place_are_named(files: Files, kind: str) -> None:
    shown = entries(files)
    one, other = [place for place, entry in enumerate(shown) if entry["kind"] == kind][:2]
    shown[one], shown[other] = shown[other], shown[one]
    refused(with_entries(files, shown), "stands after leaf")
    swapped = entries(files)
    for key in ("leaf", "hash"):
        swapped[one][key], swapped[other][key] = swapped[other][key], swapped[one][key]
    refused(with_entries(files, swapped), "is not in the tree")


def rewritten(files: Files, kind: str, edit: Callable[[bytes], bytes]) -> Files:
    """Return the files with the first leaf of a kind as other bytes, and its hash."""
    shown = entries(files)
    place = next(place for place, one in enumerate(shown) if one["kind"] == kind)
    bent = edit(b64decode(shown[place]["leaf"]))
    shown[place] |= {"leaf": b64encode(bent).decode(), "hash": leaf_hash(bent).hex()}
    return with_entries(files, shown)


@pytest.mark.parametrize(
    ("kind", "before", "after"),
    [
        ("document", b"06:00", b"05:00"),
        ("document", b"mon", b"sun"),
        ("context", b"j1", b"j9"),
        ("counts", b"filling", b"packing"),
        ("factor", b"400", b"040"),
    ],
)
def test_other_words_in_a_leaf_are_not_in_the_tree(files: Files, kind: str, before: bytes, after: bytes) -> None:
    refused(rewritten(files, kind, lambda some: some.replace(before, after, 1)), "is not in the tree")


@pytest.mark.parametrize("kind", ["statement", "event"])
def test_a_statement_among_the_leaves_is_named(shop: Shop, files: Files, kind: str) -> None:
    """A statement is what the ledger says, not what figures rest on: it must not look like evidence."""
    own, note = shop.hall.ledger.own, files[LEDGER_CHECKPOINT]
    size = int(note.split(b"\n")[1])
    at = next(at for at, one in enumerate(own.leaves(0)) if one.kind == kind)
    body = own.log.read(at, 1, at + 1)[0] or b""
    extra = {
        "hash": leaf_hash(body).hex(),
        "index": at,
        "leaf": b64encode(body).decode(),
        "proof": [b64encode(node).decode() for node in own.log.inclusion(at, size)],
    }
    shown = sorted([*entries(files), extra], key=lambda one: one["index"])
    refused(with_entries(files, shown), f"leaf {at}: ")


def test_a_factor_whose_version_is_of_another_value_is_never_given_away(tmp_path: Path) -> None:
    """The ledger seals a factor that pretends to be a version it is not."""
    shop = Shop(tmp_path, memory=False)
    good = hours("400")[0]
    shop.hall.ledger.own.append("factor", factor_body(replace(good, g_per_kwh=Decimal(40))))
    shop.run(4)
    try:
        with pytest.raises(TrustError, match=r"leaf \d+: version: got [0-9a-f]{64}, and what the factor says hashes"):
            gather(shop.hall.config, Wish())
    finally:
        shop.hall.ledger.close()


# ---- what a leaf may say at all


@pytest.mark.parametrize(
    "content",
    [
        b"a = " + b"[" * 60_000,
        b"[" + b"a." * 29_000 + b"a]",
        b"site." + b"a." * 29_000 + b"a = 1",
        b'"a"."b".' * 7_000 + b"c = 1",
        b"[lines.gw1.filling]\nideal_units_per_hour = nan",
        b"[lines.gw1.filling]\nideal_units_per_hour = inf",
        b"[grid.DEMO]\nlast_good_h = 1e999",
        b"[lines.gw1.filling.alerts]\nh = inf",
        b"valid_from = 0001-01-01T00:00:00+23:59",
        b"valid_from = 9999-12-31T23:59:59-23:59",
        b"\xff\xfe",
        b"valid_from = " + b"9" * 50_000,
    ],
    ids=range(12),
)
def test_a_plan_that_cannot_be_read_is_one_clear_refusal(content: bytes) -> None:
    leaf_bytes = seal("document", document_body(Document(name="plan", from_ns=T0, content=content)), clock=CLOCK)
    with pytest.raises(TrustError, match="document: "):
        ledger_leaf(leaf_bytes)


@pytest.mark.parametrize(
    "number", [b"NaN", b"-Infinity", b"1e400", b"-1", b"0", b"1e-400", b"9" * 5000, b'"0.4"', b"[" * 20_000]
)
def test_settings_beyond_reason_are_one_clear_refusal(number: bytes) -> None:
    content = b'{"emission_factor":' + number + b"}"
    with pytest.raises(TrustError, match="document: "):
        ledger_leaf(
            seal("document", document_body(Document(name="grid-settings", from_ns=T0, content=content)), clock=CLOCK)
        )


@pytest.mark.parametrize(
    "rules",
    [
        ((5, 0), (4, 0)),
        ((5, 0), (5, 3600)),
        ((0, 93_601),),
        ((0, -93_601),),
        ((-(2**63) - 1, 0),),
        tuple((n, 0) for n in range(1001)),
    ],
)
def test_rules_of_a_time_zone_that_cannot_be_are_refused(rules: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises((GatewayError, OverflowError)):
        ledger_leaf(
            seal("document", document_body(Document(name="plan", from_ns=T0, content=b"", rules=rules)), clock=CLOCK)
        )


@pytest.mark.parametrize(
    "rules", [((T0 - 1, 93_600), (T0, -93_600)), tuple((n * HOUR, n % 7 * 3600) for n in range(1000))]
)
def test_rules_that_no_time_zone_has_end_in_figures_and_in_time(rules: tuple[tuple[int, int], ...]) -> None:
    """A ledger may seal any offsets: shifts then lie where they say, and the same for whoever computes."""
    found = Facts()
    found.add_document(1, Document(name="plan", from_ns=0, content=PLAN.encode(), rules=rules))
    found.add_factor(next(iter(facts(CONSTANT).factors._windows.values())).leaves[0])
    schema = line(energy())
    leaves = [leaf(schema, n + 1, T0 + n * MINUTE, [str(n)]) for n in range(60)]
    held = project(leaves, schemas=schemas(schema), facts=found)
    assert sum(cell.line.energy_mwh or 0 for cell in held.values()) == 59_000_000


def clock(minutes: int) -> str:
    """Return a time of day."""
    return f"{minutes // 60 % 24:02d}:{minutes % 60:02d}"


def crowd(kind: str, count: int) -> str:
    """Return a plan of very many sections, as long as it may be."""
    make: dict[str, Callable[[int], str]] = {
        "shifts": lambda n: f'[shifts.s{n}]\nstart="{clock(n)}"\nend="{clock(n + 1)}"\n',
        "shifts at once": lambda n: f'[shifts.s{n}]\nstart="06:00"\nend="05:59"\nlines=["g/l{n}"]\n',
        "meters": lambda n: f'[lines.gw1.filler.meters.a{n}]\npoint="m{n}.e"\n',
        "a chain of meters": lambda n: (
            f'[lines.gw1.filler.meters.a{n}]\npoint="m{n}.e"\n' + (f'parent="a{n - 1}"\n' if n else "")
        ),
        "holidays": lambda n: f'[[calendar]]\ndate="{1990 + n // 336}-{n // 28 % 12 + 1:02d}-{n % 28 + 1:02d}"\n',
    }
    made = ""
    for n in range(count):
        more = make[kind](n)
        if len(made) + len(more) > 60_000:
            break
        made += more
    return made


@pytest.mark.parametrize("kind", ["shifts", "shifts at once", "meters", "a chain of meters", "holidays"])
@pytest.mark.timeout(20)
def test_a_crowded_plan_is_read_and_used_in_bounded_time(kind: str) -> None:
    found = Facts()
    content = (PLAN if kind == "holidays" else "") + crowd(kind, 1_440 if kind == "shifts" else 10_000)
    found.add_document(1, Document(name="plan", from_ns=0, content=content.encode()))
    schema = line(energy("m1.e"), energy("m2.e"))
    leaves = [leaf(schema, n + 1, T0 + n * MINUTE, [str(2 * n), str(n)]) for n in range(60)]
    held = project(leaves, schemas=schemas(schema), facts=found)
    assert held


# ---- rows.csv


def test_a_word_of_production_context_is_no_formula_and_no_second_row(files: Files) -> None:
    assert b",'=cmd|" in files[ROWS]
    words = ["=1", "+1", "-1", "@x", "\t=1", "\r=1", "a\rb", "a\nb", "\x00=1", "\x1b[31m", 'a"b', "a,b", "\x85x"]
    schema = replace(line(energy()), context=(ContextColumn(point="p.sku", what=What.PRODUCT),))
    leaves = []
    for n in range(len(words) + 1):
        one = leaf(schema, n + 1, T0 + n * MINUTE, [str(n)])
        told = (Told(T0 + (n - 1) * MINUTE, words[n - 1]),)
        leaves.append(replace(one, interval=replace(one.interval, context=(told,))))
    held = project(leaves, schemas=schemas(schema), facts=facts(CONSTANT))
    rows = list(lines_of(held.values()))
    assert len(rows) == len(words)
    for row in rows:
        assert row.count("\n") == 1
        assert row.rstrip("\n").isprintable() or "\ufffd" in row
        assert not any(f",{start}" in row for start in "=+-@")


def test_each_kind_of_evidence_is_chained() -> None:
    assert set(CHAINED) >= {"document", "context", "counts", "statement", "interval"}


def test_what_ends_an_open_factor_is_shown_though_no_row_rests_on_it(tmp_path: Path) -> None:
    """Else the open one would seem to go on, and no export could be made of what is true."""
    shop = Shop(tmp_path, memory=False)
    start, end = SIX + 30 * MINUTE, SIX + 45 * MINUTE
    for held in (
        factor("400", SIX, UNTIL_FURTHER_NOTICE_NS),
        factor("300", start, end),
        factor("200", start, end, provider="a"),
    ):
        shop.offer([held])
    shop.run(5)
    try:
        found = gather(shop.hall.config, Wish())
    finally:
        shop.hall.ledger.close()
    rows = [row.split(",") for row in found[ROWS].decode().splitlines()[1:] if ",m1.energy," in row]
    place = COLUMNS.index("factor_value")
    assert [row[place] for row in rows] == ["400", "200", "", ""]
    shown = entries(found)
    gone = next(
        place for place, one in enumerate(shown) if b"300" in b64decode(one["leaf"]) and one["kind"] == "factor"
    )
    shown.pop(gone)
    refused(with_entries(found, shown), r"rows\.csv: row \d+: got")
