"""Writes choices of formats into a graph: QuantizeLinear where a value is made, DequantizeLinear where products read.

Symmetric quantisation (Nagel et al., arXiv 2106.08295, section 2.2): r = round(x / s) stands for r s, and a sum of
products of such numbers is a sum of products of integers times both scales. What else reads the value reads it as it
was. Scales of weights are computed in the graph, so that new weights bring their own; those of activations come from
calibration. Small floats (arXiv 2408.06995) are the same with other numbers in place of the integers: rounding is
arithmetic (floats.py), and a scale takes the part of a bias that is not whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import onnx_ir as ir

from ...ir.annotations import BITS
from ...ir.formats import FloatFormat, IntegerFormat, mark
from ...ir.making import Maker
from ...ir.program import Program
from ..per_step import input_like, per_step, share_tensors, step_input
from .choices import AMONG, ActivationFormat, Choice, WeightFormat
from .floats import rounded
from .products import Product, attentions, products
from .ranges import Ranges
from .weights import Fitted, by_blocks, by_columns, fitted

Fits = dict[tuple[str, int, WeightFormat], Fitted]
"""By the name of a weight, which is one in all alternatives, its axis of columns, and what it is rounded to."""

SMALLEST_SCALE = 1e-30
"""Of numbers that are all zeros."""


def quantised(
    program: Program,
    choices: Mapping[str, Choice],
    ranges: Ranges,
    *,
    clip_weights: bool = False,
    block: int = 0,
    attention: ActivationFormat = "float32",
    fits: Fits | None = None,
) -> Program:
    """A copy of the program with the products that ``choices`` names, by their results, in its formats, in all of its
    alternatives.

    ``ranges`` has the activations that are to be quantised; with ``clip_weights`` the range of weights ends where their
    squared error is least, else at the largest. So many neighbours as ``block`` says, along a column, have a scale of
    their own where that divides the weights' first axis of the reduction; else a column has one. ``attention`` is the
    format of queries, keys and values. ``fits`` are of the same program, block and clipping; what is fitted now joins
    them.
    """
    changed = program.copy()
    writer = _Writer(changed, ranges, clip_weights, block, {} if fits is None else fits)
    for name in changed.alternatives:
        graph = changed.variants[name].graph
        found = {one.node: one for one in products(graph, program.rates) if one.name in choices}
        attended = [] if attention == "float32" else attentions(graph)
        for node in list(graph):  # what several read is rounded before the first of them
            if node in found:
                writer.write(found[node], choices[found[node].name])
            elif node in attended:
                writer.read(node, range(3), attention)
    share_tensors(changed.variants.values())
    return changed


class _Writer:
    """Values that several products read in one format are quantised once."""

    def __init__(self, program: Program, ranges: Ranges, clip_weights: bool, block: int, fits: Fits) -> None:
        self._program, self._ranges, self._clip_weights, self._block = program, ranges, clip_weights, block
        self._fits = fits
        self._activations: dict[tuple[ir.Value, ActivationFormat], ir.Value] = {}
        self._weights: dict[tuple[ir.Value, int, WeightFormat], ir.Value] = {}

    def write(self, product: Product, choice: Choice) -> None:
        if choice.activations != "float32":
            self.read(product.node, [0], choice.activations)
        if choice.weights != "float32":
            key = product.right, product.column_axis, choice.weights
            if key not in self._weights:
                self._weights[key] = self._weight(product, choice.weights)
            product.node.replace_input_with(1, self._weights[key])

    def read(self, node: ir.Node, places: Iterable[int], name: ActivationFormat) -> None:
        """Let a node read those of its inputs, which are activations, in a format."""
        for place in places:
            value = node.inputs[place]
            assert value is not None
            if (value, name) not in self._activations:
                self._activations[value, name] = self._activation(node, value, name)
            node.replace_input_with(place, self._activations[value, name])

    def _activation(self, place: ir.Node, value: ir.Value, name: ActivationFormat) -> ir.Value:
        label = str(value.name)
        maker, format = Maker(place, f"{name}.{label}"), self._ranges.formats[label]
        ends, largest = self._ranges.ends[label], format.largest
        if self._ranges.timesteps is not None:
            graph, scales = place.graph, (ends / largest).astype(np.float32)
            assert isinstance(graph, ir.Graph)
            timestep = input_like(graph, step_input(self._program))
            scale = per_step(graph, timestep, self._ranges.timesteps, scales, f"{name}.{label}")
        elif isinstance(format, IntegerFormat):
            scale = maker.constant((ends / largest).astype(np.float32))
        else:
            # Computed, and so no number that kernels have compiled in: layers that differ in scales share one.
            scale = maker.add(
                "Div", (maker.constant(ends), maker.constant(np.array(largest, np.float32))), ()
            )
        if isinstance(format, IntegerFormat):
            return _through_integers(maker, value, scale, format)
        result = _through_floats(maker, value, scale, format)
        result.metadata_props[BITS] = str(format.bits)
        return result

    def _weight(self, product: Product, name: WeightFormat) -> ir.Value:
        value, sizes, axis = product.right, product.weight_shape, product.column_axis
        among = AMONG[name]
        floats = isinstance(among[0], FloatFormat)
        blocks = self._block and not floats and sizes[1 - axis] % self._block == 0
        sharing = by_blocks(sizes, axis, self._block) if blocks else by_columns(sizes, axis, keep=floats)
        key = str(value.name), axis, name
        if key not in self._fits:
            self._fits[key] = fitted(value, sharing, among, clip=self._clip_weights)
        format, shares = self._fits[key]
        maker = Maker(product.node, f"{name}.{value.name}")
        size = maker.add("Abs", (value,), sizes)
        if blocks:
            size = maker.add("Reshape", (size, maker.constant(np.array(sharing.shape))), sharing.shape)
        shape, over = sharing.scales, maker.constant(np.array(sharing.over))
        peak = maker.add("ReduceMax", (size, over), shape, keepdims=int(sharing.keep))
        steps = maker.constant((format.largest / shares).astype(np.float32))
        least = maker.constant(np.array(SMALLEST_SCALE, np.float32))
        scale = maker.add("Max", (maker.add("Div", (peak, steps), shape), least), shape)
        if isinstance(format, IntegerFormat):
            return _through_integers(maker, value, scale, format, **sharing.attributes)
        return _through_floats(maker, value, scale, format, constant=True)


def _through_integers(
    maker: Maker, value: ir.Value, scale: ir.Value, format: IntegerFormat, **attributes: int
) -> ir.Value:
    """The value as its integers give it back."""
    assert value.shape is not None
    dtype, shape = ir.DataType[format.name.upper()], value.shape.numpy()
    integers = maker.add(
        "QuantizeLinear", (value, scale), shape, dtype, output_dtype=int(dtype), **attributes
    )
    result = maker.add("DequantizeLinear", (integers, scale), shape, value.dtype, **attributes)
    maker.before()
    return result


def _through_floats(
    maker: Maker, value: ir.Value, scale: ir.Value, format: FloatFormat, *, constant: bool = False
) -> ir.Value:
    """The value as the numbers of the format give it back; those of a ``constant`` are marked as such."""
    assert value.shape is not None
    shape = value.shape.numpy()
    numbers = rounded(maker, maker.add("Div", (value, scale), shape), format)
    if constant:
        mark(numbers, format)
    result = maker.add("Mul", (numbers, scale), shape)
    maker.before()
    return result
