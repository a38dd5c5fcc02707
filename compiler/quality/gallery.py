"""Drawings kept in a folder, so that an evaluation that was cut off goes on where it was."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from ...ir.files import write_whole
from .drawing import Drawing


def fingerprint(source: Path) -> str:
    """Of a bundle's or a pipeline's bytes."""
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    digest = hashlib.sha256()
    for path in files:
        digest.update(os.fspath(path.relative_to(source)).encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())  # type: ignore[arg-type]
    return digest.hexdigest()


class Gallery:
    """The drawings of one source; ``key`` names the drawing by all that it depends on."""

    def __init__(self, folder: Path, source: Path) -> None:
        self._folder = folder / fingerprint(source)[:16]
        self._folder.mkdir(parents=True, exist_ok=True)

    def drawing(self, key: tuple[object, ...], draw: Callable[[], Drawing]) -> Drawing:
        """The drawing kept under ``key``, or ``draw()``, which is kept. A damaged one is drawn again."""
        path = self._folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.npz"
        try:
            with np.load(path, allow_pickle=False) as kept:
                return Drawing(kept["picture"], kept["latents"], float(kept["image_s"]))
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            pass
        drawing = draw()
        data = io.BytesIO()
        np.savez(data, picture=drawing.picture, latents=drawing.latents, image_s=drawing.image_s)
        write_whole(path, data.getvalue())
        return drawing
