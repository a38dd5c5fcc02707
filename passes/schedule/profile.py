"""What every way to reuse does to the output, at every step, by how long ago its state was left: measured once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ir.program import NEXT, Program
from ..base import Arrays, Context, Trajectory
from ..hoist import hoisted
from ..keeping import Tensors, kept_tensors
from ..origin import origin

Errors = NDArray[np.float64]
"""|output - exact| / |exact| of the outputs of all pictures: [alternatives, steps, ages], infinite where a step has
none so old. Age 1 is that of what the step before left.
"""

GROWTH = 1.5
"""From one age that is measured to the next; those between follow by interpolation."""


def ages(longest: int) -> list[int]:
    """Those that are measured, up to ``longest``."""
    found = [1]
    while found[-1] < longest:
        found.append(min(longest, max(found[-1] + 1, int(found[-1] * GROWTH))))
    return found


def profile(
    context: Context, program: Program, alternatives: Sequence[str], drawn: Sequence[Trajectory], longest: int
) -> Errors:
    """Of each of a program's alternatives along the trajectories of pictures, whose states are those of full steps.

    What is measured of a picture is kept in the context's work folder.
    """
    measured = ages(min(longest, len(drawn[0].calls) - 1))
    silent = replace(program, variants={name: model.clone() for name, model in program.variants.items()})
    for name in program.alternatives[1:]:
        # A state then is what the last full step left, whatever ran since.
        outputs = silent.variants[name].graph.outputs
        outputs[:] = [value for value in outputs if not str(value.name).endswith(NEXT)]
    referee = cache(lambda: context.require("referee", "schedule-reuse")(hoisted(silent), []))
    taken = context.guidance.taken
    source = origin([silent], [], [*alternatives, measured, context.guidance.scale])
    noise = signal = 0.0
    for done, picture in enumerate(drawn):

        def squares(calls: Sequence[Arrays] = picture.calls) -> Tensors:
            return _measured(referee(), alternatives, calls, measured, taken)

        found = kept_tensors(_place(context, source, picture.calls), squares)
        noise, signal = noise + found["noise"], signal + found["signal"]
        if context.progress is not None:
            context.progress(done + 1, len(drawn))
    return _between(np.sqrt(noise / np.reshape(signal, (1, -1, 1))), measured)


def _measured(
    call: Any,
    alternatives: Sequence[str],
    calls: Sequence[Arrays],
    measured: Sequence[int],
    taken: Callable[[Any], Any],
) -> Tensors:
    """Squares of one picture, summed over what a sampler takes of the outputs."""

    def outputs(results: Arrays) -> NDArray[np.float64]:
        return np.concatenate([taken(value.astype(np.float64)).ravel() for value in results.values()])

    call.begin()
    exact = [outputs(call(inputs)) for inputs in calls]
    noise = np.full((len(alternatives), len(calls), len(measured)), np.inf)
    for left in range(len(calls) - 1):
        call(calls[left])
        for column, age in enumerate(measured):
            if (step := left + age) < len(calls):
                for row, name in enumerate(alternatives):
                    got = outputs(call(calls[step], name))
                    noise[row, step, column] = np.square(got - exact[step]).sum()
    return {"noise": noise, "signal": np.array([np.square(one).sum() for one in exact])}


def _between(errors: Errors, measured: Sequence[int]) -> Errors:
    """Every age, from those that were measured: linearly, of those that the step has."""
    wanted = np.arange(1, measured[-1] + 1)
    found = np.full((*errors.shape[:2], len(wanted)), np.inf)
    for row, step in np.ndindex(*errors.shape[:2]):
        known = [column for column, age in enumerate(measured) if age <= step]
        if known:
            reached = wanted <= step
            xs, ys = [measured[column] for column in known], errors[row, step, known]
            found[row, step, reached] = np.interp(wanted[reached], xs, ys)
    return found


def _place(context: Context, source: str, calls: Sequence[Arrays]) -> Path | None:
    if context.work_folder is None:
        return None
    return context.work_folder / "schedule-reuse" / f"{origin([], calls, source)[:32]}.safetensors"
