"""Learned rounding: whether each weight of few bits is rounded up or down follows from what its block computes.

Rounding to the nearest is best for each weight by itself and not for a sum of products. AdaRound (Nagel et al., arXiv
2004.10568) chooses by the sum's error, BRECQ (Li et al., arXiv 2102.05426) by that of a whole block; see
reconstruction.py. What is learned goes with one checkpoint: the weight and its scale become constants of the graph,
and the checkpoint's tensor is read no more.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx_ir.passes.common import RemoveUnusedNodesPass
from pydantic import Field

from ...ir.errors import UserError
from ...ir.program import Program
from ..base import Context, Pass
from ..measuring import output_error
from .kept import Learned, load, save
from .material import LearningConfig, Material, material, place
from .units import Extent, Unit, freeze, units

if TYPE_CHECKING:
    from .learner import Learner


class LearnRoundingConfig(LearningConfig):
    bits: int = Field(default=4, ge=1, le=16, description="Weights of more bits stay as they are [bits].")
    extent: Extent = Field(
        default="part",
        description="Whose output's error counts: that of a product; of a resnet, an attention or a feed-forward part; "
        "of a whole transformer [layer, part or block].",
    )
    iterations: int = Field(default=1000, ge=1, description="Steps of gradient descent for a block [steps].")
    learning_rate: float = Field(default=0.1, gt=0, description="Adam's, of the rounding variable [1].")
    warm_up: float = Field(
        default=0.2, ge=0, lt=1, description="Share of the steps before roundings have to decide [1]."
    )
    regulariser: float = Field(
        default=400.0, ge=0, description="Weight of indecision [errors of rounding to the nearest]."
    )
    drop: float = Field(
        default=0.0, ge=0, le=1, description="Share of a block's inputs that are the float program's [1]."
    )


class LearnRounding(Pass[LearnRoundingConfig]):
    """Quantised program -> the same with weights rounded for the least error of their blocks, and what that gains:
    |given - wanted| / |wanted| of every block and of the output, against the float program, on calls held out.

    A block for which learning does no better on those calls keeps the nearest integers. Blocks that are done are kept
    in the context's work folder. Raises UserError without torch, or where no weight is of so few bits.
    """

    name = "learn-rounding"
    Config = LearnRoundingConfig

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        given = material(self, context)
        changed = program.copy()
        exact = {str(value.name) for node in given.reference.variants["full"].graph for value in node.outputs}
        found = units(changed, self.config.extent, self.config.bits, exact)
        if not found:
            raise UserError(
                f"pass {self.name} finds no weight quantised to {self.config.bits} bits or fewer; let quantise stand "
                "before it in the recipe."
            )
        folder = place(self, program, given, context)
        learner = self._learner(changed, given)
        results: dict[str, Learned] = {}
        for index, unit in enumerate(found):
            tell = self._told(context, index, len(found))
            learned = _kept(folder, unit, partial(learner.fit, unit, found[index + 1 :], context.seed, tell))
            for weight in unit.weights:
                freeze(weight, learned.integers[weight.name])
            results[unit.name] = learned
        RemoveUnusedNodesPass()(changed.variants["full"])
        changed = replace(changed, weights=program.weights & set(changed.variants["full"].graph.initializers))
        whole = [one.values.size for learned in results.values() for one in learned.integers.values()]
        return changed, {
            "weights": len(whole),
            "blocks": len(results),
            "improved": sum(one.after < one.before for one in results.values()),
            "changed_share": sum(one.changed for one in results.values()) / sum(whole),
            "block_error": {
                name: {"nearest": one.before, "learned": one.after} for name, one in results.items()
            },
            "output_error_nearest": output_error(context, given.reference, program, given.unseen),
            "output_error": output_error(context, given.reference, changed, given.unseen),
        }

    def _learner(self, program: Program, given: Material) -> Learner:
        from .learner import Learner
        from .reconstruction import Schedule

        schedule = Schedule(**self.config.model_dump(include=set(Schedule.__dataclass_fields__)))
        return Learner(program, given, schedule, self.config.device)

    def _told(self, context: Context, index: int, count: int) -> Callable[[int], None]:
        each, told = self.config.iterations, context.progress

        def tell(iteration: int) -> None:
            if told is not None:
                told(index * each + iteration, count * each)

        return tell


def _kept(folder: Path | None, unit: Unit, learn: Callable[[], Learned]) -> Learned:
    """What lies in the folder of the unit, or else what is learned now, which then lies there."""
    if folder is None:
        return learn()
    path = folder / f"{hashlib.sha256(unit.name.encode()).hexdigest()[:32]}.safetensors"
    learned = load(path)
    if learned is None:
        learned = learn()
        save(learned, path)
    return learned
