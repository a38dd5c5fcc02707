"""A linear map from latents to colours, so that a picture can be watched while it is made."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..ir import referee
from .frontends import Imported

DRAWS = 8
REACHES = (1, 2, 4)


def latent_to_rgb(decoder: Imported) -> NDArray[np.float32]:
    """The map [channels + 1, 3] that is nearest to the decoder by least squares; its last row is added.

    It is fitted on smooth random latents, for noise decodes to what no picture has: each pixel of a latent
    against the mean of the pixels that the decoder makes of its place, in -1..1.
    """
    value = decoder.model.graph.inputs[0]
    shape = tuple(int(size) for size in value.shape or ())  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    latents = np.stack([_smooth(rng.standard_normal(shape)) for _ in range(DRAWS)]).astype(np.float32)
    runner = referee.session(decoder.model)
    images = np.concatenate([np.asarray(runner.run(None, {str(value.name): one})[0]) for one in latents])
    _, channels, height, width = shape
    factor = images.shape[2] // height
    colours = images.reshape(DRAWS, 3, height, factor, width, factor).mean(axis=(3, 5))
    known = latents.reshape(DRAWS, channels, -1).transpose(0, 2, 1).reshape(-1, channels)
    known = np.concatenate([known, np.ones((len(known), 1), np.float32)], axis=1)
    wanted = colours.reshape(DRAWS, 3, -1).transpose(0, 2, 1).reshape(-1, 3)
    solution, *_ = np.linalg.lstsq(known, wanted, rcond=None)
    return solution.astype(np.float32)


def _smooth(noise: NDArray[np.float64]) -> NDArray[np.float64]:
    """Low frequencies alone, at a deviation of one."""
    for axis in (2, 3):
        for reach in REACHES:
            noise = (noise + np.roll(noise, reach, axis) + np.roll(noise, -reach, axis)) / 3
    return noise / noise.std()
