"""Alternatives that read what a step before left in place of computing it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from ...ir.program import NEXT, Program

Cuts = Mapping[str, Sequence[str]]
"""By the name of an alternative, the values that it takes from state."""


def reusing(program: Program, cuts: Cuts, schedule: Mapping[int, Sequence[str]]) -> Program:
    """A program of variant "full" -> the same with an alternative for each of ``cuts`` that ``schedule`` runs.

    "full" leaves every value that any of them reads; an alternative leaves those that it computes anew.
    """
    run = {name for order in schedule.values() for name in order}
    graph = program.variants["full"].graph
    read = {name: _cut(program.variants["full"], names) for name, names in cuts.items() if name in run}
    wanted = {str(value.name) for model in read.values() for value in model.graph.inputs}
    made = {str(value.name): value for node in graph for value in node.outputs}
    state = {name: _shape(value) for name, value in made.items() if name in wanted}
    variants = {"full": program.variants["full"].clone(), **read}
    for model in variants.values():
        _leave(model.graph, state)
    return replace(
        program,
        variants=variants,
        state=state,
        schedule={steps: list(order) for steps, order in schedule.items()},
    )


def _cut(full: ir.Model, names: Sequence[str]) -> ir.Model:
    """What is computed from the values so called, given as inputs, and from whatever needs them not."""
    model = full.clone()
    graph = model.graph
    for value in [value for node in graph for value in node.outputs if value.name in names]:
        given = ir.Value(name=value.name, shape=value.shape, type=value.type)
        # Two values of a graph may not share a name; this one goes with its node.
        value.name = f"{value.name}.before"
        ir.convenience.replace_all_uses_with(value, given)
        graph.inputs.append(given)
    RemoveUnusedNodesPass()(model)
    for value in [value for value in graph.inputs if not value.uses()]:
        graph.inputs.remove(value)
    return model


def _leave(graph: ir.Graph, state: Mapping[str, Sequence[int]]) -> None:
    """Give out, as NAME.next, what is computed here of the state."""
    for value in [value for node in graph for value in node.outputs if value.name in state]:
        value.name = f"{value.name}{NEXT}"
        graph.outputs.append(value)


def _shape(value: ir.Value) -> tuple[int, ...]:
    return tuple(int(size) for size in value.shape.numpy()) if value.shape is not None else ()
