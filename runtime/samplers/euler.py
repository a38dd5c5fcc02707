"""Euler's method on the probability-flow equation (Karras et al., arXiv 2206.00364, algorithm 1), and with noise.

Ancestral sampling goes from level s beyond the next level t, to t^2 / s, and back up by new noise of variance
t^2 - (t^2 / s)^2: the posterior of Ho et al. (arXiv 2006.11239, eq. 7) for samples of variance 1 + s^2.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Array, Random, float32
from .noise_schedule import NoiseSchedule
from .residual import NOTHING, Residual


class Euler:
    """Samples live at variance 1 + sigma^2; the model sees them scaled to unit variance."""

    def __init__(self, schedule: NoiseSchedule, count: int) -> None:
        self._schedule = replace(schedule, clip_sample=False)
        total = schedule.num_train_timesteps
        if schedule.timestep_spacing == "linspace":
            timesteps = np.linspace(0, total - 1, count)[::-1]
            schedule.timesteps(count)  # refuses an impossible count
        else:
            timesteps = schedule.timesteps(count).astype(np.float64)
        levels = np.interp(timesteps, np.arange(total), schedule.sigmas())
        self._sigmas = np.append(levels, 0.0)
        self.steps = timesteps.astype(np.float32)

    def initial(self, noise: Array) -> Array:
        top = self._sigmas.max()
        scale = (top**2 + 1) ** 0.5 if self._schedule.timestep_spacing == "leading" else top
        return float32(noise * scale)

    def scale_input(self, x: Array, index: int) -> Array:
        return float32(x / (self._sigmas[index] ** 2 + 1) ** 0.5)

    def noised(self, clean: Array, noise: Array, index: int) -> Array:
        return float32(clean + self._sigmas[index] * noise)

    def step(self, output: Array, index: int, x: Array, rng: Random) -> Array:
        return float32(self._towards(self._sigmas[index + 1], output, index, x))

    def _towards(self, after: np.float64, output: Array, index: int, x: Array) -> NDArray[Any]:
        """Along the flow to noise level ``after``."""
        sigma = float(self._sigmas[index])
        abar = 1 / (sigma**2 + 1)
        clean = self._schedule.clean(output, x * abar**0.5, abar)
        return x + (x - clean) / sigma * (after - sigma)


class EulerAncestral(Euler):
    """``residual`` is what a rounding model's output is off by, for which less noise is added (residual.py, eq. 3)."""

    def __init__(self, schedule: NoiseSchedule, count: int, residual: Residual = NOTHING) -> None:
        super().__init__(schedule, count)
        self._residual = residual

    def step(self, output: Array, index: int, x: Array, rng: Random) -> Array:
        sigma, after = self._sigmas[index], self._sigmas[index + 1]
        below = after**2 / sigma
        of_clean, _ = self._schedule.slopes(x, 1 / (sigma**2 + 1))
        slope = of_clean * (sigma - below) / sigma
        added = self._residual.left((after**2 - below**2) ** 0.5, slope, self.steps[index])
        return float32(self._towards(below, output, index, x) + added * rng.standard_normal(x.shape))
