"""Quantisation noise of the output, corrected timestep by timestep (PTQD; He et al., arXiv 2305.10657).

What rounding does to the output is in part a multiple of the output and a shift of its channels: both are taken off
(eq. 10 and 11), whatever the model predicts, for it is the output that is regressed. What remains is noise of no
correlation with the output: a stochastic sampler adds that much less of its own (runtime/samplers/residual.py).

Where steps reuse what others left, that is part of the error: then the calls are those that the program's own schedules
make, and each alternative is corrected by what it itself is off by at a timestep.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import Field

from ...ir.annotations import set_residual
from ...ir.errors import UserError
from ...ir.making import Maker, supersede
from ...ir.program import Program
from ...ir.rates import Rate
from ..base import Arrays, Context, Pass, PassConfig
from ..calls import timesteps
from ..guidance import Guidance
from ..measuring import Order, own_calls, side_by_side
from ..per_step import input_like, per_step, share_tensors, step_input
from .judging import judges, require_first
from .regression import Correction, Sums, candidates, products, square

Place = tuple[str, float]
"""An alternative, and the timestep of a call that runs it."""


class CorrectNoiseConfig(PassConfig):
    pictures: int = Field(
        default=8, ge=2,
        description="Of the calibration's, drawn with the schedules' own steps after a schedule [pictures].",
    )  # fmt: skip


class CorrectNoise(Pass[CorrectNoiseConfig]):
    """Program -> the same with its output nearer to the float program's, and how far it is from it still.

    Both are given the calls of the calibration, or of the program's own loops where it has schedules, and a timestep of
    an alternative is corrected if calls that were not fitted to say that it helps. Raises UserError if the program
    reads no timestep, or no timestep has two calls.
    """

    name = "correct-noise"
    Config = CorrectNoiseConfig
    every_variant = True

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        calls: Sequence[Arrays] = context.require("calibration", self.name)
        reference: Program = context.require("reference", self.name)
        changed = program.copy()
        timestep = step_input(changed)
        require_first(program, self.name)
        order: Order = ["full"] * len(calls)
        if program.schedule:
            calls, order = own_calls(context, program, self.config.pictures, self.name)
        places = list(zip(order, timesteps(program, calls), strict=True))
        judging = judges(places)
        if not any(judging):
            raise UserError(
                "pass correct-noise needs two calls or more of a timestep, one to fit and one to judge a correction; "
                "calibrate with more pictures."
            )
        output = changed.variants["full"].graph.outputs[0]
        name, channels = str(output.name), _denoised(changed, output)
        fitted, judged = self._sums(context, (reference, program), name, channels, calls, places, judging)
        chosen = {
            place: min(candidates(sums), key=lambda one: one.error(judged[place], context.guidance))
            if place in judged
            else _none(sums)
            for place, sums in fitted.items()
        }
        for variant in changed.alternatives:
            own = {step: one for (ran, step), one in chosen.items() if ran == variant}
            if own:
                _correct(changed.variants[variant].graph, timestep, name, variant, own)
        share_tensors(changed.variants.values())
        remaining: dict[float, list[NDArray[np.float64]]] = defaultdict(list)
        for place, sums in fitted.items():
            left = chosen[place].residual(sums + judged[place] if place in judged else sums)
            remaining[place[1]].append(_branches(left))
        # Loops of several lengths may meet in a timestep with different alternatives.
        covariance = [np.mean(found, axis=0).tolist() for found in remaining.values()]
        set_residual(changed.variants["full"].graph.outputs[0], list(remaining), covariance)
        return changed, _effect(chosen, judged, context.guidance)

    def _sums(
        self,
        context: Context,
        programs: tuple[Program, Program],
        output: str,
        channels: int,
        calls: Sequence[Arrays],
        places: Sequence[Place],
        judging: Sequence[bool],
    ) -> tuple[dict[Place, Sums], dict[Place, Sums]]:
        """Of calls to fit to and of those that judge."""
        fitted: dict[Place, Sums] = {}
        judged: dict[Place, Sums] = {}
        results = side_by_side(context, programs, calls, order=[variant for variant, _ in places])
        for place, held_out, (theirs, ours) in zip(places, judging, results, strict=True):
            exact = theirs[output][:, :channels]
            sums = products(exact, ours[output][:, :channels] - exact.astype(np.float64))
            side = judged if held_out else fitted
            side[place] = side[place] + sums if place in side else sums
        return fitted, judged


def _denoised(program: Program, output: ir.Value) -> int:
    """Channels of the output that a sampler reads: those of the sample, without a variance that was learned beside."""
    assert output.shape is not None
    samples = [
        int(value.shape.numpy()[1])
        for value in program.variants["full"].graph.inputs
        if program.rates.get(str(value.name)) is Rate.SAMPLE and value.shape is not None
    ]
    return min([int(output.shape.numpy()[1]), *samples[:1]])


def _none(sums: Sums) -> Correction:
    return candidates(sums)[0]


def _correct(
    graph: ir.Graph, timestep: ir.Value, name: str, variant: str, chosen: Mapping[float, Correction]
) -> None:
    """scale y + shift at the end of the graph, where it becomes the end of the last product."""
    output = next(value for value in graph.outputs if value.name == name)
    place = output.producer()
    assert place is not None and output.shape is not None
    shape = output.shape.numpy()
    scales = _rows([np.full(len(one.mean), one.scale) for one in chosen.values()], shape, 1)
    shifts = _rows([one.shift for one in chosen.values()], shape, 0)
    maker = Maker(place, "correct-noise")
    result = output
    for operator, rows, neutral in (("Mul", scales, 1), ("Add", shifts, 0)):
        if (rows != neutral).any():
            when = input_like(graph, timestep)
            row = per_step(graph, when, list(chosen), rows, f"{operator}.{variant}.{output.name}")
            result = maker.add(operator, (result, row), shape)
    maker.after()
    if result is not output:
        supersede(output, result, ())


def _rows(rows: Iterable[NDArray[np.float64]], shape: Sequence[int], neutral: float) -> NDArray[np.float64]:
    """Numbers of a timestep's first channels as rows that go with the output; other channels stay as they are."""
    found = [np.pad(one, (0, shape[1] - len(one)), constant_values=neutral) for one in rows]
    return np.stack(found).reshape(len(found), 1, shape[1], *(1,) * (len(shape) - 2))


def _branches(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """A batch of two holds the two branches of guidance, whose errors may be alike; others are rows of one kind."""
    return products if len(products) == 2 else np.mean(np.diagonal(products), keepdims=True)[None]


def _effect(
    chosen: Mapping[Place, Correction], judged: Mapping[Place, Sums], guidance: Guidance
) -> dict[str, Any]:
    """Errors are those of the calls that judge, as shares of the float output."""
    sizes = {place: square(sums, guidance) for place, sums in judged.items()}
    befores = {place: _none(sums).error(sums, guidance) for place, sums in judged.items()}
    afters = {place: chosen[place].error(sums, guidance) for place, sums in judged.items()}

    def share(errors: Mapping[Place, float], *places: Place) -> float:
        return float(
            np.sqrt(sum(errors[place] for place in places) / (sum(sizes[place] for place in places) or 1.0))
        )

    return {
        "timesteps": len({step for _, step in chosen}),
        "corrected": sum(bool(one.slope or one.mean.any()) for one in chosen.values()),
        "output_error_before": share(befores, *judged),
        "output_error": share(afters, *judged),
        "by_timestep": {
            f"{place[1]:g}" if place[0] == "full" else f"{place[1]:g}, {place[0]}": {
                "slope": chosen[place].slope,
                "output_error_before": share(befores, place),
                "output_error": share(afters, place),
            }
            for place in judged
        },
    }
