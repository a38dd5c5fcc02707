"""Attention nodes: their heads as views, whichever way queries, keys and values lie."""

from __future__ import annotations

import math
from dataclasses import replace

import onnx_ir as ir

from ...ir.errors import UserError
from ...ir.formats import attends_integers
from ...ir.groups import Group
from ..graph_facts import describe, shape_of
from ..lowering import Lowering
from ..views import View
from .device import Heads


def lower_attention(lowering: Lowering, group: Group) -> None:
    node = group.anchor
    attributes = node.attributes
    if attributes.get_float("softcap", 0.0) or any(value is not None for value in node.inputs[4:]):
        raise UserError(f"operator Attention with softcap or past keys is not supported, at {describe(node)}")
    query_heads = attributes.get_int("q_num_heads", 0)
    key_heads = attributes.get_int("kv_num_heads", 0)
    inputs, scales = _factors(lowering, node)
    q, k, v = (
        _heads(lowering, value, count)
        for value, count in zip(inputs, (query_heads, key_heads, key_heads), strict=True)
    )
    batch, heads, queries, depth = q.shape
    k, v = (_shared(lowering, one, heads) for one in (k, v))
    keys = v.shape[2]
    out = lowering.fresh((batch, heads, queries, v.shape[3]), (0, 2, 1, 3), lowering.dtype(group.result))
    masks = tuple(
        lowering.view(value).expand((batch, heads, queries, keys)) for value in node.inputs[3:4] if value
    )
    scale = attributes.get_float("scale", 0.0) or 1.0 / math.sqrt(depth)
    causal = bool(attributes.get_int("is_causal", 0))
    lowering.device.attention(lowering, Heads(node, q, k, v, out, masks, scale, causal, scales))
    shape = shape_of(node.outputs[0])
    if len(shape) == 3:
        tokens = out.transpose((0, 2, 1, 3)).reshape(shape)
        assert tokens is not None
        out = tokens
    lowering.views[str(group.result.name)] = out


def _factors(lowering: Lowering, node: ir.Node) -> tuple[list[ir.Value], tuple[View, ...]]:
    """Queries, keys and values; where these are integers, each times one scale, the integers, and the scales."""
    values = [value for value in node.inputs[:3] if value is not None]
    if not attends_integers(node):
        return values, ()
    opening = [source for source in (value.producer() for value in values) if source is not None]
    codes, scales = ([one.inputs[place] for one in opening] for place in range(2))
    return [value for value in codes if value is not None], tuple(
        replace(lowering.view(scale), shape=(), strides=()) for scale in scales if scale is not None
    )


def _heads(lowering: Lowering, value: ir.Value, heads: int) -> View:
    """(batch, head, token, channel), of a 4-D value as it is or of a 3-D one whose channels hold the heads."""
    view = lowering.view(value)
    if len(view.shape) == 4:
        return view
    batch, tokens, channels = view.shape
    split = lowering.reshaped(view, (batch, tokens, heads, channels // heads))
    return split.transpose((0, 2, 1, 3))


def _shared(lowering: Lowering, view: View, heads: int) -> View:
    """Keys or values of fewer heads than the queries have: each serves as many (arXiv 2305.13245)."""
    batch, own, tokens, channels = view.shape
    if own == heads:
        return view
    apart = lowering.reshaped(view, (batch, own, 1, tokens, channels))
    spread = apart.expand((batch, own, heads // own, tokens, channels))
    return lowering.reshaped(spread, (batch, heads, tokens, channels))
