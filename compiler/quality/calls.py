"""Calls of a model along denoising trajectories: kept in a folder, and chosen from by timestep."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...ir.files import write_whole
from .drawing import Drawing

Calls = list[dict[str, NDArray[Any]]]

Spread = Literal["uniform", "normal"]
"""Over the timesteps: evenly, or normally around a mean nearer to the picture than to the noise."""

MEAN, DEVIATION = 0.4, 0.5
"""Of the normal distribution, as shares of the largest timestep (Shang et al., PTQ4DM, arXiv 2211.15736, eq. 7)."""


class Trajectories:
    """Pictures with the calls that drew them, a file each; ``source`` tells apart what drew them."""

    def __init__(self, folder: Path, source: str) -> None:
        self._folder = folder / source[:16]

    def drawn(
        self, key: tuple[object, ...], draw: Callable[[], tuple[Drawing, Calls]]
    ) -> tuple[Drawing, Calls]:
        """What is kept under ``key``, or ``draw()``, which is kept. A damaged file is drawn again."""
        path = self._folder / f"{hashlib.sha256(repr(key).encode()).hexdigest()[:24]}.npz"
        try:
            with np.load(path, allow_pickle=False) as kept:
                drawing = Drawing(kept["picture"], kept["latents"], float(kept["image_s"]))
                calls: Calls = [{} for _ in range(int(kept["calls"]))]
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


def chosen(calls: Calls, timestep: str, count: int, spread: Spread, seed: int) -> Calls:
    """``count`` of the calls, in their order, as many of any timestep as ``spread`` has it; all if there are fewer."""
    if len(calls) <= count:
        return calls
    rng = np.random.default_rng(seed)
    times = np.array([float(np.ravel(call[timestep])[0]) for call in calls])
    if spread == "normal":
        largest = times.max()
        density = np.exp(-0.5 * np.square((times / largest - MEAN) / DEVIATION))
    else:
        density = np.ones(len(calls))
    rows = rng.choice(len(calls), count, replace=False, p=density / density.sum())
    return [calls[row] for row in sorted(rows.tolist())]
