"""DeepCache (Ma et al., arXiv 2312.00858): between full steps, only a UNet's outermost layers run.

What comes up from the deep layers changes little from step to step. A full step leaves it where the branch of a skip
connection joins it, and the steps after it run that branch alone, with what was left.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, Literal

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from ...ir.blocks import discover
from ...ir.errors import UserError
from ...ir.macs import macs
from ...ir.program import NEXT, Program
from ..base import Context, Pass
from .schedules import centred, uniform


class DeepCacheConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    interval: int = Field(
        default=3, ge=2, le=1000, description="From one full step to the next, in the mean [steps]."
    )
    depth: int = Field(
        default=1,
        ge=1,
        description="From the outermost in, those whose branches every step runs [skip connections].",
    )
    spacing: Literal["uniform", "centred"] = Field(
        default="uniform",
        description="How full steps lie in a loop: evenly, or closer together about its centre [1].",
    )
    centre: float = Field(default=0.3, ge=0, le=1, description="Where they are closest [share of the loop].")
    power: float = Field(default=1.4, ge=1, le=10, description="How much closer; 1 is evenly spaced [1].")
    steps: tuple[PositiveInt, ...] = Field(
        default=(10, 20, 25, 30, 50), min_length=1,
        description="Loops to make schedules for; others follow the nearest [steps].",
    )  # fmt: skip


class DeepCache(Pass[DeepCacheConfig]):
    """Program of variant "full" -> the same with alternative "cached", its state and schedules.

    Where there are prompts to calibrate with, what it does to their pictures is measured.
    """

    name = "deep-cache"
    Config = DeepCacheConfig

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        changed = program.copy()
        full = changed.variants["full"]
        deep = self._deepest_value(full.graph)
        name, shape = str(deep.name), tuple(deep.shape.numpy()) if deep.shape is not None else ()
        deep.name = f"{name}{NEXT}"
        full.graph.outputs.append(deep)
        variants = {"full": full, "cached": _from(full, deep, name)}
        schedule = {steps: self._schedule(steps) for steps in self.config.steps}
        changed = replace(changed, variants=variants, state={name: shape}, schedule=schedule)
        effect: dict[str, Any] = {
            "macs": {label: macs(model) for label, model in variants.items()},
            "state_bytes": math.prod(shape) * 4,
            "full_steps": {str(steps): run.count("full") for steps, run in schedule.items()},
        }
        if context.quality is not None:
            effect["quality"] = dict(context.quality(changed))
        return changed, effect

    def _deepest_value(self, graph: ir.Graph) -> ir.Value:
        """What the join of the innermost skip that still runs takes in from below."""
        skips = discover(graph).skips
        joins = list(dict.fromkeys(skip.join for skip in skips))
        if len(joins) < self.config.depth:
            raise UserError(
                f"pass deep-cache, depth {self.config.depth}: the model has {len(joins)} skip connections; give fewer."
            )
        join = joins[-self.config.depth]
        around = {skip.source for skip in skips if skip.join is join}
        below = [value for value in join.inputs if value is not None and value not in around]
        if len(below) != 1 or below[0].producer() is None:
            raise UserError(
                f"pass deep-cache: {join.name} does not join one value from below with a skip connection."
            )
        return below[0]

    def _schedule(self, steps: int) -> list[str]:
        config = self.config
        if config.spacing == "uniform":
            filled = uniform(steps, config.interval)
        else:
            filled = centred(steps, config.interval, config.centre, config.power)
        return ["full" if step in filled else "cached" for step in range(steps)]


def _from(full: ir.Model, deep: ir.Value, name: str) -> ir.Model:
    """What is computed from ``deep``, given as input ``name``, and from whatever needs it not."""
    model = full.clone()
    graph = model.graph
    graph.outputs.pop()
    cut = next(value for node in graph for value in node.outputs if value.name == deep.name)
    given = ir.Value(name=name, shape=cut.shape, type=cut.type)
    ir.convenience.replace_all_uses_with(cut, given)
    graph.inputs.append(given)
    RemoveUnusedNodesPass()(model)
    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)
    return model
