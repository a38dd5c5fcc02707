"""Denoising loops of a model that reads no prompts: what passes look at where it is known how the model is sampled.

A consistency model that was trained at noise levels from 80 down to 0.002 has no timestep 999, and what it computes
there says nothing of its pictures; in its own loop its values are those that it will have on a device.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..ir.errors import UserError
from ..ir.interpreter import Interpreter
from ..ir.program import Program
from ..ir.rates import Rate
from ..passes.base import Context, Trajectory
from ..runtime import samplers
from ..runtime.loop import denoise, of_sample
from ..runtime.model import as_type
from ..runtime.noise import Noise
from .quality.calls import Spread, chosen
from .quality.recorder import Recorder

Values = Mapping[str, Sequence[float]]
"""Of inputs that stay through a loop, by name: a number a picture, taken in turns."""


def inputs_of(program: Program, rate: Rate) -> list[ir.Value]:
    """What the caller of a model gives that changes so often."""
    graph = program.variants["full"].graph
    return [value for value in graph.inputs if program.rates.get(str(value.name)) is rate]


def drawn_input(value: ir.Value, rng: np.random.Generator) -> NDArray[Any]:
    """Normal noise, or any of the classes of a table that the input chooses from."""
    assert value.shape is not None and value.dtype is not None
    shape, dtype = value.shape.numpy(), value.dtype.numpy()
    if value.dtype.is_integer():
        return rng.integers(0, _rows_of(value) or 1, shape, dtype)
    return rng.standard_normal(shape).astype(dtype)


def _rows_of(value: ir.Value) -> int | None:
    """Of the smallest table that a value chooses rows of, if it does."""
    tables = [
        table
        for node, index in value.uses()
        if node.op_type == "Gather" and index == 1 and (table := node.inputs[0]) is not None
    ]
    return min((int(table.shape.numpy()[0]) for table in tables if table.shape is not None), default=None)


def denoises(program: Program) -> bool:
    """Whether a loop can be closed: one sample and one step go in, and the sample's shape comes out, or twice its
    channels.
    """
    samples = inputs_of(program, Rate.SAMPLE)
    if len(samples) != 1 or len(inputs_of(program, Rate.STEP)) != 1:
        return False
    result = program.variants["full"].graph.outputs[0]
    assert samples[0].shape is not None and result.shape is not None
    before, after = list(samples[0].shape.numpy()), list(result.shape.numpy())
    return after == before or (len(before) > 1 and after == [before[0], 2 * before[1], *before[2:]])


@dataclass(frozen=True)
class Loops:
    """Pictures by a ``sampler`` (``runtime.samplers.create``), each from its number and ``seed`` as the seed.

    Inputs that stay through a loop have ``values``, or are drawn. Raises UserError for values of no such input or that
    it does not take, and FickError for a sampler that there is not.
    """

    sampler: Mapping[str, Any]
    seed: int
    values: Values
    progress: Callable[[int, int], None]

    def context(
        self, program: Program, *, pictures: int, steps: int, most_calls: int, spread: Spread
    ) -> Context:
        """What passes over ``program`` may ask for. A sampler that lists its own noise levels takes those."""
        stays = inputs_of(program, Rate.PROMPT)
        self._check(stays)
        samplers.create(self.sampler)  # before its levels are counted
        draw = partial(self._draw, stays)
        found = draw(program, len(self.sampler.get("sigmas") or range(steps)), pictures)
        (step,) = inputs_of(program, Rate.STEP)
        calls = [dict(call) for one in found for call in one.calls]
        return Context(
            seed=self.seed, referee=Interpreter, reference=program, draw=draw, progress=self.progress,
            calibration=chosen(calls, str(step.name), most_calls, spread, self.seed),
        )  # fmt: skip

    def _check(self, inputs: Sequence[ir.Value]) -> None:
        known = {str(value.name): value for value in inputs}
        if unknown := sorted({*self.values} - {*known}):
            raise UserError(
                f"the recipe calibrates with values of {unknown[0]}, which is no input that stays through a loop; "
                + (f"those are {', '.join(known)}." if known else "the model has none.")
            )
        for name, values in self.values.items():
            dtype, rows = known[name].dtype, _rows_of(known[name])
            if dtype is None or not dtype.is_integer():
                continue
            wrong = [one for one in values if one % 1 or (rows is not None and not 0 <= one < rows)]
            if wrong:
                most = "" if rows is None else f" from 0 to {rows - 1}"
                raise UserError(
                    f"the recipe calibrates with {wrong[0]:g} for {name}, which takes whole numbers{most}."
                )

    def _draw(
        self, stays: Sequence[ir.Value], program: Program, steps: int, pictures: int
    ) -> list[Trajectory]:
        """The first ``pictures``, by any program made of the model whose inputs ``stays`` are: in which variant it
        reads them, and whether at all, makes no difference to what they are given.
        """
        loop = samplers.create(self.sampler, steps)
        network = Recorder(program, len(loop.steps))
        found: list[Trajectory] = []
        for picture in range(pictures):
            self.progress(picture, pictures)
            network.begin()
            result = self._picture(loop, network, self._given(stays, picture), picture)
            found.append(Trajectory(network.calls, result[0]))
        self.progress(pictures, pictures)
        return found

    def _picture(
        self, loop: samplers.Sampler, network: Recorder, given: Mapping[str, NDArray[Any]], picture: int
    ) -> NDArray[np.float32]:
        by_rate = {one.rate: one for one in network.inputs.values()}
        sample, step = by_rate[Rate.SAMPLE.value], by_rate[Rate.STEP.value]
        given = {name: value for name, value in given.items() if name in network.inputs}
        steps, noise = as_type(loop.steps, step), Noise(self.seed + picture)

        def predict(x: NDArray[np.float32], index: int) -> NDArray[np.float32]:
            at = np.full(step.shape, steps[index])
            (output, *_) = network.run(**given, **{sample.name: x, step.name: at}).values()
            return of_sample(output, x)

        return denoise(loop, predict, loop.initial(noise.standard_normal(sample.shape)), noise)

    def _given(self, stays: Sequence[ir.Value], picture: int) -> dict[str, NDArray[Any]]:
        rng = np.random.default_rng((self.seed, picture))
        found: dict[str, NDArray[Any]] = {}
        for value in stays:
            found[str(value.name)] = drawn = drawn_input(value, rng)
            if values := self.values.get(str(value.name)):
                drawn[...] = values[picture % len(values)]
        return found
