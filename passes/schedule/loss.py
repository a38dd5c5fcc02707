"""What a schedule does to pictures: how far their final latents are from those of the program that reuses nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...ir.files import write_whole
from ...ir.program import Program
from ..base import Context, Trajectory
from ..caching.reuse import reusing
from ..hoist import hoisted
from ..measuring import latent_error
from ..origin import origin


class Loss:
    """|ours - theirs| / |theirs|, in the mean of the first ``pictures`` of a calibration, of loops of ``steps``.

    Every figure is kept in the context's work folder as soon as it is known.
    """

    def __init__(
        self, context: Context, program: Program, cuts: Mapping[str, Sequence[str]], steps: int, pictures: int
    ) -> None:
        self._draw = context.require_draw("schedule-reuse")
        self._program, self._cuts, self._steps, self._pictures = program, cuts, steps, pictures
        self.exact: Sequence[Trajectory] = self._draw(program, steps, pictures)
        self.calls = len(self.exact[0].calls)
        self._folder: Path | None = None
        if context.work_folder is not None:
            firsts = [{**one.calls[0], "latents": one.latents} for one in self.exact]
            name = origin([program], firsts, {name: list(values) for name, values in cuts.items()})
            self._folder = context.work_folder / "schedule-reuse" / name[:32]
            self._folder.mkdir(parents=True, exist_ok=True)

    def __call__(self, order: Sequence[str]) -> float:
        """Of what each call of a loop runs."""
        name = hashlib.sha256(" ".join(order).encode()).hexdigest()[:32]
        place = self._folder / f"{name}.json" if self._folder else None
        if place is not None and place.is_file():
            return float(json.loads(place.read_bytes())["loss"])
        program = reusing(self._program, self._cuts, {self.calls: list(order)})
        ours = self._draw(hoisted(program), self._steps, self._pictures)
        found = latent_error(ours, self.exact)
        if place is not None:
            write_whole(place, json.dumps({"order": " ".join(order), "loss": found}).encode())
        return found
