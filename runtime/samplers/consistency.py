"""Multistep sampling of a consistency model (Song et al., arXiv 2303.01469, algorithm 1).

The model maps a sample at any noise level straight to a clean one; further steps add noise of a lower level
and map again: x = f(sigma_0 z, sigma_0), then x = f(x + sqrt(sigma^2 - sigma_min^2) n, sigma).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ..errors import FickError
from .base import Array, Random, float32
from .residual import NOTHING, Residual


class Consistency:
    """``residual`` is what a rounding model's output is off by, for which less noise is added (residual.py, eq. 3)."""

    def __init__(
        self, sigmas: Sequence[float], sigma_min: float = 0.002, residual: Residual = NOTHING
    ) -> None:
        levels = np.asarray(sigmas, dtype=np.float64)
        if levels.ndim != 1 or not len(levels) or not self._valid(levels, sigma_min):
            raise FickError(f"noise levels {list(sigmas)} are not a falling list that ends above {sigma_min}")
        self._sigmas = levels
        self._sigma_min = sigma_min
        self._residual = residual
        self.steps = levels.astype(np.float32)

    @staticmethod
    def _valid(levels: NDArray[np.float64], sigma_min: float) -> bool:
        # Put so that NaN is refused.
        finite = bool(np.all(np.isfinite(levels)))
        return finite and bool(sigma_min >= 0 and np.all(levels >= sigma_min) and np.all(np.diff(levels) < 0))

    def initial(self, noise: Array) -> Array:
        return float32(noise * self._sigmas[0])

    def scale_input(self, x: Array, index: int) -> Array:
        return x

    def noised(self, clean: Array, noise: Array, index: int) -> Array:
        return float32(clean + (self._sigmas[index] ** 2 - self._sigma_min**2) ** 0.5 * noise)

    def step(self, output: Array, index: int, x: Array, rng: Random) -> Array:
        if index + 1 == len(self._sigmas):
            return float32(output)
        added = (self._sigmas[index + 1] ** 2 - self._sigma_min**2) ** 0.5
        added = self._residual.left(added, 1.0, self.steps[index])
        return float32(output + added * rng.standard_normal(output.shape))


def noise_levels(given: object) -> list[float]:
    """Noise levels out of a description. Raises FickError for anything but a list of numbers."""
    values = cast("list[object]", given) if isinstance(given, list | tuple) else []
    levels = [float(value) for value in values if isinstance(value, int | float)]
    if not levels or len(levels) != len(values):
        raise FickError(f"sigmas of the sampler are {given!r}; they must be a list of noise levels")
    return levels


def spaced_levels(count: int, sigma_max: float, sigma_min: float) -> list[float]:
    """``count`` levels from ``sigma_max`` down by equal factors, ending well above ``sigma_min``."""
    if count < 1:
        raise FickError(f"{count} steps are not possible; give 1 or more")
    ratio = (sigma_max / max(sigma_min, sigma_max / 200)) ** (1 / count)
    return [sigma_max / ratio**index for index in range(count)]
