"""Pictures of prompts, from a bundle or from a diffusers pipeline, one after the other."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...ir.errors import UserError, first_line
from ...runtime import TextToImage, load
from ...runtime.schedule import order


@dataclass(frozen=True)
class Drawing:
    """``picture`` is uint8 [height, width, 3], ``latents`` float32 [steps, channels, h, w]: one after each step."""

    picture: NDArray[np.uint8]
    latents: NDArray[np.float32]
    image_s: float


class Artist(Protocol):
    """Draws a prompt from a seed."""

    def draw(self, prompt: str, seed: int, steps: int, guidance_scale: float) -> Drawing: ...

    def cost(self, steps: int) -> dict[str, int]:
        """Bytes that a run occupies, and multiply-accumulates of a picture, as far as they are known."""
        ...


def artist(source: Path) -> Artist:
    """By what the path is: a .fick bundle or a folder. Raises UserError or FickError if it cannot draw."""
    return PipelineArtist(source) if source.is_dir() else BundleArtist(source)


class BundleArtist:
    def __init__(self, bundle: Path) -> None:
        opened = load(bundle)
        if not isinstance(opened, TextToImage):
            raise UserError(f"{bundle} reads no text; give a bundle of a whole pipeline")
        self._model = opened

    def draw(self, prompt: str, seed: int, steps: int, guidance_scale: float) -> Drawing:
        latents: list[NDArray[np.float32]] = []
        started = time.perf_counter()
        picture = self._model.generate(
            prompt,
            seed=seed,
            steps=steps,
            guidance_scale=guidance_scale,
            each_step=lambda done, latent: latents.append(latent[0]),
        )
        return Drawing(picture, np.stack(latents), time.perf_counter() - started)

    def cost(self, steps: int) -> dict[str, int]:
        memory = self._model.memory
        components = self._model.manifest["components"]
        macs = {
            name: {variant: one["macs"] for variant, one in facts["variants"].items()}
            for name, facts in components.items()
        }
        unet = macs["unet"]
        calls = order(self._model.unet.schedules, steps)
        loop = unet.get("prompt", 0) + steps * unet.get("step", 0) + sum(unet[name] for name in calls)
        around = 2 * sum(macs["text_encoder"].values()) + sum(macs["vae_decoder"].values())
        return {
            "weight_bytes": memory.weights_bytes,
            "peak_bytes": memory.peak_bytes,
            "macs_per_step": sum(unet[name] for name in calls) // steps,
            "macs_per_image": loop + around,
        }


@dataclass
class PipelineArtist:
    """A diffusers pipeline run by torch in float32."""

    folder: Path
    _pipe: Any = field(init=False, repr=False)

    def __post_init__(self) -> None:
        from ..frontends.torch_module import require_torch

        self._torch = require_torch()
        from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
        from diffusers.utils import logging

        logging.disable_progress_bar()
        try:
            self._pipe = StableDiffusionPipeline.from_pretrained(
                os.fspath(self.folder), torch_dtype=self._torch.float32, local_files_only=True
            )
        except Exception as error:  # diffusers raises its own kinds on what is missing or damaged.
            reason = first_line(error)
            raise UserError(f"{self.folder} is not a pipeline that diffusers can load: {reason}") from error
        self._pipe.set_progress_bar_config(disable=True)

    def draw(self, prompt: str, seed: int, steps: int, guidance_scale: float) -> Drawing:
        latents: list[NDArray[np.float32]] = []

        def keep(pipe: Any, index: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            latents.append(values["latents"][0].numpy().copy())
            return values

        started = time.perf_counter()
        result = self._pipe(
            prompt,
            num_inference_steps=steps,
            guidance_scale=guidance_scale,
            generator=self._torch.Generator().manual_seed(seed),
            callback_on_step_end=keep,
        )
        return Drawing(np.asarray(result.images[0]), np.stack(latents), time.perf_counter() - started)

    def calls(self, steps: int) -> int:
        """How often a picture calls the UNet."""
        self._pipe.scheduler.set_timesteps(steps)
        return len(self._pipe.scheduler.timesteps)

    def forward_snr(self, timestep: float) -> float:
        """alpha^2 / sigma^2 of the diffusion that the UNet was trained on."""
        kept = float(self._pipe.scheduler.alphas_cumprod[round(timestep)])
        return kept / (1 - kept)

    def replace_unet(self, unet: Any) -> None:
        """Draw with another UNet from now on."""
        self._pipe.unet = unet

    def cost(self, steps: int) -> dict[str, int]:
        parts = (self._pipe.unet, self._pipe.text_encoder, self._pipe.vae)
        return {"weight_bytes": sum(4 * one.numel() for part in parts for one in part.parameters())}
