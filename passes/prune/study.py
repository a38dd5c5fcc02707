"""Everything that prunings of one program share, measured once: fitted maps, losses, and what each saves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ir.errors import UserError
from ...ir.program import Program
from ...ir.trunk import trunk
from ..base import Context
from ..budget import Limit, amounts, compared, described, described_beside
from ..costs import Cost, CostModel
from ..disturbance import Disturbance
from ..held_out import split
from ..origin import origin
from ..programme import Matrix, kept_to
from .candidates import Candidate, candidates, cut_off, named
from .config import PruneBlocksConfig
from .knapsack import Knapsack
from .latents import LatentShift
from .options import closed, paths, removals, ways
from .repair import repaired
from .surgery import By, Removal, pruned

NAME = "prune-blocks"


@dataclass(frozen=True)
class Outcome:
    """Blocks that went, built and measured. Errors are the output's, noise over signal as amplitudes.

    ``predicted_loss`` and ``loss`` are in what the criterion counts: the square of that error, or a shift of latents.
    """

    program: Program
    removed: Mapping[str, str]
    cost: Cost
    predicted_cost: Mapping[str, float]
    predicted_loss: float
    loss: float
    unrepaired_error: float
    output_error: float


class Study:
    """Of the blocks of ``program`` that ``config`` lets go; its budget is the caller's business.

    Raises UserError where there is none, and for what the context lacks.
    """

    def __init__(self, program: Program, context: Context, config: PruneBlocksConfig) -> None:
        given = context.require("calibration", NAME)
        self._cost_model: CostModel = context.require("cost_model", NAME)
        self._program, self._context, self._config = program, context, config
        graph = program.variants["full"].graph
        everything = candidates(graph)
        for name in config.keep:
            named(everything, name, NAME)
        self.candidates = [
            one for one in everything if one.kind in config.kinds and one.name not in config.keep
        ]
        wanted: list[tuple[Candidate, By]] = [
            (one, by)
            for one in self.candidates
            if not cut_off(graph, dict.fromkeys(one.exits, one.entry))
            for by in ways(graph, one)
            if by in config.by
        ]
        if not wanted:
            raise UserError(
                f"pass {NAME} finds no block of kind {', '.join(config.kinds)} that {', '.join(config.by)} could stand "
                "for; allow others."
            )
        self._fitting, judged = split(program, given, config.calls, 0.5)
        self.options: list[Removal] = removals(context, program, wanted, self._fitting, config.ridge)
        settings = [config.ridge, config.criterion, config.pictures, config.steps, context.seed]
        told = origin([program], [*self._fitting, *judged], settings)
        self._disturbance = Disturbance(context, program, judged, NAME, told)

    @cached_property
    def problem(self) -> Knapsack:
        """With the loss of every option: the slow part."""
        count = len(self.options)
        losses = np.zeros(count)
        savings = {name: np.zeros(count) for name in self.plain.by_node}
        for index, one in enumerate(self.options):
            losses[index] = self.alone(one)
            for name, amount in self._alone_savings(one).items():
                savings[name][index] = amount
            if self._context.progress is not None:
                self._context.progress(index + 1, count)
        totals = {name: self.plain.total(name) for name in self.plain.by_node}
        return Knapsack(losses, savings, totals, *self._structure())

    def _structure(self) -> tuple[list[list[int]], list[list[list[int]]]]:
        graph = self._program.variants["full"].graph
        gone = closed(graph, self.candidates)
        places = {
            one.name: [place for place, each in enumerate(self.options) if each.candidate is one]
            for one in self.candidates
        }
        exclusive = [each for each in places.values() if len(each) > 1]
        for one, other in combinations(self.candidates, 2):
            if places[one.name] and places[other.name] and gone[one.name] & gone[other.name]:
                exclusive.append([*places[one.name], *places[other.name]])
        carried = {str(value.name) for node in trunk(graph).nodes for value in node.outputs}
        usable = {name: lost for name, lost in gone.items() if places[name]}
        entries = {one.name: one.entry for one in self.candidates}
        return exclusive, [
            [[place for name in way for place in places[name]] for way in each]
            for each in paths(graph, carried, usable, entries)
        ]

    def alone(self, one: Removal) -> float:
        """The loss when it alone goes."""
        told = {"block": one.candidate.name, "by": one.by}
        return self._disturbance.kept(told, self._config.criterion, lambda: self.loss(self.build([one])))

    def _alone_savings(self, one: Removal) -> dict[str, float]:
        """What is saved when it alone goes, which other budgets ask for as well."""
        told = {"block": one.candidate.name, "by": one.by, "costs": repr(self._cost_model)}
        cost = cache(lambda: self._cost_model(self.build([one])))

        def saved(quantity: str) -> float:
            return self._disturbance.kept(
                told, f"{quantity} saved", lambda: cost().less_than(self.plain, quantity)
            )

        return {name: saved(name) for name in self.plain.by_node}

    def loss(self, changed: Program) -> float:
        return self._disturbance.noise(changed) if self._shift is None else self._shift(changed)

    @cached_property
    def _shift(self) -> LatentShift | None:
        config = self._config
        if config.criterion == "output":
            return None
        return LatentShift(self._context, self._program, config.pictures, config.steps, NAME)

    @cached_property
    def plain(self) -> Cost:
        """What the program costs as it is."""
        return self._cost_model(self._program)

    @cached_property
    def magnitudes(self) -> Matrix:
        """Of each option, the mean square of the weights that go."""
        weights = self._weights(self._program)
        left = (self._weights(self.build([one])) for one in self.options)
        gone = (weights.keys() - names.keys() for names in left)
        squares = {
            name: (float(np.square(one, dtype=np.float64).sum()), one.size) for name, one in weights.items()
        }
        totals = (np.array([squares[name] for name in sorted(names)] or [(0.0, 1)]).sum(0) for names in gone)
        return np.array([total / count for total, count in totals])

    @staticmethod
    def _weights(program: Program) -> dict[str, NDArray[Any]]:
        initializers = program.variants["full"].graph.initializers
        stored = {name: one.const_value for name, one in initializers.items() if name in program.weights}
        return {name: one.numpy() for name, one in stored.items() if one is not None}

    def within(self, limits: Sequence[Limit]) -> list[int]:
        """The options, by index, with the least loss whose program costs no more than ``limits`` by the cost model.

        Raises UserError where there are none, with what there is at best.
        """
        wanted = amounts(limits, self.plain, f"pass {NAME}")
        found = kept_to(wanted, wanted, self.problem.solve, self.problem.cost, self.cost)
        if found is None:
            raise self._unreachable(wanted)
        return found

    def build(self, chosen: Sequence[Removal]) -> Program:
        return pruned(self._program, chosen, NAME)

    def cost(self, chosen: Sequence[int]) -> Cost:
        return self._cost_model(self.build([self.options[one] for one in chosen]))

    def outcome(self, chosen: Sequence[int]) -> Outcome:
        """Built, repaired where that helps, costed and measured end to end."""
        removed = [self.options[one] for one in chosen]
        program = self.build(removed)
        before = after = self._disturbance.noise(program)
        if self._config.repair and removed:
            ridge = self._config.ridge
            better = self.build(repaired(self._context, self._program, removed, self._fitting, ridge, NAME))
            if (found := self._disturbance.noise(better)) < before:
                program, after = better, found
        loss = before if self._shift is None else self._shift(self.build(removed))
        return Outcome(
            program=program,
            removed={one.candidate.name: one.by for one in removed},
            cost=self._cost_model(program),
            predicted_cost={name: self.problem.cost(name, chosen) for name in self.plain.by_node},
            predicted_loss=self.problem.loss(chosen),
            loss=loss,
            unrepaired_error=float(np.sqrt(before)),
            output_error=float(np.sqrt(after)),
        )

    def _unreachable(self, wanted: Mapping[str, float]) -> UserError:
        least = {name: self.cost(self.problem.cheapest(name)).total(name) for name in wanted}
        return UserError(
            f"pass {NAME} cannot keep to {described(wanted)}: as long as every input has a path to the output, the "
            f"least is {described_beside(least, self.plain)}; raise the budget or let other blocks go."
        )


def effect(study: Study, found: Outcome) -> dict[str, Any]:
    """For the history."""
    return {
        "removed": dict(found.removed),
        "predicted_loss": found.predicted_loss,
        "loss": found.loss,
        "unrepaired_error": found.unrepaired_error,
        "output_error": found.output_error,
        "cost": compared(study.plain, found.predicted_cost, found.cost),
    }
