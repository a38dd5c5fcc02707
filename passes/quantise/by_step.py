"""Fewer bits only at the steps that bear it, as PTQD has it (He et al., arXiv 2305.10657, section 4.3).

At a step whose sample is nearly noise, an error of the output drowns in what the diffusion itself is unsure of; near
the picture it does not. A timestep runs in integers if the output's signal over quantisation noise exceeds the
diffusion's own signal over noise, alpha^2 / sigma^2. Else it runs on the same weights, of as few bits, with activations
as they were: two alternatives, one set of weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from pydantic import Field, FiniteFloat

from ...ir.errors import UserError
from ...ir.program import Program
from ..base import Context, Pass
from ..measuring import side_by_side
from ..per_step import share_tensors, step_input
from .apply import quantised
from .choices import Choice
from .config import ProductsConfig
from .products import mean_weight_bits, products, require_some
from .ranges import measure

NARROW = "integers"


class QuantiseByStepConfig(ProductsConfig):
    weights: Literal["int8", "int4"] = Field(
        default="int8", description="Format of the weights at every step."
    )
    margin: FiniteFloat = Field(
        default=1.0, gt=0, description="How often its signal over noise a step in integers has to have [1]."
    )


class QuantiseByStep(Pass[QuantiseByStepConfig]):
    """Program of variant "full" -> "full" with weights in few bits, alternative "integers" with activations in int8 as
    well, and a schedule of both for the loop that the calibration ran.

    Raises UserError where no product can be quantised, or the diffusion's noise is not known.
    """

    name = "quantise-by-step"
    Config = QuantiseByStepConfig

    @property
    def formats(self) -> tuple[str, ...]:
        return Choice(self.config.weights, "int8").formats

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        config = self.config
        context.require("calibration", self.name)
        if context.forward_snr is None:
            raise UserError(
                f"pass {self.name} goes by the noise of a pipeline's scheduler, and there is none; give the folder of "
                "a whole pipeline, and prompts."
            )
        found = products(program.variants["full"].graph, program.rates, config.least_depth)
        require_some(found, config.least_depth, self.name)
        names = [str(one.left.name) for one in found]
        ranges = measure(context, program, names, config)
        full, narrow = (
            quantised(
                program,
                {one.name: Choice(config.weights, activations) for one in found},
                ranges,
                clip_weights=config.clip_weights,
            )
            for activations in ("float32", "int8")
        )
        share_tensors(one.variants["full"] for one in (full, narrow))
        snr = self._signal_over_noise(narrow, context)
        enough = {time: got > config.margin * context.forward_snr(time) for time, got in snr.items()}
        loop = ["full", *(NARROW if enough[time] else "full" for time in sorted(enough, reverse=True)[1:])]
        everything = products(program.variants["full"].graph, program.rates)
        choices = {one.name: Choice(config.weights, "float32") for one in found}
        effect: dict[str, Any] = {
            "weight_bits": mean_weight_bits(everything, choices),
            "signal_over_noise": _told(snr),
            "steps_in_integers": loop.count(NARROW) / len(loop),
        }
        if NARROW not in loop:
            return full, effect
        changed = replace(
            full,
            variants={**full.variants, NARROW: narrow.variants["full"]},
            schedule={len(loop): loop},
        )
        if context.quality is not None:
            effect["quality"] = dict(context.quality(changed))
        return changed, effect

    def _signal_over_noise(self, narrow: Program, context: Context) -> dict[float, float]:
        """Of the outputs of all calls at a timestep together, in power."""
        calls = context.require("calibration", self.name)
        reference: Program = context.require("reference", self.name)
        timestep = str(step_input(narrow).name)
        signal: dict[float, float] = defaultdict(float)
        noise: dict[float, float] = defaultdict(float)
        results = side_by_side(context, (reference, narrow), calls)
        for call, (theirs, ours) in zip(calls, results, strict=True):
            time = float(np.ravel(call[timestep])[0])
            for name, exact in theirs.items():
                wide = exact.astype(np.float64)
                signal[time] += float(np.square(context.guidance.taken(wide)).sum())
                noise[time] += float(np.square(context.guidance.taken(ours[name] - wide)).sum())
        return {time: signal[time] / max(noise[time], 1e-300) for time in signal}


def _told(snr: Mapping[float, float]) -> dict[str, float]:
    return {f"{time:g}": snr[time] for time in sorted(snr, reverse=True)}
