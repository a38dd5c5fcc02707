"""A whole text-to-image pipeline from one bundle: tokenizer, text encoder, UNet, autoencoder."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import samplers
from .errors import FickError
from .loader import LIBRARY, Checked, check_bundle
from .loop import Progress, denoise, guided
from .model import MemoryUse, Model
from .noise import Noise
from .tokenizer import Tokenizer

VOCABULARY, MERGES = "tokenizer/vocab.json", "tokenizer/merges.txt"

EachStep = Callable[[int, NDArray[np.float32]], None]
"""Called after each step with its number and the latent so far; ``preview`` shows it cheaply."""


class TextToImage:
    """See ``load``. Use from one thread at a time, except ``cancel``. Also a context manager."""

    def __init__(
        self,
        bundle: str | os.PathLike[str] | Checked,
        *,
        threads: int = 0,
        verify: bool = True,
        memory_limit_bytes: int = 0,
    ) -> None:
        path = bundle.path if isinstance(bundle, Checked) else bundle
        self._checked = check_bundle(path, (LIBRARY, VOCABULARY, MERGES))
        self.manifest = self._checked.manifest
        pipeline = self.manifest["pipeline"]
        entries = self._checked.entries
        self._tokenizer = Tokenizer(entries[VOCABULARY], entries[MERGES], pipeline["tokenizer"])
        self._latent_to_rgb = np.asarray(pipeline["latent_to_rgb"], dtype=np.float32)
        options: dict[str, Any] = {"threads": threads, "memory_limit_bytes": memory_limit_bytes}
        self.unet = Model(self._checked, verify=verify, **options)
        # One file: what was hashed for the first component need not be for the others.
        self._others = {
            name: Model(self._checked, component=name, verify=False, **options)
            for name in ("text_encoder", "vae_decoder", "vae_encoder")
        }
        self._cancelled = False

    def close(self) -> None:
        """Give the memory back. The pipeline cannot be used afterwards."""
        for model in (self.unet, *self._others.values()):
            model.close()

    def __enter__(self) -> TextToImage:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def memory(self) -> MemoryUse:
        """What all components occupy now."""
        parts = [model.memory for model in (self.unet, *self._others.values())]
        return MemoryUse(
            sum(one.weights_bytes for one in parts),
            sum(one.arena_bytes for one in parts),
            sum(one.state_bytes for one in parts),
            sum(one.table_bytes for one in parts),
        )

    def cancel(self) -> None:
        """Stop the generation in progress, from any thread."""
        self._cancelled = True
        self.unet.cancel()

    def encode(self, prompt: str) -> NDArray[np.float32]:
        """What the UNet reads of a prompt: [1, tokens, width]. Warns of words that do not fit."""
        tokens = self._tokenizer.encode(prompt)
        if tokens.dropped:
            warnings.warn(
                f"the prompt is longer than the text encoder reads; this fell off: {tokens.dropped!r}",
                stacklevel=2,
            )
        return self._others["text_encoder"].run(input_ids=tokens.ids)["encoder_hidden_states"]

    def decode(self, latent: ArrayLike) -> NDArray[np.uint8]:
        """The picture of a latent [1, channels, height, width]: [height, width, 3]."""
        image = self._others["vae_decoder"].run(latent=latent)["image"][0]
        return _pixels(image.transpose(1, 2, 0))

    def generate(
        self,
        prompt: str = "",
        *,
        negative_prompt: str = "",
        steps: int | None = None,
        guidance_scale: float = 5.0,
        seed: int = 0,
        sampler: Mapping[str, Any] | None = None,
        init: NDArray[np.uint8] | None = None,
        strength: float = 0.8,
        progress: Progress | None = None,
        each_step: EachStep | None = None,
    ) -> NDArray[np.uint8]:
        """A picture of ``prompt``, [height, width, 3], the same as diffusers makes from the same seed.

        ``init``, a picture of that size, is where to start instead of from noise; ``strength`` in 0..1 says
        how much of it may go (Meng et al., arXiv 2108.01073). ``progress(done, total)`` counts steps and
        cancels by returning True. Raises FickError for arguments that cannot be.
        """
        self._cancelled = False
        described = sampler or self.manifest.get("sampler") or {}
        loop = samplers.create(described, steps, self.unet.residual(guidance_scale))
        rng = Noise(seed)
        first, x = 0, None
        if init is not None:
            first, x = self._start_from(init, strength, loop, rng)
        if x is None:
            x = loop.initial(rng.standard_normal(self._latent_shape))
        texts = np.concatenate([self.encode(negative_prompt), self.encode(prompt)])
        self.unet.prepare(loop.steps[first:])
        order = self.unet.order(len(loop.steps), first)
        self.unet.begin()

        def predict(x: NDArray[np.float32], index: int) -> NDArray[np.float32]:
            both = np.concatenate([x, x])
            outputs = self.unet.run(
                variant=order[index], sample=both, timestep=loop.steps[index], encoder_hidden_states=texts
            )
            unconditional, conditional = np.split(next(iter(outputs.values())), 2)
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

    def as_diffusers_unet(self) -> Any:
        """The UNet as diffusers' pipelines call theirs: ``pipe.unet = bundle.as_diffusers_unet()``."""
        return self.unet.as_diffusers_unet()

    @property
    def picture_size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        shape = self._others["vae_decoder"].outputs["image"].shape
        return shape[2], shape[3]

    @property
    def _latent_shape(self) -> tuple[int, ...]:
        return (1, *self.unet.inputs["sample"].shape[1:])

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
