"""Trains the autoencoder: 64 x 64 x 3 pixels to 16 x 16 x 4 latents and back."""

import math
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional

from . import data, loop, models

NAME = "autoencoder"
BATCH = 32
LEARNING_RATE = 1e-3
KL_WEIGHT = 1e-6


def train(
    pictures: Tensor, flippable: Tensor, steps: int, folder: Path, device: torch.device
) -> AutoencoderKL:
    """`pictures` is [n, 3, 64, 64] in -1..1."""
    torch.manual_seed(0)
    model = models.autoencoder().to(device)

    def loss(step: int) -> Tensor:
        draw = torch.Generator().manual_seed(step)
        rows = torch.randint(len(pictures), (BATCH,), generator=draw)
        target = data.augment(pictures[rows], flippable[rows], draw).to(device)
        posterior = model.encode(target).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=draw).to(device)
        output = model.decode(posterior.mean + posterior.std * noise).sample.float()
        return _difference(output, target) + KL_WEIGHT * posterior.kl().float().mean()

    loop.train(loop.Stage(NAME, model, loss, steps, LEARNING_RATE), folder, device)
    model.eval().requires_grad_(False)
    deviation = torch.cat(
        [model.encode(part.to(device)).latent_dist.mean for part in pictures.split(64)]
    ).std()
    model.register_to_config(scaling_factor=round(1 / deviation.item(), 5))
    return model


@torch.no_grad()
def reconstruction_psnr(model: AutoencoderKL, pictures: Tensor, device: torch.device) -> float:
    """Of decoded against real pictures, in dB over all pixels, peak 2."""
    squares = [
        (model.decode(model.encode(part.to(device)).latent_dist.mode()).sample.clamp(-1, 1) - part.to(device))
        .square()
        .mean()
        .item()
        for part in pictures.split(64)
    ]
    return 10 * math.log10(4 / (sum(squares) / len(squares)))


def _difference(output: Tensor, target: Tensor) -> Tensor:
    """Of colours and of edges: the second keeps outlines sharp where the mean alone blurs them."""
    across = functional.l1_loss(output.diff(dim=3), target.diff(dim=3))
    down = functional.l1_loss(output.diff(dim=2), target.diff(dim=2))
    return functional.l1_loss(output, target) + functional.mse_loss(output, target) + across + down
