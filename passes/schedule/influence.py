"""What an error of the output at one step does to the picture.

Measured: a loop in which that step alone reuses, and all others run in full. What the final latents are off by, over
the output's own error there, holds the sampler and guidance as well as what later steps forgive.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .loss import Loss


def influence(loss: Loss, alternative: str, errors: NDArray[np.float64], probes: int) -> NDArray[np.float64]:
    """Of each call, by the errors [calls] of an alternative that runs right after a full step.

    ``probes`` of the calls are measured; between them it follows geometrically.
    """
    places = np.unique(np.linspace(1, loss.calls - 1, min(probes, loss.calls - 1)).round().astype(int))
    measured: list[float] = []
    for place in places.tolist():
        order = ["full"] * loss.calls
        order[place] = alternative
        measured.append(loss(order) / max(float(errors[place]), 1e-12))
    return np.exp(np.interp(np.arange(loss.calls), places, np.log(np.maximum(measured, 1e-12))))
