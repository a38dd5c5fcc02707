"""Which blocks go: the least sum of losses that saves enough, exactly.

LAPTOP-Diff (Zhang et al., arXiv 2404.11098): what removing several layers does to the output is nearly the sum of what
each does by itself, so that the best set is a knapsack's. There it is filled with parameters; here with what a target's
cost model says. Blocks inside each other exclude each other, and a way from each input to the output stays open.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..programme import Matrix, Row, limit, minimise


@dataclass(frozen=True)
class Knapsack:
    """``losses`` and, by quantity, ``savings`` are [options], of what costs ``plain`` with all that is in it.

    ``exclusive`` are options of which one at most may be chosen. ``paths`` are the ways of each input into the network,
    each by the options that close it: one has to stay open.
    """

    losses: Matrix
    savings: Mapping[str, Matrix]
    plain: Mapping[str, float]
    exclusive: Sequence[Sequence[int]]
    paths: Sequence[Sequence[Sequence[int]]]

    def loss(self, chosen: Sequence[int]) -> float:
        return float(sum(self.losses[one] for one in chosen))

    def cost(self, quantity: str, chosen: Sequence[int]) -> float:
        return self.plain[quantity] - float(sum(self.savings[quantity][one] for one in chosen))

    def allowed(self, chosen: Sequence[int]) -> bool:
        """Whether the options go together."""
        there = set(chosen)
        return all(len(there.intersection(one)) <= 1 for one in self.exclusive) and all(
            any(there.isdisjoint(closing) for closing in ways) for ways in self.paths
        )

    def solve(self, limits: Mapping[str, float]) -> list[int] | None:
        """The options, by index, with the least loss whose costs are within ``limits``; None if there are none."""
        return self._solve(self.losses, limits)

    def cheapest(self, quantity: str) -> list[int]:
        """The options with the least cost."""
        found = self._solve(-self.savings[quantity], {})
        assert found is not None
        return found

    def _solve(self, objective: Matrix, limits: Mapping[str, float]) -> list[int] | None:
        whole = self._wide(objective)
        rows = [*self._structure(), *(self._limit(*one) for one in limits.items())]
        if not objective.size:
            return [] if all(self.plain[name] <= amount for name, amount in limits.items()) else None
        found = minimise(whole, rows or [Row({0: 0.0}, 0, 0)])
        return None if found is None else np.flatnonzero(found[: len(self.losses)]).tolist()

    def _wide(self, table: Matrix) -> Matrix:
        """With a variable for each way into the network: whether it is open."""
        return np.concatenate([table, np.zeros(sum(map(len, self.paths)))])

    def _limit(self, quantity: str, amount: float) -> Row:
        return limit(self._wide(-self.savings[quantity]), amount - self.plain[quantity])

    def _structure(self) -> Iterator[Row]:
        for options in self.exclusive:
            yield Row(dict.fromkeys(options, 1.0), 0, 1)
        place = len(self.losses)
        for ways in self.paths:
            yield Row(dict.fromkeys(range(place, place + len(ways)), 1.0), 1, np.inf)
            for closing in ways:
                yield from (Row({option: 1.0, place: 1.0}, 0, 1) for option in closing)
                place += 1
