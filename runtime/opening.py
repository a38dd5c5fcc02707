"""Open a bundle as what it is."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from .class_to_image import ClassToImage
from .loader import check_bundle
from .model import Model
from .text_to_image import TextToImage

PIPELINES: dict[str, type[TextToImage] | type[ClassToImage]] = {
    "tokenizer": TextToImage,
    "classes": ClassToImage,
}
"""By what a manifest says of how prompts are read."""


def load(
    path: str | os.PathLike[str], *, threads: int = 0, verify: bool = True, memory_limit_bytes: int = 0
) -> Model | TextToImage | ClassToImage:
    """Open a bundle for running on this machine: a whole pipeline where the bundle holds one, else its one model.

    ``threads`` 0 takes all that the process may use; ``verify=False`` skips hashing the weights. Where
    ``memory_limit_bytes``, for weights, activations and state of all components together, is less than they take,
    weights are read again as they are needed. Raises FickError with one sentence for a file that is damaged, of a newer
    format, for another processor, or that needs more than the limit even so.
    """
    checked = check_bundle(path)
    pipeline: Mapping[str, Any] = checked.manifest.get("pipeline") or {}
    kind = next((PIPELINES[name] for name in PIPELINES if name in pipeline), Model)
    return kind(checked, threads=threads, verify=verify, memory_limit_bytes=memory_limit_bytes)
