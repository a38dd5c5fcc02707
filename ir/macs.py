"""Multiply-accumulates of a canonical graph: the size of its work, whatever the machine."""

from __future__ import annotations

import math
from collections.abc import Callable

import onnx_ir as ir

from .attention import sizes
from .shapes import shape_of


def _conv(node: ir.Node) -> int:
    """Every output element sums over one filter of a weight [C_out, C_in / groups, k...]."""
    return math.prod(shape_of(node.outputs[0])) * math.prod(shape_of(node.inputs[1])[1:])


def _conv_transpose(node: ir.Node) -> int:
    """Every input element spreads over one filter of a weight [C_in, C_out / groups, k...]."""
    return math.prod(shape_of(node.inputs[0])) * math.prod(shape_of(node.inputs[1])[1:])


def _matmul(node: ir.Node) -> int:
    return math.prod(shape_of(node.outputs[0])) * shape_of(node.inputs[0])[-1]


def _gemm(node: ir.Node) -> int:
    summed = 0 if node.attributes.get_int("transA", 0) else 1
    return math.prod(shape_of(node.outputs[0])) * shape_of(node.inputs[0])[summed]


def _attention(node: ir.Node) -> int:
    """q k^T and weights v: each query meets each key once in every feature of q, and once in every one of v."""
    size = sizes(node)
    return size.batch * size.heads * size.queries * size.keys * (size.wide + size.deep)


COUNTS: dict[str, Callable[[ir.Node], int]] = {
    "Attention": _attention,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}


def node_macs(node: ir.Node) -> int:
    """Multiply-accumulates of a node; what sums no products counts nothing."""
    return COUNTS[node.op_type](node) if node.op_type in COUNTS else 0


def macs(model: ir.Model) -> int:
    """Multiply-accumulates of one call. Raises UserError for a shape that is not static."""
    return sum(node_macs(node) for node in model.graph)
