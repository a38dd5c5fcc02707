"""The trained parts as one diffusers pipeline folder, in half precision."""

from __future__ import annotations

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
