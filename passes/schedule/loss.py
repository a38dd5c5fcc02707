"""What a schedule does to pictures: how far their final latents are from those of the program that reuses nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ...ir.program import Program
from ..base import Context, Trajectory
from ..caching.reuse import reusing
from ..hoist import hoisted
from ..keeping import kept_figure
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

    def __call__(self, order: Sequence[str]) -> float:
        """Of what each call of a loop runs."""

        def measured() -> float:
            program = reusing(self._program, self._cuts, {self.calls: list(order)})
            return latent_error(self._draw(hoisted(program), self._steps, self._pictures), self.exact)

        return kept_figure(self._folder, {"order": " ".join(order)}, "loss", measured)
