"""What the tests of scopes share: facts with a plan in them, and lines whose cells they make."""

from collections.abc import Iterable

from gateway.carbon.emissions import IntervalLeaf, project
from gateway.carbon.facts import Facts
from gateway.carbon.figures import Cell, Figure
from gateway.carbon.grid.table import FactorLeaf
from gateway.model import Document, Factor, LineColumn, LineSchema, Role
from tests.line_leaves import CONSTANT, schemas


def planned(toml: str, *factors: Factor) -> Facts:
    """Return facts with factors, a constant one of the grid without any, and a plan that holds since 1970."""
    made = Facts()
    for index, one in enumerate(factors or (CONSTANT,), 1):
        made.add_factor(FactorLeaf(factor=one, index=index, hash=bytes([index]) * 32))
    made.add_document(99, Document(name="plan", from_ns=0, content=toml.encode()))
    return made


def gas(point: str = "gas.volume", unit: str = "m3", **more: object) -> LineColumn:
    """Return the column of a fuel counter."""
    return LineColumn(**{"point": point, "unit": unit, "role": Role.FUEL, **more})  # type: ignore[arg-type]


def cells_of(leaves: Iterable[IntervalLeaf], schema: LineSchema, known: Facts) -> list[Cell]:
    """Return a line's cells."""
    return list(project(leaves, schemas=schemas(schema), facts=known).values())


def rows_of(cells: Iterable[Cell], meter: str = "") -> list[Figure]:
    """Return the rows of cells, of one meter or of all."""
    return [row for cell in cells for row in cell.figures if meter in {"", row.meter}]
