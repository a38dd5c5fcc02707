"""Cuts made good in closed form: each by what the whole network had there, behind the cuts before it.

What stands for a block was chosen, or fitted, as if all else stayed as it was. In the graph's order each cut gets
a scale and a shift a channel, or its linear map fitted anew, from what there now is to what there should be.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import safetensors.numpy as safetensors
from safetensors import SafetensorError

from ...ir.files import write_whole
from ...ir.program import Program
from ..base import Arrays, Context
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
        found = _kept(place, one)
        if found is None:
            found = _fitted(quiet, program, done, one, calls, ridge, wanted_by)
            _keep(place, found)
        done.append(replace(one, maps=found))
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
) -> dict[str, Map]:
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
    return {
        exit: sums[source, exit, width].linear(ridge)
        if one.by in FITTED
        else sums[source, exit, width].affine()
        for exit in exits
    }


def _keep(place: Path | None, maps: dict[str, Map]) -> None:
    if place is not None:
        tensors = {f"weight {exit}": np.ascontiguousarray(one.weight) for exit, one in maps.items()}
        tensors |= {f"bias {exit}": np.ascontiguousarray(one.bias) for exit, one in maps.items()}
        place.parent.mkdir(parents=True, exist_ok=True)
        write_whole(place, safetensors.save(tensors))


def _kept(place: Path | None, one: Removal) -> dict[str, Map] | None:
    """None where nothing was kept, or it is damaged."""
    if place is None:
        return None
    try:
        tensors = safetensors.load(place.read_bytes())
        return {exit: Map(tensors[f"weight {exit}"], tensors[f"bias {exit}"]) for exit in one.candidate.exits}
    except (OSError, KeyError, ValueError, SafetensorError):
        return None
