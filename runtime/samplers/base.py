"""What a sampler is to the denoising loop."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]


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

    def step(self, output: Array, index: int, x: Array, rng: np.random.Generator) -> Array:
        """The next sample from the model's output at call ``index``. Only stochastic samplers draw."""
        ...


class UnitVariance:
    """Samples that have variance one at every noise level: the model sees them as they are."""

    def initial(self, noise: Array) -> Array:
        return noise

    def scale_input(self, x: Array, index: int) -> Array:
        return x


def float32(array: NDArray[Any]) -> Array:
    return np.asarray(array, dtype=np.float32)
