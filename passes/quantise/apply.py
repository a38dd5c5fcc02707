"""Writes choices of formats into a graph: QuantizeLinear where a value is made, DequantizeLinear where products read.

Symmetric uniform quantisation (Nagel et al., arXiv 2106.08295, section 2.2): r = clip(round(x / s)) stands for r s, and
a sum of products of such numbers is a sum of products of integers times both scales. What else reads the value reads
it as it was. Scales of weights are computed in the graph, so that new weights bring their own; those of activations
come from calibration.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from ...ir.formats import INTEGERS
from ...ir.making import Maker
from ...ir.program import Program
from ..per_step import per_step, step_input
from .choices import ActivationFormat, Choice, WeightFormat
from .products import Product, products
from .ranges import Ranges
from .weights import best_shares

SMALLEST_SCALE = 1e-30
"""Of a channel that is all zeros."""


def quantised(
    program: Program, choices: Mapping[str, Choice], ranges: Ranges, *, clip_weights: bool = False
) -> Program:
    """A copy of the program with the products that ``choices`` names, by their results, in its formats.

    ``ranges`` has the activations that are to become integers; with ``clip_weights`` the range of a weight's column
    ends where its squared error is least, else at its largest number.
    """
    changed = program.copy()
    writer = _Writer(changed, ranges, clip_weights)
    for one in products(changed.variants["full"].graph, program.rates):
        if one.name in choices:
            writer.write(one, choices[one.name])
    return changed


class _Writer:
    """Values that several products read in one format are quantised once."""

    def __init__(self, program: Program, ranges: Ranges, clip_weights: bool) -> None:
        self._program, self._ranges, self._clip_weights = program, ranges, clip_weights
        self._activations: dict[tuple[ir.Value, ActivationFormat], ir.Value] = {}
        self._weights: dict[tuple[ir.Value, int, WeightFormat], ir.Value] = {}

    def write(self, product: Product, choice: Choice) -> None:
        if choice.activations != "float32":
            known = product.left, choice.activations
            if known not in self._activations:
                self._activations[known] = self._activation(product, choice.activations)
            product.node.replace_input_with(0, self._activations[known])
        if choice.weights != "float32":
            key = product.right, product.column_axis, choice.weights
            if key not in self._weights:
                self._weights[key] = self._weight(product, choice.weights)
            product.node.replace_input_with(1, self._weights[key])

    def _activation(self, product: Product, name: ActivationFormat) -> ir.Value:
        value = product.left
        assert value.shape is not None
        maker = Maker(product.node, f"{name}.{value.name}")
        ends = self._ranges.ends[str(value.name)]
        scales = (ends / INTEGERS[name].largest).astype(np.float32)
        if self._ranges.timesteps is None:
            scale = maker.constant(scales)
        else:
            graph = self._program.variants["full"].graph
            scale = per_step(
                graph, step_input(self._program), self._ranges.timesteps, scales, f"{name}.{value.name}"
            )
        return _through_integers(maker, value, scale, value.shape.numpy(), name)

    def _weight(self, product: Product, name: WeightFormat) -> ir.Value:
        value, sizes, axis = product.right, product.weight_shape, product.column_axis
        columns, largest = (sizes[axis],), INTEGERS[name].largest
        maker = Maker(product.node, f"{name}.{value.name}")
        others = maker.constant(np.array([one for one in range(len(sizes)) if one != axis]))
        least = maker.constant(np.array(SMALLEST_SCALE, np.float32))
        steps = np.array(largest, np.float32)
        if self._clip_weights:
            steps = steps / best_shares(value, axis, largest)
        size = maker.add("Abs", (value,), sizes)
        peak = maker.add("ReduceMax", (size, others), columns, keepdims=0)
        scale = maker.add("Max", (maker.add("Div", (peak, maker.constant(steps)), columns), least), columns)
        return _through_integers(maker, value, scale, sizes, name, axis=axis)


def _through_integers(
    maker: Maker, value: ir.Value, scale: ir.Value, shape: tuple[int, ...], name: str, **attributes: int
) -> ir.Value:
    """The value as its integers give it back."""
    dtype = ir.DataType[name.upper()]
    integers = maker.add(
        "QuantizeLinear", (value, scale), shape, dtype, output_dtype=int(dtype), **attributes
    )
    result = maker.add("DequantizeLinear", (integers, scale), shape, value.dtype, **attributes)
    maker.before()
    return result
