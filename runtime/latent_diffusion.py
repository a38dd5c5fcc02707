"""What whole pipelines in one bundle have in common: the loop over a guided network, and the autoencoder."""

from __future__ import annotations

import math
import os
from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import TracebackType
from typing import Any, ClassVar, Self, TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import samplers
from .components import open_together
from .errors import FickError
from .loader import LIBRARY, Checked, check_bundle
from .loop import EachStep, Progress, denoise, guided, of_sample
from .model import MemoryUse, Model
from .noise import Noise


class Drawing(TypedDict, total=False):
    """How a picture is made, whatever it shows.

    ``init``, uint8 of the pictures' shape, is where to start instead of from noise; ``strength`` in 0..1 (by default
    0.8) says how much of it may go (Meng et al., arXiv 2108.01073). ``progress(done, total)`` counts steps and cancels
    by returning True; ``each_step`` gets the number of each and the latent so far, which ``preview`` shows cheaply.
    """

    steps: int | None
    guidance_scale: float
    seed: int
    sampler: Mapping[str, Any] | None
    init: NDArray[np.uint8] | None
    strength: float
    progress: Progress | None
    each_step: EachStep | None


class LatentDiffusion(ABC):
    """See ``load``. Use from one thread at a time, except ``cancel``. Also a context manager."""

    FILES: ClassVar[tuple[str, ...]] = ()
    """Entries of the bundle that prompts are read with."""

    ENCODERS: ClassVar[tuple[str, ...]] = ()
    """Components that prompts go through."""

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Checked,
        *,
        threads: int = 0,
        verify: bool = True,
        memory_limit_bytes: int = 0,
    ) -> None:
        path = bundle.path if isinstance(bundle, Checked) else bundle
        checked = check_bundle(path, (LIBRARY, *self.FILES))
        self.manifest = checked.manifest
        pipeline = self.manifest["pipeline"]
        self._read(checked.entries, pipeline)
        self._latent_to_rgb = np.asarray(pipeline["latent_to_rgb"], dtype=np.float32)
        names = (*self.ENCODERS, "vae_decoder", "vae_encoder")
        network, *others = open_together(
            checked, (None, *names), threads=threads, verify=verify, memory_limit_bytes=memory_limit_bytes
        )
        self.unet = Model(network)
        self._others = {name: Model(one) for name, one in zip(names, others, strict=True)}
        self._cancelled = False

    @abstractmethod
    def _read(self, entries: Mapping[str, bytes], pipeline: Mapping[str, Any]) -> None:
        """Take what prompts are read with from the bundle's files and from what its manifest says of the pipeline."""

    def close(self) -> None:
        """Give the memory back. The pipeline cannot be used afterwards."""
        for model in (self.unet, *self._others.values()):
            model.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def memory(self) -> MemoryUse:
        """What all components occupy now."""
        return self.unet.memory

    def cancel(self) -> None:
        """Stop the generation in progress, from any thread."""
        self._cancelled = True
        self.unet.cancel()

    def decode(self, latent: ArrayLike) -> NDArray[np.uint8]:
        """The picture of a latent [1, channels, height, width]: [height, width, 3]."""
        image = self._others["vae_decoder"].run(latent=latent)["image"][0]
        return _pixels(image.transpose(1, 2, 0))

    def _draw(
        self,
        prompt: Mapping[str, Any],
        *,
        steps: int | None = None,
        guidance_scale: float = 5.0,
        seed: int = 0,
        sampler: Mapping[str, Any] | None = None,
        init: NDArray[np.uint8] | None = None,
        strength: float = 0.8,
        progress: Progress | None = None,
        each_step: EachStep | None = None,
    ) -> NDArray[np.uint8]:
        """A picture, [height, width, 3]; ``prompt`` are the network's inputs of that rate for both branches of
        guidance, the unconditional one first. See ``Drawing``.
        """
        if not math.isfinite(guidance_scale):
            raise FickError(f"the guidance scale is {guidance_scale} and should be a finite number")
        self._cancelled = False
        described = sampler or self.manifest.get("sampler") or {}
        loop = samplers.create(described, steps, self.unet.residual(guidance_scale))
        rng = Noise(seed)
        first, x = 0, None
        if init is not None:
            first, x = self._start_from(init, strength, loop, rng)
        if x is None:
            x = loop.initial(rng.standard_normal(self._latent_shape))
        self.unet.prepare(loop.steps[first:])
        order = self.unet.order(len(loop.steps), first)
        self.unet.begin()
        sample, step = self.unet.single("sample"), self.unet.single("step")

        def predict(x: NDArray[np.float32], index: int) -> NDArray[np.float32]:
            feeds: dict[str, Any] = {sample.name: np.concatenate([x, x]), step.name: loop.steps[index]}
            outputs = self.unet.run(variant=order[index], **feeds, **prompt)
            unconditional, conditional = np.split(of_sample(next(iter(outputs.values())), x), 2)
            return guided(conditional, unconditional, guidance_scale)

        x = denoise(
            loop,
            predict,
            x,
            rng,
            first=first,
            progress=progress,
            each_step=each_step,
            cancelled=lambda: self._cancelled,
        )
        return self.decode(x)

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        shape = self._others["vae_decoder"].outputs["image"].shape
        return shape[2], shape[3]

    @property
    def _latent_shape(self) -> tuple[int, ...]:
        return (1, *self.unet.single("sample").shape[1:])

    def _start_from(
        self, init: NDArray[np.uint8], strength: float, loop: samplers.Sampler, rng: Noise
    ) -> tuple[int, NDArray[np.float32]]:
        """The first call of the sampler, and the picture's latent with the noise of that call."""
        wanted = (*self.picture_size, 3)
        if init.shape != wanted or init.dtype != np.uint8:
            raise FickError(
                f"the initial picture is {init.dtype}{list(init.shape)} and should be uint8{list(wanted)}"
            )
        total = len(loop.steps)
        first = total - min(int(total * strength), total)
        if not 0 <= strength <= 1 or first == total:
            raise FickError(f"strength {strength} of {total} steps leaves none to run; give more, up to 1")
        image = (init.astype(np.float32) / 127.5 - 1).transpose(2, 0, 1)[None]
        posterior = self._others["vae_encoder"].run(image=image)
        drawn = rng.standard_normal(self._latent_shape)
        clean = posterior["mean"] + posterior["deviation"] * drawn
        return first, loop.noised(clean, rng.standard_normal(self._latent_shape), first)

    def preview(self, latent: NDArray[np.float32]) -> NDArray[np.uint8]:
        """A latent at a glance, [latent height, latent width, 3]: a linear map of it that is near the decoder."""
        rgb = np.tensordot(latent[0], self._latent_to_rgb[:-1], axes=(0, 0)) + self._latent_to_rgb[-1]
        return _pixels(rgb)


def _pixels(image: NDArray[np.float32]) -> NDArray[np.uint8]:
    """-1..1 as 0..255."""
    return np.asarray(np.round((np.clip(image, -1, 1) + 1) * 127.5), dtype=np.uint8)
