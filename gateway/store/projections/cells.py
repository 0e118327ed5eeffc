"""Cells in the tables: they are nearly all that the ledger writes, so their rows go past SQLAlchemy's."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import fields
from decimal import Decimal
from functools import cache
from itertools import islice
from operator import attrgetter, itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Table, bindparam, delete, func, insert, select

from gateway.carbon.exact import text
from gateway.carbon.figures import Cell, Figure, Flags, LineFigure, flag_text
from gateway.carbon.setting import Setting
from gateway.store.projections import tables
from gateway.store.projections.loads import add_loads, delete_loads, held_loads, hour_of, remake_loads
from gateway.store.projections.tables import ExactText, FlagText

_MOST_TEXTS = 20_000
_AT_ONCE = 5_000
"""Rows; so many are in memory as text."""
_FEW = 2
"""Cells; where no more are replaced, their hours' sums are corrected and not made anew."""
_PLACE = "place"


def delete_cells(connection: Connection, gateway: str, line: str, start_ns: int, end_ns: int) -> None:
    """Delete a line's cells that start in [start_ns, end_ns): their bounds may have moved."""
    for table, start in (
        (tables.figures, tables.figures.c.cell_start_ns),
        (tables.line_figures, tables.line_figures.c.start_ns),
    ):
        connection.execute(
            delete(table).where(table.c.gateway == gateway, table.c.line == line, start >= start_ns, start < end_ns)
        )
    delete_loads(connection, gateway, line, start_ns, end_ns)


def put_cells(connection: Connection, cells: Iterable[Cell]) -> None:
    """Add cells; one that is there already is replaced whole. Of several of one start the last counts."""
    newest = {(cell.line.gateway, cell.line.line, cell.line.start_ns): cell for cell in cells}
    if not newest:
        return
    replaced = _held(connection, list(newest))
    less = held_loads(connection, replaced) if len(replaced) <= _FEW else {}
    _delete(connection, replaced)
    texts = _Texts()
    fields_of_line = attrgetter(*_LINE_FIELDS)
    lines = _Rows(tables.line_figures, (*_LINE_FIELDS, *Setting._fields), texts)
    rows = ([*fields_of_line(cell.line), *cell.line.setting] for cell in newest.values())
    _insert(connection, tables.line_figures, lines.of(rows))
    figures = _Rows(tables.figures, (*Figure._fields, *Setting._fields, _PLACE), texts)
    rows = ([*figure, *figure.setting, place] for cell in newest.values() for place, figure in enumerate(cell.figures))
    _insert(connection, tables.figures, figures.of(rows))
    hours = {hour_of(*key) for key in replaced} if len(replaced) > _FEW else set()
    remake_loads(connection, hours)
    add_loads(connection, (cell for key, cell in newest.items() if hour_of(*key) not in hours), less=less)


_LINE_FIELDS = tuple(field.name for field in fields(LineFigure))


class _Texts(dict[Decimal, str]):
    """Numbers as texts. Many come again: a factor in all its cells, a register as the next cell's start."""

    def __missing__(self, number: Decimal) -> str:
        if len(self) >= _MOST_TEXTS:
            self.clear()
        made = self[number] = text(number)
        return made


class _Rows:
    """Turns values into rows of a table, as its columns' types would, and in their order. names: of the values."""

    def __init__(self, table: Table, names: Sequence[str], texts: _Texts) -> None:
        self._exact = [place for place, name in enumerate(names) if isinstance(_type(table, name), ExactText)]
        self._flags = [place for place, name in enumerate(names) if isinstance(_type(table, name), FlagText)]
        self._ordered: Callable[[list[Any]], tuple[Any, ...]] = itemgetter(
            *(names.index(column.name) for column in table.columns)
        )
        self._texts = texts
        self._flag_texts: dict[Flags, str] = {}

    def of(self, rows: Iterable[list[Any]]) -> Iterator[tuple[Any, ...]]:
        """Yield the rows; their values are changed in place."""
        texts, flag_texts = self._texts, self._flag_texts
        for values in rows:
            for place in self._exact:
                if values[place] is not None:
                    values[place] = texts[values[place]]
            for place in self._flags:
                flags = values[place]
                if flags not in flag_texts:
                    flag_texts[flags] = flag_text(flags)
                values[place] = flag_texts[flags]
            yield self._ordered(values)


def _type(table: Table, name: str) -> Any:
    return table.c[name].type if name in table.c else None


def _insert(connection: Connection, table: Table, rows: Iterable[tuple[Any, ...]]) -> None:
    """Add rows, each in the order of the table's columns."""
    statement = _insertion(table, connection.dialect)
    left = iter(rows)
    while some := list(islice(left, _AT_ONCE)):
        connection.exec_driver_sql(statement, some)


@cache
def _insertion(table: Table, dialect: Dialect) -> str:
    """Return SQLAlchemy's own statement, in its dialect's words; only the values are ready."""
    return str(insert(table).compile(dialect=dialect))


def _held(connection: Connection, keys: Sequence[tuple[str, str, int]]) -> list[tuple[str, str, int]]:
    """Return the keys, gateway, line and start, of which there may be cells: those up to the newest that is there."""
    table = tables.line_figures
    newest: dict[tuple[str, str], int] = {}
    for line in {key[:2] for key in keys}:
        held = select(func.max(table.c.start_ns)).where(table.c.gateway == line[0], table.c.line == line[1])
        start_ns = connection.execute(held).scalar_one()
        if start_ns is not None:
            newest[line] = start_ns
    return [key for key in keys if key[:2] in newest and key[2] <= newest[key[:2]]]


def _delete(connection: Connection, keys: Sequence[tuple[str, str, int]]) -> None:
    """Delete the cells of these keys that are there."""
    if not keys:
        return
    asked = [{"p_gateway": key[0], "p_line": key[1], "p_start": key[2]} for key in keys]
    for table, start in (
        (tables.figures, tables.figures.c.cell_start_ns),
        (tables.line_figures, tables.line_figures.c.start_ns),
    ):
        same = (table.c.gateway == bindparam("p_gateway"), table.c.line == bindparam("p_line"))
        connection.execute(delete(table).where(*same, start == bindparam("p_start")), asked)
