"""Figures come out the same three ways: live, rebuilt from the logs, and from an export; and no energy is lost."""

import random
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from gateway.app.handover import Wish, gather
from gateway.app.rebuild import rebuild
from gateway.carbon.audit.form import ABOUT, ROWS, Subject
from gateway.carbon.audit.rows import header, lines_of
from gateway.carbon.figures import REMAINDER, SCOPE_2, Cell
from gateway.errors import ConfigError
from gateway.store import projections as tables
from gateway.store.projections import Projections, Slice
from tests.ledgering import dump_of
from tests.stories import MINUTE, MODULUS, SECOND, Story

EVERYDAY, MANY = 20, 180
"""Stories: some 20 s, and some 3 min."""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """Give a folder in memory where there is one: a ledger's tables are written thousands of times."""
    shared = Path("/dev/shm")
    made = shared / f"stories-{tmp_path.name}-{random.SystemRandom().randrange(2**32)}" if shared.is_dir() else tmp_path
    made.mkdir(exist_ok=True)
    yield made
    shutil.rmtree(made, ignore_errors=True)


def check(folder: Path, seed: int) -> None:
    """Tell a story; fail where two ways differ."""
    dice = random.Random(f"of {seed}")
    lines = ("filling", "packing")[: dice.choice((1, 1, 2))]
    if dice.random() < 0.3:
        lines = ("packing",)
    story = Story(folder, seed, minutes=dice.choice((12, 20, 30, 45, 90)), lines=lines, wild=dice.random() < 0.8)
    story.attested = random.Random(f"attested {seed}").random() < 0.5
    hall = story.hall
    try:
        story.run()
        live = dump_of(hall.ledger.book)  # the rebuild starts the ledger anew, which is an event of its own
        hall.ledger.close()
        rebuild(hall.config, say=lambda _: None, files=hall.files)
        book = Projections(folder / "state" / "projections.sqlite", new=False)
        again = dump_of(book)
        assert again == live, _difference(live, again)
        hold_together(story, book)
        book.close()
        verifies(story, dice)
    except BaseException as e:
        e.add_note(f"seed {seed}, begins {story.begin_ns}, {story.minutes} min, wild {story.wild}, {lines}")
        e.add_note("\n".join(story.told))
        raise
    finally:
        for disk in hall.disks.values():
            disk.close()
        hall.ledger.close()


def _difference(live: list[str], again: list[str]) -> str:
    return "\n".join(
        [f"- {line}" for line in live if line not in set(again)][:6]
        + [f"+ {line}" for line in again if line not in set(live)][:6]
    )


def verifies(story: Story, dice: random.Random) -> None:
    """Fail unless an export of some period verifies, and has the tables' rows."""
    folder = story.hall.folder
    for state, disk in story.hall.disks.items():
        for path in disk.paths():
            (state / path).parent.mkdir(parents=True, exist_ok=True)
            (state / path).write_bytes(disk.read(path) or b"")
    start = story.begin_ns + dice.randrange(-5, story.minutes) * MINUTE + dice.randrange(60) * SECOND
    end = start + dice.randrange(1, story.minutes * 60) * SECOND
    wish = Wish(
        lines=tuple(dice.sample(sorted(story.of), dice.randrange(1 + len(story.of)))),
        start_ns=dice.choice((None, start)),
        end_ns=dice.choice((None, end)),
    )
    try:
        files = gather(story.hall.config, wish)
    except ConfigError:
        return
    subject = Subject.unpack(files[ABOUT])  # it was verified when it was made
    book = tables.Projections(folder / "state" / "projections.sqlite", new=False)
    with book.reading() as connection:
        rows = [header()]
        for gateway, line in subject.lines:
            where = Slice(start_ns=subject.start_ns, end_ns=subject.end_ns, gateway=gateway, line=line)
            rows += lines_of(tables.cells(connection, where))
    book.close()
    assert files[ROWS].decode() == "".join(rows)


def hold_together(story: Story, book: tables.Projections) -> None:
    """Fail unless cells stand end to end, and hold what the registers counted, where nothing was suspect."""
    with book.reading() as connection:
        quarantined = {index for index, _, is_held in tables.intervals_from(connection, "gw1", 0) if is_held}

    def counts(index: int) -> bool:
        return index not in quarantined

    for name, line in story.of.items():
        with book.reading() as connection:
            cells = list(tables.cells(connection, Slice(gateway="gw1", line=name)))
        for before, after in pairwise(cells):
            assert before.line.end_ns == after.line.start_ns
        for cell in cells:
            booked = [row.energy_mwh for row in cell.figures if row.scope == SCOPE_2 and row.kind != "modelled"]
            known = [energy for energy in booked if energy is not None]
            assert cell.line.energy_mwh == (sum(known) if known else None)
        if line.is_doubtful or not cells:
            continue
        by_place = zip(("m1.energy", "m2.energy"), (0, 1), strict=True)
        if any(row.kind == "virtual" for cell in cells for row in cell.figures):
            continue
        for point, column in by_place:
            shown = [values[column] for values in line.shown(counts) if values[column] is not None]
            grown = sum(
                (after - before + (MODULUS if column == 0 and after < before else 0))
                for before, after in pairwise(shown)
                if before is not None and after is not None
            )
            assert _counted(cells, point) == int(grown * 1_000_000), f"{name} {point}"


def _counted(cells: list[Cell], point: str) -> int:
    """Return what the rows say that a meter counted: of a remainder, with the meters below it."""
    found = 0
    for cell in cells:
        for row in cell.figures:
            if row.meter == point and row.energy_mwh is not None:
                found += row.energy_mwh
                if row.kind == REMAINDER:
                    found += sum(one.energy_mwh or 0 for one in cell.figures if one.meter == "m2.energy")
    return found


def test_live_rebuilt_and_verified_figures_are_the_same(place: Path) -> None:
    for seed in range(EVERYDAY):
        check(place / str(seed), seed)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_live_rebuilt_and_verified_figures_are_the_same_in_many_stories(place: Path) -> None:
    for seed in range(EVERYDAY, EVERYDAY + MANY):
        check(place / str(seed), seed)
        shutil.rmtree(place / str(seed), ignore_errors=True)
