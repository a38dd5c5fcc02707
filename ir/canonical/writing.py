"""What rules have in common that write one operator out in others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from .propagate import is_static

Build = Callable[[Any, ir.Node], Any]
"""The rewriter's builder and a node of static shapes -> what takes the place of its first output."""


def written_out(
    op_type: str, build: Build, wanted: Callable[[ir.Node], bool] = lambda node: True
) -> pattern.RewriteRule:
    """A rule for every node of a kind of which one output is read and that is ``wanted``."""

    def target(op: Any, x: Any) -> Any:
        return getattr(op, op_type)(x, _outputs=["y"], _allow_other_inputs=True)

    def check(context: Any, x: ir.Value, y: ir.Value) -> bool:
        node = y.producer()
        # A value that another rule made in this very round has no shape yet: its turn comes in the next.
        typed = node is not None and all(is_static(one) for one in (*node.inputs, y) if one is not None)
        return typed and node is not None and wanted(node)

    def replacement(op: Any, x: ir.Value, y: ir.Value) -> Any:
        node = y.producer()
        assert node is not None
        return build(op, node)

    return pattern.RewriteRule(target, replacement, check, name=f"write_out_{op_type}")


def number(op: Any, value: float) -> Any:
    return op.Constant(value=ir.tensor(np.array(value, np.float32)))


def table(op: Any, numbers: Sequence[int]) -> Any:
    """A shape, axes and the like."""
    return op.Constant(value=ir.tensor(np.array(numbers, np.int64)))


def first(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value


def operand(node: ir.Node, place: int) -> ir.Value | None:
    """An input, or None where it is left out."""
    return node.inputs[place] if place < len(node.inputs) else None


def kept(node: ir.Node, *without: str) -> dict[str, Any]:
    """The attributes of a node, less those named."""
    return {name: attribute for name, attribute in node.attributes.items() if name not in without}


def span(op: Any, x: Any, axis: int, start: int, end: int, step: int = 1) -> Any:
    """Part of one axis."""
    return op.Slice(x, *(table(op, [one]) for one in (start, end, axis, step)))


def same_pads(extents: Sequence[int], windows: Sequence[int], steps: Sequence[int], upper: bool) -> list[int]:
    """The pads that auto_pad stands for: before every axis, then after it. ``windows`` count dilation."""
    totals = [
        max((-(-extent // step) - 1) * step + window - extent, 0)
        for extent, window, step in zip(extents, windows, steps, strict=True)
    ]
    halves = [total // 2 if upper else total - total // 2 for total in totals]
    return [*halves, *(total - half for total, half in zip(totals, halves, strict=True))]
