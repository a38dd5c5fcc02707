"""Scales of weights: which numbers share one, and which part of the largest of these ends their range."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...ir.constants import numbers_of
from ...ir.formats import Format, IntegerFormat

SHARES = np.arange(100, 38, -2) / 100
"""Ends of ranges that are tried, as shares of the largest weight, that itself first."""

FLOAT_SHARES = np.concatenate([SHARES, np.arange(104, 204, 4) / 100])
"""For small floats, whose numbers are not evenly spread, larger ends as well: together more than an octave, which is
what there is to search for in a bias that need not be whole."""

ENOUGH = 1 << 18
"""Weights that tell which format suits them."""

SEARCHED = 1 << 15
"""Weights whose ranges are searched at once: with all that is computed of them they stay in a core's cache."""


Fitted = tuple[Format, NDArray[np.float32]]
"""A format, and the share of the largest weight of each scale that ends its range."""


@dataclass(frozen=True)
class Sharing:
    """Weights in ``shape`` that have a scale together along the axes ``over``, which stay, of size one, if ``keep``.

    ``attributes`` tell QuantizeLinear and its inverse the same.
    """

    shape: tuple[int, ...]
    over: tuple[int, ...]
    keep: bool = False
    attributes: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def scales(self) -> tuple[int, ...]:
        """The shape of the scales."""
        kept = [1] if self.keep else []
        return tuple(
            one for axis, size in enumerate(self.shape) for one in (kept if axis in self.over else [size])
        )


def by_columns(sizes: Sequence[int], column_axis: int, *, keep: bool = False) -> Sharing:
    """A scale for each of the columns that lie along ``column_axis``."""
    others = tuple(axis for axis in range(len(sizes)) if axis != column_axis)
    return Sharing(tuple(sizes), others, keep, {"axis": column_axis})


def by_blocks(sizes: Sequence[int], column_axis: int, block: int) -> Sharing:
    """A scale for each column and ``block`` neighbours along the first axis of the reduction, which it divides."""
    depth_axis = 1 - column_axis
    shape = (*sizes[:depth_axis], sizes[depth_axis] // block, block, *sizes[depth_axis + 1 :])
    return Sharing(shape, (depth_axis + 1,), attributes={"axis": depth_axis, "block_size": block})


def fitted(weight: ir.Value, sharing: Sharing, among: Sequence[Format], *, clip: bool) -> Fitted:
    """Which of the formats loses the least squares, and the share of the largest weight that ends the range: one, or
    with ``clip`` that of each scale which loses least. So small floats have their biases searched (arXiv 2408.06995).
    """
    if len(among) == 1 and not clip:
        return among[0], np.ones((), np.float32)
    numbers = np.moveaxis(
        numbers_of(weight).reshape(sharing.shape), sharing.over, range(-len(sharing.over), 0)
    )
    rows = numbers.reshape(math.prod(sharing.scales), -1)
    format = among[0]
    if len(among) > 1:
        some = rows[:: max(1, rows.size // ENOUGH)]
        format = min(among, key=lambda one: _searched(some, one, clip)[1])
    if not clip:
        return format, np.ones((), np.float32)
    return format, _searched(rows, format, clip)[0].reshape(sharing.scales)


def _searched(rows: NDArray[np.float32], format: Format, clip: bool) -> tuple[NDArray[np.float32], float]:
    """The best share of each row's largest number, and what all lose with these."""
    count = max(1, SEARCHED // rows.shape[1])
    some = [rows[start : start + count] for start in range(0, len(rows), count)]
    found = [_searched_at_once(one, format, clip) for one in some]
    return np.concatenate([best for best, _ in found]), sum(lost for _, lost in found)


def _searched_at_once(
    rows: NDArray[np.float32], format: Format, clip: bool
) -> tuple[NDArray[np.float32], float]:
    peaks = np.maximum(np.abs(rows).max(1), np.finfo(np.float32).tiny)
    scaled = rows / peaks[:, None]
    best = np.ones(len(rows), np.float32)
    least = np.full(len(rows), np.inf)
    shares = SHARES if isinstance(format, IntegerFormat) else FLOAT_SHARES
    for share in shares if clip else (1.0,):
        step = np.float32(share / format.largest)
        errors = np.square(format.rounded(scaled / step) * step - scaled).sum(1)
        best[errors < least] = share
        least = np.minimum(errors, least)
    return best, float(least @ np.square(peaks, dtype=np.float64))
