"""Regression of an output's error on the output itself, from sums alone, however many calls there are.

With x the float output and e the error, of rows (of a batch) i and channels c, the model is e = k x + mu_c + r (He et
al., arXiv 2305.10657, eq. 8): one slope for all, one mean a channel, and a residual of no correlation with x.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..guidance import Guidance

Sums = NDArray[np.float64]
"""Products of x of each row, e of each row, and one, summed over a channel: [channels, 2 rows + 1, 2 rows + 1]."""

LEAST_VARIANCE = 1e-9
"""Share of its square that x must vary by, or there is no slope to be found."""


def products(x: NDArray[np.float32], error: NDArray[np.float64]) -> Sums:
    """Of one call's x and e, both [rows, channels, ...]."""
    rows, channels = x.shape[:2]
    parts: Sequence[NDArray[np.float64]] = [x.astype(np.float64), error, np.ones_like(error[:1])]
    signals = np.concatenate([one.reshape(-1, channels, x.size // (rows * channels)) for one in parts])
    by_channel = signals.transpose(1, 0, 2)
    return by_channel @ by_channel.transpose(0, 2, 1)


@dataclass(frozen=True)
class Correction:
    """x is about (y - ``mean``) / (1 + ``slope``), y = x + e; mean is [channels]."""

    slope: float
    mean: NDArray[np.float64]

    @property
    def scale(self) -> float:
        return 1 / (1 + self.slope)

    @property
    def shift(self) -> NDArray[np.float64]:
        return -self.mean * self.scale

    def residual(self, sums: Sums) -> NDArray[np.float64]:
        """Mean products of what remains of the error, between rows: [rows, rows]."""
        rows = _rows(sums)
        # scale (x + e) + shift - x, as factors of x, of e and of one.
        factors = np.zeros((len(sums), rows, sums.shape[1]))
        each = np.arange(rows)
        factors[:, each, each] = self.scale - 1
        factors[:, each, each + rows] = self.scale
        factors[:, :, -1] = self.shift[:, None]
        return (factors @ sums @ factors.transpose(0, 2, 1)).sum(0) / sums[:, -1, -1].sum()

    def error(self, sums: Sums, guidance: Guidance) -> float:
        """Mean square of what remains, as a sampler takes it."""
        return _mean_square(self.residual(sums), guidance)


def candidates(sums: Sums) -> list[Correction]:
    """Nothing, the means alone, and slope and means: least squares each, the slope not below zero.

    A negative slope would be divided by less than one, which enlarges what remains.
    """
    rows = _rows(sums)
    each = np.arange(rows)
    count, x, e = rows * sums[:, -1, -1], sums[:, each, -1].sum(1), sums[:, each + rows, -1].sum(1)
    squares = sums[:, each, each].sum()
    variance = squares - (x * x / count).sum()
    covariance = sums[:, each, each + rows].sum() - (x * e / count).sum()
    slope = max(float(covariance / variance), 0.0) if variance > LEAST_VARIANCE * squares else 0.0
    return [Correction(0.0, 0 * e), *(Correction(one, (e - one * x) / count) for one in (0.0, slope))]


def square(sums: Sums, guidance: Guidance) -> float:
    """Mean square of x, as a sampler takes it."""
    rows = _rows(sums)
    return _mean_square(sums[:, :rows, :rows].sum(0) / sums[:, -1, -1].sum(), guidance)


def _mean_square(products: NDArray[np.float64], guidance: Guidance) -> float:
    """Over the rows that are taken, from mean products of all [rows, rows]."""
    weights = guidance.weights(len(products))
    return float(np.trace(weights @ products @ weights.T)) / len(weights)


def _rows(sums: Sums) -> int:
    return int(sums.shape[1]) // 2
