"""Every way in which a candidate can go, with the maps that this takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import onnx_ir as ir

from ...ir.program import Program
from ...ir.shapes import shape_of
from ..base import Arrays, Context
from ..measuring import watch
from .candidates import Candidate, alive
from .fitting import Pair, moments
from .surgery import FITTED, By, Map, Removal, fits, kernel_of

MOST_COVERED = 8192
"""Numbers under a kernel that is fitted: as many squared are summed."""


def ways(graph: ir.Graph, candidate: Candidate) -> list[By]:
    """Those for which shapes meet: its input, its shortcut where that is another value, a fitted map; of convolutions
    one of the widest kernel, and one of all their widths together.
    """
    values = {str(one.name): one for one in (*graph.inputs, *(one for node in graph for one in node.outputs))}
    entry, ends = values[candidate.entry], [values[name] for name in candidate.exits]
    found: list[By] = []
    if all(shape_of(entry) == shape_of(one) for one in ends):
        found.append("identity")
    if candidate.shortcut is not None and shape_of(values[candidate.shortcut]) == shape_of(ends[0]):
        found.append("shortcut")
    if all(fits(entry, one) for one in ends):
        found.append("linear")
        widths = {1}
        for by in ("convolution", "merged") if candidate.kernels else ():
            width = kernel_of(candidate, by)
            if width not in widths and width**2 * shape_of(entry)[1] <= MOST_COVERED:
                widths.add(width)
                found.append(by)
    return found


def removals(
    context: Context,
    program: Program,
    wanted: Sequence[tuple[Candidate, By]],
    calls: Sequence[Arrays],
    ridge: float,
) -> list[Removal]:
    """Those that are fitted with the map that gives what the candidate gives, by least squares on ``calls``."""
    pairs = list(
        dict.fromkeys(
            (one.entry, exit, kernel_of(one, by)) for one, by in wanted if by in FITTED for exit in one.exits
        )
    )
    maps: dict[Pair, Map] = {}
    if pairs:
        names = list(dict.fromkeys(name for pair in pairs for name in pair[:2]))
        results = (
            {**inputs, **found}
            for inputs, found in zip(calls, watch(context, program, names, calls), strict=True)
        )
        doubled = ((one, one) for one in results)
        sums = moments(pairs, doubled)
        maps = {pair: found.linear(ridge) for pair, found in sums.items()}
    return [
        Removal(
            one, by, {exit: maps[one.entry, exit, kernel_of(one, by)] for exit in one.exits if by in FITTED}
        )
        for one, by in wanted
    ]


def closed(graph: ir.Graph, found: Collection[Candidate]) -> dict[str, set[str]]:
    """By a candidate's name, the results that nothing needs once its entry is read for it."""
    everything, _ = alive(graph, {})
    return {one.name: everything - alive(graph, dict.fromkeys(one.exits, one.entry))[0] for one in found}


def paths(
    graph: ir.Graph, carried: Collection[str], gone: Mapping[str, set[str]], entries: Mapping[str, str]
) -> list[list[list[str]]]:
    """For each input of the graph the ways in which it enters the trunk, whose values are ``carried``: each by the
    candidates that close it, as those do not that are entered at the input itself. An input that enters where none
    does is left out.
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
    for input, results in entering.items():
        closing = {name: lost for name, lost in gone.items() if entries[name] not in reached[input]}
        ways = [[name for name, lost in closing.items() if result in lost] for result in results]
        if ways and all(ways):
            found.append(ways)
    return found
