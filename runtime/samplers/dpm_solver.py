"""DPM-Solver++(2M): second-order multistep (Lu et al., arXiv 2211.01095, algorithm 2)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .base import Array, Random, UnitVariance, float32
from .noise_schedule import NoiseSchedule

FEW_STEPS = 15
"""Below this many steps the last one is of first order, as diffusers does it."""


class DPMSolver(UnitVariance):
    def __init__(
        self,
        schedule: NoiseSchedule,
        count: int,
        final_sigmas_type: str = "zero",
        lower_order_final: bool = True,
    ) -> None:
        self._schedule = replace(schedule, clip_sample=False)
        timesteps = self._spaced(schedule, count)
        sigmas = schedule.sigmas()
        final = 0.0 if final_sigmas_type == "zero" else float(sigmas[0])
        self._sigmas = np.append(np.interp(timesteps, np.arange(len(sigmas)), sigmas), final)
        self._kept = 1 / (self._sigmas**2 + 1)
        self._first_order_last = final_sigmas_type == "zero" or (lower_order_final and count < FEW_STEPS)
        self._before: Any = None
        self.steps = timesteps.astype(np.float32)

    @staticmethod
    def _spaced(schedule: NoiseSchedule, count: int) -> NDArray[np.int64]:
        """As other samplers, except that the end of the range is not a step of its own."""
        total = schedule.num_train_timesteps
        if schedule.timestep_spacing == "trailing":
            return schedule.timesteps(count)
        schedule.timesteps(count + 1)  # refuses an impossible count
        if schedule.timestep_spacing == "linspace":
            return np.linspace(0, total - 1, count + 1).round()[::-1][:-1].astype(np.int64)
        spaced = np.arange(count + 1)[::-1][:-1] * (total // (count + 1)) + schedule.steps_offset
        return spaced.astype(np.int64)

    def step(self, output: Array, index: int, x: Array, rng: Random) -> Array:
        sigma, after = float(self._sigmas[index]), float(self._sigmas[index + 1])
        alpha, alpha_after = (sigma**2 + 1) ** -0.5, (after**2 + 1) ** -0.5
        clean = self._schedule.clean(output, x, alpha**2)
        target = clean
        last = index + 1 == len(self.steps)
        if index > 0 and self._before is not None and not (last and self._first_order_last):
            # lambda = log(alpha / sigma_t) = -log(sigma) in terms of the noise level sigma
            span = np.log(sigma) - np.log(after)
            span_before = np.log(self._sigmas[index - 1]) - np.log(sigma)
            target = clean + span / (2 * span_before) * (clean - self._before)
        self._before = clean
        decay = after / sigma  # exp(-h)
        result = decay * alpha_after / alpha * x + alpha_after * (1 - decay) * target
        return float32(result)
