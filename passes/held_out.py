"""Calls to fit or learn from, and others to tell on what that was worth."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir.program import Program
from .base import Arrays
from .calls import pictures


def split(
    program: Program, calls: Sequence[Arrays], count: int, held_out: float
) -> tuple[list[Arrays], list[Arrays]]:
    """At most ``count`` of the calls, and of these a share ``held_out`` apart, both from all along the trajectories.

    Those apart are of other pictures: neighbours on a trajectory are so alike that what was learned by heart would pass
    for understood. Of a single picture they are every so many of its calls, and of a single call both are that one.
    """
    groups = pictures(program, calls)
    if groups[-1] == 0:
        chosen = _evenly(calls, count)
        if len(chosen) == 1:
            return chosen, chosen
        return _apart(chosen, range(len(chosen)), held_out)
    learning, judging = _apart(calls, groups, held_out)
    judged = max(1, min(round(count * held_out), count - 1))
    return _evenly(learning, max(1, count - judged)), _evenly(judging, judged)


def _evenly(calls: Sequence[Arrays], count: int) -> list[Arrays]:
    places = np.linspace(0, len(calls) - 1, min(count, len(calls))).round().astype(int)
    return [calls[place] for place in places.tolist()]


def _apart(
    calls: Sequence[Arrays], groups: Sequence[int], held_out: float
) -> tuple[list[Arrays], list[Arrays]]:
    """Calls of most groups, and of the share of them that is held out."""
    total = groups[-1] + 1
    apart = min(max(1, round(total * held_out)), total - 1)
    out = {int((index + 0.5) * total / apart) for index in range(apart)}
    sides: tuple[list[Arrays], list[Arrays]] = [], []
    for call, group in zip(calls, groups, strict=True):
        sides[group in out].append(call)
    return sides
