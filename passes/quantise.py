"""Products of int8 numbers: activations with one scale a tensor, weights with one scale an output channel.

Symmetric uniform quantisation after training (Nagel et al., arXiv 2106.08295, section 2.2), ranges by the largest value
seen: r = clip(round(x / s), -128, 127) stands for r s, and a sum of products of such numbers is a sum of products of
integers times both scales. Integers are written where a value is made, as QuantizeLinear, and read by products through
DequantizeLinear; whatever else reads the value reads it as it was. Scales of weights are computed in the graph, so
that new weights bring their own; those of activations come from the calibration's calls.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir
from pydantic import BaseModel, ConfigDict, Field

from ..ir.errors import UserError
from ..ir.macs import COUNTS
from ..ir.making import Maker
from ..ir.operators import PRODUCTS
from ..ir.program import Program
from ..ir.rates import Rate, analyse
from .base import Context, Pass
from .measuring import largest, output_error

LARGEST = 127
"""The integer that the largest value becomes."""

SMALLEST_SCALE = 1e-30
"""Of a channel that is all zeros."""


class QuantiseConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    least_depth: int = Field(
        default=64,
        ge=1,
        description="Sums of fewer products stay as they are, such as the first layer's [products].",
    )


class Quantise(Pass[QuantiseConfig]):
    """Program -> the same with the products of its loop, and of its prompt, in int8, and what that does to the output.

    Raises UserError where no product can be quantised, or none is left to be.
    """

    name = "quantise"
    Config = QuantiseConfig

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        calls = context.require("calibration", self.name)
        changed = program.copy()
        graph = changed.variants["full"].graph
        products = list(self._products(graph, program.rates))
        if not products:
            raise UserError(
                "pass quantise finds no product with weights of at least "
                f"{self.config.least_depth} products a sum that is not quantised."
            )
        peaks = largest(context, program, list(dict.fromkeys(str(one.left.name) for one in products)), calls)
        activations: dict[ir.Value, ir.Value] = {}
        weights: dict[tuple[ir.Value, int], ir.Value] = {}
        for one in products:
            if one.left not in activations:
                activations[one.left] = _activation(one, peaks[str(one.left.name)])
            if (one.right, one.column_axis) not in weights:
                weights[one.right, one.column_axis] = _weight(one)
            one.node.replace_input_with(0, activations[one.left])
            one.node.replace_input_with(1, weights[one.right, one.column_axis])
        everything = sum(COUNTS[node.op_type](node) for node in graph if node.op_type in COUNTS)
        return changed, {
            "products": len(products),
            "activations": len(activations),
            "weights": len(weights),
            "mac_share": sum(COUNTS[one.node.op_type](one.node) for one in products) / everything,
            "output_error": output_error(context, program, changed, calls),
        }

    def _products(self, graph: ir.Graph, rates: Mapping[str, Rate]) -> Iterator[_Product]:
        """Products with weights that run at every step or once a prompt, in the graph's order."""
        found = analyse(graph, rates)
        for node in graph:
            if node.op_type not in PRODUCTS or found[str(node.outputs[0].name)] not in (
                Rate.SAMPLE,
                Rate.PROMPT,
            ):
                continue
            left, right = node.inputs[0], node.inputs[1]
            if left is None or right is None or left.dtype is not ir.DataType.FLOAT:
                continue
            known = right.is_initializer() or found.get(str(right.name)) is Rate.CONSTANT
            computed = node.op_type == "MatMul" and len(right.shape or ()) != 2
            grouped = node.attributes.get_int("group", 1) != 1
            if not known or computed or grouped or _is_dequantised(left) or _is_dequantised(right):
                continue
            one = _Product(node, left, right)
            if math.prod(one.sizes) // one.sizes[one.column_axis] >= self.config.least_depth:
                yield one


@dataclass(frozen=True)
class _Product:
    """``left`` are the activations, ``right`` the weights."""

    node: ir.Node
    left: ir.Value
    right: ir.Value

    @property
    def column_axis(self) -> int:
        """Which axis of the weights is that of the output channels."""
        rows = self.node.op_type == "Conv" or self.node.attributes.get_int("transB", 0)
        return 0 if rows else 1

    @property
    def sizes(self) -> tuple[int, ...]:
        assert self.right.shape is not None
        return tuple(int(size) for size in self.right.shape.numpy())


def _is_dequantised(value: ir.Value) -> bool:
    node = value.producer()
    return node is not None and node.op_type == "DequantizeLinear"


def _activation(product: _Product, peak: float) -> ir.Value:
    value = product.left
    assert value.shape is not None
    maker = Maker(product.node, f"int8.{value.name}")
    scale = maker.constant(np.array((peak or 1.0) / LARGEST, np.float32))
    return _through_integers(maker, value, scale, value.shape.numpy())


def _weight(product: _Product) -> ir.Value:
    value, sizes, axis = product.right, product.sizes, product.column_axis
    maker = Maker(product.node, f"int8.{value.name}")
    others = maker.constant(np.array([one for one in range(len(sizes)) if one != axis]))
    steps, least = (maker.constant(np.array(one, np.float32)) for one in (LARGEST, SMALLEST_SCALE))
    size = maker.add("Abs", (value,), sizes)
    peak = maker.add("ReduceMax", (size, others), (sizes[axis],), keepdims=0)
    scale = maker.add("Max", (maker.add("Div", (peak, steps), (sizes[axis],)), least), (sizes[axis],))
    return _through_integers(maker, value, scale, sizes, axis=axis)


def _through_integers(
    maker: Maker, value: ir.Value, scale: ir.Value, shape: tuple[int, ...], **attributes: int
) -> ir.Value:
    """The value as the integers give it back."""
    integers = maker.add(
        "QuantizeLinear", (value, scale), shape, ir.DataType.INT8, output_dtype=int(ir.DataType.INT8), **attributes
    )  # fmt: skip
    result = maker.add("DequantizeLinear", (integers, scale), shape, value.dtype, **attributes)
    maker.before()
    return result
