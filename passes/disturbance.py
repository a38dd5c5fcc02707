"""What changes of a program do to its outputs, each measured once and kept.

A figure is kept in the context's work folder as soon as it is known, under the digest of all that it follows from, so
that what was interrupted goes on where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.program import Program
from .base import Arrays, Context
from .keeping import kept_figure
from .measuring import watch

Outputs = list[dict[str, NDArray[Any]]]


class Disturbance:
    """Measures changed programs against ``program`` on ``calls``, for the pass ``wanted_by``.

    ``origin`` is a digest of all that figures follow from besides what they are kept as.
    """

    def __init__(
        self, context: Context, program: Program, calls: Sequence[Arrays], wanted_by: str, origin: str
    ) -> None:
        self._context, self._program, self._calls = replace(context, progress=None), program, calls
        self._wanted_by = wanted_by
        self._exact: Outputs = [dict(one) for one in watch(self._context, program, [], calls)]
        self._folder: Path | None = None
        if context.work_folder is not None:
            self._folder = context.work_folder / wanted_by / origin[:32]

    @property
    def peak_over_signal(self) -> float:
        """The largest output's square over the mean square: what a PSNR has more than a signal-to-noise ratio."""
        taken = self._context.guidance.taken
        whole = np.concatenate([taken(value).ravel() for one in self._exact for value in one.values()])
        return float(np.square(whole, dtype=np.float64).max() / np.square(whole, dtype=np.float64).mean())

    def noise(self, changed: Program) -> float:
        """Noise over signal, in power, of all outputs of all calls together, as a sampler takes them."""
        noise = signal = 0.0
        taken = self._context.guidance.taken
        for exact, got in zip(self._exact, watch(self._context, changed, [], self._calls), strict=True):
            for name, wanted in exact.items():
                wide = wanted.astype(np.float64)
                noise += float(np.square(taken(got[name] - wide)).sum())
                signal += float(np.square(taken(wide)).sum())
        return noise / signal if signal else 0.0

    def unlikeness(self, changed: Program) -> float:
        """What structural similarity of its pictures with the program's lacks to one."""
        quality: Any = self._context.require("quality", self._wanted_by)
        return 1.0 - float(quality(changed)["ssim"]["value"])

    def kept(self, told: dict[str, Any], measure: str, compute: Callable[[], float]) -> float:
        """The figure that was found before for what is ``told``, or else is computed now."""
        return kept_figure(self._folder, told, measure, compute)
