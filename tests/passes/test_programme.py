"""The integer programme against every choice there is."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from fick.passes.assign.programme import Conversion, Problem

QUANTITIES = ("latency", "bytes")
INTEGERS = (False, True, True)
"""Numbers, and two formats that read integers."""


@st.composite
def problems(draw: Any) -> Problem:
    """Up to five products; errors of many magnitudes, none twice the same; costs in whole numbers."""
    products = draw(st.integers(1, 5))
    amount = st.integers(0, 50)

    def table(elements: Any) -> Any:
        rows = st.lists(st.lists(elements, min_size=3, max_size=3), min_size=products, max_size=products)
        return np.array(draw(rows), float)

    exponents = table(st.floats(-9, 0))
    errors = 10.0**exponents
    errors[:, 0] = 0
    readers = draw(st.lists(st.sets(st.integers(0, products - 1), min_size=1), max_size=3))
    conversions = [
        Conversion(
            tuple(sorted(one)),
            draw(st.booleans()),
            {name: draw(st.integers(-20, 20)) for name in QUANTITIES},
            {name: draw(amount) for name in QUANTITIES},
        )
        for one in readers
    ]
    costs = {name: table(amount) for name in QUANTITIES}
    return Problem(errors, costs, {name: draw(amount) for name in QUANTITIES}, INTEGERS, conversions)


def everything(problem: Problem) -> Any:
    return itertools.product(range(3), repeat=len(problem.errors))


@settings(deadline=None, max_examples=40)
@given(problems(), st.floats(0, 1), st.floats(0, 1))
def test_the_best_of_all_choices_is_found(problem: Problem, tight: float, tighter: float) -> None:
    limits: dict[str, float] = {}
    for name, share in zip(QUANTITIES, (tight, tighter), strict=True):
        all_costs = sorted(problem.cost(name, chosen) for chosen in everything(problem))
        limits[name] = all_costs[int(share * (len(all_costs) - 1))]
    allowed = [
        chosen
        for chosen in everything(problem)
        if all(problem.cost(name, chosen) <= limit for name, limit in limits.items())
    ]
    found = problem.solve(limits)
    if not allowed:
        assert found is None
        return
    assert found is not None
    assert all(problem.cost(name, found) <= limit + 1e-9 for name, limit in limits.items())
    best = min(problem.error(chosen) for chosen in allowed)
    # What an objective of a millionth of its largest coefficient is off does not count for the solver.
    assert problem.error(found) <= best * (1 + 1e-6) + 1e-9 * problem.errors.max()


@settings(deadline=None, max_examples=40)
@given(problems())
def test_the_cheapest_is_found(problem: Problem) -> None:
    for name in QUANTITIES:
        least = min(problem.cost(name, chosen) for chosen in everything(problem))
        assert problem.cost(name, problem.cheapest(name)) <= least + 1e-9


@settings(deadline=None, max_examples=40)
@given(problems())
def test_nothing_within_reach_is_none(problem: Problem) -> None:
    least = problem.cost("bytes", problem.cheapest("bytes"))
    assert problem.solve({"bytes": least - 1}) is None
    assert problem.solve({"bytes": least}) is not None


def test_a_value_is_converted_once_and_kept_beside_its_numbers_where_they_are_read() -> None:
    conversion = Conversion((0, 1), False, {"bytes": -3}, {"bytes": 5})
    problem = Problem(np.zeros((2, 3)), {"bytes": np.zeros((2, 3))}, {"bytes": 100}, INTEGERS, [conversion])
    assert [problem.cost("bytes", chosen) for chosen in ([0, 0], [0, 1], [1, 0], [1, 2])] == [
        100,
        105,
        105,
        97,
    ]
    assert [problem.stored_twice(chosen) for chosen in ([0, 0], [0, 1], [1, 2])] == [0, 1, 0]
    assert problem.cheapest("bytes") in ([1, 1], [1, 2], [2, 1], [2, 2])
