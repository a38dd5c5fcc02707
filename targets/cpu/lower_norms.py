"""``GroupNorm``, ``LayerNorm`` and ``Softmax`` calls."""

from __future__ import annotations

import math
from typing import Any

from ..lowering import Lowering
from ..planning.device import Images, Rows
from ..profile import Profile
from .group_norm import GroupNorm
from .row_norm import LayerNorm, Softmax


def lower_group_norm(lowering: Lowering, images: Images, profile: Profile) -> None:
    x, out, loads = images.x, images.out, images.fused.loads
    kernel = GroupNorm(
        dtypes=(*lowering.dtypes([x, images.scale, images.bias]), "float32", *lowering.dtypes([out, *loads])),
        images=x.shape[0],
        pixels=images.pixels,
        channels=x.shape[1],
        groups=images.groups,
        epsilon=images.epsilon,
        runs=_runs(math.prod(images.pixels), profile),
        x_strides=images.strides[0][:-1],
        out_strides=images.strides[1],
        epilogue=images.fused.bound(5, images.strides[2:]),
        lanes=profile.vector_lanes,
    )
    scratch = lowering.fresh((kernel.scratch_floats,))
    lowering.call(kernel, [x, images.scale, images.bias, scratch, out, *loads], str(images.node.name))


def _runs(pixels: int, profile: Profile) -> int:
    """Into how many equal runs the pixels are cut: enough for every core, small enough for its cache."""
    runs = 1
    while (
        pixels % (runs * 2) == 0
        and pixels // (runs * 2) >= 16
        and (runs < 2 * profile.cores or pixels // runs * 512 > profile.l2_bytes // 2)
    ):
        runs *= 2
    return runs


def lower_rows(lowering: Lowering, rows: Rows, profile: Profile) -> None:
    operands = [rows.x, rows.out, *rows.fused.loads]
    common: dict[str, Any] = {
        "dtypes": lowering.dtypes(operands),
        "rows": rows.rows,
        "columns": rows.columns,
        "x_strides": rows.strides[0],
        "out_strides": rows.strides[1],
        "epilogue": rows.fused.bound(2, rows.strides[2:]),
        "lanes": profile.vector_lanes,
    }
    kernel = Softmax(**common) if rows.epsilon is None else LayerNorm(**common, epsilon=rows.epsilon)
    lowering.call(kernel, operands, str(rows.node.name))
