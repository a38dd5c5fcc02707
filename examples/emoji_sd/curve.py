"""The losses of a training as one picture."""

from __future__ import annotations

import json
import math
from pathlib import Path

from PIL import Image, ImageDraw

STAGES = ("autoencoder", "denoiser", "classifier", "contrastive")
WIDTH, HEIGHT, MARGIN = 480, 240, 34


def draw(folder: Path, path: Path) -> None:
    """A panel a stage: loss over steps, from the curves that the training left in ``folder``."""
    stages = [stage for stage in STAGES if _curve(folder, stage).exists()]
    sheet = Image.new("RGB", (min(len(stages), 2) * WIDTH, math.ceil(len(stages) / 2) * HEIGHT), "white")
    pen = ImageDraw.Draw(sheet)
    for number, stage in enumerate(stages):
        _panel(pen, stage, _losses(folder, stage), WIDTH * (number % 2), HEIGHT * (number // 2))
    sheet.save(path)


def _curve(folder: Path, stage: str) -> Path:
    return folder / f"{stage}.curve.jsonl"


def _losses(folder: Path, stage: str) -> dict[int, float]:
    lines = _curve(folder, stage).read_text(encoding="utf-8").splitlines()
    # A stage that was cut off repeats the steps since its last checkpoint: the later ones count.
    found = {one["step"]: one["loss"] for one in map(json.loads, lines)}
    return dict(sorted(found.items()))


def _panel(pen: ImageDraw.ImageDraw, stage: str, losses: dict[int, float], x: int, y: int) -> None:
    left, top, right, bottom = x + MARGIN, y + MARGIN, x + WIDTH - MARGIN, y + HEIGHT - MARGIN
    # The first losses would flatten all others.
    lowest, highest = min(losses.values()), sorted(losses.values())[int(0.98 * (len(losses) - 1))]
    last, span = max(losses), (highest - lowest) or 1
    points = [
        (left + (right - left) * step / last, bottom - (bottom - top) * (min(loss, highest) - lowest) / span)
        for step, loss in losses.items()
    ]
    pen.rectangle((left, top, right, bottom), outline="#bbbbbb")
    pen.line(points, fill="#1f6fb2", width=2)
    pen.text((left, top - 14), f"{stage}: loss over {last:,} steps", fill="black")
    pen.text((x + 2, top), f"{highest:.2f}", fill="#666666")
    pen.text((x + 2, bottom - 12), f"{lowest:.2f}", fill="#666666")
