"""At which calls of a loop a cache is filled anew: always the first."""

from __future__ import annotations

import math
from collections.abc import Iterable, Set


def uniform(calls: int, interval: int) -> set[int]:
    """Every ``interval``-th call."""
    return set(range(0, calls, interval))


def centred(calls: int, interval: int, centre: float, power: float) -> set[int]:
    """As many, at most, and closer together about the call at the share ``centre`` of the loop.

    Roots of their distances to it, of degree ``power``, are evenly spaced (Ma et al., arXiv 2312.00858).
    """
    middle = centre * (calls - 1)
    count = len(uniform(calls, interval))
    first, end = (_signed(distance, 1 / power) for distance in (-middle, calls - middle))
    distances = (_signed(first + (end - first) * index / count, power) for index in range(count))
    # What rounding takes off a whole number is put back.
    return {0, *(min(calls - 1, max(0, int(distance + middle + 1e-6))) for distance in distances)}


def scaled(chosen: Iterable[int], length: int, calls: int) -> set[int]:
    """Of a loop of ``calls``, those at the places of the calls chosen in one of ``length``."""
    return {call * calls // length for call in chosen if call < length}


def refreshed(calls: int, filled: Set[int], between: str) -> list[str]:
    """What each call runs: "full" where the cache is filled, and ``between`` elsewhere."""
    return ["full" if call in filled or not call else between for call in range(calls)]


def _signed(number: float, power: float) -> float:
    return math.copysign(abs(number) ** power, number)
