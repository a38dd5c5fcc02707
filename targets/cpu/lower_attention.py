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
from .contraction import most_rows
from .tile_attention import QUERIES, TileAttention
from .tiles import STEP

MANY_QUERIES = 1024

BLOCK = 128
"""Keys at a time, or a few more: their scores and values stay in the first-level cache."""

TASKS_A_CORE = 8

MANY_KEYS = 512
"""From so many on, each head's keys and values are laid side by side first: they pass by once for each run of
queries, and among the other heads' they would not stay in the cache.
"""


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
    keys = v.shape[2]
    out = lowering.fresh((batch, heads, queries, v.shape[3]), (0, 2, 1, 3), lowering.dtype(group.result))
    masks = [
        lowering.view(value).expand((batch, heads, queries, keys)) for value in node.inputs[3:4] if value
    ]
    scale = attributes.get_float("scale", 0.0) or 1.0 / math.sqrt(depth)
    causal = bool(attributes.get_int("is_causal", 0))
    rounded = set(lowering.dtypes([q, k, v])) == {"bfloat16"}
    if rounded and "bfloat16" in profile.tile_formats and not masks and not causal:
        _on_tiles(lowering, q, k, v, out, scale, profile, str(node.name))
    else:
        _on_vectors(lowering, q, k, v, out, scale, masks, causal, profile, str(node.name))
    shape = shape_of(node.outputs[0])
    if len(shape) == 3:
        tokens = out.transpose((0, 2, 1, 3)).reshape(shape)
        assert tokens is not None
        out = tokens
    lowering.views[str(group.result.name)] = out


def _on_tiles(
    lowering: Lowering, q: View, k: View, v: View, out: View, scale: float, profile: Profile, name: str
) -> None:
    batch, heads, queries, _ = q.shape
    keys = v.shape[2]
    kernel = TileAttention(
        dtypes=(*lowering.dtypes([q, k, v]), "bfloat16", "float32", *lowering.dtypes([out])),
        batch=batch,
        heads=heads,
        queries=queries,
        keys=keys,
        depth=q.shape[3],
        value_depth=v.shape[3],
        scale=scale,
        q_strides=q.strides,
        k_strides=k.strides,
        v_strides=v.strides,
        out_strides=out.strides,
        block=min(BLOCK, math.ceil(keys / STEP) * STEP),
        blocks=min(math.ceil(queries / QUERIES), math.ceil(TASKS_A_CORE * profile.cores / (batch * heads))),
    )
    packed = lowering.fresh((kernel.packed_words,), dtype="bfloat16")
    scratch = lowering.fresh((kernel.scratch_floats,))
    lowering.call(kernel, [q, k, v, packed, scratch, out], name)


def _on_vectors(
    lowering: Lowering,
    q: View,
    k: View,
    v: View,
    out: View,
    scale: float,
    masks: list[View],
    causal: bool,
    profile: Profile,
    name: str,
) -> None:
    batch, heads, queries, depth = q.shape
    keys, value_depth = v.shape[2], v.shape[3]
    if keys >= MANY_KEYS:
        k, v = (lowering.materialised(one) for one in (k, v))
    problem = (
        f"attention, {batch * heads} of {queries} queries and {keys} keys, {depth} and {value_depth} wide"
    )
    vectors = lowering.chooser(name)(problem, _vectors(queries, profile))
    most = most_rows(vectors, profile)
    tile, rows, block = _tile(queries, keys, vectors * profile.vector_lanes, most)
    kernel = Attention(
        dtypes=(*lowering.dtypes([q, k, v]), "float32", *lowering.dtypes([out, *masks])),
        batch=batch,
        heads=heads,
        queries=queries,
        keys=keys,
        depth=depth,
        value_depth=value_depth,
        scale=scale,
        q_strides=q.strides,
        k_strides=k.strides,
        v_strides=v.strides,
        out_strides=out.strides,
        tile=tile,
        rows=rows,
        channels=_evenly(value_depth, most_rows(vectors, profile, profile.vector_lanes)),
        block=block,
        blocks=min(math.ceil(queries / tile), math.ceil(TASKS_A_CORE * profile.cores / (batch * heads))),
        lanes=profile.vector_lanes,
        by_lane=profile.by_lane,
        causal=causal,
        mask_strides=masks[0].strides if masks else (),
    )
    scratch = lowering.fresh((kernel.scratch_floats,))
    lowering.call(kernel, [q, k, v, scratch, out, *masks], name)


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


def _vectors(queries: int, profile: Profile) -> dict[str, int]:
    """Vectors of queries in a run: more reuse each key more often, fewer divide few queries more evenly."""
    best = 3 if profile.vector_registers >= 32 and queries >= MANY_QUERIES else 2
    return {f"runs of {count} vectors": count for count in dict.fromkeys((best, 3, 2, 4, 1))}


def _tile(queries: int, keys: int, run: int, most: int) -> tuple[int, int, int]:
    """Queries of a run, keys in registers, of which there is room for ``most``, and keys at a time."""
    # Fewer keys than fit cost nothing as long as sums outnumber what the multipliers have in flight.
    rows = min(range(most // 2 + 1, most + 1), key=lambda rows: -keys % rows)
    return min(run, queries), rows, rows * min(math.ceil(keys / rows), math.ceil(BLOCK / rows))


def _evenly(count: int, most: int) -> int:
    """The size of equal parts that are no larger than ``most``."""
    return math.ceil(count / math.ceil(count / most))
