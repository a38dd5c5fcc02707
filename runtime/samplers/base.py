"""What a sampler is to the denoising loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


class Random(Protocol):
    """Where a stochastic sampler draws from."""

    def standard_normal(self, shape: Sequence[int]) -> NDArray[Any]: ...


class Sampler(Protocol):
    """A pure state machine: it never calls the model. Multistep history is reset by index 0."""

    @property
    def steps(self) -> NDArray[np.float32]:
        """What the model's step input (a timestep or a noise level) is at each call, [calls]."""
        ...

    def initial(self, noise: Array) -> Array:
        """The first sample, from unit normal noise of any shape."""
        ...

    def scale_input(self, x: Array, index: int) -> Array:
        """The sample as the model wants to see it at call ``index``."""
        ...

    def noised(self, clean: Array, noise: Array, index: int) -> Array:
        """A clean sample with as much unit normal noise as the model expects at call ``index``."""
        ...

    def step(self, output: Array, index: int, x: Array, rng: Random) -> Array:
        """The next sample from the model's output at call ``index``. Only stochastic samplers draw."""
        ...


class UnitVariance:
    """Samples that have variance one at every noise level: the model sees them as they are.

    ``_kept`` gives the share of the clean sample's variance at each call, abar of Ho et al. (arXiv 2006.11239).
    """

    _kept: NDArray[np.float64]

    def initial(self, noise: Array) -> Array:
        return noise

    def scale_input(self, x: Array, index: int) -> Array:
        return x

    def noised(self, clean: Array, noise: Array, index: int) -> Array:
        kept = float(self._kept[index])
        return float32(kept**0.5 * clean + (1 - kept) ** 0.5 * noise)


def float32(array: NDArray[Any]) -> Array:
    return np.asarray(array, dtype=np.float32)
