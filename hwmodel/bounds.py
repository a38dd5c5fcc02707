"""Loop bounds of ONNX nodes, from their shapes and attributes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from ..ir.errors import UserError
from ..ir.shapes import shape_of
from .workload import Convolution, Gemm, Vectors


def given(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None]


def convolution(node: ir.Node) -> Convolution:
    """Bounds of a (transposed) convolution; spatial rank 1 counts as one row.

    A transposed convolution spreads every input pixel over a window, so its pixels are those of the input.
    """
    data, weight = (shape_of(value) for value in given(node)[:2])
    result, count = shape_of(node.outputs[0]), node.attributes.get_int("group", 1)
    transposed = node.op_type == "ConvTranspose"
    pixels = (data if transposed else result)[2:]
    if len(pixels) > 2:
        raise UserError(
            f"convolution {node.name} has {len(pixels)} spatial axes; the hardware model takes two."
        )
    strides = (1,) if transposed else node.attributes.get_ints("strides", (1,) * len(pixels))
    rows, columns = _pair(pixels)
    return Convolution(
        data[0], result[1], data[1], rows, columns, _pair(data[2:]), _pair(weight[2:]), _pair(strides), count
    )


def _pair(spatial: Sequence[int]) -> tuple[int, int]:
    return (spatial[0], spatial[1]) if len(spatial) == 2 else (1, spatial[0])


def matmul(node: ir.Node) -> Gemm:
    """[..., rows, reduction] x [..., reduction, columns]; leading axes are rows if the second side has none."""
    (*lead, reduction), right = (shape_of(value) for value in given(node)[:2])
    if len(right) <= 2:
        return Gemm(1, math.prod(lead), reduction, right[1] if len(right) == 2 else 1)
    rows, columns = lead[-1] if lead else 1, right[-1]
    return Gemm(math.prod(shape_of(node.outputs[0])) // (rows * columns), rows, reduction, columns)


def gemm(node: ir.Node) -> Gemm:
    first, second = (shape_of(value) for value in given(node)[:2])
    reduction, rows = (first if node.attributes.get_int("transA", 0) else first[::-1])[:2]
    columns = second[0] if node.attributes.get_int("transB", 0) else second[1]
    return Gemm(1, rows, reduction, columns)


def normalised(node: ir.Node) -> Vectors:
    """The sets that share statistics: a group of channels of one image, or the axes from ``axis`` on."""
    shape = shape_of(given(node)[0])
    if node.op_type == "GroupNormalization":
        count = shape[0] * node.attributes.get_int("num_groups", 1)
    elif node.op_type == "LayerNormalization":
        count = math.prod(shape[: node.attributes.get_int("axis", -1)])
    else:
        count = math.prod(shape) // shape[node.attributes.get_int("axis", -1)]
    return Vectors(count, math.prod(shape) // count)
