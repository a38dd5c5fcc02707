"""3 x 3 convolutions -> minimal filtering, where it is predicted to be faster."""

from __future__ import annotations

import math
from collections.abc import Sequence

import onnx_ir as ir

from ..fused import Fused, result_view
from ..lowering import Lowering
from ..packing import WinogradPanels
from ..profile import Profile
from ..views import View
from ..winograd import ERRORS, TAPS
from .contraction import choose_tile, panel_starts
from .winograd import WinogradInput, WinogradProduct

LARGEST_ERROR = 1e-5
"""Of a layer's result, relative to its deviation: a hundredth of what a whole UNet may be off."""

GAIN = 1.2
"""How much faster a layer has to be to be worth larger weights."""


def choose(profile: Profile, shape: Sequence[int], channels: int) -> int | None:
    """Outputs of a tile along an axis for a result [images, columns, rows, width], or None to sum directly."""
    if not profile.enlarge_weights:
        return None
    ratios = {
        outputs: predicted_ratio(profile, shape, channels, outputs)
        for outputs, error in ERRORS.items()
        if error <= LARGEST_ERROR
    }
    best = min(ratios, key=ratios.__getitem__, default=None)
    return best if best is not None and GAIN * ratios[best] < 1 else None


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
    """Add the two calls for a convolution with result ``shape`` [images, columns, rows, width]."""
    images, columns, rows, width = shape
    channels = x.shape[1]
    x = x if x.strides[1] == 1 else lowering.materialised(x, (0, 2, 3, 1))
    out = lowering.fresh(shape, (0, 2, 3, 1), lowering.dtype(fused.result))
    tiles = (images, math.ceil(rows / outputs), math.ceil(width / outputs))
    count, positions = math.prod(tiles), (outputs + TAPS - 1) ** 2
    tile = choose_tile(count, columns, 1, profile)
    packing = WinogradPanels(outputs=outputs, width=tile.width, starts=panel_starts(columns, tile.width))
    packed = lowering.weight(
        str(weight.name), (len(packing.starts), positions, channels, tile.width), packing
    )
    changed = lowering.fresh((positions, count, channels))
    transform = WinogradInput(
        dtypes=(*lowering.dtypes([x]), "float32"),
        outputs=outputs,
        tiles=tiles,
        size=(x.shape[2], x.shape[3]),
        before=before,
        channels=channels,
        x_strides=(x.strides[0], x.strides[2], x.strides[3]),
        lanes=profile.vector_lanes,
    )
    lowering.call(transform, [x, changed], str(node.name))
    product = WinogradProduct(
        dtypes=("float32", *lowering.dtypes([packed, out]), "float32", *lowering.dtypes(fused.loads)),
        outputs=outputs,
        tiles=tiles,
        size=(rows, width),
        channels=channels,
        columns=columns,
        tile=tile,
        out_strides=_strides(out),
        epilogue=fused.bound(4, [_strides(view) for view in fused.loads]),
        blocks=_blocks(len(packing.starts), count, tile.rows, profile),
    )
    scratch = lowering.fresh((product.scratch_floats,))
    lowering.call(product, [changed, packed, out, scratch, *fused.loads], str(node.name))
    lowering.views[str(fused.result.name)] = result_view(lowering, fused, out)


def _strides(view: View) -> tuple[int, int, int, int]:
    """Of (image, row, column, channel)."""
    return view.strides[0], view.strides[2], view.strides[3], view.strides[1]


def _blocks(panels: int, tiles: int, tile_rows: int, profile: Profile) -> int:
    """Runs of tiles: enough tasks for all cores."""
    bands = math.ceil(tiles / tile_rows)
    return min(bands, math.ceil(4 * profile.cores / panels))
