"""Cuts made good in closed form: each by what the whole network had there, behind the cuts before it.

What stands for a block was chosen, or fitted, as if all else stayed as it was. In the graph's order each cut gets
a scale and a shift a channel, or its linear map fitted anew, from what there now is to what there should be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from ...ir.program import Program
from ..base import Arrays, Context
from ..keeping import Tensors, kept_tensors
from ..measuring import watch
from ..origin import origin
from .fitting import moments
from .surgery import FITTED, Map, Removal, kernel_of, pruned


def repaired(
    context: Context,
    program: Program,
    removals: Sequence[Removal],
    calls: Sequence[Arrays],
    ridge: float,
    wanted_by: str,
) -> list[Removal]:
    """The removals with maps fitted on ``calls``. What was fitted is kept in the context's work folder."""
    quiet = replace(context, progress=None)
    order = {
        str(value.name): index
        for index, node in enumerate(program.variants["full"].graph)
        for value in node.outputs
    }
    left = sorted(removals, key=lambda one: max(order[exit] for exit in one.candidate.exits))
    done: list[Removal] = []
    source = origin([program], calls, ridge) if context.work_folder is not None else ""
    for count, one in enumerate(left):
        place = None
        if context.work_folder is not None:
            told = [source, [(each.candidate.name, each.by) for each in [*done, one]]]
            name = hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]
            place = context.work_folder / "prune" / f"{name}.safetensors"
        fitted = partial(_fitted, quiet, program, tuple(done), one, calls, ridge, wanted_by)
        tensors = kept_tensors(place, fitted)
        maps = {exit: Map(tensors[f"weight {exit}"], tensors[f"bias {exit}"]) for exit in one.candidate.exits}
        done.append(replace(one, maps=maps))
        if context.progress is not None:
            context.progress(count + 1, len(left))
    return done


def _fitted(
    context: Context,
    program: Program,
    done: Sequence[Removal],
    one: Removal,
    calls: Sequence[Arrays],
    ridge: float,
    wanted_by: str,
) -> Tensors:
    """Weight and bias of the map of every exit."""
    before = pruned(program, done, wanted_by)
    # Where nothing was put for an exit, its value has the name of what is read for it.
    plain = {exit: each.source for each in done for exit in each.candidate.exits if exit not in each.maps}
    source = one.source
    while source in plain:
        source = plain[source]
    exits = one.candidate.exits
    ours = watch(context, before, [source], calls)
    theirs = watch(context, program, exits, calls)
    width = kernel_of(one.candidate, one.by)
    sums = moments(
        [(source, exit, width) for exit in exits],
        (
            ({**inputs, **results}, wanted)
            for inputs, results, wanted in zip(calls, ours, theirs, strict=True)
        ),
    )
    found: dict[str, NDArray[np.float64]] = {}
    for exit in exits:
        known = sums[source, exit, width]
        fitted = known.linear(ridge) if one.by in FITTED else known.affine()
        found |= {f"weight {exit}": fitted.weight, f"bias {exit}": fitted.bias}
    return found
