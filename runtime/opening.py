"""Open a bundle as what it is."""

from __future__ import annotations

import os

from .loader import check_bundle
from .model import Model
from .text_to_image import TextToImage


def load(
    path: str | os.PathLike[str], *, threads: int = 0, verify: bool = True, memory_limit_bytes: int = 0
) -> Model | TextToImage:
    """Open a bundle for running on this machine: a whole pipeline where the bundle holds one, else its UNet.

    ``threads`` 0 takes all that the process may use; ``verify=False`` skips hashing the weights. Raises
    FickError with one sentence for a file that is damaged, of a newer format, for another processor, or
    larger than ``memory_limit_bytes``.
    """
    checked = check_bundle(path)
    kind = TextToImage if checked.manifest.get("pipeline") else Model
    return kind(checked, threads=threads, verify=verify, memory_limit_bytes=memory_limit_bytes)
