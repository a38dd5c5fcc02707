"""Maps fitted in closed form: the least squares of what is wanted from what there is, over a calibration's calls.

A map with a weight a channel is a regression of each channel by itself; a linear one is a ridge regression. Both need
sums of products alone, however many calls there are. A convolution is linear in what its kernel covers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ir.shapes import channel_axis
from .surgery import Map

Matrix = NDArray[np.float64]
Values = Mapping[str, NDArray[Any]]


Pair = tuple[str, str, int]
"""Names of what there is and of what there should be, and the width of the kernel between them."""


class Moments:
    """Sums of products of x, [pixels, from], with itself and with y, [pixels, to], each with a column of ones. With a
    kernel of ``width`` x has every value that it covers, zeros beyond the edges.
    """

    def __init__(self, width: int = 1) -> None:
        self._width = width
        self._xx: Any = 0.0
        self._xy: Any = 0.0

    def add(self, x: NDArray[Any], y: NDArray[Any]) -> None:
        """Of a call's values; both have their channels where `channel_axis` says."""
        rows, wanted = _pixels(x, self._width), _pixels(y)
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
        weight = found[:-1].T.copy()
        if self._width > 1:
            weight = weight.reshape(len(weight), -1, self._width, self._width)
        return Map(weight, found[-1].copy())

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


def moments(pairs: Sequence[Pair], calls: Iterable[tuple[Values, Values]]) -> dict[Pair, Moments]:
    """Of the first of each pair of names among what a call has, and the second among what it should have."""
    found = {pair: Moments(pair[2]) for pair in pairs}
    for given, wanted in calls:
        for (source, end, _), sums in found.items():
            sums.add(given[source], wanted[end])
    return found


def _pixels(value: NDArray[Any], width: int = 1) -> Matrix:
    if width > 1:
        edge = width // 2
        padded = np.pad(value, ((0, 0), (0, 0), (edge, edge), (edge, edge)))
        covered = np.lib.stride_tricks.sliding_window_view(padded, (width, width), (2, 3))
        return covered.transpose(0, 2, 3, 1, 4, 5).reshape(math.prod(value.shape[::2]) * value.shape[3], -1)
    return np.moveaxis(value, channel_axis(value.ndim), -1).reshape(-1, value.shape[channel_axis(value.ndim)])
