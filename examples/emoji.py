"""``make demo``: a trained text-to-image pipeline, compiled for this machine, draws emojis.

Leaves out/emoji.fick and out/emoji.png and prints how the bundle compares with diffusers, both measured in this run.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

import fick
from fick.compiler import pictures
from fick.compiler.bench.rounds import measure
from fick.compiler.progress import terminal
from fick.compiler.quality.drawing import PipelineArtist
from fick.compiler.quality.fidelity import psnr_db
from fick.runtime import TextToImage, png

MODEL = Path(__file__).resolve().parents[1] / "models" / "emoji-sd"
PROMPTS = (
    "google smiley, smiling face with heart shaped eyes", "google smiley, smiling face with sunglasses",
    "twitter smiley, loudly crying face", "google nature, pig face", "google nature, penguin",
    "twitter nature, sunflower", "google food, red apple", "google food, slice of pizza",
    "google place, automobile", "twitter activity, soccer ball", "google object, umbrella",
    "google flag, japan flag",
)  # fmt: skip
COLUMNS, STEPS, GUIDANCE, ROUNDS = 6, 20, 5.0, 5


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with terminal() as reporter:
        report = fick.compile(MODEL, output=folder / "emoji.fick", reporter=reporter)
    with fick.load(report.bundle) as model:
        assert isinstance(model, TextToImage)
        drawn = draw(model, folder / "emoji.png")
        facts = compare(model, drawn)
    table = Table(title="emoji-sd, 64 x 64, from a prompt", show_header=False, title_justify="left")
    table.add_row("weights", f"{report.weight_bytes:,} bytes")
    table.add_row("peak memory (weights, arena, state)", f"{report.peak_bytes:,} bytes")
    table.add_row(f"a picture of {STEPS} steps, fick", f"{facts['fick_s']:.3f} s")
    table.add_row("a picture, diffusers on torch, same run", f"{facts['diffusers_s']:.3f} s")
    table.add_row("fick / diffusers (median of pairs)", f"{facts['ratio']:.2f}")
    table.add_row("PSNR between the two, same seeds (least)", f"{facts['psnr_db']:.1f} dB")
    Console().print(table)
    print(f"{report.bundle} and {folder / 'emoji.png'} are written.")


def draw(model: TextToImage, path: Path) -> list[np.ndarray]:
    """A picture of each prompt, drawn from its number as the seed."""
    drawn: list[np.ndarray] = []
    with terminal() as reporter:
        reporter.stage("draw")
        for seed, prompt in enumerate(PROMPTS):
            drawn.append(model.generate(prompt, seed=seed, steps=STEPS, guidance_scale=GUIDANCE))
            reporter.update(len(drawn), len(PROMPTS))
        reporter.finish()
    png.save(pictures.grid(drawn, COLUMNS), path)
    return drawn


def compare(model: TextToImage, drawn: list[np.ndarray]) -> dict[str, float]:
    """Times in interleaved rounds, and how near the pictures are to those that diffusers draws."""
    theirs = PipelineArtist(MODEL)
    nearness = [
        psnr_db(theirs.draw(prompt, seed, STEPS, GUIDANCE).picture, drawn[seed])
        for seed, prompt in enumerate(PROMPTS[:ROUNDS])
    ]
    with terminal() as reporter:
        reporter.stage("measure")
        timings = measure(
            {
                "fick": lambda: model.generate(PROMPTS[0], steps=STEPS, guidance_scale=GUIDANCE),
                "diffusers": lambda: theirs.draw(PROMPTS[0], 0, STEPS, GUIDANCE).picture,
            },
            ROUNDS,
            reporter.update,
        )
        reporter.finish()
    pairs = zip(timings["fick"].rounds_s, timings["diffusers"].rounds_s, strict=True)
    return {
        "fick_s": timings["fick"].summary()["median"],
        "diffusers_s": timings["diffusers"].summary()["median"],
        "ratio": float(np.median([mine / other for mine, other in pairs])),
        "psnr_db": min(nearness),
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out"))
