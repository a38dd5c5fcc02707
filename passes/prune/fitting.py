"""Maps fitted in closed form: the least squares of what is wanted from what there is, over a calibration's calls.

A map with a weight a channel is a regression of each channel by itself; a linear one is a ridge regression. Both need
sums of products alone, however many calls there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .sizes import channel_axis
from .surgery import Map

Matrix = NDArray[np.float64]
Values = Mapping[str, NDArray[Any]]


class Moments:
    """Sums of products of x, [pixels, from], with itself and with y, [pixels, to], each with a column of ones."""

    def __init__(self) -> None:
        self._xx: Any = 0.0
        self._xy: Any = 0.0

    def add(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        """Of a call's values; both have their channels where `channel_axis` says."""
        rows, wanted = (_pixels(one) for one in (x, y))
        with_one = np.concatenate([rows, np.ones((len(rows), 1))], 1)
        self._xx = self._xx + with_one.T @ with_one
        self._xy = self._xy + with_one.T @ wanted

    def linear(self, ridge: float) -> Map:
        """The map with the least |y - W x - b|^2 + ridge s |W|^2, s being the mean square of x's channels, summed."""
        size = len(self._xx) - 1
        penalty = np.zeros(size + 1)
        penalty[:size] = ridge * max(float(np.trace(self._xx[:size, :size])) / size, np.finfo(float).tiny)
        solve: Any = np.linalg.solve
        found = np.asarray(solve(self._xx + np.diag(penalty), self._xy), np.float64)
        return Map(found[:-1].T.copy(), found[-1].copy())

    def affine(self) -> Map:
        """A scale and a shift a channel, for as many channels of y as of x. A channel of x that does not vary keeps a
        scale of one.
        """
        size = len(self._xx) - 1
        count, sums, wanted = self._xx[-1, -1], self._xx[:size, -1], self._xy[-1]
        squares, products = np.diag(self._xx)[:size], np.diag(self._xy[:size])
        variance = squares - sums**2 / count
        varies = variance > 1e-9 * np.maximum(squares, np.finfo(float).tiny)
        covariance = products - sums * wanted / count
        scale = np.where(varies, covariance / np.where(varies, variance, 1.0), 1.0)
        return Map(scale, (wanted - scale * sums) / count)


def moments(
    pairs: Sequence[tuple[str, str]], calls: Iterable[tuple[Values, Values]]
) -> dict[tuple[str, str], Moments]:
    """Of the first of each pair of names among what a call has, and the second among what it should have."""
    found = {pair: Moments() for pair in pairs}
    for given, wanted in calls:
        for (source, end), sums in found.items():
            sums.add(given[source], wanted[end])
    return found


def _pixels(value: NDArray[Any]) -> Matrix:
    return np.moveaxis(value, channel_axis(value.shape), -1).reshape(
        -1, value.shape[channel_axis(value.shape)]
    )
