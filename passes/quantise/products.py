"""The products of a graph that can be quantised: those of activations with weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from ...ir.annotations import BITS, EXACT
from ...ir.errors import UserError
from ...ir.formats import opens
from ...ir.operators import PRODUCTS
from ...ir.rates import Rate, analyse
from ...ir.shapes import shape_of
from .choices import UNCHANGED, Choice, format_bits


@dataclass(frozen=True)
class Product:
    """``left`` are the activations, ``right`` the weights."""

    node: ir.Node
    left: ir.Value
    right: ir.Value

    @property
    def name(self) -> str:
        """That of its result: nodes may have none."""
        return str(self.node.outputs[0].name)

    @property
    def column_axis(self) -> int:
        """Which axis of the weights is that of the output channels."""
        rows = self.node.op_type == "Conv" or self.node.attributes.get_int("transB", 0)
        return 0 if rows else 1

    @property
    def weight_shape(self) -> tuple[int, ...]:
        return shape_of(self.right)

    @property
    def depth(self) -> int:
        """Products that one of its sums adds."""
        return math.prod(self.weight_shape) // self.weight_shape[self.column_axis]


def products(graph: ir.Graph, rates: Mapping[str, Rate], least_depth: int = 1) -> list[Product]:
    """Products with constant weights that run at every step or once a prompt, in graph order: neither quantised yet nor
    marked to stay exact.
    """
    found = analyse(graph, rates)
    listed: list[Product] = []
    for node in graph:
        if node.op_type not in PRODUCTS or found[str(node.outputs[0].name)] not in (Rate.SAMPLE, Rate.PROMPT):
            continue
        left, right = node.inputs[0], node.inputs[1]
        if left is None or right is None or left.dtype is not ir.DataType.FLOAT:
            continue
        known = right.is_initializer() or found.get(str(right.name)) is Rate.CONSTANT
        computed = node.op_type == "MatMul" and len(right.shape or ()) != 2
        grouped = node.attributes.get_int("group", 1) != 1
        if EXACT in node.metadata_props or not known or computed or grouped:
            continue
        if _is_quantised(left) or _is_quantised(right):
            continue
        one = Product(node, left, right)
        if one.depth >= least_depth:
            listed.append(one)
    return listed


def require_some(found: Sequence[Product], least_depth: int, wanted_by: str) -> None:
    """Raises UserError where none was found."""
    if not found:
        raise UserError(
            f"pass {wanted_by} finds no product with weights of at least {least_depth} products a sum that is not "
            "quantised."
        )


def attentions(graph: ir.Graph) -> list[ir.Node]:
    """Nodes of attention whose queries, keys and values are numbers of float32 that nobody has rounded."""
    return [
        node
        for node in graph
        if node.op_type == "Attention"
        and all(
            value is not None and value.dtype is ir.DataType.FLOAT and not _is_quantised(value)
            for value in node.inputs[:3]
        )
    ]


def mean_weight_bits(listed: Sequence[Product], choices: Mapping[str, Choice]) -> float:
    """Bits of an element of the products' weights, on average; those without a choice are float32."""
    sizes = {one.right: math.prod(one.weight_shape) for one in listed}
    bits = {one.right: format_bits(choices.get(one.name, UNCHANGED).weights) for one in listed}
    return sum(bits[right] * size for right, size in sizes.items()) / sum(sizes.values())


def _is_quantised(value: ir.Value) -> bool:
    node = value.producer()
    return BITS in value.metadata_props or (node is not None and opens(node))
