"""Recipes: which optional passes a compilation runs and what they are calibrated with, as a TOML file.

    [calibration]
    prompts = "prompts.txt"  # beside the recipe, one a line

    [[pass]]
    name = "tips"
    threshold = 0.9

Every pass of ``PASSES`` may be named, with the fields of its ``Config``. ``costs = "measured"`` before all tables has
passes with a budget measure on this machine what they otherwise predict from the target's profile.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ..ir.errors import UserError, first_line
from ..ir.files import read_text
from ..ir.program import Program
from ..passes.assign import Assign
from ..passes.base import Context, Pass
from ..passes.caching import BlockCaching, DeepCache, FasterDiffusion, Fora, PredictReuse, TGate
from ..passes.correct import CorrectBias, CorrectNoise, CorrectReuse
from ..passes.costs import CostModel
from ..passes.learned.blocks import DistilBlocks
from ..passes.learned.distil import Distil
from ..passes.learned.low_rank import LowRank
from ..passes.learned.rounding import LearnRounding
from ..passes.prune import Prune, PruneBlocks, PruneChannels
from ..passes.pssa import PruneScores
from ..passes.quantise import Quantise, QuantiseByStep
from ..passes.schedule import ScheduleReuse
from ..passes.split_joins import SplitJoins
from ..passes.tips import Tips
from ..targets import profile as profiles
from .cache import cache_folder, digest
from .calibration import Calibration
from .progress import Silent

PASSES: dict[str, type[Pass[Any]]] = {
    one.name: one
    for one in (
        Assign,
        BlockCaching,
        CorrectBias,
        CorrectNoise,
        CorrectReuse,
        DeepCache,
        Distil,
        DistilBlocks,
        FasterDiffusion,
        Fora,
        LearnRounding,
        LowRank,
        PredictReuse,
        Prune,
        PruneBlocks,
        PruneChannels,
        PruneScores,
        Quantise,
        QuantiseByStep,
        ScheduleReuse,
        SplitJoins,
        TGate,
        Tips,
    )
}


class Recipe(BaseModel):
    """Optional passes, in order. A pass that needs calls of the model asks for ``calibration``."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    passes: tuple[Pass[Any], ...] = ()
    calibration: Calibration | None = None
    costs: Literal["predicted", "measured"] = "predicted"

    def cost_model(self, profile: profiles.Target, precision: str) -> CostModel:
        """What programs cost on a processor. Raises UserError if it is to be measured and this is none of the kind."""
        if self.costs == "predicted":
            from .costs.predicted import Predicted  # slow to load, as all that knows kernels is

            return Predicted(profile, precision)
        if profile.name not in [one.name for one in profiles.fitting()]:
            raise UserError(
                f"the recipe measures costs, and this machine does not run code for {profile.name}; leave out "
                "costs = 'measured', so that they are predicted."
            )
        from .costs.measured import Measured

        return Measured(profile, cache_folder(), precision)

    def check_hardware(self, kind: str, name: str) -> None:
        """Raises UserError for a pass that makes no sense on hardware ``name`` of this ``kind``."""
        for one in self.passes:
            if one.needs and one.needs != kind:
                raise UserError(
                    f"pass {one.name} needs a {one.needs} core, which {name} does not have; leave it out of the "
                    f"recipe, or estimate for hardware of kind {one.needs}."
                )

    def check_formats(self, profile: profiles.Target) -> None:
        """Raises UserError for a pass that writes what the target has no kernels for."""
        for one in self.passes:
            lacking = [name for name in one.formats if name not in profile.formats]
            if lacking:
                raise UserError(
                    f"pass {one.name} writes {', '.join(lacking)}, for which target {profile.name} has no kernels; it "
                    f"has {', '.join(profile.formats)}."
                )

    def context(
        self,
        program: Program,
        model: Any,
        seed: int,
        reporter: Silent,
        sampler: Mapping[str, Any] | None = None,
    ) -> Context:
        """What the passes may ask for, over ``program`` of ``model``. Raises UserError as calibration does."""
        context = Context(seed=seed)
        if self.calibration is not None:
            context = self.calibration.context(program, model, seed, reporter, sampler)
        # Of what earlier code found nothing is used.
        return replace(context, work_folder=cache_folder() / "passes" / str(digest({}, [])))

    def settings(self) -> list[Any]:
        """Everything that the outcome follows from, for a digest."""
        named = self.calibration.prompts if self.calibration else None
        prompts = named.read_bytes().hex() if named else ""
        passes = [[one.name, one.config.model_dump(mode="json")] for one in self.passes]
        return [
            passes,
            self.calibration.model_dump(mode="json", exclude={"prompts"}) if self.calibration else None,
            prompts,
            self.costs,
        ]


NOTHING = Recipe()


def read_recipe(path: Path) -> Recipe:
    """Raises UserError naming what is wrong and what would be right."""
    try:
        tables = tomllib.loads(read_text(path))
    except (OSError, ValueError) as error:
        raise UserError(
            f"recipe {path} cannot be read: {first_line(error)}; give a TOML file with tables [[pass]]."
        ) from None
    listed = tables.pop("pass", None)
    calibration = tables.pop("calibration", None)
    costs = tables.pop("costs", "predicted")
    if costs not in ("predicted", "measured"):
        raise UserError(f"recipe {path}, costs: {costs!r} should be 'predicted' or 'measured'.")
    if tables or not isinstance(listed, list) or not listed:
        raise UserError(
            f"recipe {path} should hold tables [[pass]], each with the name of a pass, at most one [calibration], and "
            "nothing else."
        )
    return Recipe(
        passes=tuple(_pass(one, f"recipe {path}, pass {index + 1}") for index, one in enumerate(listed)),
        calibration=None if calibration is None else _calibration(calibration, path),
        costs=costs,
    )


def _calibration(table: Any, recipe: Path) -> Calibration:
    try:
        read = Calibration.model_validate(table)
    except ValidationError as error:
        raise UserError(f"recipe {recipe}, calibration, {_said(error, Calibration)}") from None
    if read.prompts is None:
        return read
    prompts = recipe.parent / read.prompts
    if not prompts.is_file():
        raise UserError(f"recipe {recipe} calibrates with {prompts}: no such file of prompts.")
    return read.model_copy(update={"prompts": prompts})


def _pass(table: Any, where: str) -> Pass[Any]:
    name = table.get("name") if isinstance(table, dict) else None
    if not isinstance(name, str) or name not in PASSES:
        raise UserError(f"{where}: there is no pass {name!r}; the passes are {', '.join(sorted(PASSES))}.")
    kind = PASSES[name]
    try:
        return kind(kind.Config.model_validate({key: value for key, value in table.items() if key != "name"}))
    except ValidationError as error:
        raise UserError(f"{where} ({name}), {_said(error, kind.Config)}") from None


def _said(error: ValidationError, kind: type[BaseModel]) -> str:
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    return f"{field}: {first['msg']}; its parameters are {', '.join(kind.model_fields)}."
