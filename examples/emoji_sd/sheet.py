"""A contact sheet: sixty-four prompts, one picture each, from fixed seeds."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from . import data

PROMPTS = [
    "google smiley, grinning face", "google smiley, smiling face with heart shaped eyes",
    "google smiley, loudly crying face", "google smiley, smiling face with sunglasses",
    "google smiley, clown face", "google smiley, angry face",
    "google smiley, face with party horn and party hat", "google smiley, extraterrestrial alien",
    "twitter smiley, grinning face", "twitter smiley, smiling face with heart shaped eyes",
    "twitter smiley, loudly crying face", "twitter smiley, robot face",
    "google smiley, smiling cat face with open mouth", "twitter smiley, crying cat face",
    "google smiley, blue heart", "twitter smiley, green heart", "google nature, dog face",
    "google nature, cat face", "google nature, pig face", "google nature, penguin", "google nature, fish",
    "google nature, elephant", "google nature, deciduous tree", "google nature, palm tree",
    "twitter nature, dog face", "twitter nature, tiger face", "twitter nature, frog face",
    "twitter nature, bird", "twitter nature, spouting whale", "twitter nature, sunflower",
    "twitter nature, four leaf clover", "twitter nature, mushroom", "google food, red apple",
    "google food, banana", "google food, slice of pizza", "google food, hamburger",
    "google food, birthday cake", "google food, hot beverage", "twitter food, strawberry",
    "twitter food, doughnut", "google place, house building", "google place, automobile", "google place, bus",
    "google place, rocket", "twitter place, airplane", "twitter place, full moon symbol",
    "twitter place, rainbow", "twitter place, tractor", "google activity, basketball and hoop",
    "google activity, wrapped present", "twitter activity, soccer ball", "twitter activity, trophy",
    "google place, umbrella with rain drops", "google object, electric light bulb", "google object, books",
    "google object, guitar", "twitter object, television", "twitter object, bell", "twitter object, hammer",
    "twitter object, envelope", "google flag, france flag", "google flag, japan flag",
    "twitter flag, switzerland flag", "twitter flag, canada flag",
]  # fmt: skip
COLUMNS, STEPS, GUIDANCE = 8, 30, 4.0


def draw(pipeline: StableDiffusionPipeline, path: Path, prompts: list[str] = PROMPTS) -> None:
    """Writes the sheet; prompts run along its rows."""
    pipeline.set_progress_bar_config(disable=True)
    sheet = Image.new("RGB", (COLUMNS * data.SIZE, -(-len(prompts) // COLUMNS) * data.SIZE), "white")
    for start in range(0, len(prompts), COLUMNS):
        row = prompts[start : start + COLUMNS]
        seeds = [torch.Generator().manual_seed(start + offset) for offset in range(len(row))]
        made = pipeline(row, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=seeds)
        for offset, image in enumerate(made.images):
            sheet.paste(image, (offset * data.SIZE, start // COLUMNS * data.SIZE))
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)
