"""A trained diffusion UNet, compiled for this machine, draws height maps.

    python examples/terrain.py [FOLDER]

Leaves terrain.fick and terrain.png in the folder (out/ by default) and prints how the compiled model compares with
ONNX Runtime, both measured in this run.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from rich.console import Console
from rich.table import Table
from terrain_model import SAMPLER, fetch

import fick
from fick.compiler import pictures
from fick.compiler.bench.peers import Task, peer
from fick.compiler.bench.rounds import measure
from fick.compiler.progress import terminal
from fick.runtime import Model, png

DIFFICULTIES = (0.1, 0.4, 0.7, 1.0)
SEEDS = (1, 2, 3)
ROUNDS = 15
SIGMAS = (80.0, 24.0, 6.0, 1.2)


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    source = fetch()
    with terminal() as reporter:
        report = fick.compile(str(source), output=folder / "terrain.fick", sampler=SAMPLER, reporter=reporter)
    with fick.load(report.bundle) as model:
        assert isinstance(model, Model)
        draw(model, folder / "terrain.png")
        facts = compare(model, source)
    nodes_before = len(onnx.load(str(source), load_external_data=False).graph.node)
    table = Table(
        title="Terrain UNet, 128 x 128, 10.46 M parameters", show_header=False, title_justify="left"
    )
    table.add_row("graph nodes, before and after", f"{nodes_before:,} and {report.nodes:,}")
    table.add_row("kernel calls a step", f"{report.calls['unet']['full']} of {report.kernels} kernels")
    table.add_row("weights", f"{report.weight_bytes:,} bytes")
    table.add_row("peak memory (weights, arena, state)", f"{report.peak_bytes:,} bytes")
    table.add_row("a step, fick", f"{facts['fick_s']:.4f} s")
    table.add_row("a step, ONNX Runtime, same run", f"{facts['onnxruntime_s']:.4f} s")
    table.add_row("fick / ONNX Runtime (median of pairs)", f"{facts['ratio']:.2f}")
    table.add_row("largest difference (output within -1..1)", f"{facts['difference']:.1e}")
    Console().print(table)
    print(f"{report.bundle} and {folder / 'terrain.png'} are written.")


def draw(model: Model, path: Path) -> None:
    """A grid: rougher terrain to the right, another seed in each row."""
    images = []
    total = len(SEEDS) * len(DIFFICULTIES)
    with terminal() as reporter:
        reporter.stage("sample")
        for seed in SEEDS:
            for difficulty in DIFFICULTIES:
                sample = model.generate(seed=seed, difficulty=difficulty)
                images.append(pictures.to_pixels(sample[0], palette=pictures.TERRAIN))
                reporter.update(len(images), total)
        reporter.finish()
    png.save(pictures.grid(images, len(DIFFICULTIES)), path)


def compare(model: Model, source: Path) -> dict[str, float]:
    """Times in interleaved rounds, and the largest difference over noise levels from 80 down to 1.2."""
    rng = np.random.default_rng(0)
    difference = 0.0
    for sigma in SIGMAS:
        feeds: dict[str, Any] = {
            "noisy": (sigma * rng.standard_normal((1, 1, 128, 128))).astype(np.float32),
            "sigma": np.array([sigma], np.float32),
            "difficulty": np.array([0.5], np.float32),
        }
        theirs = peer("onnxruntime", Task(source, feeds))
        difference = max(difference, float(np.abs(model.run(**feeds)["denoised"] - theirs()).max()))
    with terminal() as reporter:
        reporter.stage("measure")
        ours = lambda: model.run(**feeds)["denoised"]  # noqa: E731
        timings = measure({"fick": ours, "onnxruntime": theirs}, ROUNDS, reporter.update)
        reporter.finish()
    pairs = zip(timings["fick"].rounds_s, timings["onnxruntime"].rounds_s, strict=True)
    return {
        "fick_s": timings["fick"].summary()["median"],
        "onnxruntime_s": timings["onnxruntime"].summary()["median"],
        "ratio": float(np.median([mine / theirs for mine, theirs in pairs])),
        "difference": difference,
    }


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("out"))
