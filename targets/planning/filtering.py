"""Where minimal filtering is predicted to be faster than summing all products of a 3 x 3 convolution, and of what."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from ..lowering import Lowering
from ..views import View
from ..winograd import ERRORS, TAPS
from .device import Product

LARGEST_ERROR = {"float32": 1e-5, "bfloat16": 5e-3, "float16": 5e-3}
"""Of a layer's result, relative to its deviation, by the format of what is multiplied: a hundredth of what a whole UNet
may be off in float32. In bfloat16 a result is rounded by 1.7e-3 when it is stored; float16 may lose as much."""

GAIN = 1.2
"""How much faster a layer has to be to be worth larger weights."""


def filterable(lowering: Lowering, product: Product, formats: Collection[str] = ("float32",)) -> bool:
    """Whether minimal filtering computes the product, of weights in one of the ``formats``: others would lose more when
    they are transformed.
    """
    window = product.window
    kept = lowering.constants[str(product.factors.right.name)]
    return (
        window is not None
        and window.taps == (TAPS, TAPS)
        and {*window.strides, *window.dilations} == {1}
        and kept.dtype in formats
        and kept.codes is None
        and product.fused.parts == 1
    )


def ways(
    macs_per_byte: float, shape: Sequence[int], channels: int, format: str = "float32"
) -> dict[str, int | None]:
    """Outputs of a tile along an axis for a result [images, columns, rows, width], or None to sum directly, by name;
    that with the least predicted time first.

    ``macs_per_byte`` are float32 multiply-accumulates of the device while a byte of memory arrives: with half the bytes
    of a number, and twice the products, ratios stay what they are.
    """
    costs = [(1.0, "direct", None)]
    costs += [
        (GAIN * predicted_ratio(macs_per_byte, shape, channels, outputs), f"filtered {outputs}", outputs)
        for outputs, error in ERRORS[format].items()
        if error <= LARGEST_ERROR[format]
    ]
    return {name: outputs for _, name, outputs in sorted(costs, key=lambda one: one[0])}


def choose(macs_per_byte: float, shape: Sequence[int], channels: int) -> int | None:
    """The first of ``ways``."""
    return next(iter(ways(macs_per_byte, shape, channels).values()))


def predicted_ratio(macs_per_byte: float, shape: Sequence[int], channels: int, outputs: int) -> float:
    """Predicted time of minimal filtering over that of summing all products."""
    return _filtered(shape, channels, outputs, macs_per_byte) / _direct(shape, channels, macs_per_byte)


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


@dataclass(frozen=True)
class Tiles:
    """A convolution of ``x`` into ``out`` by ``tiles`` (image, row, column), each of so many ``positions``. Both have
    their channels next to each other.
    """

    x: View
    out: View
    tiles: tuple[int, int, int]
    positions: int

    @property
    def count(self) -> int:
        return math.prod(self.tiles)


def tiled(lowering: Lowering, product: Product, outputs: int) -> Tiles:
    """Cut a convolution into tiles of so many outputs along an axis; x is copied where its channels lie apart."""
    images, _, rows, width = product.shape
    x = product.left
    x = x if x.strides[1] == 1 else lowering.materialised(x, (0, 2, 3, 1))
    out = lowering.fresh(product.shape, (0, 2, 3, 1), lowering.dtype(product.fused.result))
    tiles = images, math.ceil(rows / outputs), math.ceil(width / outputs)
    return Tiles(x, out, tiles, (outputs + TAPS - 1) ** 2)


def pixel_strides(view: View) -> tuple[int, int, int, int]:
    """Of (image, row, column, channel)."""
    return view.strides[0], view.strides[2], view.strides[3], view.strides[1]
