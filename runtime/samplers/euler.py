"""Euler's method on the probability-flow equation (Karras et al., arXiv 2206.00364, algorithm 1)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .base import Array, Random, float32
from .noise_schedule import NoiseSchedule


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
        sigma = float(self._sigmas[index])
        abar = 1 / (sigma**2 + 1)
        clean = self._schedule.clean(output, x * abar**0.5, abar)
        return float32(x + (x - clean) / sigma * (self._sigmas[index + 1] - sigma))
