"""Integer programmes of choices, and budgets of whole programs kept by choices that are priced one by one.

Solved to optimality with HiGHS (Huangfu and Hall, Mathematical Programming Computation 10, 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from .costs import Cost

Matrix = NDArray[np.float64]

SCALE = 1e6
"""The largest coefficient of an objective and of a limit: HiGHS takes what is below 1e-6 for nothing."""

MOST_ROUNDS = 12
"""Of solving anew, with less room where a program costs more than its parts did."""

MARGIN = 1e-9
"""Of a limit, below which costs are summed otherwise."""

ChoiceT = TypeVar("ChoiceT")


@dataclass(frozen=True)
class Row:
    """A constraint: coefficients by variable, and within what their sum must be."""

    terms: Mapping[int, float]
    least: float
    most: float


def limit(amounts: Matrix, room: float) -> Row:
    """That the variables, each times its amount, come to no more than ``room``."""
    scale = SCALE / max(float(np.abs(amounts).max(initial=0.0)), abs(room), 1e-300)
    terms = {int(place): float(amounts[place] * scale) for place in np.flatnonzero(amounts)}
    return Row(terms or {0: 0.0}, -np.inf, room * scale)


def minimise(objective: Matrix, rows: Sequence[Row]) -> Matrix | None:
    """Variables of zero and one with the least objective; None if there are none within the rows."""
    import scipy.optimize  # pyright: ignore[reportMissingTypeStubs]  # slow to load
    import scipy.sparse  # pyright: ignore[reportMissingTypeStubs]

    optimize: Any = scipy.optimize
    sparse: Any = scipy.sparse
    terms = [(index, *term) for index, row in enumerate(rows) for term in row.terms.items()]
    places, columns, coefficients = (np.array(one) for one in zip(*terms, strict=True))
    matrix = sparse.csr_array((coefficients, (places, columns)), shape=(len(rows), objective.size))
    bounds = [row.least for row in rows], [row.most for row in rows]
    largest = float(np.abs(objective).max())
    found = optimize.milp(
        objective * (SCALE / largest if largest else 1.0),
        integrality=np.ones(objective.size),
        bounds=optimize.Bounds(0, 1),
        constraints=optimize.LinearConstraint(matrix, *bounds),
        options={"mip_rel_gap": 0.0},
    )
    return None if found.x is None else np.rint(found.x)


def kept_to(
    wanted: Mapping[str, float],
    room: Mapping[str, float],
    solve: Callable[[Mapping[str, float]], ChoiceT | None],
    parts: Callable[[str, ChoiceT], float],
    whole: Callable[[ChoiceT], Cost],
) -> ChoiceT | None:
    """The best choice whose program keeps to what is ``wanted``, and not only the sum of its ``parts``.

    ``solve`` is asked for the best whose parts keep to what room there is: ``room`` at first, and less where the whole
    costs more than its parts. None if it finds none, or not soon.
    """
    left = dict(room)
    for _ in range(MOST_ROUNDS):
        chosen = solve(left)
        if chosen is None:
            return None
        cost = whole(chosen)
        over = [name for name, amount in wanted.items() if cost.total(name) > amount]
        if not over:
            return chosen
        for name in over:
            missed = cost.total(name) - parts(name, chosen)
            left[name] = min(left[name], wanted[name] - missed) - MARGIN * wanted[name]
    return None
