"""Sums and small linear systems, in floats: for fits of a few parameters."""

import math
from collections.abc import Sequence


def normal(slopes: Sequence[Sequence[float]]) -> list[list[float]]:
    """Return the matrix of the normal equations; slopes by parameter."""
    return [[dot(one, other) for other in slopes] for one in slopes]


def solved(matrix: Sequence[Sequence[float]], right: Sequence[float]) -> list[float]:
    """Return the solution of a small system, by elimination with pivots. Raises ArithmeticError for a singular one."""
    rows = [[*row, value] for row, value in zip(matrix, right, strict=True)]
    size = len(rows)
    for place in range(size):
        pivot = max(range(place, size), key=lambda at: abs(rows[at][place]))
        rows[place], rows[pivot] = rows[pivot], rows[place]
        if abs(rows[place][place]) < 1e-300:
            raise ArithmeticError("singular")
        for at in range(size):
            if at != place:
                share = rows[at][place] / rows[place][place]
                rows[at] = [a - share * b for a, b in zip(rows[at], rows[place], strict=True)]
    return [rows[at][size] / rows[at][at] for at in range(size)]


def dot(one: Sequence[float], other: Sequence[float]) -> float:
    """Return the sum of products."""
    return math.fsum(a * b for a, b in zip(one, other, strict=True))


def squares(values: Sequence[float]) -> float:
    """Return the sum of squares."""
    return math.fsum(value * value for value in values)


def deviation(values: Sequence[float]) -> float:
    """Return the standard deviation of all of them."""
    mean = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
