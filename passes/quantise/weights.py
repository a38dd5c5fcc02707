"""Ranges of weights: which part of a column's largest weight ends its range."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...ir.constants import numbers_of

SHARES = np.arange(100, 38, -2) / 100
"""Ends of ranges that are tried, as shares of the largest weight, that itself first."""


def best_shares(weight: ir.Value, column_axis: int, largest: int) -> NDArray[np.float32]:
    """For each column the share of its largest weight that, as the end of the range, loses the least squares."""
    columns = np.moveaxis(numbers_of(weight), column_axis, 0)
    columns = columns.reshape(len(columns), -1)
    peaks = np.maximum(np.abs(columns).max(1), np.finfo(np.float32).tiny)
    scaled = columns / peaks[:, None]
    best = np.ones(len(columns), np.float32)
    least = np.full(len(columns), np.inf)
    for share in SHARES:
        step = np.float32(share / largest)
        kept = np.clip(np.rint(scaled / step), -largest - 1, largest) * step
        errors = np.square(kept - scaled).sum(1)
        best[errors < least] = share
        least = np.minimum(errors, least)
    return best
