"""One budget shared by pruning, formats and reuse, against each of the three by itself, on emoji-sd.

    python benchmarks/joint.py [--shares 0.5,0.35,0.25] [--within 3600] [--prompts 256] [--folder out/joint]

For every share of the float model's latency a recipe is searched as `fick compile --budget --within` does, and each
pass is given the whole budget alone, corrected as a search would. Bundles draw prompts of the concepts that the model
knows, none of which anything was calibrated or chosen with, and are timed in turns with the float bundle. Searches,
bundles, drawings and rows are kept: run it again to go on. FOLDER/pareto.png has measured speed across and quality up,
FOLDER/joint-*.png each search's trials.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from caching import in_turns, pareto, show, worth
from emoji_rows import GUIDANCE, MODEL, Folder, Prompts, drawn, kept, made_of
from json_file import JsonFile, write_json

import fick
from fick.compiler.budgets import recipe_within
from fick.compiler.calibration import Calibration
from fick.compiler.progress import Silent, terminal
from fick.compiler.quality.evaluate import Prompt, read_prompts
from fick.compiler.recipes import Recipe
from fick.ir.errors import UserError
from fick.ir.files import write_whole
from fick.passes.base import Pass
from fick.passes.correct import CorrectNoise, CorrectReuse
from fick.passes.prune import PruneBlocks, PruneBlocksConfig
from fick.passes.schedule import ScheduleReuse, ScheduleReuseConfig

PROMPTS = MODEL / "prompts-held-out.txt"
STEPS = 20
"""Those that a search judges by."""


def alone(share: float) -> dict[str, Recipe]:
    """What each pass makes of the whole budget."""
    budget = f"latency={share:g}x"
    calibration = Calibration(prompts=PROMPTS, guidance_scale=GUIDANCE, steps=STEPS)
    chains: dict[str, tuple[Pass[Any], ...]] = {
        "blocks": (PruneBlocks(PruneBlocksConfig(budget=budget)), CorrectNoise()),
        "reuse": (ScheduleReuse(ScheduleReuseConfig(budget=budget, steps=(STEPS,))), CorrectReuse()),
    }
    recipes = {name: Recipe(passes=chain, calibration=calibration) for name, chain in chains.items()}
    return {**recipes, "formats": recipe_within(budget, MODEL, PROMPTS)}


def main(
    shares: Annotated[str, typer.Option(help="Of the float model's latency, with commas.")] = "0.5,0.35,0.25",
    within: Annotated[float, typer.Option(help="Of a search [s].")] = 3600,
    prompts: Prompts = 256,
    target: Annotated[str, typer.Option(help="A device profile that this machine runs.")] = "host",
    folder: Folder = Path("out/joint"),
    json_file: JsonFile = None,
) -> None:
    """Make the rows that are not there yet, print all and plot them."""
    folder.mkdir(parents=True, exist_ok=True)
    asked = read_prompts(MODEL / "prompts.txt")[:prompts]
    found: dict[str, dict[str, Any]] = {}
    with terminal() as reporter:
        reference = folder / "float.fick"
        fick.compile(MODEL, target, reference, reporter=reporter)
        for share in map(float, shares.split(",")):
            for policy, recipe in {"all three": None, **alone(share)}.items():
                path = folder / f"{'joint' if recipe is None else policy}-{share:g}.fick"
                try:
                    if recipe is None:
                        fick.compile(
                            MODEL, target, path, budget=f"latency={share:g}x", calibrate=PROMPTS, within_s=within,
                            reporter=reporter,
                        )  # fmt: skip
                    else:
                        fick.compile(MODEL, target, path, recipe=recipe, reporter=reporter)
                except UserError as error:
                    print(f"{policy}, {share:g}x: {error}")
                    continue
                found[f"{policy}, {share:g}x"] = row(path, policy, reference, asked, folder, reporter)
        reporter.finish()
    if not found:
        raise typer.Exit(1)  # each policy has said why
    show(found)
    write_whole(folder / "pareto.png", pareto(found))
    write_json(json_file, found)


def row(
    path: Path, policy: str, reference: Path, asked: list[Prompt], folder: Path, reporter: Silent
) -> dict[str, Any]:
    """A bundle's measured speed and quality; from the folder if it was made of the same bytes."""

    def make() -> dict[str, Any]:
        facts = drawn(path.stem, path, reference, asked, folder, reporter, steps=STEPS)
        reporter.stage(f"{path.stem}: time")
        return {
            "policy": policy,
            "steps": STEPS,
            **worth(facts),
            "image_s": in_turns(reference, path, asked[0].text, STEPS, STEPS, reporter),
        }

    return kept(folder / "rows" / f"{path.stem}.json", made_of(path, reference, asked, STEPS), make)


if __name__ == "__main__":
    typer.run(main)
