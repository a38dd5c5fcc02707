"""Ancestral sampling (Ho et al., arXiv 2006.11239, eq. 6 and 7), on all or some of the timesteps."""

from __future__ import annotations

import numpy as np

from ..errors import FickError
from .base import Array, Random, UnitVariance, float32
from .noise_schedule import NoiseSchedule
from .residual import NOTHING, Residual

LEAST_VARIANCE = 1e-20


class DDPM(UnitVariance):
    """``residual`` is what a rounding model's output is off by, for which less noise is added (residual.py, eq. 3)."""

    def __init__(
        self,
        schedule: NoiseSchedule,
        count: int,
        variance_type: str = "fixed_small",
        residual: Residual = NOTHING,
    ) -> None:
        if variance_type not in ("fixed_small", "fixed_large"):
            raise FickError(f"variance type {variance_type!r} is neither fixed_small nor fixed_large")
        self._schedule = schedule
        self._abar = schedule.alphas_cumprod()
        self._timesteps = schedule.timesteps(count)
        self._kept = self._abar[self._timesteps]
        self._residual = residual
        self._large = variance_type == "fixed_large"
        self.steps = self._timesteps.astype(np.float32)

    def step(self, output: Array, index: int, x: Array, rng: Random) -> Array:
        timestep = self._timesteps[index]
        last = index + 1 == len(self._timesteps)
        abar = float(self._abar[timestep])
        abar_before = 1.0 if last else float(self._abar[self._timesteps[index + 1]])
        alpha = abar / abar_before
        clean = self._schedule.clean(output, x, abar)
        of_clean = abar_before**0.5 * (1 - alpha) / (1 - abar)
        mean = of_clean * clean
        mean = mean + alpha**0.5 * (1 - abar_before) / (1 - abar) * x
        if timestep == 0:
            return float32(mean)
        variance = 1 - alpha if self._large else (1 - abar_before) / (1 - abar) * (1 - alpha)
        slope = of_clean * self._schedule.slopes(clean, abar)[0]
        deviation = self._residual.left(max(variance, LEAST_VARIANCE) ** 0.5, slope, self.steps[index])
        return float32(mean + deviation * rng.standard_normal(x.shape))
