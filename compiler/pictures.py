"""Arrays as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..ir.errors import UserError, first_line

TERRAIN = ((0.0, (28, 52, 92)), (0.3, (66, 122, 140)), (0.42, (214, 205, 160)), (0.6, (98, 138, 78)),
           (0.8, (120, 98, 80)), (1.0, (245, 245, 248)))  # fmt: skip
"""A relief palette: deep water to snow."""


def to_pixels(
    sample: NDArray[Any], *, palette: Sequence[tuple[float, tuple[int, int, int]]] | None = None
) -> NDArray[np.uint8]:
    """One sample (channels, height, width), nominally in -1..1, as (height, width, 3) bytes.

    A single channel is stretched to its own range and, with a palette, coloured; three channels are taken as RGB; of
    more (latents), the first three are stretched.
    """
    image = np.asarray(sample, dtype=np.float64)
    if image.shape[0] == 3:
        return np.round((np.clip(image, -1, 1) + 1) * 127.5).astype(np.uint8).transpose(1, 2, 0)
    image = image[:3] if image.shape[0] > 3 else image[:1]
    low, high = image.min((1, 2), keepdims=True), image.max((1, 2), keepdims=True)
    image = (image - low) / np.maximum(high - low, 1e-9)
    if image.shape[0] == 1 and palette:
        stops = [stop for stop, _ in palette]
        colours = np.array([colour for _, colour in palette], dtype=np.float64)
        rgb = [np.interp(image[0], stops, colours[:, channel]) for channel in range(3)]
        return np.round(np.stack(rgb, -1)).astype(np.uint8)
    return np.round(np.broadcast_to(image, (3, *image.shape[1:])) * 255).astype(np.uint8).transpose(1, 2, 0)


def grid(images: Sequence[NDArray[np.uint8]], columns: int, gap: int = 4) -> NDArray[np.uint8]:
    """Pictures of one size side by side on white."""
    height, width, _ = images[0].shape
    rows = -(-len(images) // columns)
    sheet = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        sheet[top : top + height, left : left + width] = image
    return sheet


def images(sample: NDArray[Any]) -> list[NDArray[np.uint8]]:
    """What ``generate`` gives, as pictures: it is one already, or a batch of samples."""
    return [sample] if sample.dtype == np.uint8 else [to_pixels(one) for one in sample]


def read(path: Path, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A picture file as [height, width, 3], brought to ``size`` (height, width), transparency over white.

    Raises UserError for what is no picture.
    """
    try:
        with Image.open(path) as file:
            picture = file.convert("RGBA").resize((size[1], size[0]), Image.Resampling.LANCZOS)
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path} is not a picture that can be read ({first_line(error)}); give a PNG or JPEG"
        ) from None
    return np.asarray(Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB"))
