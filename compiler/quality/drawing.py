"""Pictures of prompts, from a bundle or from a diffusers pipeline, one after the other.

What a prompt is depends on the pipeline: a text, or the number or the name of a class.
"""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from ...ir.errors import UserError, first_line
from ...runtime import ClassToImage, FickError, TextToImage, load
from ...runtime.class_to_image import class_number
from ...runtime.diffusers_unet import DiffusersUNet, Runnable
from ...runtime.schedule import order
from ..frontends import is_pipeline, is_text_to_image
from .diffusers_transformer import DiffusersTransformer


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
    return pipeline_artist(source) if source.is_dir() else BundleArtist(source)


def pipeline_artist(folder: Path) -> DiffusersArtist:
    by_class = is_pipeline(folder) and not is_text_to_image(folder)
    return ClassArtist(folder) if by_class else PipelineArtist(folder)


class BundleArtist:
    def __init__(self, bundle: Path) -> None:
        opened = load(bundle)
        if not isinstance(opened, TextToImage | ClassToImage):
            raise UserError(f"{bundle} draws no pictures of prompts; give a bundle of a whole pipeline")
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
        network = macs[next(iter(components))]
        calls = order(self._model.unet.schedules, steps, whole=self._model.unet.whole)
        loop = network.get("prompt", 0) + steps * network.get("step", 0) + sum(network[one] for one in calls)
        encoders = sum(sum(macs[name].values()) for name in self._model.ENCODERS)
        around = 2 * encoders + sum(macs["vae_decoder"].values())
        return {
            "weight_bytes": memory.weights_bytes,
            "peak_bytes": memory.peak_bytes,
            "macs_per_step": sum(network[name] for name in calls) // steps,
            "macs_per_image": loop + around,
        }


class DiffusersArtist(ABC):
    """A diffusers pipeline run by torch in float32.

    ``KIND`` is its class and ``NETWORK`` the component that denoises. Raises UserError for a folder that is none such.
    """

    KIND: ClassVar[str]
    NETWORK: ClassVar[str]

    def __init__(self, folder: Path) -> None:
        from ..frontends.torch_module import require_torch

        self._torch: Any = require_torch()
        import diffusers
        from diffusers.utils import logging

        logging.disable_progress_bar()
        try:
            self._pipe: Any = getattr(diffusers, self.KIND).from_pretrained(
                os.fspath(folder), torch_dtype=self._torch.float32, local_files_only=True
            )
        except Exception as error:  # diffusers raises its own kinds on what is missing or damaged.
            reason = first_line(error)
            raise UserError(f"{folder} is not a pipeline that diffusers can load: {reason}") from error
        self._pipe.set_progress_bar_config(disable=True)

    def draw(self, prompt: str, seed: int, steps: int, guidance_scale: float) -> Drawing:
        latents: list[NDArray[np.float32]] = []
        started = time.perf_counter()
        with self._torch.random.fork_rng(devices=[]):
            # A scheduler that is handed no generator takes noise from the stream of all.
            self._torch.manual_seed(seed)
            picture = self._drawn(
                prompt,
                lambda latent: latents.append(latent[0].numpy().copy()),
                num_inference_steps=steps,
                guidance_scale=guidance_scale,
                generator=self._torch.Generator().manual_seed(seed),
            )
        return Drawing(np.asarray(picture), np.stack(latents), time.perf_counter() - started)

    @abstractmethod
    def _drawn(self, prompt: str, keep: Callable[[Any], None], **settings: Any) -> Any:
        """A picture; ``keep`` gets the latents [rows, channels, height, width] after every step."""

    @abstractmethod
    def in_place(self, network: Runnable, config: dict[str, Any]) -> Any:
        """What pipelines of the kind call, over a compiled network or a program."""

    def replace_network(self, network: Any) -> None:
        """Draw with another one from now on."""
        setattr(self._pipe, self.NETWORK, network)

    def calls(self, steps: int) -> int:
        """How often a picture calls the network."""
        self._pipe.scheduler.set_timesteps(steps)
        return len(self._pipe.scheduler.timesteps)

    def forward_snr(self, timestep: float) -> float:
        """alpha^2 / sigma^2 of the diffusion that the network was trained on."""
        kept = float(self._pipe.scheduler.alphas_cumprod[round(timestep)])
        return kept / (1 - kept)

    def cost(self, steps: int) -> dict[str, int]:
        parts = (one for one in self._pipe.components.values() if isinstance(one, self._torch.nn.Module))
        return {"weight_bytes": sum(4 * one.numel() for part in parts for one in part.parameters())}


class PipelineArtist(DiffusersArtist):
    KIND, NETWORK = "StableDiffusionPipeline", "unet"

    def _drawn(self, prompt: str, keep: Callable[[Any], None], **settings: Any) -> Any:
        def after(pipe: Any, index: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
            keep(values["latents"])
            return values

        return self._pipe(prompt, callback_on_step_end=after, **settings).images[0]

    def in_place(self, network: Runnable, config: dict[str, Any]) -> Any:
        return DiffusersUNet(network, config)


class ClassArtist(DiffusersArtist):
    KIND, NETWORK = "DiTPipeline", "transformer"

    def _drawn(self, prompt: str, keep: Callable[[Any], None], **settings: Any) -> Any:
        try:
            label = class_number(prompt, self._pipe.labels, self._pipe.transformer.config.num_embeds_ada_norm)
        except FickError as error:
            raise UserError(f"the prompt {prompt!r} names no class: {error}.") from None
        scheduler = self._pipe.scheduler
        step = scheduler.step

        # The pipeline tells nobody of its steps.
        def kept(*given: Any) -> Any:
            result = step(*given)
            keep(result.prev_sample)
            return result

        scheduler.step = kept
        try:
            return self._pipe([label], **settings).images[0]
        finally:
            scheduler.step = step

    def in_place(self, network: Runnable, config: dict[str, Any]) -> Any:
        return DiffusersTransformer(network, config)
