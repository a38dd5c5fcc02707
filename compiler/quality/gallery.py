"""Drawings kept in a folder, so that an evaluation that was cut off goes on where it was."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.files import write_whole
from .calls import Calls
from .drawing import Drawing


def fingerprint(source: Path) -> str:
    """Of a bundle's or a pipeline's bytes."""
    files = sorted(path for path in source.rglob("*") if path.is_file()) if source.is_dir() else [source]
    digest = hashlib.sha256()
    for path in files:
        digest.update(os.fspath(path.relative_to(source)).encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


class Gallery:
    """The drawings of one source, told apart by its ``fingerprint``, with the calls of the model that drew them where
    those are asked for; a ``key`` names the drawing by all else that it depends on. A damaged one is drawn again.
    """

    def __init__(self, folder: Path, source: str) -> None:
        self._folder = folder / source[:16]

    def drawing(self, key: tuple[object, ...], draw: Callable[[], Drawing]) -> Drawing:
        """The drawing kept under ``key``, or ``draw()``, which is kept."""
        return self.drawn(key, lambda: (draw(), []))[0]

    def drawn(
        self, key: tuple[object, ...], draw: Callable[[], tuple[Drawing, Calls]]
    ) -> tuple[Drawing, Calls]:
        """As ``drawing``, with the calls."""
        path = self._folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.npz"
        try:
            with np.load(path, allow_pickle=False) as kept:
                drawing = Drawing(kept["picture"], kept["latents"], float(kept["image_s"]))
                calls: Calls = [{} for _ in range(int(kept.get("calls", 0)))]
                for name in kept.files:
                    index, slash, tensor = name.partition("/")
                    if slash:
                        calls[int(index)][tensor] = kept[name]
                return drawing, calls
        except (OSError, ValueError, KeyError, IndexError, EOFError, zipfile.BadZipFile):
            pass
        drawing, calls = draw()
        arrays: dict[str, Any] = {
            f"{index}/{name}": value for index, call in enumerate(calls) for name, value in call.items()
        }
        arrays |= {"picture": drawing.picture, "latents": drawing.latents, "image_s": drawing.image_s}
        data = io.BytesIO()
        np.savez(data, calls=len(calls), **arrays)
        self._folder.mkdir(parents=True, exist_ok=True)
        write_whole(path, data.getvalue())
        return drawing, calls
