"""The recipe that a budget stands for: formats by the optimiser, calibrated and, where there are prompts, corrected."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..ir.errors import UserError
from ..passes.assign import Assign, AssignConfig
from ..passes.assign.formats import FormatName
from ..passes.base import Pass
from ..passes.budget import read
from ..passes.correct import CorrectBias, CorrectNoise
from ..passes.learned.distil import Distil
from ..passes.split_joins import SplitJoins
from .calibration import Calibration
from .frontends import is_pipeline
from .recipes import Recipe

FORMATS: tuple[FormatName, ...] = ("float32", "w8a8", "w4a8")
"""Those that are both small and fast."""

LEARNED_FROM = 32
"""Pictures: what is learned from the few that ranges are content with is learned by heart."""


def formats_within(budget: str) -> list[Pass[Any]]:
    """The passes that keep to it by formats alone, not corrected."""
    config = AssignConfig(budget=budget, formats=FORMATS, estimator="mse", clip_weights=True)
    return [SplitJoins(), Assign(config)]


def recipe_within(budget: str, model: Any, prompts: Path | None, distil: bool = False) -> Recipe:
    """For ``fick compile --budget``: ``model`` is what is compiled, ``prompts`` a file of what to calibrate it with.
    With ``distil`` weights and scales are learned as well, in place of correcting means.

    Raises UserError for text that is no budget, for a pipeline without prompts, and for prompts that cannot be read or
    that the model cannot.
    """
    try:
        read(budget)
    except ValueError as error:
        raise UserError(f"--budget: {error}") from None
    reads = is_pipeline(model)
    if reads and prompts is None:
        raise UserError(
            f"--budget measures what {model} loses on prompts: give a file of them, one a line, as --calibrate."
        )
    if prompts is not None:
        from .quality.evaluate import read_prompts

        read_prompts(prompts)
        if not reads:
            raise UserError(f"--calibrate {prompts}: {model} reads no prompts; leave them out.")
    passes = formats_within(budget)
    if distil:
        passes.append(Distil())
    elif reads:
        passes.append(CorrectBias())
    if reads:
        passes.append(CorrectNoise())
    calibration = Calibration(prompts=prompts)
    if distil and reads:
        calibration = calibration.model_copy(update={"pictures": LEARNED_FROM})
    return Recipe(passes=tuple(passes), calibration=calibration)
