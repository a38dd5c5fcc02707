"""3 x 3 convolutions -> minimal filtering, where it is predicted to be faster."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from ..expressions import Value
from ..fused import Fused, result_view
from ..lowering import Lowering
from ..packing import WinogradPanels
from ..profile import Profile
from ..views import View
from ..winograd import ERRORS, TAPS
from .contraction import Contraction, choose_tile, panel_starts
from .winograd import WinogradInput, WinogradOutput

LARGEST_ERROR = 1e-5
"""Of a layer's result, relative to its deviation: a hundredth of what a whole UNet may be off."""

GAIN = 1.2
"""How much faster a layer has to be to be worth larger weights."""


def ways(profile: Profile, shape: Sequence[int], channels: int) -> dict[str, int | None]:
    """Outputs of a tile along an axis for a result [images, columns, rows, width], or None to sum directly, by name;
    that with the least predicted time first.
    """
    if not profile.enlarge_weights:
        return {"direct": None}
    costs = [(1.0, "direct", None)]
    costs += [
        (GAIN * predicted_ratio(profile, shape, channels, outputs), f"filtered {outputs}", outputs)
        for outputs, error in ERRORS.items()
        if error <= LARGEST_ERROR
    ]
    return {name: outputs for _, name, outputs in sorted(costs, key=lambda one: one[0])}


def predicted_ratio(profile: Profile, shape: Sequence[int], channels: int, outputs: int) -> float:
    """Predicted time of minimal filtering over that of summing all products."""
    direct = _direct(shape, channels, profile.macs_per_byte)
    return _filtered(shape, channels, outputs, profile.macs_per_byte) / direct


def _direct(shape: Sequence[int], channels: int, macs_per_byte: float) -> float:
    """Predicted cost of summing all products, in multiply-accumulates: products, and weights from memory."""
    images, columns, rows, width = shape
    filters = TAPS**2 * columns * channels
    return images * rows * width * filters + 4 * filters * macs_per_byte


def _filtered(shape: Sequence[int], channels: int, outputs: int, macs_per_byte: float) -> float:
    """Predicted cost of minimal filtering: transforms are written and read besides."""
    images, columns, rows, width = shape
    tiles = images * math.ceil(rows / outputs) * math.ceil(width / outputs)
    positions = (outputs + TAPS - 1) ** 2
    moved = tiles * 2 * (channels + columns) + columns * channels
    return positions * (tiles * columns * channels + 4 * moved * macs_per_byte)


def lower_winograd(
    lowering: Lowering,
    fused: Fused,
    node: ir.Node,
    profile: Profile,
    *,
    outputs: int,
    shape: Sequence[int],
    x: View,
    before: tuple[int, int],
    weight: ir.Value,
) -> None:
    """Add the three calls for a convolution with result ``shape`` [images, columns, rows, width]."""
    images, columns, rows, width = shape
    channels = x.shape[1]
    x = x if x.strides[1] == 1 else lowering.materialised(x, (0, 2, 3, 1))
    out = lowering.fresh(shape, (0, 2, 3, 1), lowering.dtype(fused.result))
    tiles = (images, math.ceil(rows / outputs), math.ceil(width / outputs))
    count, positions = math.prod(tiles), (outputs + TAPS - 1) ** 2
    changed = lowering.fresh((positions, count, channels))
    transform = WinogradInput(
        dtypes=lowering.dtypes([x, changed]),
        outputs=outputs,
        tiles=tiles,
        size=(x.shape[2], x.shape[3]),
        before=before,
        channels=channels,
        x_strides=(x.strides[0], x.strides[2], x.strides[3]),
        lanes=profile.vector_lanes,
    )
    lowering.call(transform, [x, changed], str(node.name))
    sums = lowering.fresh((positions, count, columns))
    tile = choose_tile(count, columns, 1, profile)
    packing = WinogradPanels(outputs=outputs, width=tile.width, starts=panel_starts(columns, tile.width))
    packed = lowering.weight(
        str(weight.name), (positions, len(packing.starts), channels, tile.width), packing
    )
    product = Contraction(
        dtypes=lowering.dtypes([changed, packed, sums]),
        rows=(count,),
        a_rows=(channels,),
        reduce=(channels,),
        a_reduce=(1,),
        columns=columns,
        parts=1,
        tile=tile,
        out_strides=(columns, 1),
        epilogue=Value(),
        splits=0,
        blocks=1,
        pieces=1,
        batch=(positions, count * channels, count * columns),
    )
    lowering.call(product, [changed, packed, sums], str(node.name))
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
