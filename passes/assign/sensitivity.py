"""What each product in each format does to the output by itself.

As in MixDQ (Zhao et al., arXiv 2405.17873, section 4.2): the noise-to-signal power of the program's outputs, over the
calibration's calls, when one product alone is quantised; or what its pictures lack in likeness.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from ...ir.program import Program
from ..base import Arrays, Context
from ..disturbance import Disturbance
from ..origin import origin
from ..quantise.apply import quantised
from ..quantise.choices import UNCHANGED, Choice
from ..quantise.ranges import Ranges

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

    def alone(self, product: str, choice: Choice, measure: Measure = "noise") -> float:
        """A measure when one product has these formats and all others stay as they are."""
        if choice == UNCHANGED:
            return 0.0

        def measured() -> float:
            changed = quantised(
                self._program, {product: choice}, self._ranges, clip_weights=self._clip_weights
            )
            return {"noise": self.noise, "unlikeness": self.unlikeness}[measure](changed)

        return self.kept({"product": product, "choice": repr(choice)}, measure, measured)
