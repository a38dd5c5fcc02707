"""Attention nodes: their heads as views, whichever way queries, keys and values lie."""

from __future__ import annotations

import math

from ...ir.errors import UserError
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
    q = _heads(lowering, node.inputs[0], query_heads)
    k = _heads(lowering, node.inputs[1], key_heads)
    v = _heads(lowering, node.inputs[2], key_heads)
    batch, heads, queries, depth = q.shape
    k, v = (_shared(lowering, one, heads) for one in (k, v))
    keys = v.shape[2]
    out = lowering.fresh((batch, heads, queries, v.shape[3]), (0, 2, 1, 3), lowering.dtype(group.result))
    masks = tuple(
        lowering.view(value).expand((batch, heads, queries, keys)) for value in node.inputs[3:4] if value
    )
    scale = attributes.get_float("scale", 0.0) or 1.0 / math.sqrt(depth)
    causal = bool(attributes.get_int("is_causal", 0))
    lowering.device.attention(lowering, Heads(node, q, k, v, out, masks, scale, causal))
    shape = shape_of(node.outputs[0])
    if len(shape) == 3:
        tokens = out.transpose((0, 2, 1, 3)).reshape(shape)
        assert tokens is not None
        out = tokens
    lowering.views[str(group.result.name)] = out


def _heads(lowering: Lowering, value: object, heads: int) -> View:
    """(batch, head, token, channel), of a 4-D value as it is or of a 3-D one whose channels hold the heads."""
    view = lowering.view(value)  # type: ignore[arg-type]
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
