"""Running sums, and what is taken of all numbers along some axes that no target has a reduction for."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from .propagate import dims, literal
from .writing import first, kept, number, operand, span, table, written_out

LARGEST = float(np.finfo(np.float32).max)


def _has_known_axis(node: ir.Node) -> bool:
    return literal(operand(node, 1)) is not None


def _running_sum(op: Any, node: ir.Node) -> Any:
    """Of two neighbours, of two such sums, and so on (Hillis and Steele, 1986): whole numbers are exact."""
    x, axis = first(node), literal(operand(node, 1))
    assert axis is not None
    shape = dims(x)
    along = int(axis.reshape(-1)[0]) % len(shape)
    result: Any = op.Identity(x)
    if reverse := node.attributes.get_int("reverse", 0):
        result = _flipped(op, result, along, shape[along])
    if node.attributes.get_int("exclusive", 0):
        result = _later(op, result, along, len(shape), 1)
    step = 1
    while step < shape[along]:
        result = op.Add(result, _later(op, result, along, len(shape), step))
        step *= 2
    return _flipped(op, result, along, shape[along]) if reverse else result


def _flipped(op: Any, x: Any, axis: int, size: int) -> Any:
    return span(op, x, axis, -1, -size - 1, -1)


def _later(op: Any, x: Any, axis: int, rank: int, count: int) -> Any:
    """So many zeros first, and as many of the last elements gone."""
    pads = [0] * 2 * rank
    pads[axis], pads[rank + axis] = count, -count
    return op.Pad(x, table(op, pads))


def _log_sum_exp(op: Any, node: ir.Node) -> Any:
    """m + log(sum(exp(x - m))), m being the largest, or where that is infinite what is nearest to it."""
    x, *axes = node.inputs
    names = {**kept(node, "keepdims"), "keepdims": 1}
    largest = op.Clip(op.ReduceMax(x, *axes, **names), number(op, -LARGEST), number(op, LARGEST))
    total = op.ReduceSum(op.Exp(op.Sub(x, largest)), *axes, **names)
    return op.Reshape(op.Add(op.Log(total), largest), table(op, dims(node.outputs[0])))


def _of_length_one(op: Any, node: ir.Node) -> Any:
    """Zeros stay zeros."""
    x, axis = first(node), node.attributes.get_int("axis", -1)
    length = getattr(op, f"ReduceL{node.attributes.get_int('p', 2)}")(x, table(op, [axis]))
    return op.Div(x, op.Where(op.Equal(length, number(op, 0.0)), number(op, 1.0), length))


ACCUMULATION = [
    written_out("CumSum", _running_sum, _has_known_axis),
    written_out("LpNormalization", _of_length_one),
    written_out("ReduceLogSumExp", _log_sum_exp),
]
