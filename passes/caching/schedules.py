"""At which calls of a loop a cache is filled anew: always the first."""

from __future__ import annotations

import numpy as np


def uniform(calls: int, interval: int) -> set[int]:
    """Every ``interval``-th call."""
    return set(range(0, calls, interval))


def centred(calls: int, interval: int, centre: float, power: float) -> set[int]:
    """As many, at most, and closer together about the call at the share ``centre`` of the loop.

    Roots of their distances to it, of degree ``power``, are evenly spaced (Ma et al., arXiv 2312.00858).
    """
    middle = centre * (calls - 1)
    ends = [np.sign(end) * np.abs(end) ** (1 / power) for end in (-middle, calls - middle)]
    spaced = np.linspace(ends[0], ends[1], -(-calls // interval), endpoint=False)
    numbers = np.sign(spaced) * np.abs(spaced) ** power + middle
    return {0, *(min(calls - 1, max(0, int(number + 1e-6))) for number in numbers)}
