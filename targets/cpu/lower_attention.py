"""``Attention`` calls, on vectors or on a matrix unit."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from functools import partial

from ..heads import HeadShapes
from ..lowering import Lowering
from ..planning.device import Heads
from ..profile import Profile
from ..views import View
from .attention import Attention
from .dot_attention import DotAttention, PairedRows
from .register_tiles import SINGLE, most_rows
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


def lower_attention(lowering: Lowering, heads: Heads, profile: Profile) -> None:
    heads = _in_bfloat16(lowering, heads, profile)
    rounded = set(lowering.dtypes([heads.q, heads.k, heads.v])) == {"bfloat16"}
    if rounded and "bfloat16" in profile.tile_formats and not heads.masks and not heads.causal:
        _on_tiles(lowering, heads, profile)
    else:
        _on_vectors(lowering, heads, profile, profile.bfloat16_dot if rounded else None)


def _in_bfloat16(lowering: Lowering, heads: Heads, profile: Profile) -> Heads:
    """Integers of eight bits as bfloat16 numbers, which are exact, where those are multiplied; else what they stand
    for.
    """
    if not heads.scales or not (profile.bfloat16_dot or "bfloat16" in profile.tile_formats):
        return lowering.device.opened(lowering, heads)
    by_heads = None if heads.k.shape[2] >= MANY_KEYS else heads.k.order()
    found: list[View] = []
    for codes, order in ((heads.q, heads.q.order()), (heads.k, by_heads), (heads.v, heads.v.order())):
        found.append(lowering.fresh(codes.shape, order, "bfloat16"))
        lowering.copy(found[-1], codes, str(heads.node.name))
    return replace(heads, q=found[0], k=found[1], v=found[2])


def _on_tiles(lowering: Lowering, attention: Heads, profile: Profile) -> None:
    q, k, v, out, shapes = attention.q, attention.k, attention.v, attention.out, attention.shapes
    kernel = TileAttention(
        dtypes=(
            *lowering.dtypes([q, k, v]),
            "bfloat16",
            "float32",
            *lowering.dtypes([out, *attention.scales]),
        ),
        **asdict(shapes),
        block=min(BLOCK, math.ceil(shapes.keys / STEP) * STEP),
        blocks=_blocks(shapes, QUERIES, profile),
    )
    packed = lowering.fresh((kernel.packed_words,), dtype="bfloat16")
    scratch = lowering.fresh((kernel.scratch_floats,))
    operands = [q, k, v, packed, scratch, out, *attention.scales]
    lowering.call(kernel, operands, str(attention.node.name))


def _in_words(queries: View, keys: View, lanes: int) -> bool:
    """Whether neighbouring channels of keys share words as they lie, and queries fill vectors."""
    sizes = (keys.shape[3], keys.offset, *keys.strides[:3])
    return keys.strides[3] == 1 and not any(size % 2 for size in sizes) and queries.shape[2] % lanes == 0


def _paired(lowering: Lowering, values: View, lanes: int, name: str) -> View:
    """Words of two neighbouring keys' values."""
    batch, heads, keys, depth = values.shape
    out = lowering.fresh((batch, heads, (keys + 1) // 2, depth), dtype="int32")
    kernel = PairedRows(
        (*lowering.dtypes([values]), "int32"), (batch, heads), keys, depth, values.strides, lanes
    )
    lowering.call(kernel, [values, out], name)
    return out


def _on_vectors(lowering: Lowering, attention: Heads, profile: Profile, dot: str | None) -> None:
    q, k, v, out, masks = attention.q, attention.k, attention.v, attention.out, attention.masks
    queries, keys, name = q.shape[2], k.shape[2], str(attention.node.name)
    if keys >= MANY_KEYS:
        k = lowering.materialised(k)
    k_strides = k.strides
    if dot is not None and _in_words(q, k, profile.vector_lanes):
        k_strides = (*(stride // 2 for stride in k.strides[:3]), 1)
        v = _paired(lowering, v, profile.vector_lanes, name)
    else:
        dot = None
        v = lowering.materialised(v) if keys >= MANY_KEYS else v
    shapes = replace(replace(attention, k=k, v=v).shapes, k_strides=k_strides)
    vectors = lowering.chooser(name)(shapes.described, _vectors(queries, profile))
    most = most_rows(vectors, profile)
    tile, rows, block = _tile(queries, keys, vectors * profile.vector_lanes, most, 1 if dot is None else 2)
    make = Attention if dot is None else partial(DotAttention, instruction=dot)
    kernel = make(
        dtypes=(*lowering.dtypes([q, k, v]), "float32", *lowering.dtypes([out, *masks, *attention.scales])),
        **asdict(shapes),
        tile=tile,
        rows=rows,
        channels=_evenly(shapes.value_depth, most_rows(vectors, profile, SINGLE, profile.vector_lanes)),
        block=block,
        blocks=_blocks(shapes, tile, profile),
        lanes=profile.vector_lanes,
        by_lane=profile.by_lane,
        causal=attention.causal,
        mask_strides=masks[0].strides if masks else (),
    )
    scratch = lowering.fresh((kernel.scratch_floats,))
    lowering.call(kernel, [q, k, v, scratch, out, *masks, *attention.scales], name)


def _blocks(shapes: HeadShapes, tile: int, profile: Profile) -> int:
    """Tasks that share a head's runs of ``tile`` queries."""
    tasks = TASKS_A_CORE * profile.cores
    return min(math.ceil(shapes.queries / tile), math.ceil(tasks / (shapes.batch * shapes.heads)))


def _vectors(queries: int, profile: Profile) -> dict[str, int]:
    """Vectors of queries in a run: more reuse each key more often, fewer divide few queries more evenly."""
    best = 3 if profile.vector_registers >= 32 and queries >= MANY_QUERIES else 2
    return {f"runs of {count} vectors": count for count in dict.fromkeys((best, 3, 2, 4, 1))}


def _tile(queries: int, keys: int, run: int, most: int, together: int) -> tuple[int, int, int]:
    """Queries of a run, keys in registers, of which there is room for ``most``, and keys at a time: a multiple of those
    and of ``together``.
    """
    # Fewer keys than fit cost nothing as long as sums outnumber what the multipliers have in flight.
    rows = min(range(most // 2 + 1, most + 1), key=lambda rows: -keys % rows)
    least = rows if rows % together == 0 else rows * together
    return min(run, queries), rows, least * min(math.ceil(keys / least), math.ceil(BLOCK / least))


def _evenly(count: int, most: int) -> int:
    """The size of equal parts that are no larger than ``most``."""
    return math.ceil(count / math.ceil(count / most))
