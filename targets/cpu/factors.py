"""What a product multiplies: numbers, or the integers that stand for them, with their scales left to the epilogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ...ir.errors import UserError
from ..graph_facts import describe, numbers, shape_of
from ..lowering import Lowering
from ..views import View


@dataclass(frozen=True)
class Factors:
    """``scales`` are what the product of the two is to be multiplied with: single numbers, or one a column."""

    left: ir.Value
    right: ir.Value
    scales: tuple[ir.Value, ...]

    def affine(self, lowering: Lowering, shape: Sequence[int], column: int) -> list[tuple[str, View]]:
        """The scales as operators on the product of this ``shape``, for ``fuse``."""
        return [("Mul", per_column(lowering, scale, shape, column)) for scale in self.scales]


def take(node: ir.Node, column_axis: int) -> Factors:
    """The factors of Conv, MatMul or Gemm, whose weights have their columns along ``column_axis``.

    Raises UserError for integers of another kind than passes/quantise.py makes.
    """
    taken: list[ir.Value] = []
    scales: list[ir.Value] = []
    for index, axis in ((0, None), (1, column_axis)):
        value = node.inputs[index]
        assert value is not None
        source = value.producer()
        if source is None or source.op_type != "DequantizeLinear":
            taken.append(value)
            continue
        integers, scale = source.inputs[0], source.inputs[1]
        assert integers is not None and scale is not None
        if not _is_plain(source, integers, scale, axis):
            raise UserError(
                f"operator {node.op_type} of quantised input {index} is supported for int8 with zero point 0 and one "
                f"scale, of weights one a column, and not for this, at {describe(node)}"
            )
        taken.append(integers)
        scales.append(scale)
    return Factors(taken[0], taken[1], tuple(reversed(scales)))


def _is_plain(node: ir.Node, integers: ir.Value, scale: ir.Value, axis: int | None) -> bool:
    rank = len(shape_of(integers))
    given = node.attributes.get_int("axis", 1) % rank
    fits = shape_of(scale) == () or (
        given == axis and not node.attributes.get_int("block_size", 0) and len(shape_of(scale)) == 1
    )
    return fits and integers.dtype is ir.DataType.INT8 and not any(numbers(node, 2) or ())


def per_column(lowering: Lowering, value: ir.Value, shape: Sequence[int], column: int) -> View:
    """A single number, or a row of one a column, in the shape of the product."""
    view = lowering.view(value)
    if view.shape:
        view = lowering.reshaped(view, (shape[column], *[1] * (len(shape) - column - 1)))
    return view.expand(shape)
