"""A whole class-conditional pipeline from one bundle: names of classes, denoising network, autoencoder."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from .errors import FickError
from .latent_diffusion import Drawing, LatentDiffusion


class ClassToImage(LatentDiffusion):
    """A pipeline whose prompts are classes, such as those of ImageNet. ``names`` gives their numbers."""

    def _read(self, entries: Mapping[str, bytes], pipeline: Mapping[str, Any]) -> None:
        self.classes: int = pipeline["classes"]["count"]
        self.names: Mapping[str, int] = pipeline["classes"]["names"]

    def class_of(self, label: int | str) -> int:
        """The number of a class from its number or one of its names. Raises FickError if there is no such class."""
        return class_number(label, self.names, self.classes)

    def generate(self, label: int | str, **how: Unpack[Drawing]) -> NDArray[np.uint8]:
        """A picture of a class, [height, width, 3], the same as diffusers makes from the same seed.

        ``how`` is that of ``TextToImage.generate``. Raises FickError for arguments that cannot be.
        """
        # The row after the last class stands for none (Ho and Salimans, arXiv 2207.12598).
        return self._draw({"class_labels": np.array([self.classes, self.class_of(label)])}, **how)


def class_number(label: int | str, names: Mapping[str, int], classes: int) -> int:
    """Of one of ``classes``, from its number or one of the ``names``. Raises FickError if there is no such class."""
    if isinstance(label, str) and not label.lstrip("-").isdecimal():
        if label in names:
            return names[label]
        near = ", ".join(difflib.get_close_matches(label, names))
        known = f"near it are {near}" if near else f"give its number, 0 to {classes - 1}"
        raise FickError(f"there is no class called {label!r}; {known}")
    number = int(label)
    if not 0 <= number < classes:
        raise FickError(f"there is no class {number}; they are 0 to {classes - 1}")
    return number
