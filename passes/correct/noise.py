"""Quantisation noise of the output, corrected timestep by timestep (PTQD; He et al., arXiv 2305.10657).

What rounding does to the output is in part a multiple of the output and a shift of its channels: both are taken off
(eq. 10 and 11), whatever the model predicts, for it is the output that is regressed. What remains is noise of no
correlation with the output: a stochastic sampler adds that much less of its own (runtime/samplers/residual.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict

from ...ir.annotations import set_residual
from ...ir.errors import UserError
from ...ir.making import Maker, supersede
from ...ir.program import Program
from ..base import Arrays, Context, Pass
from ..measuring import side_by_side
from ..per_step import per_step, step_input
from .judging import judges, require_first, timesteps
from .regression import Correction, Sums, candidates, products, square


class CorrectNoiseConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CorrectNoise(Pass[CorrectNoiseConfig]):
    """Program -> the same with its output nearer to the float program's, and how far it is from it still.

    Both are given the calls of the calibration, and a timestep is corrected if calls that were not fitted to say that
    it helps. Raises UserError if the program reads no timestep, or no timestep has two calls.
    """

    name = "correct-noise"
    Config = CorrectNoiseConfig

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        calls = context.require("calibration", self.name)
        reference: Program = context.require("reference", self.name)
        changed = program.copy()
        graph, timestep = changed.variants["full"].graph, step_input(changed)
        steps = timesteps(program, calls)
        require_first(program, self.name)
        judging = judges(steps)
        if not any(judging):
            raise UserError(
                "pass correct-noise needs two calls or more of a timestep, one to fit and one to judge a correction; "
                "calibrate with more pictures."
            )
        output = graph.outputs[0]
        fitted, judged = self._sums(context, (reference, program), str(output.name), calls, steps, judging)
        chosen = {
            step: min(candidates(sums), key=lambda one: one.error(judged[step]))
            if step in judged
            else _none(sums)
            for step, sums in fitted.items()
        }
        remaining = [
            chosen[step].residual(sums + judged[step] if step in judged else sums)
            for step, sums in fitted.items()
        ]
        _correct(graph, timestep, chosen)
        set_residual(graph.outputs[0], list(chosen), [_branches(one).tolist() for one in remaining])
        return changed, _effect(chosen, judged)

    def _sums(
        self,
        context: Context,
        programs: tuple[Program, Program],
        output: str,
        calls: Sequence[Arrays],
        steps: Sequence[float],
        judging: Sequence[bool],
    ) -> tuple[dict[float, Sums], dict[float, Sums]]:
        """Of calls to fit to and of those that judge, by timestep."""
        fitted: dict[float, Sums] = {}
        judged: dict[float, Sums] = {}
        results = side_by_side(context, programs, calls)
        for step, held_out, (theirs, ours) in zip(steps, judging, results, strict=True):
            exact = theirs[output]
            sums = products(exact, ours[output] - exact.astype(np.float64))
            side = judged if held_out else fitted
            side[step] = side[step] + sums if step in side else sums
        return fitted, judged


def _none(sums: Sums) -> Correction:
    return candidates(sums)[0]


def _correct(graph: ir.Graph, timestep: ir.Value, chosen: Mapping[float, Correction]) -> None:
    """scale y + shift at the end of the graph, where it becomes the end of the last product."""
    output = graph.outputs[0]
    place = output.producer()
    assert place is not None and output.shape is not None
    shape = output.shape.numpy()
    ones = (1,) * (len(shape) - 2)
    scales = np.array([one.scale for one in chosen.values()]).reshape(-1, 1, 1, *ones)
    shifts = np.array([one.shift for one in chosen.values()]).reshape(-1, 1, shape[1], *ones)
    maker = Maker(place, "correct-noise")
    result = output
    for operator, rows, neutral in (("Mul", scales, 1), ("Add", shifts, 0)):
        if (rows != neutral).any():
            row = per_step(graph, timestep, list(chosen), rows, f"{operator}.{output.name}")
            result = maker.add(operator, (result, row), shape)
    maker.after()
    if result is not output:
        supersede(output, result, ())


def _branches(products: NDArray[np.float64]) -> NDArray[np.float64]:
    """A batch of two holds the two branches of guidance, whose errors may be alike; others are rows of one kind."""
    return products if len(products) == 2 else np.mean(np.diagonal(products), keepdims=True)[None]


def _effect(chosen: Mapping[float, Correction], judged: Mapping[float, Sums]) -> dict[str, Any]:
    """Errors are those of the calls that judge, as shares of the float output."""
    sizes = {step: square(sums) for step, sums in judged.items()}
    befores = {step: _none(sums).error(sums) for step, sums in judged.items()}
    afters = {step: chosen[step].error(sums) for step, sums in judged.items()}

    def share(errors: Mapping[float, float], *steps: float) -> float:
        return float(
            np.sqrt(sum(errors[step] for step in steps) / (sum(sizes[step] for step in steps) or 1.0))
        )

    return {
        "timesteps": len(chosen),
        "corrected": sum(bool(one.slope or one.mean.any()) for one in chosen.values()),
        "output_error_before": share(befores, *judged),
        "output_error": share(afters, *judged),
        "by_timestep": {
            f"{step:g}": {
                "slope": chosen[step].slope,
                "output_error_before": share(befores, step),
                "output_error": share(afters, step),
            }
            for step in judged
        },
    }
