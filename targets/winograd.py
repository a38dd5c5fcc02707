"""Minimal filtering (Winograd 1980; Lavin and Gray, arXiv 1509.09308): 3 x 3 convolutions with fewer products.

A tile of m x m outputs takes n x n products of transformed inputs and filters, n = m + 2, where the sum itself takes
9 m^2:  Y = A^T [ (G g G^T) * (B^T d B) ] A.  The matrices follow from n - 1 points by Toom and Cook's construction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache

import numpy as np
from numpy.typing import NDArray

TAPS = 3

Matrix = tuple[tuple[Fraction, ...], ...]


@dataclass(frozen=True)
class Transforms:
    """``inputs`` is B^T [n, n], ``filters`` G [n, 3], ``outputs`` A^T [m, n]."""

    inputs: Matrix
    filters: Matrix
    outputs: Matrix


POINTS: dict[int, tuple[Fraction, ...]] = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(0), Fraction(1), Fraction(-1), Fraction(1, 2), Fraction(-2)),
}
"""By the outputs of a tile along an axis. How much rounding costs depends on the points (Barabasz et al., arXiv
1803.10986): with 1/2 and -2 less than with Lavin and Gray's 2 and -2, as the tests measure."""

HALF_RUNS = {2: 64, 4: 16}
"""Most products of float16 numbers that are added up as such, by the outputs of a tile."""

ERRORS = {
    "float32": {2: 8e-7, 4: 4e-6},
    "bfloat16": {2: 5e-3, 4: 2e-2},
    "float16": {2: 2.5e-3, 4: 5e-3},
}
"""Rounding of a float32 sum over 320 channels, relative to its deviation, by the format of what is multiplied and the
outputs of a tile: as measured (tests/targets/test_winograd.py) and rounded up. Direct sums of float32 numbers have
4e-7, of bfloat16 numbers, whose weights alone are rounded for it, 1.7e-3, and of float16 numbers, 64 of which are added
up as such, 1.2e-3."""


@cache
def transforms(outputs: int) -> Transforms:
    """F(outputs, 3): exact fractions."""
    return toom_cook(outputs, POINTS[outputs])


@cache
def input_scale(outputs: int) -> float:
    """A power of two for transformed inputs, of which a number is then no larger than the largest of the input, nor a
    product larger than that of the largest of input and filter: what a format holds of these it holds of those.
    """
    made = transforms(outputs)
    sizes = zip(_row_sums(made.inputs), _row_sums(made.filters), strict=True)
    return 2.0 ** -math.ceil(2 * math.log2(max(one * max(other, 1) for one, other in sizes)))


def _row_sums(matrix: Matrix) -> list[Fraction]:
    return [sum(map(abs, row), Fraction(0)) for row in matrix]


def toom_cook(outputs: int, points: Sequence[Fraction]) -> Transforms:
    """From outputs + 1 different points and infinity."""
    size = outputs + TAPS - 1
    inputs, filters = list[tuple[Fraction, ...]](), list[tuple[Fraction, ...]]()
    for index, point in enumerate(points):
        others = [other for place, other in enumerate(points) if place != index]
        scale = Fraction(1)
        for other in others:
            scale *= point - other
        inputs.append((*_monic(others), Fraction(0)))
        filters.append(tuple(point**power / scale for power in range(TAPS)))
    inputs.append(_monic(points))
    filters.append((Fraction(0),) * (TAPS - 1) + (Fraction(1),))
    last = [Fraction(int(power == outputs - 1)) for power in range(outputs)]
    rows = [tuple([point**power for point in points] + [last[power]]) for power in range(outputs)]
    assert len(inputs) == size
    return Transforms(tuple(inputs), tuple(filters), tuple(rows))


def _monic(roots: Sequence[Fraction]) -> tuple[Fraction, ...]:
    """Coefficients, lowest power first, of the product of x - root."""
    coefficients = [Fraction(1)]
    for root in roots:
        shifted = [Fraction(0), *coefficients]
        coefficients = [
            high - root * low for high, low in zip(shifted, [*coefficients, Fraction(0)], strict=True)
        ]
    return tuple(coefficients)


def transform_filters(weights: NDArray[np.float32], outputs: int) -> NDArray[np.float32]:
    """[..., 3, 3] to [..., n, n]: G g G^T in double precision, rounded once."""
    g = np.array([[float(entry) for entry in row] for row in transforms(outputs).filters])
    return (g @ weights.astype(np.float64) @ g.T).astype(np.float32)
