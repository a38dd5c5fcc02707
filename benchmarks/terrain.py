"""What low precision does to the terrain UNet's height maps, at one step and at four.

    python benchmarks/terrain.py [--maps 32] [--only NAME ...] [--json FILE] [--folder out/terrain]

Each row is a recipe, calibrated in loops of seeds that no map is drawn from. A map's PSNR is beside the float bundle's
of the same seed and difficulty, with the nominal range of samples, -1 to 1, as its peak; what is printed is the mean,
with a bootstrap interval. A call's time is beside the float bundle's, in interleaved rounds. maps.png has the first map
of every row.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from emoji_rows import BEST, Only, Passes, check, interval, paced, place_of, quantise, recipe_of
from json_file import JsonFile, write_json
from numpy.typing import NDArray
from tables import show_table

import fick
from fick.compiler import pictures
from fick.compiler.calibration import Calibration
from fick.compiler.progress import Silent, terminal
from fick.compiler.quality.interval import mean
from fick.passes.assign import Assign, AssignConfig
from fick.passes.correct import CorrectBias
from fick.passes.learned.distil import Distil
from fick.passes.learned.low_rank import LowRank
from fick.passes.learned.rounding import LearnRounding
from fick.passes.split_joins import SplitJoins
from fick.runtime import Model, png

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from terrain_model import SAMPLER, fetch

PEAK = 2.0
HIGHEST_DB = 100.0
"""Given for equal maps too, so that means stay finite."""

UNSEEN = 1000
"""The seed of the loops that recipes are calibrated in."""

W4 = quantise(weights="int4", activations="float32", clip_weights=True)
W4_BLOCKS = quantise(weights="int4", activations="float32", clip_weights=True, block=32)
W8A8 = quantise(**BEST, per_step=True)
MIXED = Assign(AssignConfig(budget="bytes=0.16x", formats=("w8", "w4"), clip_weights=True))
"""A sixth of the bytes of float32, wherever eight bits matter least."""

FLOAT = "float32"
ROWS: dict[str, Passes] = {
    FLOAT: (),
    "W8 naive": (quantise(activations="float32"),),
    "W8 clipped": (quantise(activations="float32", clip_weights=True),),
    "W8A8 naive": (quantise(),),
    "W8A8 per step": (SplitJoins(), W8A8, CorrectBias()),
    "W4 naive": (quantise(weights="int4", activations="float32"),),
    "W4 clipped": (W4,),
    "W4 assigned": (MIXED,),
    "W4 learned": (W4, LearnRounding()),
    "W4 in blocks of 32": (W4_BLOCKS,),
    "W4 low rank, in blocks of 32": (LowRank(), W4_BLOCKS),
    "W4 in blocks of 32, learned": (W4_BLOCKS, LearnRounding()),
    "W4 in blocks of 32, distilled": (W4_BLOCKS, Distil()),
    "W4A8 in blocks of 32, learned": (
        SplitJoins(),
        quantise(weights="int4", block=32, **BEST),
        LearnRounding(),
    ),
}

LOOPS = {1: SAMPLER["sigmas"][:1], 4: SAMPLER["sigmas"]}
"""Noise levels by the number of steps."""


def main(
    maps: Annotated[int, typer.Option(help="Height maps a row.")] = 32,
    only: Only = None,
    folder: Annotated[Path, typer.Option(help="Bundles and maps.png.")] = Path("out/terrain"),
    json_file: JsonFile = None,
) -> None:
    """Compile all rows, draw with them and print a table."""
    check(only, ROWS)
    folder.mkdir(parents=True, exist_ok=True)
    source = fetch()
    with terminal() as reporter:
        float_bundle = bundle(source, FLOAT, folder, reporter)
        wanted = drawn(float_bundle, maps)
        found: dict[str, dict[str, Any]] = {}
        first: list[NDArray[np.uint8]] = []
        for name in only or ROWS:
            path = bundle(source, name, folder, reporter)
            reporter.stage(f"{name}: draw")
            got = drawn(path, maps)
            first.append(pictures.to_pixels(got[4][0], palette=pictures.TERRAIN))
            found[name] = {
                "weight_bytes": weight_bytes(path),
                "psnr_db": {steps: vars(mean(nearness(wanted[steps], got[steps]))) for steps in LOOPS},
                **call(path, float_bundle, reporter),
            }
        reporter.finish()
    png.save(pictures.grid(first, columns=6), folder / "maps.png")
    show(found, maps)
    write_json(json_file, found)


def bundle(source: Path, name: str, folder: Path, reporter: Silent) -> Path:
    reporter.stage(f"{name}: compile")
    values = {"difficulty": [0.0, 0.25, 0.5, 0.75, 1.0]}
    calibration = Calibration(pictures=32, values=values)
    path, recipe = place_of(name, folder), recipe_of(ROWS[name], calibration)
    fick.compile(source, output=path, recipe=recipe, sampler=SAMPLER, seed=UNSEEN, reporter=reporter)
    return path


def drawn(path: Path, maps: int) -> dict[int, list[NDArray[np.float32]]]:
    """Maps [1, height, width] of either number of steps, from the flattest terrain to the most difficult."""
    with Model(path) as model:
        return {
            steps: [
                model.generate(
                    seed=seed, sampler=SAMPLER | {"sigmas": levels}, difficulty=seed / max(1, maps - 1)
                )[0]
                for seed in range(maps)
            ]
            for steps, levels in LOOPS.items()
        }


def nearness(wanted: list[NDArray[np.float32]], got: list[NDArray[np.float32]]) -> NDArray[np.float64]:
    """PSNR of each map [dB]."""
    with np.errstate(divide="ignore"):
        errors = [
            np.mean(np.square(one.astype(float) - other)) for one, other in zip(wanted, got, strict=True)
        ]
        return np.minimum(10 * np.log10(PEAK**2 / np.array(errors)), HIGHEST_DB)


def weight_bytes(path: Path) -> int:
    with Model(path) as model:
        return model.manifest["memory"]["weights_bytes"]


def call(path: Path, reference: Path, reporter: Silent) -> dict[str, float]:
    """Seconds of one, and what share that is of the float bundle's in the same rounds."""
    with Model(path) as ours, Model(reference) as theirs:
        seconds, ratio = paced(ours, theirs, reporter)
    return {"call_s": seconds, "ratio": ratio}


def show(found: dict[str, dict[str, Any]], maps: int) -> None:
    headings = ["row", "MB", *(f"{steps} step{'s' * (steps > 1)}, dB" for steps in LOOPS), "call"]
    rows = [
        [
            name,
            f"{facts['weight_bytes'] / 1e6:.1f}",
            *(interval(one, 1) for one in facts["psnr_db"].values()),
            f"{1e3 * facts['call_s']:.1f} ms ({facts['ratio']:.2f}x)",
        ]
        for name, facts in found.items()
    ]
    show_table(f"terrain UNet, {maps} maps", headings, rows)


if __name__ == "__main__":
    typer.run(main)
