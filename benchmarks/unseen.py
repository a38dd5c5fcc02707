"""What is chosen by calls of some prompts is judged by calls of others, of concepts that the model knows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from fick.compiler.calibration import Calibration
from fick.compiler.frontends import UNET, open_model
from fick.compiler.programs import unchanged
from fick.compiler.progress import Silent
from fick.compiler.recipes import Recipe
from fick.ir.program import Program
from fick.passes.base import Arrays, Context
from fick.passes.keeping import kept_facts
from fick.passes.origin import origin
from fick.targets import profile

CHOOSING, JUDGING = "prompts-held-out.txt", "prompts.txt"
"""In a pipeline's folder."""


def prepared(
    model: Path,
    target: str,
    reporter: Silent,
    *,
    pictures: int,
    steps: int,
    costs: Literal["predicted", "measured"] = "predicted",
) -> tuple[Program, Context, Sequence[Arrays]]:
    """The UNet's program, what is chosen by, with costs on the target, and calls of prompts that it does not see."""
    program = unchanged(open_model(model).components[UNET].imported())
    recipes = [
        Recipe(calibration=Calibration(prompts=model / name, pictures=pictures, steps=steps), costs=costs)
        for name in (CHOOSING, JUDGING)
    ]
    chosen_by, others = (recipe.context(program, model, 0, reporter) for recipe in recipes)
    context = replace(chosen_by, cost_model=recipes[0].cost_model(profile.load(target), "float32"))
    return program, context, others.require("calibration", "unseen")


def spread(calls: Sequence[Arrays], count: int) -> list[Arrays]:
    """So many of them, evenly."""
    places = np.linspace(0, len(calls) - 1, min(count, len(calls))).round().astype(int)
    return [calls[int(place)] for place in places]


class Points:
    """Those of a chart that are finished, in the context's work folder: of ``program``, what is chosen by in its
    context, the ``unseen`` calls, and ``settings``.
    """

    def __init__(
        self, wanted_by: str, program: Program, context: Context, unseen: Sequence[Arrays], settings: Any
    ) -> None:
        told = origin([program], [*context.require("calibration", wanted_by), *unseen], settings)
        assert context.work_folder is not None
        self._folder = context.work_folder / wanted_by / told[:32]

    def kept(self, choice: Any, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """What came of a choice, such as formats by product, or else is made now."""
        return kept_facts(self._folder, choice, make)
