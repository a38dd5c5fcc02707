"""What a product multiplies: numbers, or the codes that stand for them, with their scales left to the epilogue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from ...ir.errors import UserError
from ...ir.formats import IntegerFormat, format_called, format_of, opens
from ..fused import Operator
from ..graph_facts import describe, numbers, shape_of
from ..lowering import Lowering
from ..views import View

INTEGERS = (ir.DataType.INT8, ir.DataType.INT4, ir.DataType.INT2)


READ_BIAS = 15
"""Of float16 numbers, in whose place those of small floats are read."""


def read_power(name: str) -> float:
    """What numbers of the format are, over what kernels read their codes as."""
    format = format_called(name)
    return 1.0 if isinstance(format, IntegerFormat) else 2.0 ** (READ_BIAS - format.bias)


@dataclass(frozen=True)
class Blocks:
    """Scales of the weights, one for each column and ``size`` neighbouring indices of the reduction."""

    scales: ir.Value
    size: int


@dataclass(frozen=True)
class Factors:
    """``scales`` are what the product of the two is to be multiplied with: single numbers, or one a column.

    ``blocks`` are scales that belong to the right factors themselves, and ``power`` is what its numbers are over what
    their codes are read as.
    """

    left: ir.Value
    right: ir.Value
    scales: tuple[ir.Value, ...] = ()
    blocks: Blocks | None = None
    power: float = 1.0

    def affine(self, lowering: Lowering, shape: Sequence[int], column: int) -> list[Operator]:
        """The scales as operators on the product of this ``shape``, for ``fuse``."""
        scales: list[Operator] = [("Mul", per_column(lowering, one, shape, column)) for one in self.scales]
        return scales if self.power == 1.0 else [*scales, ("Mul", self.power)]


@dataclass
class _Reader:
    """Of the inputs of Conv, MatMul or Gemm, whose weights have their columns along ``column_axis``."""

    node: ir.Node
    column_axis: int
    scales: list[ir.Value] = field(default_factory=list[ir.Value])
    blocks: Blocks | None = None

    def factor(self, index: int) -> ir.Value:
        """The value of an input, or the codes that it is opened from."""
        value = self.node.inputs[index]
        assert value is not None
        source = value.producer()
        if source is None or not opens(source):
            return value
        first, second = source.inputs[0], source.inputs[1]
        assert first is not None and second is not None
        if source.op_type == "Mul":
            codes, scale = (first, second) if format_of(first) is not None else (second, first)
            known = index == 1 and self._one_a_column(scale)
        else:
            codes, scale = first, second
            known = codes.dtype in INTEGERS and not any(numbers(source, 2) or ())
            known = known and self._fits(source, scale, index)
        if not known:
            raise UserError(
                f"operator {self.node.op_type} of quantised input {index} is supported for int8 with zero point 0 "
                "(or int4, int2) and one scale, of weights also one a column or a block of the reduction, and not for "
                f"this, at {describe(self.node)}"
            )
        if self.blocks is None or self.blocks.scales is not scale:
            self.scales.insert(0, scale)
        return codes

    def _one_a_column(self, scale: ir.Value) -> bool:
        """Whether numbers that weights are multiplied with differ along the columns alone."""
        shape = shape_of(scale)
        after = len(shape_of(self._weight)) - 1 - self.column_axis
        return all(size == 1 for axis, size in enumerate(reversed(shape)) if axis != after)

    def _fits(self, node: ir.Node, scale: ir.Value, index: int) -> bool:
        """Whether a product can take the scale of DequantizeLinear; scales of blocks are noted."""
        shape, rank = shape_of(scale), len(shape_of(self._weight))
        axis = node.attributes.get_int("axis", 1)
        if shape == () or index == 0:
            return shape == ()
        size = node.attributes.get_int("block_size", 0)
        if not size:
            return axis % rank == self.column_axis and len(shape) == 1
        # Columns and the innermost axis of the reduction are the first two, in either order.
        depth_axis = 1 - self.column_axis
        sizes = shape_of(self._weight)
        even = sizes[depth_axis] % size == 0 or all(one == 1 for one in sizes[2:])
        if axis % rank != depth_axis or not even:
            return False
        self.blocks = Blocks(scale, size)
        return True

    @property
    def _weight(self) -> ir.Value:
        value = self.node.inputs[1]
        assert value is not None
        return value


def take(node: ir.Node, column_axis: int) -> Factors:
    """The factors of Conv, MatMul or Gemm, whose weights have their columns along ``column_axis``.

    Weights may be the result of DequantizeLinear, or of Mul of scales and a constant marked with its format (by
    ``ir.formats``); activations that of DequantizeLinear. Raises UserError for integers of another kind.
    """
    reader = _Reader(node, column_axis)
    left, right = reader.factor(0), reader.factor(1)
    format = format_of(right)
    power = 1.0 if format is None else read_power(format.name)
    return Factors(left, right, tuple(reader.scales), reader.blocks, power)


def per_column(lowering: Lowering, value: ir.Value, shape: Sequence[int], column: int) -> View:
    """A single number, or a row of one a column, in the shape of the product."""
    view = lowering.view(value)
    if view.count == 1:
        view = replace(view, shape=(), strides=())
    if view.shape:
        view = lowering.reshaped(view, (shape[column], *[1] * (len(shape) - column - 1)))
    return view.expand(shape)
