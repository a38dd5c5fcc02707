"""How far final latents shift when a program changes.

LD-Pruner (Castells et al., CVPR workshops 2024, section 3.2): |mean - mean'| + |deviation - deviation'|, over
generated latents, each norm over the elements of a latent: what a change does to the middle of what a model draws, and
to its spread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...ir.program import Program
from ..base import Context, Trajectory
from ..hoist import hoisted


class LatentShift:
    """Of changed programs against ``program``, by ``pictures`` of ``steps`` each. Raises UserError where none can be
    drawn.
    """

    def __init__(self, context: Context, program: Program, pictures: int, steps: int, wanted_by: str) -> None:
        self._draw = context.require_draw(wanted_by)
        self._steps, self._pictures = steps, pictures
        self._exact = _latents(self._draw(program, steps, pictures))

    def __call__(self, changed: Program) -> float:
        return shift(_latents(self._draw(hoisted(changed), self._steps, self._pictures)), self._exact)


def shift(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    """Of latents [pictures, channels, height, width]."""
    middle = np.linalg.norm(ours.mean(0) - theirs.mean(0))
    return float(middle + np.linalg.norm(ours.std(0) - theirs.std(0)))


def _latents(drawn: Sequence[Trajectory]) -> NDArray[np.float64]:
    return np.stack([one.latents for one in drawn]).astype(np.float64)
