"""What each product in each format does to the output by itself.

As in MixDQ (Zhao et al., arXiv 2405.17873, section 4.2): the noise-to-signal power of the program's outputs, over the
calibration's calls, when one product alone is quantised, measured or by gradients; or what its pictures lack in
likeness.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Literal

import numpy as np

from ...ir.program import Program
from ..base import Arrays, Context
from ..disturbance import Disturbance
from ..keeping import kept_tensors
from ..learned import require_torch
from ..origin import origin
from ..programme import Matrix
from ..quantise.apply import Fits, quantised
from ..quantise.choices import UNCHANGED, Choice
from ..quantise.products import Product
from ..quantise.ranges import Ranges

PROBES = 8
"""Gradients of a call: a noise is then known to 18 % of eight calls."""

TOGETHER = 2
"""Calls whose gradients are kept as one."""

Progress = Callable[[int, int], None] | None

Measure = Literal["noise", "unlikeness"]


class Sensitivity(Disturbance):
    """Of ``program``'s products on ``calls``; keeps what it found in the context's work folder."""

    def __init__(
        self,
        context: Context,
        program: Program,
        calls: Sequence[Arrays],
        ranges: Ranges,
        clip_weights: bool = False,
    ) -> None:
        times = {} if ranges.timesteps is None else {"timesteps": ranges.timesteps}
        told = origin([program], [*calls, ranges.ends, times], clip_weights)
        super().__init__(context, program, calls, "assign", told)
        self._ranges, self._clip_weights = ranges, clip_weights
        self._fits: Fits = {}

    def build(self, choices: Mapping[str, Choice]) -> Program:
        """The program with products in these formats, by name."""
        return quantised(
            self._program, choices, self._ranges, clip_weights=self._clip_weights, fits=self._fits
        )

    def alone(self, product: str, choice: Choice, measure: Measure = "noise") -> float:
        """A measure when one product has these formats and all others stay as they are."""
        if choice == UNCHANGED:
            return 0.0

        def measured() -> float:
            return {"noise": self.noise, "unlikeness": self.unlikeness}[measure](
                self.build({product: choice})
            )

        return self.kept({"product": product, "choice": repr(choice)}, measure, measured)

    def at_once(self, products: Sequence[Product], choices: Sequence[Choice], progress: Progress) -> Matrix:
        """The noise of each product in each format by itself, to first order: [products, choices].

        Raises UserError without torch, and for an operator that it is not taught.
        """
        require_torch("assign")
        from .gradients import Gradients

        changed = [choice for choice in choices if choice != UNCHANGED]
        whole = [{one.name: choice for one in products} for choice in changed]
        lazily = cache(
            lambda: Gradients(
                self._program, products, [self.build(one) for one in whole], self._context.guidance, PROBES
            )
        )
        told = repr(([one.name for one in products], changed, TOGETHER, PROBES, self._context.seed))
        name = hashlib.sha256(told.encode()).hexdigest()[:32]
        noise, signal = np.zeros((len(products), len(changed))), 0.0
        groups = [self._calls[start : start + TOGETHER] for start in range(0, len(self._calls), TOGETHER)]
        for place, calls in enumerate(groups):
            file = None if self._folder is None else self._folder / f"{name}-{place}.safetensors"
            seed = self._context.seed + place
            found = kept_tensors(file, lambda calls=calls, seed=seed: lazily().squares(calls, seed))
            noise, signal = noise + found["noise"], signal + float(found["signal"])
            if progress is not None:
                progress(place + 1, len(groups))
        result = np.zeros((len(products), len(choices)))
        result[:, [choice != UNCHANGED for choice in choices]] = noise / (signal or 1.0)
        return result
