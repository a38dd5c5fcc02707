"""The recipe that a budget and some time stand for: ``fick compile --budget latency=0.25x --within 30min``."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ...ir.errors import UserError
from ...ir.program import Program
from ...passes.budget import read
from ...passes.costs import CostModel
from ..cache import cache_folder, digest
from ..calibration import Calibration
from ..frontends import Whole
from ..kept_imports import import_source
from ..programs import unchanged
from ..progress import Silent
from ..quality.evaluate import Prompt, read_prompts
from ..quality.judge import Judge
from ..quality.studio import Studio
from ..recipes import Recipe, read_recipe
from .beside import Beside
from .halving import FACTOR, Clock, Rung, Trial, best, search
from .plot import draw
from .split import Parting
from .written import fields

PACKAGES = ("optuna", "sqlalchemy")

FEWEST = 4
"""Pictures of the first rung."""

MOST_RUNGS = 3

MEASURES = ("ssim", "retrieval_accuracy")
"""Of pictures: how near they are to the float model's and, where the pipeline has a judge, whether they show what was
asked.
"""


def recipe_within(
    budget: str,
    limit_s: float,
    whole: Whole,
    folder: Path,
    calibration: Calibration,
    bundle: Path,
    *,
    cost_model: CostModel,
    settings: Sequence[object],
    seed: int,
    reporter: Silent,
) -> Recipe:
    """The best that was found for the pipeline in ``folder``, written beside the ``bundle`` as NAME.toml, with all
    trials as NAME.png.

    Trials lie in the cache, under the digest of the pipeline, the budget and the ``settings``: the same again goes on,
    or finds its time spent and takes what is known. Raises UserError for packages that are missing, for files of
    these names that no search wrote, and if no trial was judged within the time.
    """
    if not all(map(find_spec, PACKAGES)):
        raise UserError("--within needs more packages; install them with `pip install 'fick[explore]'`.")
    assert calibration.prompts is not None
    read_by = [calibration.model_dump_json(exclude={"prompts"}), calibration.prompts.read_bytes().hex()]
    name = digest(whole.components, ["joint", budget, *read_by, seed, *settings])
    place = cache_folder() / "searches"
    place.mkdir(parents=True, exist_ok=True)
    beside = Beside(bundle, place / "written")
    reporter.stage("import")
    program = unchanged(import_source(whole.main))
    heard = _Heard(reporter)
    context = Recipe(calibration=calibration).context(program, folder, seed, heard)
    context = replace(context, quality=None, cost_model=cost_model, progress=heard.update)
    parting = Parting(program, context, read(budget), calibration.steps)
    judge = Judge(folder / "judge") if (folder / "judge").is_dir() else None
    rungs = _rungs(program, folder, calibration, judge, seed, heard)

    def progress(trials: Sequence[Trial]) -> None:
        found = best(trials)
        so_far = f", best {found.score:.3f}" if found else ""
        reporter.rename(f"trial {len(trials) + 1}{so_far}")

    reporter.stage("search")
    clock = Clock(limit_s, lambda spent_s, limit_s: reporter.update(round(spent_s), round(limit_s)))
    heard.tell = lambda done, total: clock.check()
    trials = search(place / f"{name}.db", parting, rungs, clock, seed, progress)
    found = best(trials)
    if found is None:
        reasons = [one.reason for one in trials if one.reason]
        why = f"; {reasons[-1]}" if reasons else ""
        raise UserError(
            f"no recipe for --budget {budget} was judged within {limit_s:.0f} s ({len(reasons)} could not be made"
            f"{why}); what was measured is kept: give more time, or a larger budget."
        )
    reporter.stage("write")
    measures = ", ".join(f"{name} {value:.4g}" for name, value in found.measures[found.pictures].items())
    costs = ", ".join(f"{name} {found.cost[name] / parting.plain[name]:.4g}x" for name in parting.wanted)
    said = f"# --budget {budget}: {costs} of the float model's; {measures} in {found.pictures} pictures."
    prompts = os.path.relpath(calibration.prompts, bundle.parent)
    told = {**calibration.model_dump(mode="json", exclude_defaults=True), "prompts": prompts}
    head = [said, "", "[calibration]", *fields(told), ""]
    beside.write(beside.recipe, ("\n".join(head) + found.recipe).encode())
    title = f"{folder.resolve().name}, --budget {budget}: {len(trials)} trials"
    beside.write(beside.picture, draw(trials, found, parting.plain, next(iter(parting.wanted)), title))
    reporter.finish()
    return read_recipe(beside.recipe)


class _Heard(Silent):
    """Where what draws and measures tells of its progress: the user at first, the search's clock in trials."""

    def __init__(self, reporter: Silent) -> None:
        super().__init__()
        self.stage = reporter.stage
        self.tell: Callable[[int, int], object] = reporter.update

    def update(self, done: int, total: int) -> None:
        self.tell(done, total)


def _rungs(
    program: Program, folder: Path, calibration: Calibration, judge: Judge | None, seed: int, heard: Silent
) -> list[Rung]:
    """Prompts that passes are not calibrated with, where there are enough; all of them in the last rung at most."""
    assert calibration.prompts is not None
    every = read_prompts(calibration.prompts)
    others = every[calibration.pictures :]
    asked = others if len(others) >= FEWEST else every
    counts = [min(FEWEST * FACTOR**index, len(asked)) for index in range(MOST_RUNGS)]
    return [
        Rung(count, _judged(program, folder, calibration, asked[:count], judge, seed, heard))
        for count in dict.fromkeys(counts)
    ]


def _judged(
    program: Program,
    folder: Path,
    calibration: Calibration,
    prompts: Sequence[Prompt],
    judge: Judge | None,
    seed: int,
    heard: Silent,
) -> Callable[[Program], Mapping[str, float]]:
    @cache
    def quality() -> Callable[[Program], Mapping[str, float]]:
        studio = Studio(
            folder, prompts, steps=calibration.steps, guidance_scale=calibration.guidance_scale, judge=judge,
            progress=heard.update, folder_kept=cache_folder() / "trajectories",
        )  # fmt: skip
        found = studio.context(program, seed).quality
        assert found is not None
        return found

    def measures(changed: Program) -> dict[str, float]:
        found = quality()(changed)
        return {name: float(found[name]["value"]) for name in MEASURES if name in found}  # type: ignore[index]

    return measures
