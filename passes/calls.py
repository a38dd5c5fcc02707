"""What a calibration's calls are of: timesteps, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

from ..ir.program import Program
from ..ir.rates import Rate
from .base import Arrays


def timesteps(program: Program, calls: Sequence[Arrays]) -> list[float]:
    """That of each call; of a program that reads none they are all alike."""
    names = [name for name, rate in program.rates.items() if rate is Rate.STEP]
    return [float(inputs[names[0]].flat[0]) if names else 0.0 for inputs in calls]


def pictures(program: Program, calls: Sequence[Arrays]) -> list[int]:
    """The number of the picture that each call is of: along one, timesteps and noise levels never rise."""
    rises = (after > before for before, after in pairwise(timesteps(program, calls)))
    return list(accumulate(rises, initial=0))
