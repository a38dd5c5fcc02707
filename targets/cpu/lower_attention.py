"""Attention nodes -> ``Attention`` calls."""

from __future__ import annotations

import math

from ...ir.errors import UserError
from ...ir.groups import Group
from ..graph_facts import describe, shape_of
from ..lowering import Lowering
from ..profile import Profile
from ..views import View
from .attention import Attention

LONGEST_HEAD = 255
"""Channels of a head whose running sums still fit a local array."""


def lower_attention(lowering: Lowering, group: Group, profile: Profile) -> None:
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
    keys, value_depth = v.shape[2], v.shape[3]
    if v.strides[3] != 1:
        v = lowering.materialised(v, (0, 2, 1, 3))
    out = lowering.fresh((batch, heads, queries, value_depth), (0, 2, 1, 3))
    masks = [
        lowering.view(value).expand((batch, heads, queries, keys)) for value in node.inputs[3:4] if value
    ]
    scale = attributes.get_float("scale", 0.0) or 1.0 / math.sqrt(depth)
    causal = bool(attributes.get_int("is_causal", 0))
    for start, channels in _runs(value_depth, profile.vector_lanes):
        part, target = v.slice(3, start, channels), out.slice(3, start, channels)
        rows, width, block = _tile(channels, keys, profile)
        kernel = Attention(
            dtypes=("float32",) * 5 + tuple(lowering.buffers[mask.buffer].dtype for mask in masks),
            batch=batch,
            heads=heads,
            queries=queries,
            keys=keys,
            depth=depth,
            value_depth=channels,
            scale=scale,
            q_strides=q.strides,
            k_strides=k.strides,
            v_strides=part.strides,
            out_strides=target.strides,
            tile_rows=min(rows, queries),
            width=width,
            block=block,
            lanes=profile.vector_lanes,
            causal=causal,
            mask_strides=masks[0].strides if masks else (),
        )
        scratch = lowering.fresh((kernel.scratch_floats,))
        lowering.call(kernel, [q, k, part, scratch, target, *masks], str(node.name))
    result = node.outputs[0]
    if len(shape_of(result)) == 3:
        tokens = out.transpose((0, 2, 1, 3)).reshape(shape_of(result))
        assert tokens is not None
        out = tokens
    lowering.views[str(result.name)] = out


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


def _runs(depth: int, lanes: int) -> list[tuple[int, int]]:
    """The value channels in runs (start, channels) whose sums fit a local array: each computes the scores anew."""
    count = math.ceil(depth / LONGEST_HEAD)
    length = math.ceil(depth / count / lanes) * lanes if count > 1 else depth
    return [(start, min(length, depth - start)) for start in range(0, depth, length)]


def _tile(depth: int, keys: int, profile: Profile) -> tuple[int, int, int]:
    """Rows and width of the register tile, and keys at a time: full passes over the value channels, as tall as
    fits.
    """
    lanes, registers = profile.vector_lanes, profile.vector_registers
    candidates = [
        ((-(-depth // (vectors * lanes)) * vectors * lanes) / depth + vectors / rows, rows, vectors)
        for vectors in (1, 2, 3, 4)
        if (rows := (registers - vectors - 1) // vectors) >= 4
    ]
    _, rows, vectors = min(candidates)
    width = vectors * lanes
    return rows, width, width * max(1, min(math.ceil(keys / width), 128 // width))
