"""The best schedules of several loops with few alternatives: planned by what is predicted, refined by drawing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations

from .loss import Loss
from .plan import Order, Problem

TRIED = 4
"""Sets of alternatives, of those that are predicted to do best, that pictures are drawn with."""

HALVINGS = 6
"""Of the interval that the least share of a full step's cost lies in."""

Rows = tuple[int, ...]
"""Alternatives, counted from zero."""


@dataclass
class Loop:
    """One number of steps: what is predicted of its schedules, and what was measured."""

    problem: Problem
    names: Sequence[str]
    loss: Loss
    measured: dict[Order, float] = field(default_factory=dict[Order, float])

    @property
    def calls(self) -> int:
        return self.problem.steps

    def named(self, order: Order) -> list[str]:
        return ["full" if not one else self.names[one - 1] for one in order]

    def measure(self, order: Order) -> float:
        if order not in self.measured:
            self.measured[order] = self.loss(self.named(order)) if any(order) else 0.0
        return self.measured[order]

    def budget(self, share: float) -> float:
        """Of all its calls, if each may cost so much of a full one in the mean."""
        return share * float(self.problem.costs[0]) * self.calls * (1 + 1e-9)

    def planned(self, rows: Rows, share: float) -> Order | None:
        """The best schedule of these alternatives by what is predicted; None if none keeps to the budget."""
        part = self.problem.of(rows)
        order = part.best(self.budget(share))
        return None if order is None else _over(rows, order)

    def even(self, row: int, share: float) -> Order | None:
        """The alternative between full steps at the least interval that keeps to the budget; None if none does."""
        for interval in range(2, self.problem.longest + 2):
            order = tuple(row + 1 if call % interval else 0 for call in range(self.calls))
            if self.problem.cost(order) <= self.budget(share):
                return order
        return None

    def slackened(self, rows: Rows, order: Order, share: float) -> Order:
        """With single steps changed, or two exchanged, as is predicted to gain most, while the budget lasts."""
        budget = self.budget(share)
        while True:
            now = self.problem.loss(order)
            offers = [
                (self.problem.loss(one), one)
                for one in neighbours(order, rows)
                if self.problem.cost(one) <= budget
            ]
            least = min(offers, default=(now, order))
            if not least[0] < now:
                return order
            order = least[1]


@dataclass(frozen=True)
class Found:
    """A loop's schedule, its measured loss, and what that was as it had been planned."""

    order: Order
    loss: float
    planned: float
    evaluations: int


def best(loops: Sequence[Loop], count: int, share: float, evaluations: int) -> list[Found]:
    """Schedules of one set of at most ``count`` alternatives, one for each loop. Empty if none keeps to the budget."""
    ranked = _ranked(loops, count, share)[:TRIED]
    if not ranked:
        return []
    plans = {
        rows: [loop.slackened(rows, order, share) for loop, order in zip(loops, orders, strict=True)]
        for rows, orders in ranked
    }
    drawn = {
        rows: sum(loop.measure(order) for loop, order in zip(loops, orders, strict=True))
        for rows, orders in plans.items()
    }
    rows = min(drawn, key=lambda one: (drawn[one], one))
    return [
        _refined(loop, rows, order, share, evaluations)
        for loop, order in zip(loops, plans[rows], strict=True)
    ]


def cheapest(loops: Sequence[Loop], count: int, floor: float) -> float:
    """The least share of a full step's cost with which every loop's pictures are off by no more than ``floor``."""
    low, high = 0.0, 1.0
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        ranked = _ranked(loops, count, middle)[:1]
        losses = [
            loop.measure(order) for _, orders in ranked for loop, order in zip(loops, orders, strict=True)
        ]
        low, high = (low, middle) if losses and max(losses) <= floor else (middle, high)
    return high


def neighbours(order: Order, rows: Rows) -> Iterator[Order]:
    """With one step changed to "full" or an alternative of ``rows``, or two exchanged. The first stays full."""
    for step in range(1, len(order)):
        for one in (0, *(row + 1 for row in rows)):
            if one != order[step]:
                yield (*order[:step], one, *order[step + 1 :])
    for first, second in combinations(range(1, len(order)), 2):
        if order[first] != order[second]:
            changed = list(order)
            changed[first], changed[second] = order[second], order[first]
            yield tuple(changed)


def _ranked(loops: Sequence[Loop], count: int, share: float) -> list[tuple[Rows, list[Order]]]:
    """Sets of alternatives with the plan of each loop, those first that are predicted to lose least over all loops."""
    rows = range(len(loops[0].names))
    found: list[tuple[float, Rows, list[Order]]] = []
    for chosen in combinations(rows, min(count, len(rows))):
        orders = [order for loop in loops if (order := loop.planned(chosen, share)) is not None]
        if len(orders) == len(loops):
            losses = [loop.problem.loss(order) for loop, order in zip(loops, orders, strict=True)]
            found.append((sum(losses), chosen, orders))
    return [(chosen, orders) for _, chosen, orders in sorted(found)]


def _refined(loop: Loop, rows: Rows, order: Order, share: float, evaluations: int) -> Found:
    """Local search by drawing: from the plan, or an even schedule if one is better, to neighbours of the best so far in
    the order of what is predicted of them.

    It ends when so many schedules have been drawn with, or no neighbour is left.
    """
    planned = loop.measure(order)
    for row in rows:
        even = loop.even(row, share)
        if even is not None and loop.measure(even) < loop.measured[order]:
            order = even
    while len(loop.measured) < evaluations:
        offers = [
            (loop.problem.loss(one), one)
            for one in neighbours(order, rows)
            if one not in loop.measured and loop.problem.cost(one) <= loop.budget(share)
        ]
        least = min(offers, default=(float("inf"), order))
        if least[0] == float("inf"):
            break
        if loop.measure(least[1]) < loop.measured[order]:
            order = least[1]
    return Found(order, loop.measured[order], planned, len(loop.measured))


def _over(rows: Rows, order: Order) -> Order:
    """An order of some alternatives in the numbers of all."""
    return tuple(rows[one - 1] + 1 if one else 0 for one in order)
