"""What each product in each format does to the output by itself.

As in MixDQ (Zhao et al., arXiv 2405.17873, section 4.2): the noise-to-signal power of the program's outputs, over the
calibration's calls, when one product alone is quantised; or what its pictures lack in likeness. Every entry is kept as
soon as it is known, under the digest of all that it follows from, so that what was interrupted goes on where it
stopped.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...ir.files import write_whole
from ...ir.program import Program
from ...ir.saved import pack
from ..base import Arrays, Context
from ..measuring import watch
from ..quantise.apply import quantised
from ..quantise.choices import UNCHANGED, Choice
from ..quantise.ranges import Ranges

Measure = Literal["noise", "unlikeness"]

Outputs = list[dict[str, NDArray[Any]]]


class Sensitivity:
    """Measures changed programs against ``program`` on ``calls``; keeps what it found in the context's work folder."""

    def __init__(
        self,
        context: Context,
        program: Program,
        calls: Sequence[Arrays],
        ranges: Ranges,
        clip_weights: bool = False,
    ) -> None:
        self._context, self._program, self._calls = replace(context, progress=None), program, calls
        self._ranges, self._clip_weights = ranges, clip_weights
        self._exact: Outputs = [dict(one) for one in watch(self._context, program, [], calls)]
        self._folder: Path | None = None
        if context.work_folder is not None:
            self._folder = context.work_folder / "assign" / _digest(program, calls, ranges, clip_weights)
            self._folder.mkdir(parents=True, exist_ok=True)

    @property
    def peak_over_signal(self) -> float:
        """The largest output's square over the mean square: what a PSNR has more than a signal-to-noise ratio."""
        whole = np.concatenate([value.ravel() for one in self._exact for value in one.values()])
        return float(np.square(whole, dtype=np.float64).max() / np.square(whole, dtype=np.float64).mean())

    def noise(self, changed: Program) -> float:
        """Noise over signal, in power, of all outputs of all calls together."""
        noise = signal = 0.0
        for exact, got in zip(self._exact, watch(self._context, changed, [], self._calls), strict=True):
            for name, wanted in exact.items():
                wide = wanted.astype(np.float64)
                noise += float(np.square(got[name] - wide).sum())
                signal += float(np.square(wide).sum())
        return noise / signal if signal else 0.0

    def unlikeness(self, changed: Program) -> float:
        """What structural similarity of its pictures with the program's lacks to one."""
        quality: Any = self._context.require("quality", "assign")
        return 1.0 - float(quality(changed)["ssim"]["value"])

    def alone(self, product: str, choice: Choice, measure: Measure = "noise") -> float:
        """A measure when one product has these formats and all others stay as they are."""
        if choice == UNCHANGED:
            return 0.0
        name = hashlib.sha256(repr((product, choice, measure)).encode()).hexdigest()[:32]
        place = self._folder / f"{name}.json" if self._folder else None
        if place is not None and place.is_file():
            return float(json.loads(place.read_bytes())[measure])
        changed = quantised(self._program, {product: choice}, self._ranges, clip_weights=self._clip_weights)
        found = {"noise": self.noise, "unlikeness": self.unlikeness}[measure](changed)
        if place is not None:
            write_whole(
                place, json.dumps({"product": product, "choice": str(choice), measure: found}).encode()
            )
        return found


def _digest(program: Program, calls: Sequence[Arrays], ranges: Ranges, clip_weights: bool) -> str:
    """By content, weights included."""
    total = hashlib.sha256(pack(program) + repr(clip_weights).encode())
    weights = {
        label: value.const_value.numpy()
        for model in program.variants.values()
        for label, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    times = {} if ranges.timesteps is None else {"timesteps": ranges.timesteps}
    for arrays in (weights, *calls, ranges.ends, times):
        for label, array in arrays.items():
            total.update(repr((label, array.dtype, array.shape)).encode())
            total.update(array.tobytes())
    return total.hexdigest()[:32]
