"""Rules that recover Attention (Vaswani et al., arXiv 1706.03762, equation 1) from matrix products."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
from onnxscript.rewriter import pattern

from .propagate import dims, scalar

SCALED: list[Callable[[Any, Any, Any], Any]] = [
    lambda op, scores, factor: op.Mul(scores, factor),
    lambda op, scores, factor: op.Div(scores, factor),
]
MASKED: list[Callable[[Any, Any, Any], Any]] = [
    lambda op, scores, mask: op.Add(scores, mask),
    lambda op, scores, mask: op.Add(mask, scores),
]


def _attention(scaled: int | None, masked: int | None) -> pattern.RewriteRule:
    """The rule for one way of writing softmax(q k^T * scale + mask) v."""

    def target(op: Any, q: Any, k: Any, v: Any, factor: Any, mask: Any) -> Any:
        scores = op.MatMul(q, k)
        if scaled is not None:
            scores = SCALED[scaled](op, scores, factor)
        if masked is not None:
            scores = MASKED[masked](op, scores, mask)
        return op.MatMul(op.Softmax(scores, _outputs=["weights"]), v)

    def check(context: Any, q: ir.Value, k: ir.Value, v: ir.Value, weights: ir.Value, **rest: Any) -> bool:
        softmax, rank = weights.producer(), len(dims(q))
        assert softmax is not None
        over_keys = softmax.attributes.get_int("axis", -1) in (-1, rank - 1)
        if not over_keys or rank not in (3, 4) or not len(dims(k)) == len(dims(v)) == rank:
            return False
        if dims(q)[:-2] != dims(k)[:-2] or dims(q)[:-2] != dims(v)[:-2]:
            return False
        return scaled is None or scalar(rest["factor"]) is not None

    def replacement(op: Any, q: ir.Value, k: ir.Value, v: ir.Value, weights: ir.Value, **rest: Any) -> Any:
        rank = len(dims(q))
        factor = 1.0 if scaled is None else scalar(rest["factor"])
        assert factor is not None
        perm = [*range(rank - 2), rank - 1, rank - 2]
        keys = op.Transpose(k, perm=perm)
        key_dims = tuple(dims(k)[axis] for axis in perm)
        operands = [_four(op, q, dims(q)), _four(op, keys, key_dims), _four(op, v, dims(v))]
        if masked is not None:
            operands.append(_four(op, rest["mask"], dims(rest["mask"])))
        result = op.Attention(*operands, scale=1 / factor if scaled == 1 else factor)
        if rank == 4:
            return result
        return op.Reshape(result, _shape(op, (*dims(q)[:-1], dims(v)[-1])))

    name = (
        "attention" + ("" if scaled is None else f"_scaled_{scaled}") + ("" if masked is None else "_masked")
    )
    return pattern.RewriteRule(target, replacement, check, name=name)


def _four(op: Any, value: Any, shape: tuple[int, ...]) -> Any:
    """Attention takes (batch, heads, tokens, features)."""
    return value if len(shape) == 4 else op.Reshape(value, _shape(op, (1,) * (4 - len(shape)) + shape))


def _shape(op: Any, shape: tuple[int, ...]) -> Any:
    return op.Constant(value=ir.tensor(np.array(shape, np.int64)))


def _fold_scale(side: int, divides: bool) -> pattern.RewriteRule:
    """A number that multiplies the queries or the keys is part of the scale."""

    def target(op: Any, x: Any, other: Any, v: Any, factor: Any) -> Any:
        scaled = op.Div(x, factor) if divides else op.Mul(x, factor)
        q, k = (scaled, other) if side == 0 else (other, scaled)
        return op.Attention(q, k, v, _outputs=["result"], _allow_other_inputs=True)

    def check(context: Any, x: ir.Value, factor: ir.Value, **rest: Any) -> bool:
        return scalar(factor) not in (None, 0.0) and x.shape is not None

    def replacement(op: Any, x: ir.Value, factor: ir.Value, result: ir.Value, **rest: Any) -> Any:
        node, number = result.producer(), scalar(factor)
        assert node is not None and number is not None
        inputs = list(node.inputs)
        inputs[side] = x
        attributes = {name: attribute for name, attribute in node.attributes.items() if name != "scale"}
        scale = node.attributes.get_float("scale", 1 / math.sqrt(dims(x)[-1]))
        return op.Attention(*inputs, scale=scale / number if divides else scale * number, **attributes)

    return pattern.RewriteRule(target, replacement, check, name="fold_scale")


def _sink(rearrange: str, divides: bool) -> pattern.RewriteRule:
    """A number multiplies the same before and after a rearrangement: move it towards the Attention."""

    def target(op: Any, x: Any, factor: Any) -> Any:
        scaled = op.Div(x, factor) if divides else op.Mul(x, factor)
        return getattr(op, rearrange)(scaled, _outputs=["result"], _allow_other_inputs=True)

    def check(context: Any, x: ir.Value, factor: ir.Value, **rest: Any) -> bool:
        return scalar(factor) is not None and factor.is_initializer() and math.prod(dims(x)) > 1

    def replacement(op: Any, x: ir.Value, factor: ir.Value, result: ir.Value) -> Any:
        node = result.producer()
        assert node is not None
        moved = getattr(op, rearrange)(x, *node.inputs[1:], **node.attributes)
        return op.Div(moved, factor) if divides else op.Mul(moved, factor)

    return pattern.RewriteRule(target, replacement, check, name="sink_scale")


ATTENTION = [_attention(scaled, masked) for scaled in (None, 0, 1) for masked in (None, 0, 1)]
SCALE = [_sink(op, divides) for op in ("Reshape", "Transpose") for divides in (False, True)] + [
    _fold_scale(side, divides) for side in (0, 1) for divides in (False, True)
]


def _by_heads(op: Any, x: Any, name: str) -> Any:
    """(batch, tokens, heads * features) -> (batch, heads, tokens, features)."""
    return op.Transpose(op.Reshape(x, _outputs=[name], _allow_other_inputs=True), perm=[0, 2, 1, 3])


def _heads_outside(op: Any, q: Any, k: Any, v: Any) -> Any:
    heads = [_by_heads(op, x, f"{name}_heads") for x, name in ((q, "q"), (k, "k"), (v, "v"))]
    result = op.Attention(*heads, _outputs=["result"], _allow_other_inputs=True)
    return op.Reshape(op.Transpose(result, perm=[0, 2, 1, 3]), _outputs=["y"], _allow_other_inputs=True)


def _token_major(context: Any, y: ir.Value, **rest: Any) -> bool:
    for name in ("q", "k", "v"):
        flat, split = dims(rest[name]), dims(rest[f"{name}_heads"])
        if len(flat) != 3 or len(split) != 4 or split[:2] != flat[:2]:
            return False
    return dims(y) == (*dims(rest["q"])[:2], dims(rest["v"])[2])


def _heads_inside(op: Any, q: ir.Value, k: ir.Value, v: ir.Value, result: ir.Value, **rest: Any) -> Any:
    node = result.producer()
    assert node is not None
    counts = {"q_num_heads": dims(rest["q_heads"])[2], "kv_num_heads": dims(rest["k_heads"])[2]}
    return op.Attention(q, k, v, *node.inputs[3:], **{**node.attributes, **counts})


def _folded(op: Any, q: Any, k: Any, v: Any) -> Any:
    """Batch and heads as one axis, as older code calls its batched products."""
    parts = ((q, "q_folded"), (k, "k_folded"), (v, "v_folded"))
    joined = [op.Reshape(x, _outputs=[name], _allow_other_inputs=True) for x, name in parts]
    result = op.Attention(*joined, _outputs=["result"])
    return op.Reshape(result, _outputs=["y"], _allow_other_inputs=True)


def _is_folded(context: Any, q: ir.Value, k: ir.Value, v: ir.Value, y: ir.Value, **rest: Any) -> bool:
    for name, value in (("q", q), ("k", k), ("v", v)):
        batch, heads, *tokens = dims(value) if len(dims(value)) == 4 else (0, 0)
        if dims(rest[f"{name}_folded"]) != (1, batch * heads, *tokens):
            return False
    return dims(y) == (*dims(q)[:3], dims(v)[3])


def _unfold(op: Any, q: ir.Value, k: ir.Value, v: ir.Value, result: ir.Value, **rest: Any) -> Any:
    node = result.producer()
    assert node is not None
    return op.Attention(q, k, v, **node.attributes)


HEADS = [
    pattern.RewriteRule(_folded, _unfold, _is_folded, name="unfold_heads"),
    pattern.RewriteRule(_heads_outside, _heads_inside, _token_major, name="heads_inside"),
]
"""Attention that takes (batch, tokens, channels) itself needs no reshapes around it."""
