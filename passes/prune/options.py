"""Every way in which a candidate can go, with the maps that this takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx_ir as ir

from ...ir.program import Program
from ..base import Arrays, Context
from ..measuring import watch
from .candidates import Candidate, alive
from .fitting import moments
from .sizes import fits, shape
from .surgery import By, Map, Removal


def ways(graph: ir.Graph, candidate: Candidate) -> list[By]:
    """Those for which shapes meet: its input, its shortcut where that is another value, a fitted map."""
    values = {str(one.name): one for one in (*graph.inputs, *(one for node in graph for one in node.outputs))}
    entry, ends = values[candidate.entry], [values[name] for name in candidate.exits]
    found: list[By] = []
    if all(shape(entry) == shape(one) for one in ends):
        found.append("identity")
    if candidate.shortcut is not None and shape(values[candidate.shortcut]) == shape(ends[0]):
        found.append("shortcut")
    if all(fits(entry, one) for one in ends):
        found.append("linear")
    return found


def removals(
    context: Context,
    program: Program,
    wanted: Sequence[tuple[Candidate, By]],
    calls: Sequence[Arrays],
    ridge: float,
) -> list[Removal]:
    """Linear ones with the map that gives what the candidate gives, by least squares on ``calls``."""
    linear = [one for one, by in wanted if by == "linear"]
    pairs = list(dict.fromkeys((one.entry, exit) for one in linear for exit in one.exits))
    maps: dict[tuple[str, str], Map] = {}
    if pairs:
        names = list(dict.fromkeys(name for pair in pairs for name in pair))
        results = (
            {**inputs, **found}
            for inputs, found in zip(calls, watch(context, program, names, calls), strict=True)
        )
        doubled = ((one, one) for one in results)
        sums = moments(pairs, doubled)
        maps = {pair: found.linear(ridge) for pair, found in sums.items()}
    return [
        Removal(one, by, {exit: maps[one.entry, exit] for exit in one.exits} if by == "linear" else {})
        for one, by in wanted
    ]


def closed(graph: ir.Graph, found: Collection[Candidate]) -> dict[str, set[str]]:
    """By a candidate's name, the results that nothing needs once its entry is read for it."""
    everything, _ = alive(graph, {})
    return {one.name: everything - alive(graph, dict.fromkeys(one.exits, one.entry))[0] for one in found}


def paths(graph: ir.Graph, carried: Collection[str], gone: Mapping[str, set[str]]) -> list[list[list[str]]]:
    """For each input of the graph the ways in which it enters the trunk, whose values are ``carried``: each by the
    candidates that close it. An input that enters where none does is left out.
    """
    reached: dict[str, set[str]] = {str(value.name): {str(value.name)} for value in graph.inputs}
    entering: dict[str, list[str]] = {name: [] for name in reached}
    everything, _ = alive(graph, {})
    for node in graph:
        result = str(node.outputs[0].name)
        for name, known in reached.items():
            if any(value is not None and value.name in known for value in node.inputs):
                if result not in carried:
                    known.update(str(value.name) for value in node.outputs)
                elif result in everything:
                    entering[name].append(result)
    found: list[list[list[str]]] = []
    for results in entering.values():
        ways = [[name for name, lost in gone.items() if result in lost] for result in results]
        if ways and all(ways):
            found.append(ways)
    return found
