"""Reused values carried on along their last change (Liu et al., TaylorSeer, arXiv 2503.06923, of the first order).

A step that computes a state anew, and knows it as it was, leaves its change as well; the steps after it read the state
and so much of the change as steps have passed. How much is a row of a table by timestep. The first step knows nothing
of before, and leaves no change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir
from pydantic import Field

from ...ir.errors import UserError
from ...ir.making import Maker, reroute
from ...ir.program import NEXT, Program
from ..base import Context, Pass, PassConfig, Trajectory
from ..hoist import hoisted
from ..measuring import latent_error
from ..per_step import input_like, per_step, share_tensors, step_input

CHANGE = ".change"
"""Ends the name of a state that is how much another changed when it was last computed."""

AGAIN = "again"
"""The alternative that computes everything, as "full" does, and knows what was left before."""

Shares = Mapping[str, Mapping[float, float]]
"""By state and timestep, steps since it was computed over those between that and the time before."""


class PredictReuseConfig(PassConfig):
    strengths: tuple[float, ...] = Field(
        default=(0.5, 1.0), min_length=1,
        description="Shares of the change that are tried; the best by final latents is kept, or none [1].",
    )  # fmt: skip
    pictures: int = Field(default=4, ge=1, description="By which they are tried [pictures].")


class PredictReuse(Pass[PredictReuseConfig]):
    """Program with schedules -> the same, with states carried on; as it was where final latents lose by that.

    Raises UserError if it has no schedule, reads no timestep, or was corrected for reuse already.
    """

    name = "predict-reuse"
    Config = PredictReuseConfig
    every_variant = True

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        draw = context.require_draw(self.name)
        if not program.state:
            raise UserError(
                f"pass {self.name} predicts what steps reuse, and these reuse nothing; put it after the pass that "
                "makes a schedule."
            )
        if any(entry.pass_name in (self.name, "correct-reuse") for entry in program.history):
            raise UserError(f"pass {self.name} stands once in a recipe, and not with correct-reuse.")
        pictures = self.config.pictures
        exact = {calls: draw(program.in_full(), calls, pictures) for calls in program.schedule}
        timestep = str(step_input(program).name)
        shares = _shares(program, {calls: _timesteps(one[0], timestep) for calls, one in exact.items()})
        candidates = {0.0: program}
        candidates |= {strength: predicted(program, shares, strength) for strength in self.config.strengths}
        losses = {
            strength: {
                str(calls): latent_error(draw(hoisted(one), calls, pictures), theirs)
                for calls, theirs in exact.items()
            }
            for strength, one in candidates.items()
        }
        best = min(losses, key=lambda strength: (sum(losses[strength].values()), strength))
        return candidates[best], {
            "strength": best,
            "latent_error": {f"{strength:g}": loss for strength, loss in losses.items()},
        }


def predicted(program: Program, shares: Shares, strength: float) -> Program:
    """With ``strength`` times the change, by its share, added to every state that is read."""
    changed = program.copy()
    timestep = step_input(changed)
    again = changed.variants["full"].clone()
    schedule = {
        calls: [AGAIN if call and name == "full" else name for call, name in enumerate(run)]
        for calls, run in program.schedule.items()
    }
    variants = dict(changed.variants)
    if any(AGAIN in run for run in schedule.values()):
        variants[AGAIN] = again
    read = {name: changed.state_read(name) for name in changed.alternatives[1:]}
    for name, model in variants.items():
        for state in read.get(name, ()):
            _carry_on(model.graph, state, timestep, shares[state], strength, name)
        _leave_changes(model.graph, program.state, knows=name != "full")
        model.graph.sort()
    share_tensors(variants.values())
    state = program.state | {f"{name}{CHANGE}": shape for name, shape in program.state.items()}
    return replace(changed, variants=variants, schedule=schedule, state=state)


def _carry_on(
    graph: ir.Graph,
    state: str,
    timestep: ir.Value,
    shares: Mapping[float, float],
    strength: float,
    variant: str,
) -> None:
    given = next(value for value in graph.inputs if value.name == state)
    readers = list(given.uses())
    change = input_like(graph, given, f"{state}{CHANGE}")
    maker = Maker(graph[0], f"predict.{variant}.{state}")
    assert given.shape is not None
    shape = given.shape.numpy()
    rows = strength * np.array(list(shares.values())).reshape(-1, *([1] * len(shape)))
    row = per_step(graph, input_like(graph, timestep), list(shares), rows, f"share.{variant}.{state}")
    result = maker.add("Add", (given, maker.add("Mul", (change, row), shape)), shape)
    maker.before()
    reroute(readers, result)


def _leave_changes(graph: ir.Graph, state: Mapping[str, Sequence[int]], *, knows: bool) -> None:
    """What is left of a state, less what it was; of a first step, less itself."""
    left = {str(value.name).removesuffix(NEXT): value for value in graph.outputs}
    for name in [name for name in left if name in state and f"{name}{NEXT}" == left[name].name]:
        value = left[name]
        place = value.producer()
        assert place is not None
        maker = Maker(place, "change")
        before = input_like(graph, value, name) if knows else value
        change = maker.add("Sub", (value, before), state[name])
        maker.after()
        change.name = f"{name}{CHANGE}{NEXT}"
        graph.outputs.append(change)


def _timesteps(picture: Trajectory, name: str) -> list[float]:
    return [float(np.ravel(inputs[name])[0]) for inputs in picture.calls]


def _shares(program: Program, timesteps: Mapping[int, Sequence[float]]) -> dict[str, dict[float, float]]:
    found: dict[str, dict[float, float]] = {}
    left = {name: {*program.state_left(name)} for name in program.alternatives}
    for calls, run in program.schedule.items():
        for state in program.state:
            known: list[int] = []
            for call, name in enumerate(run):
                gap = known[-1] - known[-2] if len(known) > 1 else 1
                if known:
                    shares = found.setdefault(state, {})
                    # Loops that meet in a timestep share its row: that of the first counts.
                    shares.setdefault(timesteps[calls][call], (call - known[-1]) / gap)
                if state in left[name]:
                    known.append(call)
    return {state: dict(sorted(shares.items())) for state, shares in found.items()}
