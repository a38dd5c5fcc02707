"""Distillation without data: a quantised program learns to give what the float program gives along its trajectories.

EfficientDM (He et al., arXiv 2310.03270): neither pictures nor the network that made them are needed, only the float
program's own outputs at the samples that it passes through; what is learned is little (student.py). It goes with one
checkpoint, as learned rounding does, and takes its place.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass
from pydantic import Field

from ...ir.errors import UserError
from ...ir.program import Program
from ...ir.rates import analyse
from ..base import Context, Pass
from ..measuring import output_error
from .material import LongLearningConfig, material, place
from .units import freeze, weights


class DistilConfig(LongLearningConfig):
    rank: int = Field(
        default=32, ge=1, description="Columns of the matrices learned beside a weight [columns]."
    )
    iterations: int = Field(default=800, ge=1, description="Steps of gradient descent [steps].")
    learning_rate: float = Field(
        default=2e-3,
        gt=0,
        description="Adam's at first, of weights; it falls as a cosine does [rms of the weight].",
    )
    scale_rate: float = Field(
        default=1e-3, gt=0, description="Adam's at first, of the logarithm of scales; it falls likewise [1]."
    )


class Distil(Pass[DistilConfig]):
    """Quantised program -> the same with weights and scales learned from the float program's outputs, and what that
    gains on calls held out: |given - wanted| / |wanted| of the output.

    What is learned is kept in the context's work folder every tenth of the way, and where it does no better on those
    calls nothing changes. Raises UserError without torch, or where no weight is quantised.
    """

    name = "distil"
    Config = DistilConfig

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        config = self.config
        given = material(self, context)
        changed = program.copy()
        graph = changed.variants["full"].graph
        if not any(weights(graph, analyse(graph, program.rates))):
            raise UserError(
                f"pass {self.name} finds no weight that is rounded to integers; let quantise stand before it in the "
                "recipe, and learn-rounding not."
            )
        from .lessons import Course, teach
        from .student import Student

        student = Student(changed, config.rank, context.seed, config.device)
        rates = config.learning_rate, config.scale_rate
        course = Course(config.iterations, config.batch, config.device, rates)
        lesson = teach(student, given, course, place(self, program, given, context), context)
        if lesson.after < lesson.before:
            integers = student.integers()
            for weight in student.weights:
                freeze(weight, integers[weight.name])
            for name, numbers in student.scales().items():
                graph.initializers[name].const_value = ir.tensor(numbers, name=name)
            RemoveUnusedNodesPass()(changed.variants["full"])
        changed = replace(changed, weights=program.weights & set(graph.initializers))
        return changed, {
            "weights": len(student.weights),
            "activations": len(student.tables),
            "held_out_error": {"nearest": lesson.before, "learned": lesson.after},
            "output_error": output_error(context, given.reference, changed, given.unseen),
        }
