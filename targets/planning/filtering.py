"""Where minimal filtering is predicted to be faster than summing all products of a 3 x 3 convolution."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..lowering import Lowering
from ..winograd import ERRORS, TAPS
from .device import Product

LARGEST_ERROR = 1e-5
"""Of a layer's result, relative to its deviation: a hundredth of what a whole UNet may be off."""

GAIN = 1.2
"""How much faster a layer has to be to be worth larger weights."""


def filterable(lowering: Lowering, product: Product) -> bool:
    """Whether minimal filtering computes the product, from weights that lose nothing when they are transformed."""
    window = product.window
    kept = lowering.constants[str(product.factors.right.name)]
    exact = kept.dtype == "float32" and kept.codes is None  # transformed filters round worse
    return (
        window is not None
        and window.taps == (TAPS, TAPS)
        and {*window.strides, *window.dilations} == {1}
        and exact
        and product.fused.parts == 1
    )


def ways(macs_per_byte: float, shape: Sequence[int], channels: int) -> dict[str, int | None]:
    """Outputs of a tile along an axis for a result [images, columns, rows, width], or None to sum directly, by name;
    that with the least predicted time first.

    ``macs_per_byte`` are float32 multiply-accumulates of the device while a byte of memory arrives.
    """
    costs = [(1.0, "direct", None)]
    costs += [
        (GAIN * predicted_ratio(macs_per_byte, shape, channels, outputs), f"filtered {outputs}", outputs)
        for outputs, error in ERRORS.items()
        if error <= LARGEST_ERROR
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
