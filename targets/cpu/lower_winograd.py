"""3 x 3 convolutions -> minimal filtering."""

from __future__ import annotations

import math

from ..expressions import Value
from ..fused import result_view
from ..lowering import Lowering
from ..packing import WinogradPairs, WinogradPanels
from ..planning.device import Product, Window
from ..profile import Profile
from ..views import View
from ..winograd import TAPS
from .contraction import Contraction, choose_tile, panel_starts
from .dots import DOTS
from .winograd import WinogradInput, WinogradOutput


def filtered_formats(profile: Profile) -> tuple[str, ...]:
    """Formats whose products are as fast where filters are transformed as where they are not."""
    return ("float32",) if profile.bfloat16_dot is None else ("float32", "bfloat16")


def lower_winograd(
    lowering: Lowering,
    product: Product,
    window: Window,
    profile: Profile,
    outputs: int,
) -> None:
    """Add the three calls for a convolution with a ``shape`` [images, columns, rows, width]."""
    node, fused, shape, x = product.node, product.fused, product.shape, product.left
    weight = product.factors.right
    images, columns, rows, width = shape
    channels = x.shape[1]
    x = x if x.strides[1] == 1 else lowering.materialised(x, (0, 2, 3, 1))
    out = lowering.fresh(shape, (0, 2, 3, 1), lowering.dtype(fused.result))
    tiles = (images, math.ceil(rows / outputs), math.ceil(width / outputs))
    count, positions = math.prod(tiles), (outputs + TAPS - 1) ** 2
    format = lowering.constants[str(weight.name)].dtype
    dot = profile.bfloat16_dot if format == "bfloat16" and channels % 2 == 0 else None
    together = 1 if dot is None else DOTS[dot].together
    changed = lowering.fresh((positions, count, channels), dtype=format)
    transform = WinogradInput(
        dtypes=lowering.dtypes([x, changed]),
        outputs=outputs,
        tiles=tiles,
        size=(x.shape[2], x.shape[3]),
        before=(window.before[0], window.before[1]),
        channels=channels,
        x_strides=(x.strides[0], x.strides[2], x.strides[3]),
        lanes=profile.vector_lanes,
    )
    lowering.call(transform, [x, changed], str(node.name))
    sums = lowering.fresh((positions, count, columns))
    tile = choose_tile(count, columns, 1, profile)
    layout = WinogradPanels if dot is None else WinogradPairs
    packing = layout(outputs=outputs, width=tile.width, starts=panel_starts(columns, tile.width))
    packed = lowering.weight(
        str(weight.name), (positions, len(packing.starts), channels, tile.width), packing
    )
    sums_of_products = Contraction(
        dtypes=lowering.dtypes([changed, packed, sums]),
        rows=(count,),
        a_rows=(channels // together,),
        reduce=(channels // together,),
        a_reduce=(1,),
        columns=columns,
        parts=1,
        tile=tile,
        out_strides=(columns, 1),
        epilogue=Value(),
        splits=0,
        blocks=1,
        pieces=1,
        batch=(positions, count * channels // together, count * columns),
        dot=dot,
    )
    lowering.call(sums_of_products, [changed, packed, sums], str(node.name))
    last = WinogradOutput(
        dtypes=lowering.dtypes([sums, out, *fused.loads]),
        outputs=outputs,
        tiles=tiles,
        size=(rows, width),
        columns=columns,
        out_strides=_strides(out),
        epilogue=fused.bound(2, [_strides(view) for view in fused.loads]),
        lanes=profile.vector_lanes,
    )
    lowering.call(last, [sums, out, *fused.loads], str(node.name))
    lowering.views[str(fused.result.name)] = result_view(lowering, fused, out)


def _strides(view: View) -> tuple[int, int, int, int]:
    """Of (image, row, column, channel)."""
    return view.strides[0], view.strides[2], view.strides[3], view.strides[1]
