"""Formats for every product by an optimiser, within a budget of what the target takes.

As MixDQ (Zhao et al., arXiv 2405.17873): how much each product in each format disturbs the output by itself, and an
integer programme that takes the least sum of disturbances. There each is measured, which gradients tell of all at once
here (gradients.py), and the budget is an average of bits; here it is what the program costs on its target, predicted or
measured, conversions between formats included. Disturbances are noise-to-signal ratios of the output; with
``pictures``, those of cross-attention and feed-forward layers are what the pictures lose in structural similarity, as
there, and the two sums are weighed against each other in several ways.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from ...ir.program import Program
from ..base import Context, Pass
from ..budget import compared, read
from .config import AssignConfig
from .formats import FORMATS
from .study import Study


class Assign(Pass[AssignConfig]):
    """Program -> the same with its products in formats of their own, and what is predicted and measured of it.

    Raises UserError for a budget that no choice of formats keeps to, saying what the least is.
    """

    name = "assign"
    Config = AssignConfig

    @property
    def formats(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(one for name in self.config.formats for one in FORMATS[name].formats))

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        config = self.config
        study = Study(program, context, config)
        found = study.outcome(study.within(read(config.budget)))
        counts = Counter(found.assignment.values())
        return found.program, {
            "products": {name: counts[name] for name in study.formats},
            "weight_bits": found.weight_bits,
            "conversions": found.conversions,
            "errors": study.errors,
            "predicted_error": found.predicted_error,
            "output_error": found.output_error,
            "cost": compared(study.plain, found.predicted_cost, found.cost),
            "formats": dict(found.assignment),
        }
