"""Formats for every product by an optimiser, within a budget of what the target takes.

As MixDQ (Zhao et al., arXiv 2405.17873): how much each product in each format disturbs the output by itself, and an
integer programme that takes the least sum of disturbances. There the budget is an average of bits; here it is what the
program costs on its target, predicted or measured, conversions between formats included. Disturbances are noise-to-
signal ratios of the output; with ``pictures``, those of cross-attention and feed-forward layers are what the pictures
lose in structural similarity, as there, and the two sums are weighed against each other in several ways.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from pydantic import ConfigDict, Field, field_validator

from ...ir.program import Program
from ..base import Context, Pass
from ..quantise.ranges import RangeConfig
from .budget import read
from .formats import FormatName
from .study import Study


class AssignConfig(RangeConfig):
    model_config = ConfigDict(frozen=True, extra="forbid")

    budget: str = Field(
        default="latency=0.5x",
        description="Most that the program may cost: latency=0.5x, bytes=250MB, energy=0.5x, several with commas.",
    )
    formats: tuple[FormatName, ...] = Field(
        default=("float32", "w8a8"),
        min_length=1,
        description="What a product may be computed in: float32, w8a8, w4a8, or weights alone as w8, w4.",
    )
    clip_weights: bool = Field(
        default=False,
        description="Whether a weight's range ends where its error is least, not at its largest.",
    )
    pictures: bool = Field(
        default=False,
        description="Whether cross-attention and feed-forward layers are scored by pictures drawn with each: hours.",
    )
    calls: int = Field(
        default=8, ge=1, description="Of the calibration's, by which errors are measured [calls]."
    )
    least_depth: int = Field(
        default=64, ge=1, description="Sums of fewer products stay as they are [products]."
    )

    @field_validator("budget")
    @classmethod
    def _readable(cls, text: str) -> str:
        read(text)
        return text


class Assign(Pass[AssignConfig]):
    """Program -> the same with its products in formats of their own, and what is predicted and measured of it.

    Raises UserError for a budget that no choice of formats keeps to, saying what the least is.
    """

    name = "assign"
    Config = AssignConfig

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        config = self.config
        study = Study(
            program,
            context,
            config.formats,
            config,
            calls=config.calls,
            least_depth=config.least_depth,
            clip_weights=config.clip_weights,
            pictures=config.pictures,
        )
        found = study.outcome(study.within(read(config.budget)))
        counts = Counter(found.assignment.values())
        return found.program, {
            "products": {name: counts[name] for name in study.formats},
            "weight_bits": found.weight_bits,
            "conversions": found.conversions,
            "predicted_error": found.predicted_error,
            "output_error": found.output_error,
            "cost": {
                name: {
                    "before": study.plain.total(name),
                    "predicted": found.predicted_cost[name],
                    "after": found.cost.total(name),
                }
                for name in found.cost.by_node
            },
            "formats": dict(found.assignment),
        }
