"""Trains the text encoder and the UNet together: latents from captions, by denoising."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from diffusers.models.upsampling import Upsample2D
from rich.progress import track
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import CLIPTextModel, CLIPTokenizer

from . import data, loop, models, optimisers

NAME = "denoiser"
BATCH = 64
LEARNING_RATE = 8e-4
AVERAGE_DECAY = 0.999
CAPTION_DROP = 0.1
VIEWS = 5  # augmented latents of every picture, encoded once


@dataclass(frozen=True)
class Denoiser:
    text_encoder: CLIPTextModel
    unet: UNet2DConditionModel
    steps_trained: int


def new(tokenizer: CLIPTokenizer) -> Denoiser:
    """As drawn, before any training."""
    torch.manual_seed(0)
    return Denoiser(models.text_encoder(tokenizer), models.unet(), 0)


def train(
    begun: Denoiser, emojis: list[data.Emoji], latents: Tensor, tokenizer: CLIPTokenizer, steps: int, folder: Path,
    device: torch.device, *, compiled: bool,
) -> Denoiser:  # fmt: skip
    """Trains on what is `begun`; `latents` is [views, n, 4, 16, 16], already scaled to a deviation of one."""
    text_encoder, unet = begun.text_encoder.train(), begun.unet.train()
    pair = nn.ModuleDict({"text_encoder": text_encoder, "unet": unet}).to(device)
    scheduler = models.scheduler()
    call = _compiled(unet) if compiled else unet.to(memory_format=torch.channels_last)

    def loss(step: int) -> Tensor:
        draw, words = torch.Generator().manual_seed(step), random.Random(step)
        rows = torch.randint(len(emojis), (BATCH,), generator=draw)
        views = torch.randint(len(latents), (BATCH,), generator=draw)
        clean = latents[views, rows].float()
        noise = torch.randn(clean.shape, generator=draw)
        times = torch.randint(scheduler.config.num_train_timesteps, (BATCH,), generator=draw)
        captions = [
            "" if words.random() < CAPTION_DROP else emojis[row].drawn_caption(words) for row in rows.tolist()
        ]
        tokens = tokenizer(
            captions, padding="max_length", max_length=models.MAX_TOKENS, truncation=True, return_tensors="pt"
        )
        states = text_encoder(tokens.input_ids.to(device)).last_hidden_state
        noisy = scheduler.add_noise(clean, noise, times)
        target = scheduler.get_velocity(clean, noise, times)
        output = call(noisy.to(device), times.to(device), states).sample.float()
        # No weight falls with the signal (as min-SNR's does): what a prompt decides is decided in the noise.
        return (output - target.to(device)).square().mean()

    stage = loop.Stage(NAME, pair, loss, steps, LEARNING_RATE, AVERAGE_DECAY, optimisers.muon)
    loop.train(stage, folder, device)
    return Denoiser(text_encoder.eval(), unet.eval(), begun.steps_trained + steps)


def _compiled(unet: UNet2DConditionModel) -> nn.Module:
    """As it trains fastest on a CPU."""
    unet.to(memory_format=torch.channels_last)
    unet.set_attn_processor(
        AttnProcessor()
    )  # products and a softmax, which are fused; the whole one is slow backwards
    for module in unet.modules():
        if isinstance(module, Upsample2D):
            # torch 2.13 compiles the gradient of interpolation on a CPU into zeros.
            module.interpolate = False
            module.register_forward_pre_hook(_doubled)
    return torch.compile(unet)  # type: ignore[return-value]


def _doubled(_: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    image, *rest = arguments
    images, channels, height, width = image.shape
    spread = image[:, :, :, None, :, None].expand(images, channels, height, 2, width, 2)
    return spread.reshape(images, channels, 2 * height, 2 * width), *rest


@torch.no_grad()
def encode_views(
    autoencoder: AutoencoderKL, pictures: Tensor, flippable: Tensor, folder: Path, device: torch.device
) -> Tensor:
    """[views, n, 4, 16, 16] in half precision, kept in the folder."""
    kept = folder / "latents.safetensors"
    if kept.exists():
        return load_file(kept)["latents"]
    views = []
    for view in track(range(VIEWS), "latents"):
        draw = torch.Generator().manual_seed(view)
        parts = []
        for picture, flip in zip(pictures.split(64), flippable.split(64), strict=True):
            with torch.autocast(device.type, torch.bfloat16):
                posterior = autoencoder.encode(data.augment(picture, flip, draw).to(device)).latent_dist
            parts.append(posterior.mean.half().cpu())
        views.append(torch.cat(parts) * autoencoder.config.scaling_factor)
    latents = torch.stack(views).contiguous()
    save_file({"latents": latents}, kept)
    return latents
