"""The trained parts as one diffusers pipeline folder, in half precision."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline
from transformers import CLIPTokenizer

from . import models
from .train_denoiser import Denoiser


def pipeline(
    autoencoder: AutoencoderKL, denoiser: Denoiser, tokenizer: CLIPTokenizer
) -> StableDiffusionPipeline:
    return StableDiffusionPipeline(
        vae=autoencoder,
        text_encoder=denoiser.text_encoder,
        tokenizer=tokenizer,
        unet=denoiser.unet,
        scheduler=models.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def save(made: StableDiffusionPipeline, folder: Path) -> None:
    made.to(torch.float16).save_pretrained(folder, safe_serialization=True)
    for part in ("unet", "vae"):
        config = folder / part / "config.json"
        facts = json.loads(config.read_text(encoding="utf-8"))
        facts.pop("_name_or_path", None)  # where it was read from, when it is trained on
        config.write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")
