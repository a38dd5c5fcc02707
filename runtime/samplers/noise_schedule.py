"""Forward-process constants of diffusion models in the conventions of published checkpoints.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) noise (Ho et al., arXiv 2006.11239, eq. 4); sigma_t, the noise level
of variance-exploding samplers, is sqrt((1 - abar_t) / abar_t).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import FickError
from .options import read

Float64 = NDArray[np.float64]


MOST_TIMESTEPS = 100_000
"""More than any model was trained on; a table of this length is still small."""


@dataclass(frozen=True)
class NoiseSchedule:
    """The part of a scheduler's configuration that all samplers share. Field names are diffusers'."""

    num_train_timesteps: int = 1000
    beta_start: float = 0.0001
    beta_end: float = 0.02
    beta_schedule: str = "linear"
    prediction_type: str = "epsilon"
    timestep_spacing: str = "leading"
    steps_offset: int = 0
    set_alpha_to_one: bool = True
    clip_sample: bool = False
    clip_sample_range: float = 1.0

    @classmethod
    def of(cls, config: Mapping[str, Any], **defaults: Any) -> NoiseSchedule:
        """From a ``scheduler_config.json``; ``defaults`` are the sampler's own where it is silent."""
        own = {one.name: defaults.get(one.name, one.default) for one in fields(cls)}
        return cls(**{name: read(config, name, default) for name, default in own.items()})

    def __post_init__(self) -> None:
        if not 1 <= self.num_train_timesteps <= MOST_TIMESTEPS:
            raise FickError(f"{self.num_train_timesteps} training timesteps are not 1 to {MOST_TIMESTEPS}")
        if not 0 < self.clip_sample_range < math.inf:
            raise FickError(f"clip_sample_range is {self.clip_sample_range}; it must be a positive number")
        if self.prediction_type not in ("epsilon", "v_prediction", "sample"):
            known = "epsilon, v_prediction, sample"
            raise FickError(f"prediction type {self.prediction_type!r} is none of {known}")
        if self.timestep_spacing not in ("leading", "trailing", "linspace"):
            known = "leading, trailing, linspace"
            raise FickError(f"timestep spacing {self.timestep_spacing!r} is none of {known}")
        if not 0 < self.beta_start <= self.beta_end < 1:
            raise FickError(f"betas from {self.beta_start} to {self.beta_end} do not rise within 0 and 1")

    def alphas_cumprod(self) -> Float64:
        """abar, [num_train_timesteps]: in float32 steps, as the tables that published models were trained on.

        Near t = 0, where 1 - abar is small, that rounding is worth 1e-5 of a result.
        """
        betas = self._betas().astype(np.float32)
        return np.cumprod(np.float32(1.0) - betas, dtype=np.float32).astype(np.float64)

    def _betas(self) -> Float64:
        count, start, end = self.num_train_timesteps, self.beta_start, self.beta_end
        if self.beta_schedule == "linear":
            return np.linspace(start, end, count)
        if self.beta_schedule == "scaled_linear":
            roots = np.linspace(math.sqrt(start), math.sqrt(end), count).astype(np.float32)
            return roots.astype(np.float64) ** 2
        if self.beta_schedule == "squaredcos_cap_v2":
            # Nichol and Dhariwal, arXiv 2102.09672, eq. 17
            edges = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
            return np.minimum(1.0 - edges[1:] / edges[:-1], 0.999)
        known = "linear, scaled_linear, squaredcos_cap_v2"
        raise FickError(f"beta schedule {self.beta_schedule!r} is none of {known}")

    def sigmas(self) -> Float64:
        abar = self.alphas_cumprod()
        return np.sqrt((1.0 - abar) / abar)

    def timesteps(self, count: int) -> NDArray[np.int64]:
        """``count`` training timesteps, noisiest first."""
        total = self.num_train_timesteps
        if not 1 <= count <= total:
            raise FickError(f"{count} steps are not possible; give 1 to {total}")
        if self.timestep_spacing == "linspace":
            spaced = np.linspace(0, total - 1, count).round()[::-1]
        elif self.timestep_spacing == "leading":
            spaced = np.arange(count)[::-1] * (total // count) + self.steps_offset
        else:
            spaced = np.round(total - np.arange(count) * (total / count)) - 1
        if spaced[0] >= total or spaced[-1] < 0:
            raise FickError(
                f"{count} steps at an offset of {self.steps_offset} leave the {total} timesteps trained on"
            )
        return spaced.astype(np.int64)

    def clean(self, output: Any, x: Any, abar: float) -> Any:
        """The clean sample that the model's output implies at a point of the forward process."""
        if self.prediction_type == "epsilon":
            predicted = (x - (1 - abar) ** 0.5 * output) / abar**0.5
        elif self.prediction_type == "v_prediction":
            # Salimans and Ho, arXiv 2202.00512, appendix D
            predicted = abar**0.5 * x - (1 - abar) ** 0.5 * output
        else:
            predicted = output
        if self.clip_sample:
            predicted = np.clip(predicted, -self.clip_sample_range, self.clip_sample_range)
        return predicted

    def noise(self, output: Any, x: Any, abar: float) -> Any:
        """The noise that the model's output implies, before any clipping."""
        if self.prediction_type == "epsilon":
            return output
        if self.prediction_type == "v_prediction":
            return abar**0.5 * output + (1 - abar) ** 0.5 * x
        return (x - abar**0.5 * output) / (1 - abar) ** 0.5

    def slopes(self, clean: Any, abar: float) -> tuple[Any, float]:
        """How the ``clean`` sample and the noise grow with the model's output; clean not at all where it is clipped."""
        kept, lost = abar**0.5, (1 - abar) ** 0.5
        of_clean, of_noise = {
            "epsilon": (-lost / kept, 1.0),
            "v_prediction": (-lost, kept),
            "sample": (1.0, -kept / lost),
        }[self.prediction_type]
        return (
            of_clean * (np.abs(clean) < self.clip_sample_range) if self.clip_sample else of_clean
        ), of_noise
