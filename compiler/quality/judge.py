"""The networks that look at pictures: a folder of ONNX files and what they were trained on.

judge.json         categories in the order of the classifier's outputs, and measured accuracies
classifier.onnx    image [b, 3, height, width] in -1..1 -> features, logits
image.onnx         image -> embedding of unit length
text.onnx          input_ids [b, tokens] -> embedding of unit length
real.safetensors   features of the real pictures
vocab.json, merges.txt   the tokenizer of the captions
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy as safetensors
from numpy.typing import NDArray

from ...ir import referee
from ...ir.errors import UserError
from ...runtime.tokenizer import Tokenizer

CLASSIFIER, IMAGE, TEXT = "classifier.onnx", "image.onnx", "text.onnx"
BATCH = 64


class Judge:
    """Raises UserError if the folder lacks a part."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self._folder = Path(folder)
        try:
            facts = json.loads((self._folder / "judge.json").read_text(encoding="utf-8"))
            self.categories: list[str] = list(facts["categories"])
            real = safetensors.load_file(self._folder / "real.safetensors")["features"]
            self.real: NDArray[np.float32] = real.astype(np.float32)
            for network in (CLASSIFIER, IMAGE, TEXT):
                (self._folder / network).stat()
            merges = (self._folder / "merges.txt").read_bytes()
            vocabulary = (self._folder / "vocab.json").read_bytes()
            self._tokenizer = Tokenizer(vocabulary, merges, facts["tokenizer"])
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"{folder} holds no judge of pictures ({error}); give the folder of one"
            ) from None

    def look(self, pictures: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Features [n, width] and logits [n, categories] of pictures [n, height, width, 3]."""
        return self._run(self._classifier, "image", _images(pictures))

    def image_embeddings(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """[n, width], of unit length."""
        return self._run(self._image, "image", _images(pictures))[0]

    def text_embeddings(self, captions: Sequence[str]) -> NDArray[np.float32]:
        """[n, width], of unit length."""
        ids = np.concatenate([self._tokenizer.encode(caption).ids for caption in captions])
        return self._run(self._text, "input_ids", ids)[0]

    @cached_property
    def _classifier(self) -> Any:
        return referee.session(self._folder / CLASSIFIER)

    @cached_property
    def _image(self) -> Any:
        return referee.session(self._folder / IMAGE)

    @cached_property
    def _text(self) -> Any:
        return referee.session(self._folder / TEXT)

    def _run(self, session: Any, name: str, rows: NDArray[Any]) -> Any:
        parts = [session.run(None, {name: rows[at : at + BATCH]}) for at in range(0, len(rows), BATCH)]
        return [np.concatenate(one) for one in zip(*parts, strict=True)]


def _images(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    return (pictures.astype(np.float32) / 127.5 - 1).transpose(0, 3, 1, 2)
