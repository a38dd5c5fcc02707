"""Which alternative runs at which step: dynamic programming over how long ago each one's state was left.

The loss of a schedule is the sum, over its steps, of what an error there does to the picture times the error of what
runs. As CacheQuant's (Liu et al., arXiv 2503.01323), with several alternatives whose states are left by "full" or by
each other, and their latencies. A price of latency makes loss and cost one sum, of which the least is exact; the price
is searched for that keeps to a budget, so that what is found is the best there is at its own cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from .profile import Errors

PRICES = 24
"""Tried together, twice: over many orders of magnitude, and between the two that the budget lies between."""

Order = tuple[int, ...]
"""What each step runs: 0 is "full", others are alternatives counted from one."""


@dataclass(frozen=True)
class Problem:
    """``errors`` of alternatives [alternatives, steps, ages] and ``influence`` [steps], what one does to the picture.

    ``costs``   of "full" and of each alternative: [alternatives + 1]
    ``leaves``  whether one leaves all that another reads: [alternatives, alternatives]
    """

    errors: Errors
    influence: NDArray[np.float64]
    costs: NDArray[np.float64]
    leaves: NDArray[np.bool_]

    @property
    def steps(self) -> int:
        return int(self.errors.shape[1])

    @property
    def longest(self) -> int:
        return int(self.errors.shape[2])

    def of(self, chosen: Sequence[int]) -> Problem:
        """With these alternatives alone, counted from zero."""
        rows = list(chosen)
        return Problem(
            self.errors[rows], self.influence, self.costs[[0, *(row + 1 for row in rows)]],
            self.leaves[np.ix_(rows, rows)],
        )  # fmt: skip

    def cost(self, order: Sequence[int]) -> float:
        """Of a loop."""
        return float(self.costs[list(order)].sum())

    def loss(self, order: Sequence[int]) -> float:
        """Infinite where a step reads what was left too long ago, or never."""
        old = np.full(len(self.errors), self.longest + 1)
        total = 0.0
        for step, one in enumerate(order):
            if one:
                total += float(self.influence[step]) * self.error(one - 1, step, old)
            old = self.aged(one, old)
        return total

    def error(self, row: int, step: int, old: NDArray[np.intp]) -> float:
        """Of an alternative at a step, by the ages of all states.

        Where another left its state and has an older one itself, that one's error is in what was left.
        """
        others = np.flatnonzero(self.leaves[:, row] & (old > old[row]))
        reads = [row, *others.tolist()]
        if any(old[one] > self.longest for one in reads):
            return float("inf")
        within = [float(self.errors[one, step, old[one] - 1]) for one in reads]
        return within[0] + max(within[1:], default=0.0)

    def aged(self, one: int, old: NDArray[np.intp]) -> NDArray[np.intp]:
        """Ages at the next step if this one runs ``one``."""
        left = np.ones(len(old), bool) if not one else self.leaves[one - 1]
        return np.where(left, 1, np.minimum(old + 1, self.longest + 1))

    def frontier(self, budget: float) -> list[Order]:
        """Schedules that are best at their own costs, dearest first, closer together about ``budget``."""
        table = _Table(self)
        least = np.where(np.isfinite(self.errors[:, 1:, 0]), self.errors[:, 1:, 0] * self.influence[1:], 0.0)
        scale = max(float(least.max(initial=0.0)), 1e-30) / float(self.costs[0])
        wide: NDArray[np.float64] = scale * np.concatenate([np.zeros(1), np.logspace(-4, 4, PRICES - 1)])
        found = table.solve(wide)
        over = [place for place, order in enumerate(found) if self.cost(order) > budget]
        if over and over[-1] + 1 < len(wide):
            low, high = (float(wide[place]) for place in (over[-1], over[-1] + 1))
            between: NDArray[np.float64] = low + (high - low) * np.arange(1, PRICES + 1) / (PRICES + 1)
            found += table.solve(between)
        return sorted(set(found), key=lambda order: (-self.cost(order), order))

    def best(self, budget: float) -> Order | None:
        """That of least loss, of the frontier's, whose cost is within the budget."""
        fitting = [order for order in self.frontier(budget) if self.cost(order) <= budget]
        return min(fitting, key=lambda order: (self.loss(order), order), default=None)


class _Table:
    """All states that ages may be in, and what each choice makes of them."""

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        count = len(problem.errors)
        ages = np.arange(1, problem.longest + 2)
        states = np.array(list(product(ages, repeat=count)), np.intp).reshape(-1, count)
        places = (problem.longest + 1) ** np.arange(count)[::-1]
        self._start = len(states) - 1
        self._next = [
            ((np.stack([problem.aged(one, state) for state in states]) - 1) @ places)
            for one in range(count + 1)
        ]
        # [steps, choices, states]
        self._losses = np.zeros((problem.steps, count + 1, len(states)))
        padded: Errors = np.concatenate(
            [problem.errors, np.full((*problem.errors.shape[:2], 1), np.inf)], axis=2
        )
        for row in range(count):
            own: Errors = padded[row][:, states[:, row] - 1]
            worst: Errors = np.zeros(own.shape)
            for other in range(count):
                if problem.leaves[other, row]:
                    within = states[:, other] > states[:, row]
                    theirs: Errors = padded[other][:, states[:, other] - 1]
                    worst = np.where(within, np.maximum(worst, theirs), worst)
            self._losses[:, row + 1] = problem.influence[:, None] * (own + worst)

    def solve(self, prices: NDArray[np.float64]) -> list[Order]:
        """The schedule of least loss and price times cost, for each price."""
        problem = self._problem
        choices = np.zeros((problem.steps, len(prices), self._losses.shape[2]), np.int8)
        ahead = np.zeros((len(prices), self._losses.shape[2]))
        for step in reversed(range(problem.steps)):
            offers = np.stack(
                [
                    prices[:, None] * cost + self._losses[step, one] + ahead[:, self._next[one]]
                    for one, cost in enumerate(problem.costs)
                ]
            )
            choices[step] = offers.argmin(0)
            ahead = offers.min(0)
        return [self._followed(choices[:, row]) for row in range(len(prices))]

    def _followed(self, choices: NDArray[np.int8]) -> Order:
        state, order = self._start, list[int]()
        for row in choices:
            order.append(int(row[state]))
            state = int(self._next[order[-1]][state])
        return tuple(order)
