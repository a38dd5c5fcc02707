"""What a sampler takes of a call whose rows are the branches of guidance.

An error in what the prompt changes counts as often as the scale says, and one that both branches share counts once: of
two programs with the same error of a call, the one whose branches err alike draws the nearer pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Guidance:
    """Of the pictures that calls are of: ``scale`` is that of classifier-free guidance (Ho and Salimans, arXiv
    2207.12598), or None where every row is a call of its own.
    """

    scale: float | None = None

    def taken(self, rows: Any) -> Any:
        """Of [rows, ...], those without the prompt first: half as many, u + scale (c - u) (eq. 6)."""
        if self.scale is None or len(rows.shape) == 0 or len(rows) % 2:
            return rows
        half = len(rows) // 2
        return rows[:half] + self.scale * (rows[half:] - rows[:half])

    def weights(self, rows: int) -> NDArray[np.float64]:
        """Of so many rows, in each of those that are taken: [taken, rows]."""
        return np.asarray(self.taken(np.eye(rows)))

    def square(self, difference: Any) -> Any:
        """Of both branches, and of what is taken of them: what is learned for one scale has to do for others."""
        taken = self.taken(difference)
        alone = difference.square().sum()
        return alone if taken is difference else alone + taken.square().sum()


UNGUIDED = Guidance()
