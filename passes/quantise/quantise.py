"""Every product in the same formats."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field, model_validator

from ...ir.formats import INTEGERS
from ...ir.macs import macs, node_macs
from ...ir.program import Program
from ..base import Arrays, Context, Pass
from ..measuring import Order, output_error, own_calls
from .apply import quantised
from .choices import AMONG, ActivationFormat, Choice, WeightFormat
from .config import ProductsConfig
from .products import attentions, mean_weight_bits, products, require_some
from .ranges import Ranges, measure


class QuantiseConfig(ProductsConfig):
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
        description="Whether queries, keys and values get the activations' format; probabilities keep theirs.",
    )
    pictures: int = Field(
        default=4,
        ge=1,
        description="Of the calibration's, drawn with the schedules' own steps for ranges after a schedule [pictures].",
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

    Of a program with schedules every alternative is quantised, by ranges of what the steps of these loops compute, and
    their reuse with it. Raises UserError where no product can be quantised, or none is left to be.
    """

    name = "quantise"
    Config = QuantiseConfig
    every_variant = True

    @property
    def formats(self) -> tuple[str, ...]:
        return Choice(self.config.weights, self.config.activations).formats

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        config = self.config
        calls: Sequence[Arrays] = context.require("calibration", self.name)
        order: Order = ()
        graph = program.variants["full"].graph
        graphs = [program.variants[name].graph for name in program.alternatives]
        each = [products(one, program.rates, config.least_depth) for one in graphs]
        found = each[0]
        require_some(found, config.least_depth, self.name)
        if program.schedule:
            calls, order = own_calls(context, program, config.pictures, self.name)
        attended = [attentions(one) if config.attention else [] for one in graphs]
        ranges = Ranges({})
        if config.activations != "float32":
            names = [str(one.left.name) for listed in each for one in listed]
            nodes = [node for listed in attended for node in listed]
            names += [str(value.name) for node in nodes for value in node.inputs[:3] if value is not None]
            ranges = measure(context, program, names, config, AMONG[config.activations], (calls, order))
        choices = {one.name: Choice(config.weights, config.activations) for listed in each for one in listed}
        changed = quantised(
            program, choices, ranges, clip_weights=config.clip_weights, block=config.block,
            attention=config.activations if config.attention else "float32",
        )  # fmt: skip
        return changed, {
            "products": len(found),
            "activations": len(ranges.ends),
            "attentions": len(attended[0]),
            "weights": len({(one.right, one.column_axis) for one in found}),
            "weight_bits": mean_weight_bits(products(graph, program.rates), choices),
            "mac_share": sum(node_macs(one.node) for one in found) / macs(program.variants["full"]),
            "output_error": output_error(context, program, changed, calls, order),
        }
