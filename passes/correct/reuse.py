"""Reused values brought nearer to what they would be, channel by channel and step by step.

Of a value that a step takes from state, the shift and scale that fit what it would have been (Wimbauer et al., arXiv
2312.03209, section 3.4; Liu et al., CacheQuant, arXiv 2503.01323, eq. 12), along trajectories that the program itself
draws: what reuse and rounding make of a loop's inputs is in them. Fitted on some pictures and judged on others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import Field

from ...ir.errors import UserError
from ...ir.making import Maker, reroute
from ...ir.program import NEXT, Program
from ...ir.shapes import channel_axis
from ..base import Context, Pass, PassConfig, Trajectory
from ..hoist import hoisted
from ..measuring import latent_error, require_call_a_step
from ..per_step import input_like, per_step, share_tensors, step_input
from .judging import require_first

JUDGES = 4
"""One picture in so many judges, the last at least."""

Place = tuple[str, float]
"""A state, and the timestep of a call that reads it."""


class CorrectReuseConfig(PassConfig):
    pictures: int = Field(
        default=8, ge=2, description="Of the calibration's, to fit and judge by [pictures]."
    )
    ridge: float = Field(
        default=0.1, ge=0, description="Pull of scales towards one, as a share of a channel's variance [1]."
    )


@dataclass
class Sums:
    """Of what was reused, r, and what it would have been, y, by channel: n, r, y, r r, r y, y y [6, channels]."""

    total: NDArray[np.float64]

    def fitted(self, ridge: float) -> NDArray[np.float64]:
        """Scale and shift [2, channels] of least squares, the scale drawn towards one."""
        count, r, y, rr, ry, _ = self.total
        variance = np.maximum(rr / count - np.square(r / count), 0)
        covariance = ry / count - r * y / np.square(count)
        # A channel that does not vary keeps its scale.
        weight = variance * (1 + ridge)
        scale = np.where(weight > 0, (covariance + ridge * variance) / np.where(weight > 0, weight, 1), 1.0)
        return np.stack([scale, (y - scale * r) / count])

    def error(self, correction: NDArray[np.float64]) -> float:
        """Sum of squares of scale r + shift - y."""
        count, r, y, rr, ry, yy = self.total
        a, b = correction
        squares = a * a * rr + count * b * b + yy + 2 * (a * b * r - a * ry - b * y)
        return float(np.maximum(squares, 0).sum())


class CorrectReuse(Pass[CorrectReuseConfig]):
    """Program with schedules -> the same, what its alternatives take from state scaled and shifted; as it was where
    final latents do not gain by that.

    Raises UserError if it has no schedule, or reads no timestep.
    """

    name = "correct-reuse"
    Config = CorrectReuseConfig
    every_variant = True

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        draw = context.require_draw(self.name)
        if not program.state:
            raise UserError(
                f"pass {self.name} corrects what steps reuse, and these reuse nothing; put it after the pass that "
                "makes a schedule."
            )
        require_first(program, self.name)
        if any(entry.pass_name == "predict-reuse" for entry in program.history):
            raise UserError(f"pass {self.name} corrects what is reused as it is; leave out predict-reuse.")
        step_input(program)
        drawn = {calls: draw(hoisted(program), calls, self.config.pictures) for calls in program.schedule}
        fit, judge = self._sums(program, context, drawn)
        found = {place: one.fitted(self.config.ridge) for place, one in fit.items()}
        as_is = {place: _identity(one.shape[1]) for place, one in found.items()}
        chosen = {place: min((as_is[place], one), key=judge[place].error) for place, one in found.items()}
        changed = _corrected(program, chosen)
        errors = {
            calls: self._latent_errors(program, changed, context, calls, before)
            for calls, before in drawn.items()
        }
        helps = sum(one["after"] for one in errors.values()) < sum(one["before"] for one in errors.values())
        return changed if helps else program, {
            "places": len(fit),
            "corrected": sum(chosen[place] is found[place] for place in fit) if helps else 0,
            "reuse_error_before": _share(judge, as_is),
            "reuse_error": _share(judge, chosen),
            "latent_error": {str(calls): one for calls, one in errors.items()},
        }

    def _latent_errors(
        self, program: Program, changed: Program, context: Context, calls: int, before: Sequence[Trajectory]
    ) -> dict[str, float]:
        """Of pictures, against the float program's, or this one's in full."""
        draw = context.require_draw(self.name)
        exact = draw(_truth(program, context), calls, self.config.pictures)
        after = draw(hoisted(changed), calls, self.config.pictures)
        return {"before": latent_error(before, exact), "after": latent_error(after, exact)}

    def _sums(
        self, program: Program, context: Context, drawn: Mapping[int, Sequence[Trajectory]]
    ) -> tuple[dict[Place, Sums], dict[Place, Sums]]:
        """Of pictures to fit to, and of those that judge."""
        fit: dict[Place, Sums] = {}
        judge: dict[Place, Sums] = {}
        for calls, pictures in drawn.items():
            for number, picture in enumerate(pictures):
                judges = number % JUDGES == JUDGES - 1 or (
                    number == len(pictures) - 1 and len(pictures) < JUDGES
                )
                side = judge if judges else fit
                for place, reused, wanted in _reused(program, context, program.schedule[calls], picture):
                    sums = _products(reused, wanted)
                    side[place] = Sums(side[place].total + sums) if place in side else Sums(sums)
        return fit, judge


def _reused(
    program: Program, context: Context, order: Sequence[str], picture: Trajectory
) -> Iterator[tuple[Place, NDArray[Any], NDArray[Any]]]:
    """Along a picture: every place with what was reused there and what it would have been."""
    referee: Any = context.require("referee", "correct-reuse")
    timestep = str(step_input(program).name)
    left_as = {name: f"{name}{NEXT}" for name in program.state}
    ours = referee(program, list(left_as.values()))
    exact = referee(_truth(program, context), [*left_as, *left_as.values()])
    require_call_a_step(picture, order, "correct-reuse")
    left: dict[str, NDArray[Any]] = {}
    for inputs, variant in zip(picture.calls, order, strict=True):
        step = float(np.ravel(inputs[timestep])[0])
        if read := program.state_read(variant):
            wanted = exact(inputs)
            for name in read:
                yield (name, step), left[name], wanted[name if name in wanted else left_as[name]]
        results = ours(inputs, variant)
        left |= {name: results[later] for name, later in left_as.items() if later in results}


def _truth(program: Program, context: Context) -> Program:
    """The float program if it has the same values, else the program with full steps alone."""
    reference = context.reference
    if reference is not None:
        made = {str(value.name) for node in reference.variants["full"].graph for value in node.outputs}
        if made >= set(program.state):
            return reference
    return program.in_full()


def _corrected(program: Program, chosen: Mapping[Place, NDArray[np.float64]]) -> Program:
    """With each state's scale and shift, rows of tables by timestep, right behind the input that brings it."""
    changed = program.copy()
    timestep = step_input(changed)
    # All tables have the same timesteps, so that they share what picks a row.
    steps = sorted({step for _, step in chosen})
    for variant in changed.alternatives[1:]:
        graph = changed.variants[variant].graph
        for given in [value for value in graph.inputs if value.name in changed.state]:
            rows = _rows(given, steps, chosen)
            if rows is None:
                continue
            when = input_like(graph, timestep)
            readers = list(given.uses())
            maker = Maker(graph[0], f"correct-reuse.{variant}.{given.name}")
            result, shape = given, program.state[str(given.name)]
            for operator, table in zip(("Mul", "Add"), rows, strict=True):
                row = per_step(graph, when, steps, table, f"{operator}.{variant}.{given.name}")
                result = maker.add(operator, (result, row), shape)
            maker.before()
            reroute(readers, result)
        graph.sort()
    share_tensors(changed.variants.values())
    return changed


def _rows(
    given: ir.Value, steps: Sequence[float], chosen: Mapping[Place, NDArray[np.float64]]
) -> NDArray[np.float64] | None:
    """Scales and shifts [2, steps, ...] that go with a state's shape; None where they change nothing."""
    assert given.shape is not None
    known = {step: one for (name, step), one in chosen.items() if name == given.name}
    if not known:
        return None
    channels = next(iter(known.values())).shape[1]
    identity = _identity(channels)
    rows = np.stack([known.get(step, identity) for step in steps], axis=1)
    if (rows == identity[:, None]).all():
        return None
    shape = [1] * len(given.shape)
    shape[channel_axis(len(shape))] = channels
    return rows.reshape(2, len(steps), *shape)


def _identity(channels: int) -> NDArray[np.float64]:
    return np.stack([np.ones(channels), np.zeros(channels)])


def _share(sums: Mapping[Place, Sums], corrections: Mapping[Place, NDArray[np.float64]]) -> float:
    """|scale r + shift - y| / |y| over all places."""
    error = sum(one.error(corrections[place]) for place, one in sums.items())
    size = sum(float(one.total[5].sum()) for one in sums.values())
    return float(np.sqrt(error / size)) if size else 0.0


def _products(reused: NDArray[Any], wanted: NDArray[Any]) -> NDArray[np.float64]:
    """As ``Sums``, of one call."""
    axis = channel_axis(reused.ndim)
    r, y = (
        np.moveaxis(one, axis, 0).reshape(one.shape[axis], -1).astype(np.float64) for one in (reused, wanted)
    )
    return np.stack([one.sum(1) for one in (np.ones_like(r), r, y, r * r, r * y, y * y)])
