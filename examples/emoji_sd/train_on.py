"""Trains the UNet and the text encoder of a finished emoji-sd on; all else of it stays.

    python -m emoji_sd.train_on models/emoji-sd --steps 6000 [--folder FOLDER] [--output PIPELINE]     (in examples/)

Checkpoints and goes on where it was, as ``emoji_sd.train`` does. The losses are drawn into curve-on.png.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Annotated

import torch
import typer
from diffusers import StableDiffusionPipeline

from . import card, curve, data, export, sheet, train_denoiser
from .train import Compiled, Threads, fastest, judge_pictures

PROMPTS = ("prompts.txt", "prompts-held-out.txt")


def main(
    pipeline: Annotated[Path, typer.Argument(help="The finished pipeline.")],
    steps: Annotated[int, typer.Option(help="More steps.")] = 5000,
    folder: Annotated[Path, typer.Option(help="Checkpoints, curves and downloads.")] = Path(
        "out/emoji-sd-on"
    ),
    output: Annotated[Path, typer.Option(help="The pipeline that comes of it.")] = Path(
        "out/emoji-sd-on/made"
    ),
    compiled: Compiled = False,
    threads: Threads = 0,
) -> None:
    """Train on, export, and print how good it is."""
    device = fastest(threads)
    emojis, pixels = data.load(folder / "npm")
    known = [number for number, emoji in enumerate(emojis) if not emoji.held_out]
    pictures = torch.from_numpy(pixels[known]).permute(0, 3, 1, 2).float() / 127.5 - 1
    flippable = torch.tensor([emojis[number].flippable for number in known])

    made = StableDiffusionPipeline.from_pretrained(pipeline, torch_dtype=torch.float32)
    made.vae.to(device)
    latents = train_denoiser.encode_views(made.vae, pictures, flippable, folder, device)
    begun = train_denoiser.Denoiser(made.text_encoder, made.unet, _measures(pipeline)["denoiser_steps"])
    denoiser = train_denoiser.train(
        begun, [emojis[number] for number in known], latents, made.tokenizer, steps, folder, device,
        compiled=compiled,
    )  # fmt: skip

    done = export.pipeline(made.vae, denoiser, made.tokenizer)
    sheet.draw(done, output / "contact-sheet.png")
    export.save(done, output)
    if output.resolve() != pipeline.resolve():
        shutil.copytree(pipeline / "judge", output / "judge", dirs_exist_ok=True)
        for kept in ("curve.png", *PROMPTS):
            shutil.copyfile(pipeline / kept, output / kept)
    curve.draw(folder, output / "curve-on.png")
    measures = _measures(pipeline) | {"denoiser_steps": denoiser.steps_trained}
    measures |= {name: judge_pictures(output, output / name) for name in PROMPTS}
    card.write(measures, done, output)
    (output / "measures.json").write_text(json.dumps(measures, indent=1) + "\n")
    print(json.dumps(measures, indent=1))


def _measures(pipeline: Path) -> dict:
    return json.loads((pipeline / "measures.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    typer.run(main)
