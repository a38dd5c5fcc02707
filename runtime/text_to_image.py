"""A whole text-to-image pipeline from one bundle: tokenizer, text encoder, UNet, autoencoder."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from .latent_diffusion import Drawing, LatentDiffusion
from .tokenizer import Tokenizer

VOCABULARY, MERGES = "tokenizer/vocab.json", "tokenizer/merges.txt"


class TextToImage(LatentDiffusion):
    """A pipeline whose prompts are texts."""

    FILES = (VOCABULARY, MERGES)
    ENCODERS = ("text_encoder",)

    def _read(self, entries: Mapping[str, bytes], pipeline: Mapping[str, Any]) -> None:
        self._tokenizer = Tokenizer(entries[VOCABULARY], entries[MERGES], pipeline["tokenizer"])

    def encode(self, prompt: str) -> NDArray[np.float32]:
        """What the UNet reads of a prompt: [1, tokens, width]. Warns of words that do not fit."""
        tokens = self._tokenizer.encode(prompt)
        if tokens.dropped:
            warnings.warn(
                f"the prompt is longer than the text encoder reads; this fell off: {tokens.dropped!r}",
                stacklevel=2,
            )
        return self._others["text_encoder"].run(input_ids=tokens.ids)["encoder_hidden_states"]

    def generate(
        self, prompt: str = "", *, negative_prompt: str = "", **how: Unpack[Drawing]
    ) -> NDArray[np.uint8]:
        """A picture of ``prompt``, [height, width, 3], the same as diffusers makes from the same seed.

        ``how`` are ``steps``, ``guidance_scale`` (by default 5), ``seed``, ``sampler`` and the rest of ``Drawing``.
        Raises FickError for arguments that cannot be.
        """
        texts = np.concatenate([self.encode(negative_prompt), self.encode(prompt)])
        return self._draw({"encoder_hidden_states": texts}, **how)

    def as_diffusers_unet(self) -> Any:
        """The UNet as diffusers' pipelines call theirs: ``pipe.unet = bundle.as_diffusers_unet()``."""
        return self.unet.as_diffusers_unet()
