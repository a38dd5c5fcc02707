"""Channels taken out of a program: of every weight the slices that are left, and shapes to match.

Slices are taken in the graph, at constant rate, so that another checkpoint's are taken alike.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from ...ir.making import Maker, reroute
from ...ir.program import Program
from ...ir.shapes import shape_of
from .channels import Channels


def sliced(program: Program, channels: Channels, gone: Collection[int]) -> Program:
    """The program without the channels ``gone``."""
    changed = program.copy()
    graph = changed.variants["full"].graph
    lost = np.array(sorted(gone), np.int64)
    left = {
        name: [np.flatnonzero(~np.isin(ids, lost)) for ids in axes] for name, axes in channels.axes.items()
    }
    for node in list(graph):
        _tell_sizes(node, left)
    for name, value in list(graph.initializers.items()):
        _slice(value, left.get(name, []))
    for node in graph:
        for value in node.outputs:
            if (kept := left.get(str(value.name))) is not None:
                value.shape = ir.Shape([len(one) for one in kept])
    return changed


def _tell_sizes(node: ir.Node, left: dict[str, list[np.ndarray]]) -> None:
    """What a node is told of sizes in so many words."""
    known = [(value, left.get(str(value.name))) for value in node.outputs]
    if all(kept is None or [len(one) for one in kept] == list(shape_of(value)) for value, kept in known):
        return
    results = [[len(one) for one in kept] for _, kept in known if kept is not None]
    if node.op_type == "Reshape":
        _tell(node, 1, results[0])
    elif node.op_type == "Resize" and len(node.inputs) > 3 and node.inputs[3] is not None:
        _tell(node, 3, results[0])
    elif node.op_type == "Split":
        axis = node.attributes.get_int("axis", 0)
        node.attributes.pop("num_outputs", None)
        node.resize_inputs(2)
        _tell(node, 1, [one[axis] for one in results])
    elif node.op_type == "Attention":
        query = node.inputs[0]
        assert query is not None
        heads = node.attributes.get_int("q_num_heads", 0)
        wide = shape_of(query)[2] // heads
        sizes = np.bincount(left[str(query.name)][2] // wide, minlength=heads)
        for name in ("q_num_heads", "kv_num_heads"):
            node.attributes[name] = ir.AttrInt64(name, int(np.count_nonzero(sizes)))
        # Scores are of the size that they were, however few numbers of a head are left.
        if sizes.max() < wide and not node.attributes.get_float("scale", 0.0):
            node.attributes["scale"] = ir.AttrFloat32("scale", wide**-0.5)


def _tell(node: ir.Node, index: int, sizes: list[int]) -> None:
    node.replace_input_with(index, Maker(node, "channels").constant(np.array(sizes, np.int64)))


def _slice(value: ir.Value, kept: list[np.ndarray]) -> None:
    """Put what is left of an initializer in its place, before all that reads it."""
    sizes = shape_of(value)
    cut = [(axis, one) for axis, one in enumerate(kept) if len(one) < sizes[axis]]
    readers = list(value.uses())
    if not cut or not readers:
        return
    graph = value.graph
    assert isinstance(graph, ir.Graph)
    users = {user for user, _ in readers}
    first = next(node for node in graph if node in users)
    maker, found = Maker(first, f"channels/{value.name}"), value
    for axis, one in cut:
        wanted = [len(one) if place == axis else size for place, size in enumerate(shape_of(found))]
        found = maker.add("Gather", (found, maker.constant(one.astype(np.int64))), wanted, axis=axis)
    maker.before()
    reroute(readers, found)
