"""One budget, shared by three passes: blocks that go, formats of fewer bits, steps that reuse.

Shares of what a program costs are multiplied along the recipe. So a budget is parted by exponents: of 0.25x, pruning
takes 0.25^removed; of what is left to save after it, as it came out and not as it was asked for, formats take the part
``rounded``; and reuse takes the rest.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ...ir.errors import UserError
from ...ir.program import Program
from ...passes.assign.study import Study
from ...passes.base import Context, Pass, apply
from ...passes.budget import Limit, amounts, described
from ...passes.caching import DeepCache
from ...passes.caching.deepcache import DeepCacheConfig
from ...passes.correct import CorrectBias, CorrectNoise, CorrectReuse
from ...passes.costs import CostModel
from ...passes.prune import PruneBlocks, PruneBlocksConfig
from ...passes.schedule import ScheduleReuse
from ...passes.schedule.candidates import costs
from ...passes.schedule.config import ScheduleReuseConfig
from ...passes.split_joins import SplitJoins
from ..budgets import formats_within

DIGITS = 1e4
"""Of shares as they are written; what is cut off is not spent."""

MARGIN = 1e-9
"""Of a budget, below which costs are summed otherwise."""

EVALUATIONS = 8
"""Schedules that pictures are drawn with, for one recipe among many."""


@dataclass(frozen=True)
class Split:
    """How a budget is parted: shares of logarithms in 0..1, and the policy that steps reuse by."""

    removed: float
    rounded: float
    reuse: str


@dataclass(frozen=True)
class Made:
    """A recipe's passes, the program that they make, and what a step of it costs in the mean, by quantity."""

    passes: tuple[Pass[Any], ...]
    program: Program
    cost: Mapping[str, float]


class Parting:
    """Recipes for ``program`` within ``limits``, in loops of ``steps``. Raises UserError for a quantity that is not
    known on the target.
    """

    def __init__(self, program: Program, context: Context, limits: Sequence[Limit], steps: int) -> None:
        self._program, self._context, self._steps = program, context, steps
        self._cost_model: CostModel = context.require("cost_model", "--budget")
        cost = self._cost_model(program)
        self.wanted = amounts(limits, cost, "the recipe")
        self.plain = {name: cost.total(name) for name in cost.by_node}
        self._pruned: dict[str, Program] = {}

    def __call__(self, split: Split) -> Made:
        """Raises UserError if a pass cannot keep to its part, or all of them together to the budget."""
        passes: list[Pass[Any]] = []
        program = self._program
        if shares := self._shares(self.plain, lambda name: _removed(split, name)):
            text = _told(shares)
            passes.append(PruneBlocks(PruneBlocksConfig(budget=text)))
            if text not in self._pruned:
                self._pruned[text] = apply(passes, program, self._context)
            program = self._pruned[text]
        joined = apply([SplitJoins()], program, self._context)
        if shares := self._shares(self._costs(joined), lambda name: _rounded(split, name)):
            if split.rounded < 1:
                shares = self._reachable(joined, shares)
            some = formats_within(_told(shares))
            program, passes = apply(some, program, self._context), [*passes, *some]
            program, passes = self._corrected(program, passes, CorrectBias())
        if shares := self._shares(self._costs(program), lambda name: float(name != "bytes")):
            some = [self._reusing(program, split.reuse, _told(shares))]
            program, passes = apply(some, program, self._context), [*passes, *some]
            program, passes = self._corrected(program, passes, CorrectReuse())
        else:
            program, passes = self._corrected(program, passes, CorrectNoise())
        cost = self._costs(program)
        if over := self._over(cost):
            raise UserError(
                f"passes {', '.join(one.name for one in passes)} come to {described(over)}, and the budget is "
                f"{described(self.wanted)}."
            )
        return Made(tuple(passes), program, cost)

    def _shares(self, cost: Mapping[str, float], part: Callable[[str], float]) -> dict[str, float]:
        """Of what a program costs, what a pass may leave, by quantity of which it has something to save."""
        shares = {name: min(most / cost[name], 1.0) ** part(name) for name, most in self.wanted.items()}
        return {name: math.floor(share * DIGITS) / DIGITS for name, share in shares.items() if share < 1}

    def _reachable(self, program: Program, shares: Mapping[str, float]) -> dict[str, float]:
        """No less than formats can come to: what they cannot save is left to reuse."""
        (*_, assign) = formats_within(_told(shares))
        study = Study(program, self._context, assign.config)
        least = {name: study.least(name) / study.plain.total(name) for name in shares}
        return {name: max(share, math.ceil(least[name] * DIGITS) / DIGITS) for name, share in shares.items()}

    def _corrected(
        self, program: Program, passes: list[Pass[Any]], one: Pass[Any]
    ) -> tuple[Program, list[Pass[Any]]]:
        """Corrections take time as well: with this one, unless it breaks the budget."""
        better = apply([one], program, self._context)
        before, after = (self._over(self._costs(each)) for each in (program, better))
        return (better, [*passes, one]) if after.keys() <= before.keys() else (program, passes)

    def _over(self, cost: Mapping[str, float]) -> dict[str, float]:
        return {name: cost[name] for name, most in self.wanted.items() if cost[name] > most * (1 + MARGIN)}

    def _reusing(self, program: Program, policy: str, budget: str) -> Pass[Any]:
        names = [name for name in self.wanted if name != "bytes"]
        if len(names) > 1:
            raise UserError(
                f"steps reuse within one budget, and {' and '.join(names)} are two; give one of them."
            )
        return REUSE[policy](self, program, budget)

    def scheduled(self, program: Program, budget: str) -> Pass[Any]:
        """By an optimiser."""
        return ScheduleReuse(
            ScheduleReuseConfig(budget=budget, steps=(self._steps,), evaluations=EVALUATIONS)
        )

    def deep_cache(self, program: Program, budget: str) -> Pass[Any]:
        """With the shortest interval that keeps to the budget."""
        (name,) = (one for one in self.wanted if one != "bytes")
        first = self._deep_cached(2)
        every = costs(apply([first], program, self._context), self._cost_model, name)
        for interval in range(2, self._steps + 1):
            one = self._deep_cached(interval)
            order = one.order(self._steps)
            if sum(every[variant] for variant in order) <= self.wanted[name] * len(order):
                return one
        raise UserError(
            f"deep-cache takes {every['cached'] / every['full']:.3g} of a step where it reuses, which no interval "
            "makes little enough."
        )

    def _deep_cached(self, interval: int) -> DeepCache:
        return DeepCache(DeepCacheConfig(interval=interval, steps=(self._steps,)))

    def _costs(self, program: Program) -> dict[str, float]:
        cost = self._cost_model(program)
        if not program.schedule:
            return {name: cost.total(name) for name in cost.by_node}
        order = program.schedule[self._steps]
        found: dict[str, float] = {}
        for name in cost.by_node:
            if name == "bytes":
                found[name] = cost.total(name)
            else:
                every = costs(program, self._cost_model, name)
                found[name] = sum(every[variant] for variant in order) / len(order)
        return found


REUSE: Mapping[str, Callable[[Parting, Program, str], Pass[Any]]] = {
    "schedule-reuse": Parting.scheduled,
    "deep-cache": Parting.deep_cache,
}
"""Policies of reuse by name, each within a budget for a program."""

ALONE: Mapping[str, Split] = {
    "blocks alone": Split(1.0, 0.0, "schedule-reuse"),
    "formats alone": Split(0.0, 1.0, "schedule-reuse"),
    "reuse alone": Split(0.0, 0.0, "schedule-reuse"),
}
"""What each pass does by itself."""


def _told(shares: Mapping[str, float]) -> str:
    """As a pass's budget."""
    return ",".join(f"{name}={share:g}x" for name, share in shares.items())


def _removed(split: Split, quantity: str) -> float:
    """Steps that reuse need all weights: of bytes, what formats do not save has to go."""
    if quantity != "bytes" or not split.removed:
        return split.removed
    return split.removed / (split.removed + (1 - split.removed) * split.rounded)


def _rounded(split: Split, quantity: str) -> float:
    return 1.0 if quantity == "bytes" and split.rounded else split.rounded
