"""Units of a quantised program fitted one after the other, each on what those before it made of its inputs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...ir.constants import numbers_of
from ...ir.program import Program
from .kept import Integers, Learned
from .material import Material
from .reconstruction import Rounding, Sample, Schedule, learn, relative_error
from .torch_graph import TorchGraph
from .torch_values import integer_range
from .units import Unit, Weight
from .walk import Values, Walk


class Learner:
    """``program`` is the quantised one, whose weights the caller replaces as they are learned."""

    def __init__(self, program: Program, given: Material, schedule: Schedule, device: str) -> None:
        self._graph, self._device, self._schedule = program.variants["full"].graph, device, schedule
        calls = [*given.learning, *given.unseen]
        self._walks = Walk(program, calls, device), Walk(given.reference, calls, device)
        exact = given.reference.variants["full"].graph
        self._exact = {str(value.name) for node in exact for value in node.outputs}
        self._learning, self._guidance = len(given.learning), given.guidance

    def fit(self, unit: Unit, later: Sequence[Unit], seed: int, progress: Callable[[int], None]) -> Learned:
        """The integers of a unit's weights: learned, or the nearest where learning is no better on new calls."""
        samples = self._samples(unit, later)
        region = TorchGraph(
            self._graph,
            unit.outputs,
            given={*unit.inputs, *(one.name for one in unit.weights)},
            device=self._device,
        )
        roundings = {one.name: self._rounding(one) for one in unit.weights}
        nearest = {name: one.nearest for name, one in roundings.items()}
        learning, unseen = samples[: self._learning], samples[self._learning :]

        def error(integers: Mapping[str, torch.Tensor]) -> float:
            weights = {name: roundings[name].dequantised(one) for name, one in integers.items()}
            return relative_error(region, weights, unseen, self._guidance)

        own_seed = hashlib.sha256(f"{seed} {unit.name}".encode()).digest()[:7]
        draw = torch.Generator().manual_seed(int.from_bytes(own_seed))
        learn(region, roundings, learning, self._schedule, self._guidance, draw, progress)
        found = {name: one.hard() for name, one in roundings.items()}
        before, after = error(nearest), error(found)
        if after >= before:
            found, after = nearest, before
        changed = sum(int((found[name] != nearest[name]).sum()) for name in found)
        return Learned(
            {one.name: _integers(one, found[one.name]) for one in unit.weights}, before, after, changed
        )

    def _samples(self, unit: Unit, later: Sequence[Unit]) -> list[Sample]:
        inputs = {name for one in later for name in one.inputs}
        quantised, reference = self._walks
        known = [name for name in unit.inputs if name in self._exact]
        wanted = inputs & self._exact | {name for one in later for name in one.outputs}
        exact = reference.take([*unit.outputs, *known], wanted)
        read = quantised.take(unit.inputs, inputs)
        return [
            Sample(
                self._placed(theirs, unit.inputs),
                self._placed(ours, known),
                self._placed(ours, unit.outputs),
            )
            for theirs, ours in zip(read, exact, strict=True)
        ]

    def _placed(self, values: Values, names: Collection[str]) -> Values:
        return {name: values[name].to(self._device) for name in names}

    def _rounding(self, weight: Weight) -> Rounding:
        node = weight.rounding
        value, scale, *zero = (torch.tensor(one, device=self._device) for one in _operands(weight))
        axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
        limits = integer_range(node.outputs[0].dtype)
        return Rounding(value, scale, zero[0] if zero else None, axis, block, limits)


def _operands(weight: Weight) -> list[NDArray[Any]]:
    """The weight, its scale and, if there is one, its zero point in a type that torch knows."""
    values = [numbers_of(value) for value in weight.rounding.inputs if value is not None]
    return [*values[:2], *(one.astype(np.int32) for one in values[2:])]


def _integers(weight: Weight, values: torch.Tensor) -> Integers:
    _, scale, *zero = _operands(weight)
    return Integers(values.cpu().numpy().astype(np.int32), scale, *zero)
