"""Elementwise operators that are said in others, and sums of any number of operands."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

import onnx_ir as ir
from onnxscript.rewriter import pattern

from .propagate import dims
from .writing import first, number, operand, table, written_out

SATURATED = 20.0
"""From here on Mish is its argument, in float32."""


def _positive(op: Any, x: Any) -> Any:
    return op.Relu(x)


def _negative(op: Any, x: Any) -> Any:
    return op.Min(x, number(op, 0.0))


def _leaky(op: Any, node: ir.Node) -> Any:
    x, slope = first(node), node.attributes.get_float("alpha", 0.01)
    return op.Add(_positive(op, x), op.Mul(_negative(op, x), number(op, slope)))


def _prelu(op: Any, node: ir.Node) -> Any:
    """Slopes stand for the last axes, but exporters also give one a channel."""
    x, slope = first(node), operand(node, 1)
    return op.Add(_positive(op, x), op.Mul(_negative(op, x), slope))


def _grown(op: Any, x: Any, alpha: float) -> Any:
    """alpha (exp(x) - 1) of numbers below zero."""
    return op.Mul(op.Sub(op.Exp(_negative(op, x)), number(op, 1.0)), number(op, alpha))


def _elu(op: Any, node: ir.Node) -> Any:
    x = first(node)
    return op.Add(_positive(op, x), _grown(op, x, node.attributes.get_float("alpha", 1.0)))


def _selu(op: Any, node: ir.Node) -> Any:
    alpha = node.attributes.get_float("alpha", 1.67326319217681884765625)
    gamma = node.attributes.get_float("gamma", 1.05070102214813232421875)
    x = first(node)
    return op.Mul(op.Add(_positive(op, x), _grown(op, x, alpha)), number(op, gamma))


def _celu(op: Any, node: ir.Node) -> Any:
    x, alpha = first(node), node.attributes.get_float("alpha", 1.0)
    return op.Add(_positive(op, x), _grown(op, op.Div(x, number(op, alpha)), alpha))


def _hard(op: Any, x: Any, alpha: float, beta: float) -> Any:
    return op.Clip(op.Add(op.Mul(x, number(op, alpha)), number(op, beta)), number(op, 0.0), number(op, 1.0))


def _hard_sigmoid(op: Any, node: ir.Node) -> Any:
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    return _hard(op, first(node), alpha, beta)


def _hard_swish(op: Any, node: ir.Node) -> Any:
    return op.Mul(first(node), _hard(op, first(node), 1 / 6, 0.5))


def _softplus(op: Any, node: ir.Node) -> Any:
    """log(1 + exp(x)), so that neither overflows."""
    x = first(node)
    rest = op.Log(op.Add(op.Exp(op.Neg(op.Abs(x))), number(op, 1.0)))
    return op.Add(_positive(op, x), rest)


def _softsign(op: Any, node: ir.Node) -> Any:
    return op.Div(first(node), op.Add(op.Abs(first(node)), number(op, 1.0)))


def _mish_of(op: Any, x: Any) -> Any:
    """x tanh(log(1 + exp(x))) = x n / (n + 2) with n = exp(x) (exp(x) + 2) (Misra, arXiv 1908.08681)."""
    power = op.Exp(op.Min(x, number(op, SATURATED)))
    n = op.Mul(power, op.Add(power, number(op, 2.0)))
    return op.Mul(x, op.Div(n, op.Add(n, number(op, 2.0))))


def _mish(op: Any, node: ir.Node) -> Any:
    return _mish_of(op, first(node))


def _spelled_mish(gate_first: bool) -> pattern.RewriteRule:
    def target(op: Any, x: Any) -> Any:
        gate = op.Tanh(op.Softplus(x))
        return op.Mul(gate, x) if gate_first else op.Mul(x, gate)

    def replacement(op: Any, x: ir.Value) -> Any:
        return _mish_of(op, x)

    return pattern.RewriteRule(target, replacement, name="mish")


def _sum(op: Any, node: ir.Node) -> Any:
    total = reduce(op.Add, node.inputs)
    return op.Identity(total) if len(node.inputs) == 1 else total


def _mean(op: Any, node: ir.Node) -> Any:
    return op.Mul(_sum(op, node), number(op, 1 / len(node.inputs)))


def _log_softmax(op: Any, node: ir.Node) -> Any:
    """x - m - log(sum(exp(x - m))), m being the largest."""
    x, axis = first(node), table(op, [node.attributes.get_int("axis", -1)])
    moved = op.Sub(x, op.ReduceMax(x, axis))
    return op.Sub(moved, op.Log(op.ReduceSum(op.Exp(moved), axis)))


def _batch_norm(op: Any, node: ir.Node) -> Any:
    """A factor and a shift a channel, both of the weights' rate (Ioffe and Szegedy, arXiv 1502.03167)."""
    x, scale, bias, mean, variance = node.inputs[:5]
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    factor = op.Div(scale, op.Sqrt(op.Add(variance, number(op, epsilon))))
    shift = op.Sub(bias, op.Mul(mean, factor))
    each = [-1, *[1] * (len(dims(x)) - 2)]
    return op.Add(op.Mul(x, op.Reshape(factor, table(op, each))), op.Reshape(shift, table(op, each)))


def _cast_like(op: Any, node: ir.Node) -> Any:
    return op.Cast(first(node), to=int(node.outputs[0].dtype or ir.DataType.FLOAT))


def _mod(op: Any, node: ir.Node) -> Any:
    """What a division leaves, with the sign of what is divided, or of the divisor where fmod is 0."""
    x, y = node.inputs
    if _is_float(node):
        size, by = op.Abs(x), op.Abs(y)
        left = op.Sub(size, op.Mul(op.Floor(op.Div(size, by)), by))
        # Below zero where the quotient was rounded up to a whole number.
        return op.Mul(op.Where(op.Less(left, number(op, 0.0)), op.Add(left, by), left), op.Sign(x))
    left = _left(op, x, y)
    return left if node.attributes.get_int("fmod", 0) else _left(op, op.Add(left, y), y)


def _left(op: Any, x: Any, y: Any) -> Any:
    """Of whole numbers, whose division goes toward zero."""
    return op.Sub(x, op.Mul(op.Div(x, y), y))


def _is_float(node: ir.Node) -> bool:
    return node.outputs[0].dtype is ir.DataType.FLOAT


def _has_sign(node: ir.Node) -> bool:
    """The standard leaves open what fmod = 0 means for floats."""
    return not _is_float(node) or bool(node.attributes.get_int("fmod", 0))


def _evaluates(node: ir.Node) -> bool:
    return not node.attributes.get_int("training_mode", 0)


def _has_width(node: ir.Node) -> bool:
    return not math.isclose(node.attributes.get_float("alpha", 1.0), 0.0)


WHOLE_ACTIVATIONS = [_spelled_mish(gate_first) for gate_first in (False, True)]
"""Recovered before their parts are written out."""

BUILDS: dict[str, Callable[[Any, ir.Node], Any]] = {
    "CastLike": _cast_like, "Elu": _elu, "HardSigmoid": _hard_sigmoid, "HardSwish": _hard_swish, "LeakyRelu": _leaky,
    "LogSoftmax": _log_softmax, "Mean": _mean, "Mish": _mish, "PRelu": _prelu, "Selu": _selu, "Softplus": _softplus,
    "Softsign": _softsign, "Sum": _sum,
}  # fmt: skip

SAID_IN_OTHERS = [
    *(written_out(name, build) for name, build in BUILDS.items()),
    written_out("BatchNormalization", _batch_norm, _evaluates),
    written_out("Celu", _celu, _has_width),
    written_out("Mod", _mod, _has_sign),
]
