"""Calls to fit or learn from, and others to tell on what that was worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .base import Arrays


def split(calls: Sequence[Arrays], count: int, held_out: float) -> tuple[list[Arrays], list[Arrays]]:
    """At most ``count`` of the calls, and of these a share ``held_out`` apart, both from all along the trajectories.

    Of a single call both are that one.
    """
    places = np.linspace(0, len(calls) - 1, min(count, len(calls))).round().astype(int)
    chosen = [calls[int(place)] for place in places]
    if len(chosen) == 1:
        return chosen, chosen
    apart = min(max(1, round(len(chosen) * held_out)), len(chosen) - 1)
    out = {int((index + 0.5) * len(chosen) / apart) for index in range(apart)}
    return (
        [one for index, one in enumerate(chosen) if index not in out],
        [one for index, one in enumerate(chosen) if index in out],
    )
