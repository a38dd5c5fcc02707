"""Everything that assignments of one program share, measured once: ranges, sensitivities, and costs by format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ...ir.errors import UserError
from ...ir.program import Program
from ..base import Context
from ..budget import Limit, amounts, described, described_beside
from ..costs import Cost, CostModel
from ..programme import Matrix, kept_to
from ..quantise.choices import Choice
from ..quantise.products import mean_weight_bits, products, require_some
from ..quantise.ranges import Ranges, measure
from .config import AssignConfig, Errors
from .content import CONTENT_WEIGHTS, content
from .formats import FORMATS, FormatName, bits
from .programme import Problem
from .sensitivity import Measure, Sensitivity
from .tables import problem

Assignment = dict[str, FormatName]
"""Formats by the name of a product."""


@dataclass(frozen=True)
class Outcome:
    """An assignment, built and measured. Errors are those of the output, noise over signal as amplitudes.

    ``weight_bits`` are those of an element of all products' weights, on average; ``conversions`` are values stored both
    as numbers and as integers.
    """

    program: Program
    assignment: Mapping[str, FormatName]
    cost: Cost
    predicted_cost: Mapping[str, float]
    predicted_error: float
    output_error: float
    weight_bits: float
    conversions: int


class Study:
    """Of the products of ``program`` that ``config`` is about; its budget is the caller's business.

    Raises UserError where there is no such product, and for what the context lacks.
    """

    def __init__(self, program: Program, context: Context, config: AssignConfig) -> None:
        given = context.require("calibration", "assign")
        self._cost_model: CostModel = context.require("cost_model", "assign")
        self._program, self._config, self._progress = program, config, context.progress
        self.formats = tuple(sorted(dict.fromkeys(config.formats), key=bits, reverse=True))
        self.products = products(program.variants["full"].graph, program.rates, config.least_depth)
        require_some(self.products, config.least_depth, "assign")
        self._ranges = Ranges({})
        if any(FORMATS[name].activations != "float32" for name in self.formats):
            self._ranges = measure(context, program, [str(one.left.name) for one in self.products], config)
        places = np.unique(np.linspace(0, len(given) - 1, config.calls).round().astype(int))
        calls = [given[place] for place in places]
        self._sensitivity = Sensitivity(context, program, calls, self._ranges, config.clip_weights)

    @cached_property
    def problem(self) -> Problem:
        """With the noise of each product in each format: the slow part."""
        return replace(self._costs[0], errors=self._noise[1])

    @property
    def errors(self) -> Errors:
        """How noise was found."""
        return self._noise[0]

    @cached_property
    def _noise(self) -> tuple[Errors, Matrix]:
        if self._config.errors == "gradients":
            choices = [FORMATS[name] for name in self.formats]
            try:
                return "gradients", self._sensitivity.at_once(self.products, choices, self._progress)
            except UserError:
                pass  # torch is not there, or is not taught an operator: one by one takes longer, and is as good
        return "measured", self._alone("noise", [True] * len(self.products))

    @cached_property
    def _objectives(self) -> list[Problem]:
        """With every way to weigh noise against likeness, if that is asked for."""
        if not self._config.pictures:
            return [self.problem]
        graph, noise = self._program.variants["full"].graph, self.problem.errors
        likened = content(graph, self._program.rates, self.products)
        unlike = self._alone("unlikeness", likened)
        scale = noise[likened].sum() / (unlike.sum() or 1.0)
        rest = noise * ~np.array(likened)[:, None]
        return [replace(self.problem, errors=rest + weight * scale * unlike) for weight in CONTENT_WEIGHTS]

    def _alone(self, kind: Measure, wanted: Sequence[bool]) -> Matrix:
        """What is measured of each product in each format, where it is wanted: [products, formats]."""
        found = np.zeros((len(self.products), len(self.formats)))
        places = [(row, column) for row in np.flatnonzero(wanted) for column in range(len(self.formats))]
        for done, (row, column) in enumerate(places):
            choice = FORMATS[self.formats[column]]
            found[row, column] = self._sensitivity.alone(self.products[row].name, choice, kind)
            if self._progress is not None:
                self._progress(done + 1, len(places))
        return found

    @cached_property
    def _costs(self) -> tuple[Problem, Cost]:
        return problem(self._cost_model, self._program, self.products, self.formats, self._ranges)

    @property
    def plain(self) -> Cost:
        """What the program costs as it is."""
        return self._costs[1]

    def within(self, limits: Sequence[Limit]) -> Assignment:
        """The formats with the least predicted error whose program costs no more than ``limits`` by the cost model.

        Raises UserError where there is none, with what there is at best.
        """
        wanted = amounts(limits, self.plain, "pass assign")
        room = self._room(wanted)
        if self._costs[0].solve(room) is None:
            raise self._unreachable(wanted)
        found = list[Assignment]()
        for objective in self._objectives:
            best = self._best(objective, wanted, room)
            if best is not None and best not in found:
                found.append(best)
        if not found:
            raise self._unreachable(wanted)
        if len(found) == 1:
            return found[0]
        return min(found, key=lambda one: self._sensitivity.unlikeness(self.build(one)))

    def _room(self, wanted: Mapping[str, float]) -> dict[str, float]:
        """What the parts of a program may cost: more than the whole where even the cheapest would be too much by its
        parts and the whole is less than these, as it happens with what is measured.
        """
        if self._costs[0].solve(wanted) is not None:
            return dict(wanted)
        return {
            name: amount + max(self._costs[0].cost(name, self._cheapest(name)) - self.least(name), 0.0)
            for name, amount in wanted.items()
        }

    def _best(
        self, objective: Problem, wanted: Mapping[str, float], room: Mapping[str, float]
    ) -> Assignment | None:
        """The best whose program keeps to the limits, and not only the sum of its parts."""
        chosen = kept_to(
            wanted,
            room,
            objective.solve,
            objective.cost,
            lambda one: self.cost(self._named(one)),
        )
        return None if chosen is None else self._named(chosen)

    def least(self, quantity: str) -> float:
        """What the cheapest program of all costs."""
        return self.cost(self._named(self._cheapest(quantity))).total(quantity)

    def _cheapest(self, quantity: str) -> list[int]:
        return self._costs[0].cheapest(quantity)

    def uniform(self, name: FormatName) -> Assignment:
        """Every product in one format."""
        return {one.name: name for one in self.products}

    def above(self, psnr_db: float) -> Assignment:
        """Each product in the fewest bits whose isolated peak signal-to-noise ratio is at least ``psnr_db``: the mixed
        palettes of Apple's Core ML tools for Stable Diffusion. What is above it in no format keeps its numbers.
        """
        # The widest format comes first, and stands for all where none is good enough.
        enough = self.isolated_psnr_db >= psnr_db
        enough[:, 0] = True
        return self._named([int(np.flatnonzero(row)[-1]) for row in enough])

    @property
    def isolated_psnr_db(self) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
        """[products, formats]."""
        noise = np.maximum(self.problem.errors, 1e-30) / self._sensitivity.peak_over_signal
        return -10 * np.log10(noise)

    def build(self, assignment: Mapping[str, FormatName]) -> Program:
        return self._sensitivity.build(_choices(assignment))

    def cost(self, assignment: Mapping[str, FormatName]) -> Cost:
        """What the program that comes of it costs."""
        return self._cost_model(self.build(assignment))

    def outcome(self, assignment: Mapping[str, FormatName]) -> Outcome:
        """Built, costed and measured end to end."""
        chosen = [self.formats.index(assignment[one.name]) for one in self.products]
        program = self.build(assignment)
        everything = products(self._program.variants["full"].graph, self._program.rates)
        return Outcome(
            program=program,
            assignment=assignment,
            cost=self._cost_model(program),
            predicted_cost={name: self.problem.cost(name, chosen) for name in self.plain.by_node},
            predicted_error=float(np.sqrt(self.problem.error(chosen))),
            output_error=float(np.sqrt(self._sensitivity.noise(program))),
            weight_bits=mean_weight_bits(everything, _choices(assignment)),
            conversions=self.problem.stored_twice(chosen),
        )

    def _named(self, chosen: Sequence[int]) -> Assignment:
        return {one.name: self.formats[place] for one, place in zip(self.products, chosen, strict=True)}

    def _unreachable(self, wanted: Mapping[str, float]) -> UserError:
        least = described_beside({name: self.least(name) for name in wanted}, self.plain)
        return UserError(
            f"pass assign cannot keep to {described(wanted)}: with {', '.join(self.formats)} the least is {least}; "
            "raise the budget or allow other formats."
        )


def _choices(assignment: Mapping[str, FormatName]) -> dict[str, Choice]:
    return {name: FORMATS[one] for name, one in assignment.items() if one != "float32"}
