"""Normal noise, the same numbers as torch draws on a CPU from the same seed.

A seed then means one picture, whichever framework it was found with. torch seeds a Mersenne Twister (Matsumoto
and Nishimura, 1998) and turns its output into normal numbers by Box and Muller's method (1958), sixteen at a
time; fewer than sixteen take another path, which does not matter for samples and is not followed here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BLOCK = 16


class Noise:
    """A stream of normal numbers. Each call draws anew, as torch's does from one generator."""

    def __init__(self, seed: int) -> None:
        # The legacy seeding of NumPy's generator is the one in the paper, which torch uses too.
        self._bits = np.random.RandomState(seed & 0xFFFFFFFF)

    def standard_normal(self, shape: Sequence[int]) -> NDArray[np.float32]:
        """float32 numbers of mean 0 and deviation 1."""
        count = math.prod(shape)
        values = self._uniform(max(count, BLOCK))
        whole = values.size - values.size % BLOCK
        values[:whole] = _box_muller(values[:whole])
        if whole < values.size:
            values[-BLOCK:] = _box_muller(self._uniform(BLOCK))
        return values[:count].reshape(tuple(shape))

    def _uniform(self, count: int) -> NDArray[np.float32]:
        words = self._bits.randint(0, 1 << 32, count, dtype=np.uint32)
        return ((words & 0xFFFFFF) * np.float32(2.0**-24)).astype(np.float32)


def _box_muller(uniform: NDArray[np.float32]) -> NDArray[np.float32]:
    """The first eight of every block give radii, the last eight angles."""
    first, second = np.split(uniform.reshape(-1, BLOCK), 2, axis=1)
    radius = np.sqrt(np.float32(-2.0) * np.log(np.float32(1.0) - first))
    angle = np.float32(2.0 * math.pi) * second
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=1).reshape(-1)
