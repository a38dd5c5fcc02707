"""Distillation block by block: a smaller program learns to give what the whole one gives, inside as well.

LAPTOP-Diff (Zhang et al., arXiv 2404.11098, section 3.4): the loss is the output's and that of the blocks' results,
each as a share of the teacher's norm, so that blocks of large numbers do not drown the others. Here all squares are
shares of the teacher's, and blocks are those that both have. Neither pictures nor labels are needed. What is learned
goes with one checkpoint, and takes its place.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from pydantic import Field

from ...ir.blocks import discover
from ...ir.errors import UserError
from ...ir.program import Program
from ..base import Context, Pass
from ..measuring import output_error
from .material import LongLearningConfig, material, place

STAGES = ("down_stage", "mid", "up_stage")

LEARNED = ".distilled"
"""What stands behind a weight's name when it was learned: under its own a bundle would take the checkpoint's."""


class DistilBlocksConfig(LongLearningConfig):
    iterations: int = Field(default=2000, ge=1, description="Steps of gradient descent [steps].")
    learning_rate: float = Field(
        default=1e-3,
        gt=0,
        description="Adam's at first, of weights; it falls as a cosine does [rms of the weight].",
    )
    blocks: float = Field(
        default=1.0,
        ge=0,
        description="What a block's result counts for against the output; 0 is that alone [1].",
    )


class DistilBlocks(Pass[DistilBlocksConfig]):
    """Program -> the same with all weights learned from what the program before the recipe gives, and what that gains
    on calls held out: |given - wanted| / |wanted| of the output.

    What is learned is kept in the context's work folder every tenth of the way, and where it does no better on those
    calls nothing changes. Raises UserError without torch, or where something is quantised.
    """

    name = "distil-blocks"
    Config = DistilBlocksConfig

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        config = self.config
        given = material(self, context)
        changed = program.copy()
        graph = changed.variants["full"].graph
        if any(node.op_type == "QuantizeLinear" for node in graph):
            raise UserError(
                f"pass {self.name} learns weights before they are rounded; put it before the pass that quantises, or "
                "take distil, which learns integers."
            )
        from .float_student import FloatStudent
        from .lessons import Course, teach

        student = FloatStudent(changed, config.device)
        if not student.names:
            raise UserError(
                f"pass {self.name} finds no weight of a checkpoint; name it once, before others that learn."
            )
        features = shared_results(given.reference, changed) if config.blocks else []
        course = Course(
            config.iterations, config.batch, config.device, [config.learning_rate], features, config.blocks
        )
        lesson = teach(student, given, course, place(self, program, given, context), context)
        weights = changed.weights
        if lesson.after < lesson.before:
            for name, numbers in student.learned().items():
                old = graph.initializers[name]
                new = ir.Value(
                    name=f"{name}{LEARNED}", const_value=ir.tensor(numbers), shape=old.shape, type=old.type
                )
                graph.register_initializer(new)
                ir.convenience.replace_all_uses_with(old, new)
            weights -= student.names
            RemoveUnusedNodesPass()(changed.variants["full"])
        changed = replace(changed, weights=frozenset(weights))
        return changed, {
            "weights": len(student.names),
            "blocks": features,
            "held_out_error": {"before": lesson.before, "learned": lesson.after},
            "output_error": output_error(context, given.reference, changed, given.unseen),
        }


def shared_results(reference: Program, program: Program) -> list[str]:
    """What the blocks give that are in neither a stage's place nor another block, and that both programs have, as wide
    in one as in the other.
    """
    known = {str(one.name): one.shape for node in program.variants["full"].graph for one in node.outputs}
    found: list[str] = []
    inside: set[ir.Node] = set()
    for block in discover(reference.variants["full"].graph).blocks:
        if block.kind in STAGES or inside.issuperset(block.nodes):
            continue
        inside.update(block.nodes)
        found += [
            str(value.name)
            for value in block.outputs
            if value.name in known and known[value.name] == value.shape
        ]
    return found
