"""Calls of a model along denoising trajectories, chosen from by timestep."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Calls = list[dict[str, NDArray[Any]]]

Spread = Literal["uniform", "normal"]
"""Over the timesteps: evenly, or normally around a mean nearer to the picture than to the noise."""

MEAN, DEVIATION = 0.4, 0.5
"""Of the normal distribution, as shares of the largest timestep (Shang et al., PTQ4DM, arXiv 2211.15736, eq. 7)."""


def chosen(calls: Calls, timestep: str, count: int, spread: Spread, seed: int) -> Calls:
    """``count`` of the calls, in their order, as many of any timestep as ``spread`` has it; all if there are fewer."""
    if len(calls) <= count:
        return calls
    rng = np.random.default_rng(seed)
    times = np.array([float(np.ravel(call[timestep])[0]) for call in calls])
    if spread == "normal":
        largest = times.max()
        density = np.exp(-0.5 * np.square((times / largest - MEAN) / DEVIATION))
    else:
        density = np.ones(len(calls))
    rows = rng.choice(len(calls), count, replace=False, p=density / density.sum())
    return [calls[row] for row in sorted(rows.tolist())]
