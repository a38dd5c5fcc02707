"""Pseudo linear multistep sampling (Liu et al., arXiv 2202.09778, eq. 9, 11, 12), PNDM without Runge-Kutta.

The second timestep is visited twice: its first, one-step guess is corrected as by Heun's rule.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from .base import Array, Random, UnitVariance, float32
from .noise_schedule import NoiseSchedule

WEIGHTS = {
    1: (1.0,),
    2: (3 / 2, -1 / 2),
    3: (23 / 12, -16 / 12, 5 / 12),
    4: (55 / 24, -59 / 24, 37 / 24, -9 / 24),
}
"""Adams-Bashforth weights by order, newest output first."""


class PLMS(UnitVariance):
    def __init__(self, schedule: NoiseSchedule, count: int) -> None:
        self._schedule = replace(schedule, clip_sample=False)
        self._abar = schedule.alphas_cumprod()
        self._stride = schedule.num_train_timesteps // count
        spaced = schedule.timesteps(count)
        # With one step there is nothing to correct.
        self._timesteps = spaced if count < 2 else np.concatenate([spaced[:1], spaced[1:2], spaced[1:]])
        self._kept = self._abar[self._timesteps]
        self._outputs: list[Array] = []
        self._start: Array | None = None
        self.steps = self._timesteps.astype(np.float32)

    def step(self, output: Array, index: int, x: Array, rng: Random) -> Array:
        timestep = int(self._timesteps[index])
        before = timestep - self._stride
        if index == 0:
            self._outputs, self._start = [output], x
            combined = output
        elif index == 1:
            if self._start is None:  # a loop that starts here has nothing to correct
                return x
            timestep, before, x = timestep + self._stride, timestep, self._start
            combined = (output + self._outputs[0]) / 2
        else:
            self._outputs = [output, *self._outputs[:3]]
            weights = WEIGHTS[len(self._outputs)]
            combined = sum(weight * one for weight, one in zip(weights, self._outputs, strict=True))
        return self._move(x, timestep, before, float32(np.asarray(combined)))

    def _move(self, x: Array, timestep: int, before: int, output: Array) -> Array:
        last = 1.0 if self._schedule.set_alpha_to_one else float(self._abar[0])
        abar, abar_before = float(self._abar[timestep]), float(self._abar[before]) if before >= 0 else last
        noise = self._schedule.noise(output, x, abar)
        scale = abar * (1 - abar_before) ** 0.5 + (abar * (1 - abar) * abar_before) ** 0.5
        return float32((abar_before / abar) ** 0.5 * x - (abar_before - abar) / scale * noise)
