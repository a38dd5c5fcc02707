"""A figure and how far it could be off: bootstrap intervals (Efron, 1979)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 200
LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """``low`` to ``high`` holds the middle 95 % of the figures that resampled data give."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4g} ({self.low:.4g} to {self.high:.4g})"


def bootstrap(count: int, figure: Callable[[NDArray[np.int64]], float]) -> Interval:
    """The figure over ``count`` samples; ``figure(rows)`` is it over those rows, which may repeat.

    Where repetition by itself moves the figure, as it does a distance between distributions, which sees less variety,
    the interval is moved back by the mean of that (Efron and Tibshirani, An Introduction to the Bootstrap, chapter 10).
    """
    rng = np.random.default_rng(0)
    value = float(figure(np.arange(count)))
    resampled = np.array([figure(rng.integers(0, count, count)) for _ in range(RESAMPLES)])
    moved = resampled.mean() - value if np.isfinite(value) else 0.0
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) - moved
    return Interval(value, float(low), float(high))


def mean(values: NDArray[np.float64]) -> Interval:
    """The mean of one value a sample. Values that are infinite (equal pictures) make it infinite."""
    return bootstrap(len(values), lambda rows: float(values[rows].mean()))
