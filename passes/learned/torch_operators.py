"""What each operator of the canonical vocabulary computes, in torch: one function an operator, gradients included.

Integers that stand for numbers (QuantizeLinear) are kept as floats of whole value, so that gradients pass through
them: rounding counts as the identity, saturation as what it is (Bengio et al., arXiv 1308.3432). That makes the
gradient of a scale that of LSQ (Esser et al., arXiv 1902.08153).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial, reduce
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from .torch_movement import MOVEMENT
from .torch_values import DTYPES, integer_range, ints, literal, refuse, rounded, spread, text

Result = Tensor | tuple[Tensor | None, ...]

Operator = Callable[..., Result]
"""A node and the tensors that it reads, None for those left out, to what it gives."""


def _identity(value: Tensor) -> Tensor:
    return value


def _folded(pair: Callable[[Tensor, Tensor], Tensor], *values: Tensor) -> Tensor:
    return reduce(pair, values)


def _div(left: Tensor, right: Tensor) -> Tensor:
    return torch.div(left, right, rounding_mode=None if left.is_floating_point() else "trunc")


def _pow(base: Tensor, exponent: Tensor) -> Tensor:
    return torch.pow(base, exponent.to(base.dtype))


def _clip(value: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    value = value if low is None else torch.maximum(value, low)
    return value if high is None else torch.minimum(value, high)


PLAIN: dict[str, Callable[..., Tensor]] = {
    "Abs": torch.abs, "Add": torch.add, "And": torch.logical_and, "Ceil": torch.ceil, "Clip": _clip,
    "Cos": torch.cos, "Div": _div, "Equal": torch.eq, "Erf": torch.erf, "Exp": torch.exp, "Floor": torch.floor,
    "Greater": torch.gt, "GreaterOrEqual": torch.ge, "Identity": _identity, "Less": torch.lt,
    "LessOrEqual": torch.le, "Log": torch.log, "MatMul": torch.matmul, "Max": partial(_folded, torch.maximum),
    "Min": partial(_folded, torch.minimum), "Mul": torch.mul, "Neg": torch.neg, "Not": torch.logical_not,
    "Or": torch.logical_or, "Pow": _pow, "Reciprocal": torch.reciprocal, "Relu": torch.relu,
    "Round": rounded, "Sigmoid": torch.sigmoid, "Sign": torch.sign, "Sin": torch.sin, "Sqrt": torch.sqrt,
    "Sub": torch.sub, "Tanh": torch.tanh, "Where": torch.where,
}  # fmt: skip
"""Operators that their operands say all of."""


def _swish(node: ir.Node, value: Tensor) -> Tensor:
    return value * torch.sigmoid(node.attributes.get_float("alpha", 1.0) * value)


def _gelu(node: ir.Node, value: Tensor) -> Tensor:
    return functional.gelu(value, approximate=text(node, "approximate", "none"))


def _thresholded(node: ir.Node, value: Tensor) -> Tensor:
    return torch.where(value > node.attributes.get_float("alpha", 1.0), value, torch.zeros_like(value))


def _cast(node: ir.Node, value: Tensor) -> Tensor:
    wanted = ir.DataType(node.attributes.get_int("to", 0))
    if wanted not in DTYPES:
        raise refuse(node, f"to {wanted}")
    return value.to(DTYPES[wanted])


def _softmax(node: ir.Node, value: Tensor) -> Tensor:
    return torch.softmax(value, node.attributes.get_int("axis", -1))


def _gemm(node: ir.Node, left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    flips = (node.attributes.get_int(name, 0) for name in ("transA", "transB"))
    left, right = (one.T if flip else one for one, flip in zip((left, right), flips, strict=True))
    result = node.attributes.get_float("alpha", 1.0) * (left @ right)
    return result if bias is None else result + node.attributes.get_float("beta", 1.0) * bias


def _framed(node: ir.Node, value: Tensor, around: float = 0.0) -> Tensor:
    """An image with the frame that ``pads`` asks for."""
    if text(node, "auto_pad", "NOTSET") != "NOTSET":
        raise refuse(node, "with auto_pad")
    axes = value.ndim - 2
    pads = ints(node, "pads", [0] * 2 * axes)
    sides = [side for axis in reversed(range(axes)) for side in (pads[axis], pads[axes + axis])]
    return functional.pad(value, sides, value=around) if any(sides) else value


def _conv(node: ir.Node, value: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    axes = value.ndim - 2
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[axes - 1]
    return convolve(
        _framed(node, value), weight, bias, stride=ints(node, "strides", [1] * axes),
        dilation=ints(node, "dilations", [1] * axes), groups=node.attributes.get_int("group", 1),
    )  # fmt: skip


def _average(node: ir.Node, value: Tensor) -> Tensor:
    if any(ints(node, "pads", ())) and not node.attributes.get_int("count_include_pad", 0):
        raise refuse(node, "with padding that does not count")
    if value.ndim != 4 or any(one != 1 for one in ints(node, "dilations", ())):
        raise refuse(node, "with dilation, or over other than two axes")
    ceiling = bool(node.attributes.get_int("ceil_mode", 0))
    window = ints(node, "kernel_shape", ())
    return functional.avg_pool2d(_framed(node, value), window, ints(node, "strides", (1, 1)), 0, ceiling)


def _largest(node: ir.Node, value: Tensor) -> Tensor:
    if len(node.outputs) > 1:
        raise refuse(node, "with the places of what is largest")
    axes = value.ndim - 2
    pool = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[axes - 1]
    window, strides = (ints(node, name, [1] * axes) for name in ("kernel_shape", "strides"))
    dilation, ceiling = ints(node, "dilations", [1] * axes), bool(node.attributes.get_int("ceil_mode", 0))
    return pool(_framed(node, value, -math.inf), window, strides, 0, dilation, ceiling)


def _group_norm(node: ir.Node, value: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups, epsilon = node.attributes.get_int("num_groups", 1), node.attributes.get_float("epsilon", 1e-5)
    return functional.group_norm(value, groups, scale, bias, epsilon)


def _layer_norm(node: ir.Node, value: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    sizes = value.shape[node.attributes.get_int("axis", -1) :]
    shift = None if bias is None else bias.expand(sizes)
    return functional.layer_norm(
        value, sizes, scale.expand(sizes), shift, node.attributes.get_float("epsilon", 1e-5)
    )


def _attention(
    node: ir.Node, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *past: Tensor | None
) -> Result:
    if any(one is not None for one in past):
        raise refuse(node, "with keys from before")
    joined = query.ndim == 3
    if joined:
        heads, shared = (node.attributes.get_int(name, 1) for name in ("q_num_heads", "kv_num_heads"))
        query, key, value = _heads(query, heads), _heads(key, shared), _heads(value, shared)
    group = query.shape[1] // key.shape[1]
    if group > 1:
        key, value = key.repeat_interleave(group, 1), value.repeat_interleave(group, 1)
    scale = node.attributes.get_float("scale") or 1 / math.sqrt(query.shape[-1])
    if node.attributes.get_int("is_causal", 0):
        shown = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device).tril()
        if mask is None or mask.dtype == torch.bool:
            mask = shown if mask is None else mask & shown
        else:
            mask = mask.masked_fill(~shown, -math.inf)
    softcap, scores = node.attributes.get_float("softcap", 0.0), None
    if softcap or any(one.uses() or one.is_graph_output() for one in node.outputs[1:]):
        result, scores = _products(node, query, key, value, mask, scale, softcap)
    else:
        result = functional.scaled_dot_product_attention(query, key, value, mask, scale=scale)
    result = result.transpose(1, 2).flatten(2) if joined else result
    return result if scores is None else (result, key, value, scores)


def _heads(value: Tensor, count: int) -> Tensor:
    """[batch, tokens, heads * features] as [batch, heads, tokens, features]."""
    batch, tokens, wide = value.shape
    return value.reshape(batch, tokens, count, wide // count).transpose(1, 2)


def _products(
    node: ir.Node,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor | None,
    scale: float,
    softcap: float,
) -> tuple[Tensor, Tensor]:
    """Attention written out, and the scores at the stage that ``qk_matmul_output_mode`` names."""
    stages = [query @ key.transpose(-1, -2) * scale]
    shift = None if mask is None else mask
    if mask is not None and mask.dtype == torch.bool:
        shift = torch.zeros_like(mask, dtype=query.dtype).masked_fill(~mask, -math.inf)
    stages.append(stages[-1] if shift is None else stages[-1] + shift)
    stages.append(softcap * torch.tanh(stages[-1] / softcap) if softcap else stages[-1])
    stages.append(torch.softmax(stages[-1], -1))
    return stages[-1] @ value, stages[node.attributes.get_int("qk_matmul_output_mode", 0)]


def _quantise(node: ir.Node, value: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    low, high = integer_range(node.outputs[0].dtype)
    axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
    sizes = tuple(value.shape)
    whole = rounded(value / spread(scale, sizes, axis, block))
    if zero is not None:
        whole = whole + spread(zero, sizes, axis, block).to(whole.dtype)
    return whole.clamp(low, high)


def _dequantise(node: ir.Node, value: Tensor, scale: Tensor, zero: Tensor | None = None) -> Tensor:
    axis, block = node.attributes.get_int("axis", 1), node.attributes.get_int("block_size", 0)
    sizes, whole = tuple(value.shape), value.to(scale.dtype)
    if zero is not None:
        whole = whole - spread(zero, sizes, axis, block).to(scale.dtype)
    return whole * spread(scale, sizes, axis, block)


def _reduced(reduction: Callable[..., Tensor], node: ir.Node, value: Tensor, *_: Tensor | None) -> Tensor:
    axes = literal(node, 1)
    if not axes and node.attributes.get_int("noop_with_empty_axes", 0):
        return value
    return reduction(value, axes or list(range(value.ndim)), bool(node.attributes.get_int("keepdims", 1)))


def _length(value: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    untyped: Any = torch.linalg
    return untyped.vector_norm(value, 2, tuple(axes), keep)


def _product(value: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    """Over one axis after the other, which torch does one of."""
    for axis in sorted((axis % value.ndim for axis in axes), reverse=True):
        value = torch.prod(value, axis, keep)
    return value


def _sum_of(term: Callable[[Tensor], Tensor], value: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    return torch.sum(term(value), list(axes), keep)


def _log_of_sum(value: Tensor, axes: Sequence[int], keep: bool) -> Tensor:
    return torch.log(torch.sum(value, list(axes), keep))


REDUCTIONS: dict[str, Callable[..., Tensor]] = {
    "ReduceL1": partial(_sum_of, torch.abs), "ReduceL2": _length, "ReduceLogSum": _log_of_sum,
    "ReduceMax": torch.amax, "ReduceMean": torch.mean, "ReduceMin": torch.amin, "ReduceProd": _product,
    "ReduceSum": torch.sum, "ReduceSumSquare": partial(_sum_of, torch.square),
}  # fmt: skip
"""Of a tensor over axes, which stay, of size one, or go."""


def _without_node(plain: Callable[..., Tensor]) -> Operator:
    def compute(node: ir.Node, *values: Tensor) -> Tensor:
        return plain(*values)

    return compute


OPERATORS: dict[str, Operator] = {
    **{name: _without_node(plain) for name, plain in PLAIN.items()},
    **MOVEMENT,
    "Attention": _attention, "AveragePool": _average, "Cast": _cast, "Conv": _conv, "DequantizeLinear": _dequantise,
    "Gelu": _gelu, "Gemm": _gemm, "GroupNormalization": _group_norm, "LayerNormalization": _layer_norm,
    "MaxPool": _largest, "QuantizeLinear": _quantise, "Softmax": _softmax, "Swish": _swish,
    "ThresholdedRelu": _thresholded,
    **{name: partial(_reduced, reduction) for name, reduction in REDUCTIONS.items()},
}  # fmt: skip


def compute(node: ir.Node, *values: Tensor | None) -> tuple[Tensor | None, ...]:
    """All results of a node. Raises UserError for an operator, or a form of one, that is not in the table."""
    if node.op_type not in OPERATORS or node.domain not in ("", "ai.onnx"):
        raise refuse(node, "as an operator")
    result = OPERATORS[node.op_type](node, *values)
    return result if isinstance(result, tuple) else (result,)
