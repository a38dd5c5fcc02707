"""What low precision does to emoji-sd's pictures, and what it saves: every row compiled, drawn and judged.

    python benchmarks/precision.py [--prompts 256] [--only W8A8 --only ...] [--json out/precision.json]

Each row is a recipe. Its bundle draws every prompt from the same seed as the float bundle, with 20 DDIM steps at
guidance 5. A step's time is beside the float bundle's, in interleaved rounds after all pictures. Calibration draws
prompts of concepts that the model has never seen, and none of those that are judged.
Bundles, drawings and finished rows are kept in --folder: run it again to go on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import typer
from emoji_rows import (
    BEST,
    GUIDANCE,
    Folder,
    Only,
    Passes,
    Prompts,
    asked,
    bundle,
    drawn,
    interval,
    kept,
    made_of,
    paced,
    quantise,
)
from json_file import JsonFile, write_json
from tables import show_table

import fick
from fick.compiler.progress import Silent, terminal
from fick.compiler.quality.evaluate import Prompt
from fick.passes.assign import Assign, AssignConfig
from fick.passes.correct import CorrectBias, CorrectNoise
from fick.passes.learned.blocks import DistilBlocks
from fick.passes.learned.distil import Distil
from fick.passes.learned.low_rank import LowRank
from fick.passes.learned.rounding import LearnRounding
from fick.passes.prune import PruneBlocks, PruneBlocksConfig
from fick.passes.quantise import QuantiseByStep, QuantiseByStepConfig
from fick.passes.split_joins import SplitJoins
from fick.runtime import TextToImage

STEPS = 20
PICTURES = 32
"""Of the calibration: what is learned from eight is learned by heart."""


def pruned(share: float) -> PruneBlocks:
    return PruneBlocks(PruneBlocksConfig(budget=f"latency={share}x"))


W4A8 = {"weights": "int4", **BEST}

MIXED = Assign(AssignConfig(budget="bytes=0.171x", formats=("w8a8", "w4a8"), **BEST))
"""4.5 bits a weight or so, wherever they hurt least."""

ROWS: dict[str, Passes] = {
    "float32": (),
    "W8A8 naive": (quantise(),),
    "W8A8": (SplitJoins(), quantise(**BEST), CorrectBias(), CorrectNoise()),
    "W8A8 per step": (SplitJoins(), quantise(**BEST, per_step=True), CorrectBias(), CorrectNoise()),
    "W8A8 with attention": (SplitJoins(), quantise(**BEST, attention=True), CorrectBias(), CorrectNoise()),
    "FP8": (SplitJoins(), quantise(weights="fp8", activations="fp8", **BEST), CorrectBias(), CorrectNoise()),
    "E4M3": (
        SplitJoins(),
        quantise(weights="e4m3", activations="e4m3", **BEST),
        CorrectBias(),
        CorrectNoise(),
    ),
    "W8 weights alone": (quantise(activations="float32"),),
    "W4 weights alone": (quantise(weights="int4", activations="float32", clip_weights=True),),
    "W4 weights alone, blocks of 32": (
        quantise(weights="int4", activations="float32", clip_weights=True, block=32),
    ),
    "FP4 weights alone": (quantise(weights="fp4", activations="float32", clip_weights=True),),
    "FP4A8": (SplitJoins(), quantise(weights="fp4", activations="fp8", **BEST)),
    "W4A8 naive": (quantise(weights="int4"),),
    "W4A8 ranges": (quantise(**W4A8),),
    "W4A8 split": (SplitJoins(), quantise(**W4A8)),
    "W4A8 per step": (SplitJoins(), quantise(**W4A8, per_step=True)),
    "W4A8 by step": (SplitJoins(), QuantiseByStep(QuantiseByStepConfig(**W4A8))),
    "W4A8 low rank": (SplitJoins(), LowRank(), quantise(**W4A8)),
    "W4A8 learned": (SplitJoins(), quantise(**W4A8), LearnRounding()),
    "W4A8 distilled": (SplitJoins(), quantise(**W4A8), Distil(), CorrectNoise()),
    "W4A8 corrected": (SplitJoins(), quantise(**W4A8), LearnRounding(), CorrectBias(), CorrectNoise()),
    "W4A8 assigned": (SplitJoins(), MIXED),
    **{f"pruned to {share}x": (pruned(share),) for share in (0.8, 0.65, 0.5)},
    **{f"pruned to {share}x, distilled": (pruned(share), DistilBlocks()) for share in (0.8, 0.65, 0.5)},
    "pruned to 0.65x, distilled, W8A8": (
        pruned(0.65),
        DistilBlocks(),
        SplitJoins(),
        quantise(**BEST),
        CorrectBias(),
        CorrectNoise(),
    ),
    "W4A8 assigned, learned": (SplitJoins(), MIXED, LearnRounding(), CorrectNoise()),
}
FLOAT = "float32"


def main(
    prompts: Prompts = 256,
    only: Only = None,
    folder: Folder = Path("out/precision"),
    json_file: JsonFile = None,
) -> None:
    """Make the rows that are not there yet, and print all."""
    folder.mkdir(parents=True, exist_ok=True)
    given = asked(prompts, only, ROWS)
    rows: dict[str, dict[str, Any]] = {}
    with terminal() as reporter:
        reference, _ = bundle(FLOAT, ROWS[FLOAT], folder, reporter)
        for name in only or ROWS:
            rows[name] = row(name, reference, given, folder, reporter)
        for name, facts in rows.items():
            reporter.stage(f"{name}: time")
            facts["step"] = step(Path(facts["bundle"]), reference, reporter)
        reporter.finish()
    show(rows, len(given))
    write_json(json_file, rows)


def row(name: str, reference: Path, prompts: list[Prompt], folder: Path, reporter: Silent) -> dict[str, Any]:
    """The measures of one recipe, with intervals; from the folder if it was made of the same bytes."""
    # Learning wants calls of many pictures, which all else has enough of.
    pictures, calls = (256, 2048) if "distilled" in name else (PICTURES, 256)
    path, report = bundle(name, ROWS[name], folder, reporter, pictures=pictures, calls=calls, steps=STEPS)

    def make() -> dict[str, Any]:
        facts = drawn(name, path, reference, prompts, folder, reporter, steps=STEPS)
        bits = [one["effect"]["weight_bits"] for one in report.history if "weight_bits" in one["effect"]]
        return {
            "weight_bytes": report.weight_bytes,
            "weight_bits": bits[-1] if bits else 32.0,
            "history": report.history,
            **{key: facts[key] for key in ("fidelity", "judged", "cost")},
        }

    place = folder / "rows" / f"{path.stem}.json"
    return {"bundle": str(path), **kept(place, made_of(path, reference, prompts, STEPS), make)}


def step(bundle: Path, reference: Path, reporter: Silent) -> dict[str, float]:
    """Seconds of a UNet's call, and what share that is of the float bundle's in the same rounds."""
    with fick.load(bundle) as ours, fick.load(reference) as theirs:
        assert isinstance(ours, TextToImage) and isinstance(theirs, TextToImage)
        seconds, ratio = paced(ours.unet, theirs.unet, reporter)
    return {"step_s": seconds, "ratio": ratio}


def show(rows: dict[str, dict[str, Any]], prompts: int) -> None:
    title = f"emoji-sd, {prompts} prompts, {STEPS} steps, guidance {GUIDANCE}"
    show_table(title, HEADINGS, (line(name, facts) for name, facts in rows.items()), width=150)


HEADINGS = (
    "row", "weight bits", "MB", "PSNR dB", "SSIM", "category", "retrieval", "Fréchet distance", "step",
)  # fmt: skip


def line(name: str, facts: dict[str, Any]) -> tuple[str, ...]:
    """Of the table."""
    near, judged = facts["fidelity"], facts["judged"]["candidate"]
    return (
        name,
        f"{facts['weight_bits']:.2f}",
        f"{facts['weight_bytes'] / 1e6:.1f}",
        *(interval(near[key], digits) for key, digits in (("psnr_db", 1), ("ssim", 3))),
        *(interval(judged[key], 3) for key in ("category_accuracy", "retrieval_accuracy")),
        interval(judged["frechet_distance"], 2),
        f"{1e3 * facts['step']['step_s']:.1f} ms ({facts['step']['ratio']:.2f}x)",
    )


if __name__ == "__main__":
    typer.run(main)
