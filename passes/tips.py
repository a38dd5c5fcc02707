"""Text-based important pixel spotting (TIPS; Choi et al., arXiv 2403.04982, ISCAS 2024).

A pixel whose cross-attention rests, more than that of others, on the token that begins every prompt has little to do
with the text. In the
feed-forward layer behind, its activations are rounded to their upper slice: 6 of 12 bits, on a core that multiplies
slice by slice in half the cycles. Which pixels these are is decided anew at every call.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import onnx_ir as ir
from pydantic import Field, FiniteFloat, model_validator

from ..ir import attention
from ..ir.annotations import BITS, set_row_bits
from ..ir.blocks import Block, discover
from ..ir.errors import UserError
from ..ir.macs import COUNTS
from ..ir.making import Maker
from ..ir.program import Program
from ..ir.rates import Rate, analyse
from ..ir.shapes import shape_of
from .base import Context, Pass, PassConfig
from .measuring import largest, output_error, watch

PROBABILITIES = 3
"""Which of its products Attention returns, as ``qk_matmul_output_mode``: those after softmax."""


class TipsConfig(PassConfig):
    threshold: FiniteFloat = Field(
        default=1.0,
        ge=0,
        description="A pixel's share of the first token from which it is unimportant [picture's mean].",
    )
    high_bits: int = Field(default=12, ge=4, le=16, description="Width of important activations [bits].")
    low_bits: int = Field(default=6, ge=2, le=8, description="Width of the others [bits].")

    @model_validator(mode="after")
    def _lower(self) -> TipsConfig:
        if self.low_bits >= self.high_bits:
            raise ValueError(f"low_bits {self.low_bits} should be less than high_bits {self.high_bits}")
        return self


class Tips(Pass[TipsConfig]):
    """Program -> the same with feed-forward activations of two precisions, and the share of rows in each.

    Ranges and shares are those of the calibration's calls.
    """

    name = "tips"
    Config = TipsConfig
    needs = "bit-slice"

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        calls = context.require("calibration", self.name)
        changed = program.copy()
        graph = changed.variants["full"].graph
        layers = list(_layers(graph, program.rates))
        if not layers:
            raise UserError(
                "pass tips finds no feed-forward layer behind a cross-attention that it has not changed."
            )
        ranges = largest(context, program, [_read(one) for layer in layers for one in layer.products], calls)
        mixed: list[tuple[ir.Value, str, int]] = []
        for layer in layers:
            mark = self._mark(layer.attention)
            for node in layer.products:
                mixed.append((self._quantise(node, mark, ranges), str(mark.name), COUNTS["MatMul"](node)))
        low = dict.fromkeys((mark for _, mark, _ in mixed), Fraction(0))
        for results in watch(context, changed, list(low), calls):
            for mark in low:
                important = results[mark]
                low[mark] += Fraction(important.size - int(important.sum()), important.size * len(calls))
        for value, mark, _ in mixed:
            set_row_bits(value, {self.config.high_bits: 1 - low[mark], self.config.low_bits: low[mark]})
        macs = sum(count for *_, count in mixed)
        return changed, {
            "layers": len(layers),
            "low_share": float(sum(low[mark] * count for _, mark, count in mixed) / (macs or 1)),
            "low_share_by_layer": {
                layer.block.name: float(share) for layer, share in zip(layers, low.values(), strict=True)
            },
            "output_error": output_error(context, program, changed, calls),
        }

    def _mark(self, node: ir.Node) -> ir.Value:
        """Whether each query of a cross-attention is important: bool [batch, queries, 1]."""
        size = attention.sizes(node)
        node.attributes["qk_matmul_output_mode"] = ir.AttrInt64("qk_matmul_output_mode", PROBABILITIES)
        shape = (size.batch, size.heads, size.queries, size.keys)
        node.resize_outputs(4)
        for unused in node.outputs[1:3]:
            unused.name = ""
        result, scores = node.outputs[0], node.outputs[3]
        scores.name, scores.shape, scores.type = f"{result.name}/scores", ir.Shape(shape), result.type
        maker = Maker(node, "importance")
        bounds = (maker.constant(np.array([number])) for number in (0, 1, 3))
        first = maker.add("Slice", (scores, *bounds), (*shape[:3], 1))
        axes, threshold = (
            maker.constant(np.array([1])),
            maker.constant(np.array(self.config.threshold, np.float32)),
        )
        share = maker.add("ReduceMean", (first, axes), (size.batch, size.queries, 1), keepdims=0)
        usual = maker.add("ReduceMean", (share, axes), (size.batch, 1, 1), keepdims=1)
        limit = maker.add("Mul", (usual, threshold), (size.batch, 1, 1))
        mark = maker.add("Less", (share, limit), (size.batch, size.queries, 1), ir.DataType.BOOL)
        maker.after()
        return mark

    def _quantise(self, node: ir.Node, mark: ir.Value, ranges: Mapping[str, float]) -> ir.Value:
        """Two precisions of a product's first operand, chosen by row.

        They share a scale: the low one is the upper slice of the high one.
        """
        config, value = self.config, node.inputs[0]
        assert value is not None and value.shape is not None
        slice_steps = 2 ** (config.high_bits - config.low_bits)
        # Half a step of the slice below the end: no value within the range rounds to beyond it.
        steps = 2 ** (config.high_bits - 1) - slice_steps // 2 - 1
        scale, shape = (ranges[str(value.name)] or 1.0) / steps, value.shape.numpy()
        maker = Maker(node, f"by-importance.{value.name}")
        ends = (maker.constant(np.array(side * steps * scale, np.float32)) for side in (-1, 1))
        held = maker.add("Clip", (value, *ends), shape)

        def rounded(step: float, bits: int, dtype: ir.DataType) -> ir.Value:
            by = maker.constant(np.array(step, np.float32)), maker.constant(np.array(0, dtype.numpy()))
            quantised = maker.add("QuantizeLinear", (held, *by), shape, dtype)
            quantised.metadata_props[BITS] = str(bits)
            return maker.add("DequantizeLinear", (quantised, *by), shape, value.dtype)

        high = rounded(scale, config.high_bits, ir.DataType.INT16)
        low = rounded(scale * slice_steps, config.low_bits, ir.DataType.INT8)
        mixed = maker.add("Where", (mark, high, low), shape, value.dtype)
        maker.before()
        node.replace_input_with(0, mixed)
        return mixed


@dataclass(frozen=True)
class _Layer:
    """A feed-forward block, its products with weights, and the cross-attention before it."""

    block: Block
    products: tuple[ir.Node, ...]
    attention: ir.Node


def _layers(graph: ir.Graph, rates: Mapping[str, Rate]) -> Iterator[_Layer]:
    """Feed-forward blocks behind a cross-attention of the same pixels."""
    found = analyse(graph, rates)
    blocks = {block.nodes[0]: block for block in discover(graph).of_kind("feed_forward")}
    before: ir.Node | None = None
    for node in graph:
        if node.op_type == "Attention":
            keys = node.inputs[1]
            before = None if keys is None or found[str(keys.name)] is Rate.SAMPLE else node
        if before is None or node not in blocks:
            continue
        block, size = blocks[node], attention.sizes(before)
        products = tuple(
            one for one in block.nodes if one.op_type == "MatMul" and _rows(one) == (size.batch, size.queries)
        )
        if products:
            yield _Layer(block, products, before)


def _read(product: ir.Node) -> str:
    value = product.inputs[0]
    assert value is not None
    return str(value.name)


def _rows(product: ir.Node) -> tuple[int, ...]:
    return shape_of(product.inputs[0])[:-1]
