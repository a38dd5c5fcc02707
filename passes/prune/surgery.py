"""Candidates taken out of a program: what was read at their exits is read elsewhere."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...ir.errors import UserError
from ...ir.making import Maker
from ...ir.program import Program
from ...ir.shapes import channel_axis, shape_of
from .candidates import Candidate, cut_off
from .stacks import trim

By = Literal["identity", "shortcut", "linear", "convolution", "merged"]

FITTED: tuple[By, ...] = ("linear", "convolution", "merged")
"""Ways by which a map is read: a 1 x 1 convolution, or for several convolutions one of the widest kernel among them or
of all their widths together.
"""

PURPOSE = "pruned"
"""Of the nodes and numbers that a map is made of, in their names."""


@dataclass(frozen=True)
class Map:
    """From a value's channels to those of what it stands for: y = ``weight`` x + ``bias``, the weight [to, from] of a
    1 x 1 convolution (of a linear layer, where the value is tokens), [to, from, height, width] of a larger kernel, or
    [channels] of scales.
    """

    weight: NDArray[np.float64]
    bias: NDArray[np.float64]


@dataclass(frozen=True)
class Removal:
    """A candidate that goes, and what is read for it. ``maps`` are by exit; where there is none, the value itself."""

    candidate: Candidate
    by: By
    maps: Mapping[str, Map]

    @property
    def source(self) -> str:
        """The value that is read in place of the exits."""
        shortcut = self.candidate.shortcut if self.by == "shortcut" else None
        return shortcut or self.candidate.entry


def pruned(program: Program, removals: Sequence[Removal], wanted_by: str) -> Program:
    """The program without the candidates, and without weights that nothing reads any more.

    Raises UserError where shapes do not meet, and if the output would no longer follow from an input that it did.
    """
    changed = program.copy()
    model = changed.variants["full"]
    graph = model.graph
    given = {exit: one.source for one in removals for exit in one.candidate.exits}
    if lost := cut_off(graph, given):
        raise UserError(
            f"pass {wanted_by}: with {', '.join(one.candidate.name for one in removals)} gone, the last path from "
            f"{lost[0]} to the output is gone; keep a block that it goes through."
        )
    values = {str(one.name): one for one in (*graph.inputs, *(one for node in graph for one in node.outputs))}
    place = {str(one.name): index for index, node in enumerate(graph) for one in node.outputs}
    exits = [(place[exit], exit, one) for one in removals for exit in one.candidate.exits]
    # From the end, so that what reads an exit is there to be told even if the exit is another's entry. An enclosing
    # candidate may end where one inside of it does, and comes first.
    for _, exit, one in sorted(exits, key=lambda one: -one[0]):
        source, end = values[one.source], values[exit]
        told = one.maps.get(exit)
        if not end.uses() and not end.is_graph_output():
            continue
        _require_meeting(source, end, told, one, wanted_by)
        if told is None and not end.is_graph_output():
            ir.convenience.replace_all_uses_with(end, source)
        else:
            _replace(source, end, told)
    RemoveUnusedNodesPass()(model)
    trim(graph)
    RemoveUnusedNodesPass()(model)
    # A map goes with one checkpoint: what it stands for is not the checkpoint's to bring any more.
    fitted = any(one.maps for one in removals)
    return replace(changed, weights=program.weights & set(graph.initializers) if fitted else program.weights)


def kernel_of(candidate: Candidate, by: By) -> int:
    """The width of the map by which a candidate goes."""
    if by == "merged":
        return 1 + sum(one - 1 for one in candidate.kernels)
    return max(candidate.kernels, default=1) if by == "convolution" else 1


def fits(source: ir.Value, end: ir.Value) -> bool:
    """Whether values differ in their channels at most."""
    ours, theirs = (list(shape_of(one)) for one in (source, end))
    if len(ours) != len(theirs):
        return False
    del ours[channel_axis(len(ours))], theirs[channel_axis(len(theirs))]
    return ours == theirs


def is_fitted(name: str) -> bool:
    """Whether an initializer so called belongs to a map."""
    return f"/{PURPOSE}." in name


def _require_meeting(source: ir.Value, end: ir.Value, told: Map | None, one: Removal, wanted_by: str) -> None:
    meets = shape_of(source) == shape_of(end) if told is None or told.weight.ndim == 1 else fits(source, end)
    if not meets:
        ours, theirs = (f"{list(shape_of(value))} ({value.name})" for value in (source, end))
        way = "by 'linear' if only channels differ" if told is None else "together with what changes its size"
        raise UserError(
            f"pass {wanted_by}: without {one.candidate.name} the shapes no longer meet: {ours} would stand for "
            f"{theirs}; replace it {way}, or keep it."
        )


def _replace(source: ir.Value, end: ir.Value, told: Map | None) -> None:
    """Put a map of the source in the place of what made the exit."""
    place = end.producer()
    assert place is not None
    maker, sizes = Maker(place, PURPOSE), shape_of(end)
    if told is None:
        maker.replace(maker.add("Identity", (source,), sizes))
        return
    axis = channel_axis(len(sizes))
    along = [size if index == axis else 1 for index, size in enumerate(sizes)]
    bias = maker.constant(told.bias.astype(np.float32).reshape(along if axis == 1 else -1))
    if told.weight.ndim == 1:
        scale = maker.constant(told.weight.astype(np.float32).reshape(along if axis == 1 else -1))
        maker.replace(maker.add("Add", (maker.add("Mul", (source, scale), sizes), bias), sizes))
    elif axis == 1 and len(sizes) == 4:
        kernel = told.weight.reshape(*told.weight.shape[:2], *(told.weight.shape[2:] or (1, 1)))
        weight, flat = maker.constant(kernel.astype(np.float32)), maker.constant(told.bias.astype(np.float32))
        wide = kernel.shape[2]
        maker.replace(
            maker.add("Conv", (source, weight, flat), sizes, kernel_shape=[wide, wide], pads=[wide // 2] * 4)
        )
    else:
        weight = maker.constant(told.weight.T.astype(np.float32))
        maker.replace(maker.add("Add", (maker.add("MatMul", (source, weight), sizes), bias), sizes))
