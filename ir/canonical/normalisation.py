"""Rules that recover GroupNormalization and LayerNormalization from the forms that exporters write."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from .propagate import dims, scalar
from .writing import first, number, table, written_out


def _instance_norm(op: Any, x: Any, groups: Any, ones: Any, zeros: Any, back: Any) -> Any:
    grouped = op.Reshape(x, groups, _outputs=["grouped"])
    normalised = op.InstanceNormalization(grouped, ones, zeros, _outputs=["normalised"])
    return op.Reshape(normalised, back, _outputs=["restored"])


def _affine_groups(
    op: Any, x: Any, groups: Any, ones: Any, zeros: Any, back: Any, scale: Any, bias: Any
) -> Any:
    return op.Add(op.Mul(_instance_norm(op, x, groups, ones, zeros, back), scale), bias)


def _is_plain_groups(
    context: Any,
    x: ir.Value,
    grouped: ir.Value,
    restored: ir.Value,
    ones: ir.Value,
    zeros: ir.Value,
    **rest: Any,
) -> bool:
    """Whether the reshapes around InstanceNormalization say GroupNormalization."""
    shape, inner = dims(x), dims(grouped)
    units = ones.const_value is not None and zeros.const_value is not None
    if not units or len(shape) < 3 or dims(restored) != shape or len(inner) != 3 or inner[0] != shape[0]:
        return False
    assert ones.const_value is not None and zeros.const_value is not None
    plain = bool(np.all(ones.const_value.numpy() == 1) and np.all(zeros.const_value.numpy() == 0))
    return plain and shape[1] % inner[1] == 0


def _is_affine_groups(context: Any, x: ir.Value, **rest: Any) -> bool:
    channels = dims(x)[1] if len(dims(x)) > 1 else 0
    return _is_plain_groups(context, x, **rest) and all(
        _per_channel(rest[name], channels, len(dims(x))) for name in ("scale", "bias")
    )


def _per_channel(value: ir.Value, channels: int, rank: int) -> bool:
    shape = (1,) * (rank - len(dims(value))) + dims(value)
    return len(shape) == rank and shape[1] == channels == int(np.prod(shape))


def _raise_affine_groups(
    op: Any,
    x: ir.Value,
    grouped: ir.Value,
    normalised: ir.Value,
    scale: ir.Value,
    bias: ir.Value,
    **rest: Any,
) -> Any:
    return op.GroupNormalization(
        x,
        _flat(op, scale),
        _flat(op, bias),
        num_groups=dims(grouped)[1],
        epsilon=_epsilon(normalised),
    )


def _raise_plain_groups(op: Any, x: ir.Value, grouped: ir.Value, normalised: ir.Value, **rest: Any) -> Any:
    channels = dims(x)[1]
    ones = op.Constant(value=ir.tensor(np.ones(channels, np.float32)))
    zeros = op.Constant(value=ir.tensor(np.zeros(channels, np.float32)))
    return op.GroupNormalization(x, ones, zeros, num_groups=dims(grouped)[1], epsilon=_epsilon(normalised))


def _epsilon(normalised: ir.Value) -> float:
    producer = normalised.producer()
    assert producer is not None
    return producer.attributes.get_float("epsilon", 1e-5)


def _flat(op: Any, value: ir.Value) -> Any:
    """A per-channel weight as a vector. The initializer keeps name and bytes; only its view changes."""
    if len(dims(value)) == 1:
        return value
    if not value.is_initializer() or len(value.uses()) != 1:
        return op.Reshape(value, op.Constant(value=ir.tensor(np.array([-1], np.int64))))
    assert value.const_value is not None
    value.const_value = ir.tensor(value.const_value.numpy().reshape(-1), name=value.name)
    value.shape = ir.Shape((value.const_value.size,))
    return value


def _ort_group_norm(op: Any, x: Any, scale: Any, bias: Any) -> Any:
    return op.GroupNorm(x, scale, bias, _domain="com.microsoft", _outputs=["normalised"])


def _raise_ort_group_norm(op: Any, x: ir.Value, scale: ir.Value, bias: ir.Value, normalised: ir.Value) -> Any:
    node = normalised.producer()
    assert node is not None
    last = node.attributes.get_int("channels_last", 1)
    result = op.GroupNormalization(
        op.Transpose(x, perm=[0, 3, 1, 2]) if last else x,
        scale,
        bias,
        num_groups=node.attributes.get_int("groups"),
        epsilon=node.attributes.get_float("epsilon", 1e-5),
    )
    if node.attributes.get_int("activation", 0):
        result = op.Swish(result)
    return op.Transpose(result, perm=[0, 2, 3, 1]) if last else result


SQUARES: list[Callable[[Any, Any], Any]] = [lambda op, d: op.Pow(d, 2.0), lambda op, d: op.Mul(d, d)]
QUOTIENTS: list[Callable[[Any, Any, Any], Any]] = [
    lambda op, d, deviation: op.Div(d, deviation),
    lambda op, d, deviation: op.Mul(d, op.Reciprocal(deviation)),
]


def _normalised(
    op: Any,
    x: Any,
    epsilon: Any,
    axes: Any,
    square: Callable[[Any, Any], Any],
    divide: Callable[[Any, Any, Any], Any],
) -> Any:
    centred = op.Sub(x, op.ReduceMean(x, axes, _outputs=["mean"]))
    variance = op.ReduceMean(square(op, centred), axes, _outputs=["variance"])
    return divide(op, centred, op.Sqrt(op.Add(variance, epsilon)))


def _is_over_the_last_axis(
    context: Any, x: ir.Value, epsilon: ir.Value, axes: ir.Value, mean: ir.Value, **rest: Any
) -> bool:
    last = len(dims(x)) - 1
    whole = scalar(axes) in (-1.0, float(last)) and dims(mean) == (*dims(x)[:-1], 1)
    return whole and scalar(epsilon) is not None


def _layer_norm(
    square: Callable[[Any, Any], Any], divide: Callable[[Any, Any, Any], Any]
) -> pattern.RewriteRule:
    """(x - mean) / sqrt(variance + epsilon) * scale over the last axis (Ba et al., arXiv 1607.06450)."""

    def target(op: Any, x: Any, scale: Any, epsilon: Any, axes: Any) -> Any:
        return op.Mul(_normalised(op, x, epsilon, axes, square, divide), scale)

    def check(context: Any, x: ir.Value, scale: ir.Value, **rest: Any) -> bool:
        return dims(scale) == dims(x)[-1:] and _is_over_the_last_axis(context, x, **rest)

    def replacement(op: Any, x: ir.Value, scale: ir.Value, epsilon: ir.Value, **rest: Any) -> Any:
        return op.LayerNormalization(x, scale, axis=-1, epsilon=scalar(epsilon))

    return pattern.RewriteRule(target, replacement, check, name="layer_normalization")


def _plain_layer_norm(
    square: Callable[[Any, Any], Any], divide: Callable[[Any, Any, Any], Any]
) -> pattern.RewriteRule:
    """The same without a scale, as where the timestep brings one of its own."""

    def target(op: Any, x: Any, epsilon: Any, axes: Any) -> Any:
        return _normalised(op, x, epsilon, axes, square, divide)

    def replacement(op: Any, x: ir.Value, epsilon: ir.Value, **rest: Any) -> Any:
        ones = op.Constant(value=ir.tensor(np.ones(dims(x)[-1], np.float32)))
        return op.LayerNormalization(x, ones, axis=-1, epsilon=scalar(epsilon))

    return pattern.RewriteRule(target, replacement, _is_over_the_last_axis, name="plain_layer_normalization")


def _biased_layer_norm(op: Any, x: Any, scale: Any, bias: Any) -> Any:
    return op.Add(op.LayerNormalization(x, scale, _outputs=["normalised"]), bias)


def _has_no_bias(context: Any, x: ir.Value, bias: ir.Value, **rest: Any) -> bool:
    return dims(bias) == dims(x)[-1:]


def _raise_biased_layer_norm(
    op: Any, x: ir.Value, scale: ir.Value, bias: ir.Value, normalised: ir.Value
) -> Any:
    node = normalised.producer()
    assert node is not None
    return op.LayerNormalization(x, scale, bias, **node.attributes)


def _by_channel(op: Any, node: ir.Node) -> Any:
    """Each channel is a group of its own (Ulyanov et al., arXiv 1607.08022)."""
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    return op.GroupNormalization(*node.inputs, num_groups=dims(first(node))[1], epsilon=epsilon)


def _over_more_axes(node: ir.Node) -> bool:
    axis, rank = node.attributes.get_int("axis", -1), len(dims(first(node)))
    return axis % rank != rank - 1


def _flat_layer_norm(op: Any, node: ir.Node) -> Any:
    """What is normalised together as one axis."""
    x = first(node)
    lead = dims(x)[: node.attributes.get_int("axis", -1)]
    flat = op.Reshape(x, table(op, [*lead, -1]))
    own: list[Any] = []
    for value in filter(None, node.inputs[1:]):
        whole = dims(x)[len(lead) :]
        spread = value if dims(value) == whole else op.Expand(value, table(op, whole))
        own.append(op.Reshape(spread, table(op, [-1])))
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    return op.Reshape(op.LayerNormalization(flat, *own, axis=-1, epsilon=epsilon), table(op, dims(x)))


def _rms_norm(op: Any, node: ir.Node) -> Any:
    """x / sqrt(mean(x^2) + epsilon) times a scale (Zhang and Sennrich, arXiv 1910.07467)."""
    x, rank = first(node), len(dims(first(node)))
    axes = table(op, range(node.attributes.get_int("axis", -1) % rank, rank))
    mean = op.ReduceMean(op.Mul(x, x), axes)
    root = op.Sqrt(op.Add(mean, number(op, node.attributes.get_float("epsilon", 1e-5))))
    return op.Mul(op.Div(x, root), node.inputs[1])


AFFINE_GROUPS = [
    pattern.RewriteRule(_affine_groups, _raise_affine_groups, _is_affine_groups, name="group_normalization"),
    pattern.RewriteRule(_ort_group_norm, _raise_ort_group_norm, name="ort_group_norm"),
]
PLAIN_GROUPS = [
    pattern.RewriteRule(
        _instance_norm, _raise_plain_groups, _is_plain_groups, name="plain_group_normalization"
    ),
]
LAYER_NORM = [
    *(_layer_norm(square, divide) for square in SQUARES for divide in QUOTIENTS),
    pattern.RewriteRule(_biased_layer_norm, _raise_biased_layer_norm, _has_no_bias, name="layer_norm_bias"),
]
PLAIN_LAYERS = [_plain_layer_norm(square, divide) for square in SQUARES for divide in QUOTIENTS]
OTHER_NORMS = [
    written_out("InstanceNormalization", _by_channel),
    written_out("LayerNormalization", _flat_layer_norm, _over_more_axes),
    written_out("RMSNormalization", _rms_norm),
]
