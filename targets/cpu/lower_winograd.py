"""3 x 3 convolutions -> minimal filtering."""

from __future__ import annotations

from ..expressions import Value
from ..fused import result_view
from ..lowering import Lowering
from ..packing import WinogradPairs, WinogradPanels
from ..planning.device import Product, Window
from ..planning.filtering import pixel_strides, tiled
from ..profile import Profile
from ..winograd import HALF_RUNS, input_scale
from .contraction import Contraction
from .dots import DOTS
from .halves import LEAST_RUN, in_runs
from .register_tiles import Step, choose_tile, panel_starts
from .winograd import WinogradInput, WinogradOutput


def filtered_formats(profile: Profile) -> tuple[str, ...]:
    """Formats whose products are as fast where filters are transformed as where they are not."""
    narrow = {"bfloat16": profile.bfloat16_dot is not None, "float16": profile.half_run >= LEAST_RUN}
    return ("float32", *(format for format, fast in narrow.items() if fast))


def lower_winograd(
    lowering: Lowering,
    product: Product,
    window: Window,
    profile: Profile,
    outputs: int,
) -> None:
    """The three calls of a convolution by minimal filtering."""
    fused, name, weight = product.fused, str(product.node.name), product.factors.right
    _, columns, rows, width = product.shape
    cut = tiled(lowering, product, outputs)
    x, out, count, positions = cut.x, cut.out, cut.count, cut.positions
    channels = x.shape[1]
    format = lowering.constants[str(weight.name)].dtype
    dot = profile.bfloat16_dot if format == "bfloat16" and channels % 2 == 0 else None
    together = 1 if dot is None else DOTS[dot].together
    halves = format == "float16"
    scale = input_scale(outputs) if halves else 1.0
    longest = min(profile.half_run, HALF_RUNS[outputs]) if halves else 0
    reduce, a_reduce, run_axes = in_runs((channels // together,), (1,), longest)
    changed = lowering.fresh((positions, count, channels), dtype=format)
    transform = WinogradInput(
        dtypes=lowering.dtypes([x, changed]),
        outputs=outputs,
        tiles=cut.tiles,
        size=(x.shape[2], x.shape[3]),
        before=(window.before[0], window.before[1]),
        channels=channels,
        x_strides=pixel_strides(x)[:3],
        lanes=profile.vector_lanes,
        scale=scale,
    )
    lowering.call(transform, [x, changed], name)
    sums = lowering.fresh((positions, count, columns))
    tile = choose_tile(count, columns, 1, profile, Step(in_half=run_axes > 0))
    layout = WinogradPanels if dot is None else WinogradPairs
    packing = layout(outputs=outputs, width=tile.width, starts=panel_starts(columns, tile.width))
    packed = lowering.weight(
        str(weight.name), (positions, len(packing.starts), channels, tile.width), packing
    )
    sums_of_products = Contraction(
        dtypes=lowering.dtypes([changed, packed, sums]),
        rows=(count,),
        a_rows=(channels // together,),
        reduce=reduce,
        a_reduce=a_reduce,
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
        run_axes=run_axes,
    )
    lowering.call(sums_of_products, [changed, packed, sums], name)
    last = WinogradOutput(
        dtypes=lowering.dtypes([sums, out, *fused.loads]),
        outputs=outputs,
        tiles=cut.tiles,
        size=(rows, width),
        columns=columns,
        out_strides=pixel_strides(out),
        epilogue=fused.bound(2, [pixel_strides(view) for view in fused.loads]),
        lanes=profile.vector_lanes,
        scale=1 / scale,
    )
    lowering.call(last, [sums, out, *fused.loads], name)
    lowering.views[str(fused.result.name)] = result_view(lowering, fused, out)
