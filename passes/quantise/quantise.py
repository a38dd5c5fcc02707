"""Every product in the same formats."""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field, model_validator

from ...ir.errors import UserError
from ...ir.formats import INTEGERS
from ...ir.macs import COUNTS
from ...ir.program import Program
from ..base import Context, Pass
from ..measuring import output_error
from .apply import quantised
from .choices import AMONG, ActivationFormat, Choice, WeightFormat
from .config import ProductsConfig
from .products import attentions, mean_weight_bits, products
from .ranges import Ranges, measure


class QuantiseConfig(ProductsConfig):
    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: WeightFormat = Field(default="int8", description="Format of the weights.")
    activations: ActivationFormat = Field(
        default="int8", description="Format of what weights are multiplied with."
    )
    block: int = Field(
        default=0,
        ge=0,
        description="Weights along a column that share a scale, integers alone; 0 for whole columns [weights].",
    )
    attention: bool = Field(
        default=False,
        description="Whether queries, keys and values get the activations' format; probabilities stay exact.",
    )

    @model_validator(mode="after")
    def _goes_together(self) -> QuantiseConfig:
        if self.block and self.weights not in INTEGERS:
            raise ValueError(f"a block is one of integers, such as int4, and not of {self.weights} weights")
        if self.attention and self.activations == "float32":
            raise ValueError("attention is to be in the format of activations, and these stay in float32")
        return self


class Quantise(Pass[QuantiseConfig]):
    """Program -> the same with products of its loop, and of its prompt, in few bits, and what that does to the output.

    Raises UserError where no product can be quantised, or none is left to be.
    """

    name = "quantise"
    Config = QuantiseConfig

    @property
    def formats(self) -> tuple[str, ...]:
        return Choice(self.config.weights, self.config.activations).formats

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        config = self.config
        calls = context.require("calibration", self.name)
        graph = program.variants["full"].graph
        found = products(graph, program.rates, config.least_depth)
        if not found:
            raise UserError(
                "pass quantise finds no product with weights of at least "
                f"{config.least_depth} products a sum that is not quantised."
            )
        attended = attentions(graph) if config.attention else []
        ranges = Ranges({})
        if config.activations != "float32":
            names = [str(one.left.name) for one in found]
            names += [str(value.name) for node in attended for value in node.inputs[:3] if value is not None]
            ranges = measure(context, program, names, config, AMONG[config.activations])
        choices = {one.name: Choice(config.weights, config.activations) for one in found}
        changed = quantised(
            program, choices, ranges, clip_weights=config.clip_weights, block=config.block,
            attention=config.activations if config.attention else "float32",
        )  # fmt: skip
        everything = sum(COUNTS[node.op_type](node) for node in graph if node.op_type in COUNTS)
        return changed, {
            "products": len(found),
            "activations": len(ranges.ends),
            "attentions": len(attended),
            "weights": len({(one.right, one.column_axis) for one in found}),
            "weight_bits": mean_weight_bits(products(graph, program.rates), choices),
            "mac_share": sum(COUNTS[one.node.op_type](one.node) for one in found) / everything,
            "output_error": output_error(context, program, changed, calls),
        }
