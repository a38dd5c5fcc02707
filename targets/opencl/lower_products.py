"""Convolutions and matrix products -> ``Contraction`` calls, or minimal filtering."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ...ir.errors import UserError
from ..compiled import Texture
from ..expressions import Value
from ..fused import result_view
from ..graph_facts import describe
from ..lowering import Lowering
from ..packing import Panels, WinogradPanels, WordPanels
from ..planning.device import Product, Window
from ..planning.filtering import filterable, pixel_strides, tiled, ways
from ..profile import GpuProfile
from ..views import View, merge_axes
from ..winograd import TAPS
from .contraction import STEPS, Contraction, Edge
from .matrix import CHANNELS, TOGETHER, Opening, texture
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
        channels = product.left.shape[1]
        choices = {
            name: outputs
            for name, outputs in ways(macs_per_byte, product.shape, channels).items()
            if outputs is None or _fits(product, outputs, profile)
        }
        problem = f"conv {list(product.shape)} of {channels} channels"
        outputs = lowering.chooser(str(product.node.name))(problem, choices)
        if outputs is not None:
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
    in_words = profile.int8_dot and a_reduce[-1] == 1 and reduce[-1] % TOGETHER == 0
    right = _right(lowering, product, columns, math.prod(reduce), lanes, in_words, profile)
    operands = [a, right.matrix, out, *right.scales, *fused.loads]
    blocks = product.factors.blocks
    halves = (
        profile.adds_in_half and {*lowering.dtypes([a, right.matrix])} == {"float16"} and lanes == CHANNELS
    )
    halves = halves and a_reduce[-1] == 1 and reduce[-1] % STEPS == 0
    formats = " by ".join(lowering.dtypes([a, right.matrix]))
    joined = f"{fused.parts} times {columns}" if fused.parts > 1 else f"{columns}"
    problem = f"{list(extents)} rows of {joined} sums of {list(reduce)}, {formats}"
    heights = _heights(math.prod(extents), lanes, fused.parts, profile)
    kernel = Contraction(
        dtypes=lowering.dtypes(operands),
        rows=tuple(extents),
        a_rows=tuple(along[0]),
        reduce=tuple(reduce),
        a_reduce=tuple(a_reduce),
        columns=columns,
        parts=fused.parts,
        width=right.width,
        out_strides=ends[0],
        epilogue=fused.bound(3 + len(right.scales), ends[1:]),
        tile=(lowering.chooser(str(product.node.name))(problem, heights), lanes),
        work_group=min(GROUP, profile.work_group),
        edge=edge,
        codes=right.codes,
        dots=right.dots,
        half_run=profile.half_run if halves else 0,
        texture=right.texture,
        group=0 if blocks is None else blocks.size,
    )
    lowering.call(kernel, operands, str(product.node.name))
    lowering.views[str(fused.result.name)] = result_view(lowering, fused, out)


@dataclass(frozen=True)
class _Right:
    """The right factors as a kernel takes them (``contraction.Contraction``), and the scales of their blocks."""

    matrix: View
    scales: list[View]
    width: int
    codes: str | None
    dots: bool
    texture: Texture | None


def _right(
    lowering: Lowering,
    product: Product,
    columns: int,
    depth: int,
    lanes: int,
    in_words: bool,
    profile: GpuProfile,
) -> _Right:
    """``in_words`` where the left factors have words for dot products."""
    factors, parts = product.factors, product.fused.parts
    name, blocks = str(factors.right.name), product.factors.blocks
    kept = lowering.constants[name]
    codes = "int4" if kept.codes == "int4" else None
    integers = lowering.dtypes([product.left]) == ("int8",) and blocks is None
    dots = in_words and integers and codes is None and kept.dtype == "int8"
    # Of two codes in a byte, one is of either half of a row: no vector lies across the middle.
    together = 2 * lanes if codes and parts == 1 else lanes
    width = math.ceil(columns / together) * together
    row = parts * width
    packing = Panels(order=product.order, width=row, starts=(0,), parts=parts)
    opening: Opening = "words" if dots else "integers" if integers else "floats"
    if dots:
        rows, items = depth // TOGETHER, row
        shape = (1, rows, items, TOGETHER)
        layout = WordPanels(**packing.model_dump(exclude={"kind"}), together=TOGETHER)
    else:
        rows, items = depth, row // 2 if codes else row
        shape, layout = (1, rows, items), packing.model_copy(update={"format": codes})
    image = texture("uint8" if codes else kept.dtype, rows, items, lanes, opening, profile)
    matrix = lowering.weight(name, shape, layout, image)
    scales = list[View]()
    if blocks is not None:
        if blocks.scales.name not in lowering.constants:
            raise UserError(
                f"scales of blocks that are computed are not supported, at {describe(product.node)}"
            )
        of = (1, math.ceil(depth / blocks.size), row)
        scales.append(lowering.weight(str(blocks.scales.name), of, packing))
    return _Right(matrix, scales, width, codes, dots, image)


def _heights(rows: int, lanes: int, parts: int, profile: GpuProfile) -> dict[str, int]:
    """Rows of a tile, by name: first as many as registers hold beside a few steps of factors, then fewer."""
    held = {height: height * (lanes * parts + STEPS) + STEPS * lanes for height in HEIGHTS}
    fitting = [one for one in HEIGHTS if held[one] <= profile.registers and one <= rows] or [1]
    return {f"{height} by {lanes}": height for height in fitting}


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
    fused, name = product.fused, str(product.node.name)
    _, columns, rows, width = product.shape
    cut = tiled(lowering, product, outputs)
    x, out, count, positions = cut.x, cut.out, cut.count, cut.positions
    channels = x.shape[1]
    changed = lowering.fresh((positions, count, channels))
    turn = WinogradInput(
        dtypes=lowering.dtypes([x, changed]),
        outputs=outputs,
        tiles=cut.tiles,
        size=(x.shape[2], x.shape[3]),
        channels=channels,
        before=(window.before[0], window.before[1]),
        x_strides=pixel_strides(x)[:3],
    )
    lowering.call(turn, [x, changed], name)
    lanes = lanes_for(columns, 1)
    packing = WinogradPanels(outputs=outputs, width=columns, starts=(0,))
    filters = str(product.factors.right.name)
    stored = lowering.constants[filters].dtype
    image = texture(stored, positions * channels, columns, lanes, "floats", profile)
    weight = lowering.weight(filters, (positions, 1, channels, columns), packing, image)
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
        tile=(next(iter(_heights(count, lanes, 1, profile).values())), lanes),
        work_group=min(GROUP, profile.work_group),
        texture=image,
        batch=(positions, count * channels, count * columns),
    )
    lowering.call(multiply, [changed, weight, sums], name)
    back = WinogradOutput(
        dtypes=lowering.dtypes([sums, out, *fused.loads]),
        outputs=outputs,
        tiles=cut.tiles,
        size=(rows, width),
        channels=columns,
        out_strides=pixel_strides(out),
        epilogue=fused.bound(2, [pixel_strides(view) for view in fused.loads]),
    )
    lowering.call(back, [sums, out, *fused.loads], name)
    lowering.views[str(fused.result.name)] = result_view(lowering, fused, out)
