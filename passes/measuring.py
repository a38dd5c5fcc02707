"""What a change does to a program's outputs, on the calls that it is calibrated with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from ..ir.errors import UserError
from ..ir.formats import opens
from ..ir.making import Maker
from ..ir.program import Program
from ..ir.referee import large
from .base import Arrays, Context, Trajectory
from .hoist import hoisted

Order = Sequence[str]
"""What each call runs, of a program that has alternatives; empty where all run "full"."""


def own_calls(
    context: Context, program: Program, pictures: int, wanted_by: str
) -> tuple[list[Arrays], Order]:
    """Calls along pictures that a program draws itself, by each of its schedules: what reuse, and all else that was
    changed, makes of a loop's inputs is in them.

    Raises UserError where no pictures can be drawn.
    """
    draw = context.require_draw(wanted_by)
    split = hoisted(program)
    calls: list[Arrays] = []
    order: list[str] = []
    for length, run in program.schedule.items():
        for picture in draw(split, length, pictures):
            require_call_a_step(picture, run, wanted_by)
            calls += picture.calls
            order += run
    return calls, order


def require_call_a_step(picture: Trajectory, run: Sequence[str], wanted_by: str) -> None:
    """Raises UserError where a picture was not drawn by the schedule."""
    if len(picture.calls) != len(run):
        raise UserError(
            f"pass {wanted_by}: the sampler calls the model {len(picture.calls)} times in {len(run)} steps; calibrate "
            "with one that calls it once a step."
        )


def watch(
    context: Context, program: Program, names: Sequence[str], calls: Sequence[Arrays], order: Order = ()
) -> Iterator[Arrays]:
    """The outputs, and of the values called ``names`` those that it computes or reads from state, of every call.

    A program without alternatives runs what it has, whatever ``order`` says.
    """
    referee: Any = context.require("referee", "calibration")
    full = program.variants["full"]
    if [*program.variants] == ["full"] and large(full) and any(map(opens, full.graph)):
        program = hoisted(program)  # or weights would be rounded in every call
    call = referee(program, names)
    for done, inputs in enumerate(calls):
        yield call(inputs, order[done]) if order and program.schedule else call(inputs)
        if context.progress is not None:
            context.progress(done + 1, len(calls))


def side_by_side(
    context: Context,
    programs: tuple[Program, Program],
    calls: Sequence[Arrays],
    names: tuple[Sequence[str], Sequence[str]] = ((), ()),
    order: Order = (),
) -> Iterator[tuple[Arrays, Arrays]]:
    """What ``watch`` gives of two programs, call by call; ``names`` are small, for all of the first's are kept.

    The second runs when the first is done, for two large models at once would take twice the memory.
    """
    (before, after), (theirs, ours) = programs, names
    first = [dict(results) for results in watch(context, before, theirs, calls, order)]
    yield from zip(first, watch(context, after, ours, calls, order), strict=True)


def largest(
    context: Context, program: Program, names: Sequence[str], calls: Sequence[Arrays]
) -> dict[str, float]:
    """The largest absolute value in all calls, by the name of a value, a weight or an input of the program, whichever
    alternative computes it. What is not finite counts nothing.

    Maxima are taken on the referee, so that not all of a large model's values have to be at hand at once.
    """
    gauged, gauges = program.copy(), dict[str, str]()
    found = dict.fromkeys(names, 0.0)
    for model in gauged.variants.values():
        for name in found.keys() & model.graph.initializers.keys():
            if (tensor := model.graph.initializers[name].const_value) is not None:
                found[name] = float(np.abs(tensor.numpy()).max())
        for node in list(model.graph):
            for value in node.outputs:
                if value.name in found:
                    gauges[str(value.name)] = _gauge(node, value)
    call: Any = context.require("referee", "calibration")(gauged, [*gauges.values()])
    for done, inputs in enumerate(calls):
        seen = {name: np.abs(inputs[name]).max() for name in found.keys() & inputs.keys()}
        for alternative in program.alternatives:
            results = call(inputs, alternative)
            seen |= {
                name: np.fmax(seen.get(name, 0.0), results[gauge])
                for name, gauge in gauges.items()
                if gauge in results
            }
        found |= {name: max(found[name], float(one)) for name, one in seen.items() if np.isfinite(one)}
        if context.progress is not None:
            context.progress(done + 1, len(calls))
    return found


def _gauge(node: ir.Node, value: ir.Value) -> str:
    """The name of a new value, of one element: the largest magnitude of what the node computes."""
    maker = Maker(node, f"largest {value.name}")
    assert value.shape is not None
    size = maker.add("Abs", [value], value.shape.numpy())
    peak = maker.add("ReduceMax", [size], (), keepdims=0)
    maker.after()
    return str(peak.name)


def output_error(
    context: Context, before: Program, after: Program, calls: Sequence[Arrays], order: Order = ()
) -> float:
    """|after - before| / |before| of all outputs of all calls together, as a sampler takes them."""
    difference = size = 0.0
    for theirs, ours in side_by_side(context, (before, after), calls, order=order):
        for name, wanted in theirs.items():
            exact = wanted.astype(np.float64)
            difference += float(np.square(context.guidance.taken(ours[name] - exact)).sum())
            size += float(np.square(context.guidance.taken(exact)).sum())
    return float(np.sqrt(difference / size)) if size else 0.0


def latent_error(ours: Sequence[Trajectory], theirs: Sequence[Trajectory]) -> float:
    """|ours - theirs| / |theirs| of final latents, in the mean of pictures."""
    exact = [one.latents.astype(np.float64) for one in theirs]
    found = [
        np.linalg.norm(one.latents - wanted) / max(float(np.linalg.norm(wanted)), 1e-12)
        for one, wanted in zip(ours, exact, strict=True)
    ]
    return float(np.mean(found))
