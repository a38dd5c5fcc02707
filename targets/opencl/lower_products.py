"""Convolutions and matrix products -> ``Contraction`` calls, or minimal filtering."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...ir.errors import UserError
from ..expressions import Value
from ..fused import result_view
from ..graph_facts import describe
from ..lowering import Lowering
from ..packing import Panels, WinogradPanels
from ..planning.device import Product, Window
from ..planning.filtering import choose, filterable
from ..profile import GpuProfile
from ..views import View, merge_axes
from ..winograd import TAPS
from .contraction import STEPS, Contraction, Edge
from .text import lanes_for
from .winograd import WinogradInput, WinogradOutput

HEIGHTS = (8, 4, 2, 1)
"""Rows of a work-item's tile."""

GROUP = 64
"""Work-items of a group."""

FLOAT_BYTES = 4


def lower_product(lowering: Lowering, product: Product, profile: GpuProfile) -> None:
    window = product.window
    if window is not None and profile.enlarge_weights and filterable(lowering, product):
        macs_per_byte = profile.peak_flops.value / 2 / profile.bandwidth.value
        outputs = choose(macs_per_byte, product.shape, product.left.shape[1])
        if outputs is not None and _fits(product, outputs, profile):
            _filter(lowering, product, window, profile, outputs)
            return
    _contract(lowering, product, profile)


def _contract(lowering: Lowering, product: Product, profile: GpuProfile) -> None:
    fused, rows, column, a = product.fused, product.rows, product.column, product.left
    columns = product.shape[column] // fused.parts
    shape = list(product.shape)
    shape[column] = columns
    out = lowering.fresh(shape, (*rows, column), lowering.dtype(fused.result))
    a_rows, reduce, a_reduce, edge = _walk(product)
    views = [out, *fused.loads]
    along = [a_rows, *([view.strides[axis] for axis in rows] for view in views)]
    extents = tuple(product.shape[axis] for axis in rows)
    if edge is None:
        extents, along = merge_axes(extents, along)
    ends = [(*strides, view.strides[column]) for strides, view in zip(along[1:], views, strict=True)]
    lanes = lanes_for(columns, 1)
    weight, scales, width = _weights(lowering, product, columns, math.prod(reduce), lanes)
    operands = [a, weight, out, *scales, *fused.loads]
    blocks = product.factors.blocks
    kernel = Contraction(
        dtypes=lowering.dtypes(operands),
        rows=tuple(extents),
        a_rows=tuple(along[0]),
        reduce=tuple(reduce),
        a_reduce=tuple(a_reduce),
        columns=columns,
        parts=fused.parts,
        width=width,
        out_strides=ends[0],
        epilogue=fused.bound(3 + len(scales), ends[1:]),
        tile=(_height(math.prod(extents), lanes, fused.parts, profile), lanes),
        work_group=min(GROUP, profile.work_group),
        edge=edge,
        codes="int4" if lowering.dtypes([weight]) == ("uint8",) else None,
        group=0 if blocks is None else blocks.size,
    )
    lowering.call(kernel, operands, str(product.node.name))
    lowering.views[str(fused.result.name)] = result_view(lowering, fused, out)


def _weights(
    lowering: Lowering, product: Product, columns: int, depth: int, lanes: int
) -> tuple[View, list[View], int]:
    """The right factors, the scales of their blocks if they have any, and how wide a part of a row of them is."""
    factors, parts = product.factors, product.fused.parts
    name = str(factors.right.name)
    narrow = lowering.constants[name].codes == "int4"
    # Of two codes in a byte, one is of either half of a row: no vector lies across the middle.
    together = 2 * lanes if narrow and parts == 1 else lanes
    width = math.ceil(columns / together) * together
    row = parts * width
    packing = Panels(order=product.order, width=row, starts=(0,), parts=parts)
    codes = packing.model_copy(update={"format": "int4"}) if narrow else packing
    weight = lowering.weight(name, (1, depth, row // 2 if narrow else row), codes)
    if (blocks := factors.blocks) is None:
        return weight, [], width
    if blocks.scales.name not in lowering.constants:
        raise UserError(f"scales of blocks that are computed are not supported, at {describe(product.node)}")
    shape = (1, math.ceil(depth / blocks.size), row)
    return weight, [lowering.weight(str(blocks.scales.name), shape, packing)], width


def _height(rows: int, lanes: int, parts: int, profile: GpuProfile) -> int:
    """Rows of a tile: as many as registers hold beside a few steps of factors."""
    held = {height: height * (lanes * parts + STEPS) + STEPS * lanes for height in HEIGHTS}
    fitting = (one for one in HEIGHTS if held[one] <= profile.registers and one <= rows)
    return next(fitting, 1)


def _walk(product: Product) -> tuple[Sequence[int], Sequence[int], Sequence[int], Edge | None]:
    """The strides of the left factors along rows, the extents of the reduction, the strides along those, and the edge
    of an image whose frame of zeros is nowhere stored.
    """
    x, window = product.left, product.window
    if window is None:
        return x.strides[:-1], x.shape[-1:], x.strides[-1:], None
    steps = x.strides[2:]
    a_rows = (x.strides[0], *(a * b for a, b in zip(window.strides, steps, strict=True)))
    a_reduce = (*(a * b for a, b in zip(window.dilations, steps, strict=True)), x.strides[1])
    edge = None
    if any((*window.before, *window.after)):
        edge = Edge(tuple(x.shape[2:]), window.strides, window.dilations, window.before)
    return a_rows, (*window.taps, x.shape[1]), a_reduce, edge


def _fits(product: Product, outputs: int, profile: GpuProfile) -> bool:
    """Whether transformed filters are no larger than a buffer."""
    columns, channels = product.shape[1], product.left.shape[1]
    return FLOAT_BYTES * (outputs + TAPS - 1) ** 2 * columns * channels <= profile.buffer_bytes


def _filter(lowering: Lowering, product: Product, window: Window, profile: GpuProfile, outputs: int) -> None:
    """The three calls of a convolution by minimal filtering."""
    fused, x, name = product.fused, product.left, str(product.node.name)
    images, columns, rows, width = product.shape
    channels = x.shape[1]
    x = x if x.strides[1] == 1 else lowering.materialised(x, (0, 2, 3, 1))
    out = lowering.fresh(product.shape, (0, 2, 3, 1), lowering.dtype(fused.result))
    tiles = (images, math.ceil(rows / outputs), math.ceil(width / outputs))
    count, positions = math.prod(tiles), (outputs + TAPS - 1) ** 2
    changed = lowering.fresh((positions, count, channels))
    turn = WinogradInput(
        dtypes=lowering.dtypes([x, changed]),
        outputs=outputs,
        tiles=tiles,
        size=(x.shape[2], x.shape[3]),
        channels=channels,
        before=(window.before[0], window.before[1]),
        x_strides=(x.strides[0], x.strides[2], x.strides[3]),
    )
    lowering.call(turn, [x, changed], name)
    lanes = lanes_for(columns, 1)
    packing = WinogradPanels(outputs=outputs, width=columns, starts=(0,))
    weight = lowering.weight(str(product.factors.right.name), (positions, 1, channels, columns), packing)
    sums = lowering.fresh((positions, count, columns))
    multiply = Contraction(
        dtypes=lowering.dtypes([changed, weight, sums]),
        rows=(count,),
        a_rows=(channels,),
        reduce=(channels,),
        a_reduce=(1,),
        columns=columns,
        parts=1,
        width=columns,
        out_strides=(columns, 1),
        epilogue=Value(),
        tile=(_height(count, lanes, 1, profile), lanes),
        work_group=min(GROUP, profile.work_group),
        batch=(positions, count * channels, count * columns),
    )
    lowering.call(multiply, [changed, weight, sums], name)
    back = WinogradOutput(
        dtypes=lowering.dtypes([sums, out, *fused.loads]),
        outputs=outputs,
        tiles=tiles,
        size=(rows, width),
        channels=columns,
        out_strides=_strides(out),
        epilogue=fused.bound(2, [_strides(view) for view in fused.loads]),
    )
    lowering.call(back, [sums, out, *fused.loads], name)
    lowering.views[str(fused.result.name)] = result_view(lowering, fused, out)


def _strides(view: View) -> tuple[int, int, int, int]:
    """Of (image, row, column, channel)."""
    return view.strides[0], view.strides[2], view.strides[3], view.strides[1]
