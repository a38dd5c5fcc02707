"""Pictures of two models side by side: prompt, reference, candidate, and where they differ."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from ...runtime import png
from .drawing import Drawing

TEXT_WIDTH, MARGIN, SMALLEST = 260, 6, 96
LINE_LETTERS = 38
"""Of a prompt, at most."""

GAIN = 4
"""The difference is drawn this many times as strong."""


def side_by_side(
    labels: Sequence[str], reference: Sequence[Drawing], candidate: Sequence[Drawing], path: Path
) -> None:
    """One row a prompt. Raises FickError where ``path`` cannot be written."""
    columns = ("reference", "candidate", f"difference x {GAIN}")
    scale = -(-SMALLEST // reference[0].picture.shape[0])
    size = scale * reference[0].picture.shape[0]
    width = TEXT_WIDTH + len(columns) * (size + MARGIN) + MARGIN
    sheet = Image.new("RGB", (width, 20 + len(labels) * (size + MARGIN) + MARGIN), "white")
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(columns):
        pen.text((TEXT_WIDTH + column * (size + MARGIN), 4), title, fill="black")
    for row, (label, theirs, ours) in enumerate(zip(labels, reference, candidate, strict=True)):
        top = 20 + row * (size + MARGIN)
        pen.multiline_text((MARGIN, top), _wrapped(label), fill="black")
        for column, pixels in enumerate((theirs.picture, ours.picture, _difference(theirs, ours))):
            large = pixels.repeat(scale, 0).repeat(scale, 1)
            sheet.paste(Image.fromarray(large), (TEXT_WIDTH + column * (size + MARGIN), top))
    png.save(np.asarray(sheet), path)


def _difference(theirs: Drawing, ours: Drawing) -> NDArray[np.uint8]:
    apart = np.abs(theirs.picture.astype(int) - ours.picture.astype(int))
    return np.clip(255 - GAIN * apart, 0, 255).astype(np.uint8)


def _wrapped(text: str) -> str:
    lines = [""]
    for word in text.split():
        if len(lines[-1]) + len(word) > LINE_LETTERS:
            lines.append("")
        lines[-1] += f"{word} "
    return "\n".join(line.strip() for line in lines)
