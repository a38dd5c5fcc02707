"""Denoising diffusion implicit models (Song et al., arXiv 2010.02502, eq. 12 and 16)."""

from __future__ import annotations

import numpy as np

from ..errors import FickError
from .base import Array, Random, UnitVariance, float32
from .noise_schedule import NoiseSchedule
from .residual import NOTHING, Residual


class DDIM(UnitVariance):
    """``eta`` 0 is deterministic, 1 as noisy as the ancestral process.

    ``residual`` is what a rounding model's output is off by, for which less noise is added (residual.py, eq. 3).
    """

    def __init__(
        self, schedule: NoiseSchedule, count: int, eta: float = 0.0, residual: Residual = NOTHING
    ) -> None:
        if not 0 <= eta <= 1:
            raise FickError(f"eta of the sampler is {eta}; it must be within 0 and 1")
        self._schedule = schedule
        self._abar = schedule.alphas_cumprod()
        self._timesteps = schedule.timesteps(count)
        self._kept = self._abar[self._timesteps]
        self._stride = schedule.num_train_timesteps // count
        self._eta = eta
        self._residual = residual
        self.steps = self._timesteps.astype(np.float32)

    def step(self, output: Array, index: int, x: Array, rng: Random) -> Array:
        timestep = self._timesteps[index]
        before = timestep - self._stride
        last = 1.0 if self._schedule.set_alpha_to_one else float(self._abar[0])
        abar, abar_before = float(self._abar[timestep]), float(self._abar[before]) if before >= 0 else last
        clean = self._schedule.clean(output, x, abar)
        noise = self._schedule.noise(output, x, abar)
        variance = (1 - abar_before) / (1 - abar) * (1 - abar / abar_before)
        deviation = self._eta * max(variance, 0.0) ** 0.5
        of_noise = max(1 - abar_before - deviation**2, 0.0) ** 0.5
        result = abar_before**0.5 * clean + of_noise * noise
        if self._eta > 0:
            slopes = self._schedule.slopes(clean, abar)
            slope = abar_before**0.5 * slopes[0] + of_noise * slopes[1]
            deviation = self._residual.left(deviation, slope, self.steps[index])
            result = result + deviation * rng.standard_normal(x.shape)
        return float32(result)
