"""Whether a GPU's kernels draw what a processor's draw: the terrain UNet and emoji-sd on this machine's OpenCL device.

    python benchmarks/opencl_pictures.py [--precision float32 --precision float16] [--steps 20] [--json FILE]

Both bundles draw from the same seeds; of terrain one call is compared as well, with ONNX Runtime's. PoCL takes minutes
to build a pipeline's kernels. They are kept for the next run, as are the bundles in --folder.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnx_ir as ir
import typer
from json_file import JsonFile, write_json
from numpy.typing import NDArray

import fick
from fick.compiler import pictures
from fick.compiler.progress import terminal
from fick.compiler.quality.fidelity import psnr_db
from fick.ir import referee
from fick.runtime import Model, TextToImage

ROOT = Path(__file__).resolve().parents[1]
EMOJI = ROOT / "models" / "emoji-sd"
PROMPTS = ("google smiley, loudly crying face", "twitter flag, france flag")
GUIDANCE = 5.0
DIFFICULTY, SIGMA = 0.5, 6.0

LARGEST = 1e-4
"""That a call's output may be off, as a share of its largest number."""


def main(
    precision: Annotated[list[str] | None, typer.Option(help="float32 and float16.")] = None,
    steps: Annotated[int, typer.Option(help="Of emoji-sd.", min=1)] = 20,
    folder: Annotated[Path, typer.Option(help="For bundles.")] = Path("out/opencl"),
    target: Annotated[str, typer.Option(help="A profile of this machine's device.")] = "opencl-host",
    json_file: JsonFile = None,
) -> None:
    """Print a line for every picture; exit code 1 where one is another picture."""
    found = list[dict[str, Any]]()
    for stored in precision or ["float32", "float16"]:
        # Numbers inside of terrain's UNet exceed float16's: a good part of it would stay in float32.
        maps = terrain(target, folder) if stored == "float32" else ()
        for row in (*maps, *emoji(stored, target, folder, steps)):
            found.append({"precision": stored, **row})
            print("  ".join(f"{key} {value}" for key, value in found[-1].items()), flush=True)
    write_json(json_file, found)
    raise SystemExit(0 if all(row["same"] for row in found) else 1)


def bundle(model: Path, target: str, folder: Path, name: str, **settings: Any) -> Path:
    """Compiled now or in an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.fick"
    if not path.exists():
        with terminal() as reporter:
            fick.compile(model, target, path, reporter=reporter, **settings)
    return path


def terrain(target: str, folder: Path) -> Iterator[dict[str, Any]]:
    """A call against ONNX Runtime on the graph as it came, and a height map of all steps against the processor's."""
    sys.path.insert(0, str(ROOT / "examples"))
    from terrain_model import SAMPLER, fetch

    source = fetch()
    feeds: dict[str, Any] = {
        "noisy": (SIGMA * np.random.default_rng(0).standard_normal((1, 1, 128, 128))).astype(np.float32),
        "sigma": np.array([SIGMA], np.float32),
        "difficulty": np.array([DIFFICULTY], np.float32),
    }
    wanted = referee.run(ir.load(source), feeds)["denoised"]
    maps = list[NDArray[np.uint8]]()
    for name, where in (("host", "host"), ("float32", target)):
        path = bundle(source, where, folder, f"terrain-{name}", sampler=SAMPLER)
        with fick.load(path) as model:
            assert isinstance(model, Model)
            got = model.run(**feeds)["denoised"]
            height = model.generate(seed=1, difficulty=DIFFICULTY)[0]
        maps.append(pictures.to_pixels(height, palette=pictures.TERRAIN))
    off = float(np.abs(got - wanted).max() / np.abs(wanted).max())
    yield {"model": "terrain", "a call is off by": off, **compared(*maps), "same": off <= LARGEST}


def emoji(precision: str, target: str, folder: Path, steps: int) -> Iterator[dict[str, Any]]:
    """From prompts to pictures: text encoder, UNet and decoder."""
    drawn = list[list[NDArray[np.uint8]]]()
    for name, where, stored in (("host", "host", "float32"), (precision, target, precision)):
        with fick.load(bundle(EMOJI, where, folder, f"emoji-{name}", precision=stored)) as model:
            assert isinstance(model, TextToImage)
            drawn.append([
                model.generate(prompt, seed=seed, steps=steps, guidance_scale=GUIDANCE)
                for seed, prompt in enumerate(PROMPTS)
            ])  # fmt: skip
    for prompt, one, other in zip(PROMPTS, *drawn, strict=True):
        facts = compared(one, other)
        most = {"float32": facts["largest"] <= 1, "float16": facts["psnr_db"] >= 30}
        yield {"model": "emoji-sd", "prompt": repr(prompt), **facts, "same": most[precision]}


def compared(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> dict[str, float]:
    """Of 255."""
    largest = int(np.abs(one.astype(int) - other.astype(int)).max())
    return {"psnr_db": round(psnr_db(one, other), 1), "largest": largest}


if __name__ == "__main__":
    typer.run(main)
