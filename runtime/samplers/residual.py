"""What the output of a rounding model is off by, and how much less noise a sampler adds for it.

A step of a sampler that adds noise z of deviation one is affine in the model's output:

    x' = A x + B out + sigma z                                                                              (1)

An output that is off by r, of mean zero, variance s^2 and no correlation with x and out, makes it x' + B r, whose
variance is higher by B^2 s^2 (2). Noise already, it may stand for as much of the sampler's own:

    sigma'^2 = max(0, sigma^2 - B^2 s^2)                                                                    (3)

He et al. (arXiv 2305.10657, eq. 14) have this for ancestral sampling of predicted noise, B^2 = beta^2 / (alpha (1 -
abar)). B follows from how a sampler uses the output, whatever that predicts: ``NoiseSchedule.slopes``.

With guidance of scale w the output is (1 - w) unconditional + w conditional, and so is its error, whose variance is

    s^2 = (1 - w)^2 S_uu + 2 w (1 - w) S_uc + w^2 S_cc                                                      (4)

of the mean products S of the branches' errors. These are what a bundle holds, so that any scale has its s.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..errors import FickError


@dataclass(frozen=True, eq=False)
class Residual:
    """Deviations s of an output's error [n] at rising ``timesteps`` [n], in the units of the model's step input."""

    timesteps: NDArray[np.float64]
    deviations: NDArray[np.float64]

    @classmethod
    def of(cls, described: object, guidance_scale: float = 1.0) -> Residual:
        """From the manifest of a component, for a loop with this guidance (eq. 4).

        Where errors of rows were measured each by itself [n, 1, 1], both branches are taken to err alike, which takes
        least off. Raises FickError for a description that is none.
        """
        try:
            said = cast(Mapping[str, Any], described)
            timesteps = np.array(said["timesteps"], np.float64)
            covariance = np.array(said["covariance"], np.float64)
            rows = covariance.shape[-1]
            weights = np.array({1: [1.0], 2: [1 - guidance_scale, guidance_scale]}[rows])
            variances: NDArray[np.float64] = np.einsum("i,nij,j->n", weights, covariance, weights)
            sound = timesteps.size > 0 and covariance.shape == (*timesteps.shape, rows, rows)
            sound = sound and bool(np.isfinite(timesteps).all() and np.isfinite(covariance).all())
        except (IndexError, KeyError, TypeError, ValueError):
            raise FickError("the bundle's table of residuals is damaged; compile it anew") from None
        if not sound:
            raise FickError("the bundle's table of residuals is no table of numbers; compile it anew")
        order = np.argsort(timesteps)
        return cls(timesteps[order], np.maximum(variances, 0.0)[order] ** 0.5)

    def deviation(self, timestep: float) -> float:
        """s at the nearest timestep of the table, whose correction it is that the model applies."""
        return float(self.deviations[np.argmin(np.abs(self.timesteps - float(timestep)))])

    def left(self, sigma: float, slope: Any, timestep: float) -> Any:
        """The deviation of the noise to be added (eq. 3); ``slope``, B, may differ from element to element."""
        s = self.deviation(timestep)
        return np.maximum(sigma**2 - (slope * s) ** 2, 0.0) ** 0.5 if s else sigma


NOTHING = Residual(np.zeros(1), np.zeros(1))
"""Of a model that is not off, or is not known to be."""
