"""One order for the operands of what commutes, so that no rule has to be written twice."""

from __future__ import annotations

import onnx_ir as ir
from onnxscript.rewriter import pattern


def order_operands(model: ir.Model) -> int:
    """Let constants and weights stand second in sums and products. Returns how many nodes were turned."""
    turned = 0
    for node in model.graph:
        if node.op_type not in ("Add", "Mul"):
            continue
        first, second = node.inputs
        if first is None or second is None:
            continue
        if first.is_initializer() and not second.is_initializer():
            node.replace_input_with(0, second)
            node.replace_input_with(1, first)
            turned += 1
    return turned


def operators(rule: pattern.RewriteRule) -> frozenset[str]:
    """The operators that a graph must have for a rule to match anything in it."""
    named = [node.op_identifier() for node in rule._target_pattern]  # pyright: ignore[reportPrivateUsage]
    return frozenset(identifier[1] for identifier in named if identifier is not None)
