"""What the passes of a recipe may ask for: calls of the model along denoising trajectories, and the measures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from ..ir.errors import UserError
from ..ir.interpreter import Interpreter
from ..ir.program import Program
from ..ir.rates import Rate
from ..passes.base import Context
from .cache import cache_folder
from .frontends import is_pipeline
from .loops import Loops, denoises, drawn_input
from .progress import Silent
from .quality.calls import Spread

TIMESTEPS = 1000
"""Of the diffusion that nearly every model was trained with."""


class Calibration(BaseModel):
    """The denoising trajectories that passes look at."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: Path | None = Field(
        default=None,
        description="File of prompts, one a line, or of classes by number or name; relative to the recipe.",
    )
    pictures: int = Field(default=8, ge=1, le=1000, description="How many of them are drawn [pictures].")
    steps: int = Field(default=20, ge=1, le=1000, description="Steps of a picture [steps].")
    guidance_scale: FiniteFloat = Field(default=5.0, description="Guidance scale [1].")
    calls: int = Field(default=256, ge=1, le=100000, description="Most calls that passes look at [calls].")
    spread: Spread = Field(
        default="uniform", description="Over the timesteps: uniform, or normal, with more near the picture."
    )
    values: Mapping[str, Annotated[list[FiniteFloat], Field(min_length=1, max_length=1000)]] = Field(
        default={},
        description="Of a model that reads no prompts: inputs that stay through a loop, by name, a number a picture.",
    )

    def context(
        self,
        program: Program,
        model: Any,
        seed: int,
        reporter: Silent,
        sampler: Mapping[str, Any] | None = None,
    ) -> Context:
        """Over ``program`` of ``model``: of a whole pipeline by drawing prompts, of any other by loops of the
        ``sampler``, or by drawn inputs where it is not known how the model is sampled.

        Raises UserError for prompts without a pipeline, for a pipeline without prompts, and for values without a loop.
        """
        reads = is_pipeline(model)
        if self.prompts is None:
            if reads:
                raise UserError(f"the recipe calibrates {model} with no prompts; name a file as prompts.")
            if sampler and denoises(program):
                reporter.stage("calibrate")
                return Loops(sampler, seed, self.values, reporter.update).context(
                    program,
                    pictures=self.pictures,
                    steps=self.steps,
                    most_calls=self.calls,
                    spread=self.spread,
                )
            if self.values:
                why = (
                    "and it is none of one sample that comes out again; leave them out."
                    if sampler
                    else "whose sampler is not known; name it as --sampler, or leave them out."
                )
                raise UserError(f"the recipe gives values to loops of {model}, {why}")
            calls = drawn_calls(program, min(self.calls, self.steps), seed)
            return Context(
                seed=seed,
                referee=Interpreter,
                calibration=calls,
                reference=program,
                progress=reporter.update,
            )
        if self.values:
            raise UserError(f"the recipe calibrates {model} with prompts; leave out values.")
        if not reads:
            raise UserError(
                f"the recipe calibrates with prompts, and {model} reads none; give the folder of a whole pipeline."
            )
        from .quality.evaluate import read_prompts
        from .quality.studio import Studio

        prompts = read_prompts(self.prompts)[: self.pictures]
        reporter.stage("calibrate")
        studio = Studio(
            Path(model), prompts, steps=self.steps, guidance_scale=self.guidance_scale, progress=reporter.update,
            folder_kept=cache_folder() / "trajectories",
        )  # fmt: skip
        return studio.context(program, seed, most_calls=self.calls, spread=self.spread)


def drawn_calls(program: Program, count: int, seed: int) -> list[dict[str, NDArray[Any]]]:
    """Calls with normal noise for every input, or any of the classes, at timesteps from the last to the first.

    They show what a model of random weights, or one whose data are not at hand, computes on noise: enough to compile
    and time it, and no more.
    """
    rng = np.random.default_rng(seed)
    given = [value for value in program.variants["full"].graph.inputs if value.name in program.rates]

    def drawn(value: ir.Value, timestep: float) -> NDArray[Any]:
        if program.rates[str(value.name)] is not Rate.STEP:
            return drawn_input(value, rng)
        assert value.shape is not None and value.dtype is not None
        return np.full(value.shape.numpy(), timestep).astype(value.dtype.numpy())

    times = np.linspace(TIMESTEPS - 1, 0, count).round()
    return [{str(value.name): drawn(value, time) for value in given} for time in times.tolist()]
