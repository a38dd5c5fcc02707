"""Pictures by programs: a pipeline whose denoising network is a program on the referee.

It gives passes what they ask of their context: calls to calibrate with, and what a program's pictures are worth.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...ir.errors import UserError
from ...ir.interpreter import Interpreter
from ...ir.program import Program
from ...passes.base import Context, Trajectory
from ...passes.guidance import Guidance
from ...passes.per_step import step_input
from .calls import Calls, Spread, chosen
from .drawing import Drawing, pipeline_artist
from .evaluate import Prompt, judged, nearness, plain
from .gallery import Gallery, fingerprint
from .judge import Judge
from .recorder import Recorder


class Studio:
    """Draws ``prompts`` with programs made from the pipeline in ``folder``, each from its number as the seed.

    ``progress`` counts pictures of one program; those of the pipeline's own are kept in ``folder_kept``, with their
    calls. Raises UserError if there are no prompts.
    """

    def __init__(
        self,
        folder: Path,
        prompts: Sequence[Prompt],
        *,
        steps: int,
        guidance_scale: float,
        judge: Judge | None = None,
        progress: Callable[[int, int], None] | None = None,
        folder_kept: Path | None = None,
    ) -> None:
        if not prompts:
            raise UserError("there are no prompts to calibrate with; give at least one.")
        self._artist, self._prompts, self._judge = pipeline_artist(folder), prompts, judge
        config = folder / self._artist.NETWORK / "config.json"
        self._config = json.loads(config.read_text(encoding="utf-8"))
        self._settings = steps, guidance_scale
        # Without guidance the network gets one branch, as often as its batch is.
        self._guidance = Guidance(guidance_scale if guidance_scale > 1 else None)
        self._progress = progress or (lambda done, total: None)
        self._kept = Gallery(folder_kept, fingerprint(folder)) if folder_kept else None

    def draw(self, program: Program, kept: Gallery | None = None) -> tuple[list[Drawing], Calls]:
        """A picture of each prompt, and all calls that the program got; from ``kept`` where it has them."""
        drawn = self._drawn(program, kept, self._settings[0], len(self._prompts))
        return [drawing for drawing, _ in drawn], [call for _, calls in drawn for call in calls]

    def _drawn(
        self, program: Program, kept: Gallery | None, steps: int, pictures: int
    ) -> list[tuple[Drawing, Calls]]:
        """The first ``pictures``, each with its calls."""
        settings = steps, self._settings[1]
        network = Recorder(program, self._artist.calls(steps))
        self._artist.replace_network(self._artist.in_place(network, self._config))
        asked = self._prompts[:pictures]

        def drawn(text: str, seed: int) -> tuple[Drawing, Calls]:
            network.begin()
            return self._artist.draw(text, seed, *settings), network.calls

        found: list[tuple[Drawing, Calls]] = []
        for seed, prompt in enumerate(asked):
            self._progress(seed, len(asked))
            draw = partial(drawn, prompt.text, seed)
            found.append(kept.drawn((prompt.text, seed, *settings), draw) if kept else draw())
        self._progress(len(asked), len(asked))
        return found

    def context(
        self, program: Program, seed: int = 0, *, most_calls: int | None = None, spread: Spread = "uniform"
    ) -> Context:
        """What passes over ``program``, the pipeline's own, may ask for. Its pictures are what others are held against.

        They are calibrated with all calls, or with ``most_calls`` of them, ``spread`` over the timesteps.
        """
        theirs, calls = self.draw(program, self._kept)
        if most_calls is not None:
            calls = chosen(calls, str(step_input(program).name), most_calls, spread, seed)

        def quality(changed: Program) -> dict[str, Any]:
            ours, _ = self.draw(changed)
            found: dict[str, Any] = nearness(theirs, ours)
            if self._judge is not None:
                found |= judged(self._judge, np.stack([one.picture for one in ours]), self._prompts)
            return plain(found)

        def draw(drawn_with: Program, steps: int, pictures: int) -> list[Trajectory]:
            kept = self._kept if drawn_with is program else None
            return [
                Trajectory(its, drawing.latents[-1])
                for drawing, its in self._drawn(drawn_with, kept, steps, pictures)
            ]

        return Context(
            seed=seed, referee=Interpreter, calibration=calls, reference=program, quality=quality, draw=draw,
            guidance=self._guidance, forward_snr=self._artist.forward_snr, progress=self._progress,
        )  # fmt: skip
