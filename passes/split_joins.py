"""Products that read a skip connection's join, in two: each half then has a range of its own.

What a UNet's second half computed and what a skip brings differ in range, and one scale for both wastes bits on either
(Li et al., Q-Diffusion, arXiv 2302.04304, section 4.2). Where a product reads the Concat of two activations along its
reduction, W [a; b] is computed as W_a a + W_b b, with the columns of weights that belong to each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from pydantic import Field

from ..ir.making import Maker
from ..ir.program import Program
from .base import Context, Pass, PassConfig
from .quantise.products import Product, products


class SplitJoinsConfig(PassConfig):
    least_depth: int = Field(
        default=64, ge=1, description="Halves of fewer products a sum stay together [products]."
    )


class SplitJoins(Pass[SplitJoinsConfig]):
    """Program -> the same function, with products of joined activations as sums of products of each."""

    name = "split-joins"
    Config = SplitJoinsConfig

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        changed = program.copy()
        graph = changed.variants["full"].graph
        split = 0
        for one in products(graph, program.rates):
            join = one.left.producer()
            if join is not None and self._splits(one, join):
                _split(one, join)
                split += 1
        return changed, {"products": split}

    def _splits(self, product: Product, join: ir.Node) -> bool:
        """Whether the join lies along the reduction of a product that can be had in parts."""
        if join.op_type != "Concat" or product.node.op_type == "Gemm":
            return False
        rank = len(product.weight_shape) if product.node.op_type == "Conv" else len(product.left.shape or ())
        along = 1 if product.node.op_type == "Conv" else rank - 1
        filter_size = product.depth // sum(_lengths(join, along))
        return join.attributes["axis"].as_int() % rank == along and all(
            length * filter_size >= self.config.least_depth for length in _lengths(join, along)
        )


def _lengths(join: ir.Node, axis: int) -> list[int]:
    return [int(value.shape[axis]) for value in join.inputs]  # type: ignore[index, union-attr, arg-type]


def _split(product: Product, join: ir.Node) -> None:
    """Put products of the parts, and their sum, in the place of the product."""
    node, maker = product.node, Maker(product.node, "split")
    reduction = 1 - product.column_axis  # of weights [columns, channels, ...] or [channels, columns]
    lengths = _lengths(join, 1 if node.op_type == "Conv" else len(product.left.shape or ()) - 1)
    assert node.outputs[0].shape is not None
    shape = node.outputs[0].shape.numpy()
    total: ir.Value | None = None
    start = 0
    for part, length in zip(join.inputs, lengths, strict=True):
        assert part is not None
        sizes = list(product.weight_shape)
        sizes[reduction] = length
        bounds = (maker.constant(np.array([one])) for one in (start, start + length, reduction))
        weight = maker.add("Slice", (product.right, *bounds), sizes)
        bias = [one for one in node.inputs[2:] if one is not None and total is None]
        result = maker.add(
            node.op_type,
            (part, weight, *bias),
            shape,
            **{key: one.value for key, one in node.attributes.items()},
        )
        total = result if total is None else maker.add("Add", (total, result), shape)
        start += length
    assert total is not None
    maker.replace(total)
