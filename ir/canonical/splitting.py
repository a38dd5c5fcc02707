"""Split: several slices of one value are one Split; what happens to every part happens to the whole first."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx_ir as ir

from .propagate import add_literal, dims, literal, sequence_parts


def slices_to_splits(model: ir.Model) -> int:
    """Replace slices that tile one axis of a value by a Split. Returns how many values were split."""
    changed = 0
    for value in [*model.graph.inputs, *(output for node in model.graph for output in node.outputs)]:
        changed += _split_sliced(model.graph, value)
    return changed


def _split_sliced(graph: ir.Graph, value: ir.Value) -> bool:
    pieces: dict[int, dict[int, tuple[int, list[ir.Node]]]] = {}
    for reader, index in value.uses():
        if reader.op_type != "Slice" or index != 0:
            continue
        span = _span(reader)
        if span is None:
            continue
        axis, start, stop = span
        known = pieces.setdefault(axis, {}).setdefault(start, (stop, []))
        if known[0] == stop:
            known[1].append(reader)
    for axis, starts in pieces.items():
        bounds = [*sorted(starts), dims(value)[axis]]
        tiles = bounds[0] == 0 and all(starts[start][0] == after for start, after in pairwise(bounds))
        if len(starts) < 2 or not tiles:
            continue
        sizes = [after - start for start, after in pairwise(bounds)]
        readers = [starts[start][1] for start in bounds[:-1]]
        insert_split(graph, value, axis, sizes, [[node.outputs[0] for node in nodes] for nodes in readers])
        for nodes in readers:
            graph.remove(nodes, safe=True)
        return True
    return False


def _span(node: ir.Node) -> tuple[int, int, int] | None:
    """(axis, start, stop) of a Slice along one axis with step one, else None."""
    arrays = [literal(value) for value in node.inputs[1:]]
    if any(array is None or array.size != 1 for array in arrays) or len(arrays) < 3:
        return None
    start, stop, axis, *step = (int(array.reshape(())) for array in arrays if array is not None)
    shape = dims(node.inputs[0])
    axis %= len(shape)
    if step and step[0] != 1:
        return None
    start, stop, _ = slice(start, stop).indices(shape[axis])
    return axis, start, stop


def insert_split(
    graph: ir.Graph, value: ir.Value, axis: int, sizes: list[int], replaced: list[list[ir.Value]]
) -> ir.Node:
    """A Split of ``value`` whose part i takes the place and the name of the values ``replaced[i]``."""
    first = replaced[0][0].producer()
    producer = value.producer()
    assert first is not None
    table = add_literal(graph, np.array(sizes, np.int64), f"{value.name}_sizes")
    split = ir.node(
        "Split",
        [value, table],
        {"axis": axis},
        num_outputs=len(sizes),
        metadata_props=dict(first.metadata_props),
    )
    for part, size, old in zip(split.outputs, sizes, replaced, strict=True):
        shape = list(dims(value))
        shape[axis] = size
        part.shape, part.type, part.name = ir.Shape(shape), value.type, old[0].name
        ir.convenience.replace_all_uses_with(old, [part] * len(old), replace_graph_outputs=True)
    if producer is not None and producer.graph is graph:
        graph.insert_after(producer, split)
    else:
        graph.insert_before(graph[0], split)
    return split


def sequences_to_splits(model: ir.Model) -> int:
    """SplitToSequence whose parts are read one by one with SequenceAt, as torch writes chunk, is a Split."""
    changed = 0
    for node in list(model.graph):
        parts, value = (sequence_parts(node), node.inputs[0]) if node.inputs else (None, None)
        if parts is None or value is None:
            continue
        axis, sizes = parts
        reads: dict[int, list[ir.Node]] = {}
        for reader, _ in node.outputs[0].uses():
            place = literal(reader.inputs[1]) if reader.op_type == "SequenceAt" else None
            if place is None:
                break
            reads.setdefault(int(place) % len(sizes), []).append(reader)
        if sum(map(len, reads.values())) != len(node.outputs[0].uses()):
            continue
        if sorted(reads) != list(range(len(sizes))):
            continue
        outputs = [[reader.outputs[0] for reader in reads[place]] for place in range(len(sizes))]
        insert_split(model.graph, value, axis, sizes, outputs)
        for readers in reads.values():
            model.graph.remove(readers, safe=True)
        model.graph.remove(node, safe=True)
        changed += 1
    return changed


def hoist_over_splits(model: ir.Model) -> int:
    """Where every part of a Split is reshaped or transposed alike, do it once before the Split."""
    changed = 0
    for node in list(model.graph):
        if node.op_type == "Split":
            changed += _hoist_transpose(model.graph, node) or _hoist_reshape(model.graph, node)
    return changed


def _only_readers(split: ir.Node, op_type: str) -> list[ir.Node] | None:
    """For every part the one node that reads it, if all are of one kind."""
    readers: list[ir.Node] = []
    for part in split.outputs:
        uses = list(part.uses())
        if len(uses) != 1 or part.is_graph_output() or uses[0][0].op_type != op_type or uses[0][1] != 0:
            return None
        readers.append(uses[0][0])
    return readers


def _hoist_transpose(graph: ir.Graph, split: ir.Node) -> bool:
    readers = _only_readers(split, "Transpose")
    if not readers or len({tuple(_perm(reader)) for reader in readers}) != 1:
        return False
    perm, value = _perm(readers[0]), split.inputs[0]
    assert value is not None
    axis = split.attributes.get_int("axis", 0) % len(perm)
    moved = ir.node("Transpose", [value], {"perm": perm}, metadata_props=dict(readers[0].metadata_props))
    return _hoist(graph, split, readers, moved, tuple(dims(value)[old] for old in perm), perm.index(axis))


def _perm(node: ir.Node) -> list[int]:
    rank = len(dims(node.inputs[0]))
    return list(node.attributes.get_ints("perm", tuple(reversed(range(rank)))))


def _hoist_reshape(graph: ir.Graph, split: ir.Node) -> bool:
    """Only where the reshape factors the split axis: [P, n, S] to [P, n/r, r..., S], r alike for all."""
    readers, value = _only_readers(split, "Reshape"), split.inputs[0]
    if not readers or value is None:
        return False
    whole = dims(value)
    axis = split.attributes.get_int("axis", 0) % len(whole)
    before, after = whole[:axis], whole[axis + 1 :]
    inner: set[tuple[int, ...]] = set()
    lead: list[int] = []
    for reader in readers:
        shape = dims(reader.outputs[0])
        factors = shape[axis : len(shape) - len(after)]
        if shape[:axis] != before or shape[len(shape) - len(after) :] != after or not factors:
            return False
        lead.append(factors[0])
        inner.add(factors[1:])
    if len(inner) != 1:
        return False
    shape = (*before, sum(lead), *inner.pop(), *after)
    table = add_literal(graph, np.array(shape, np.int64), f"{split.outputs[0].name}_shape")
    moved = ir.node("Reshape", [value, table], metadata_props=dict(readers[0].metadata_props))
    return _hoist(graph, split, readers, moved, shape, axis)


def _hoist(
    graph: ir.Graph, split: ir.Node, readers: list[ir.Node], moved: ir.Node, shape: tuple[int, ...], axis: int
) -> bool:
    value = split.inputs[0]
    assert value is not None
    moved.outputs[0].shape, moved.outputs[0].type = ir.Shape(shape), value.type
    moved.outputs[0].name = f"{value.name}_{moved.op_type.lower()}"
    graph.insert_before(split, moved)
    sizes = [dims(reader.outputs[0])[axis] for reader in readers]
    insert_split(graph, moved.outputs[0], axis, sizes, [[reader.outputs[0]] for reader in readers])
    graph.remove(readers, safe=True)
    graph.remove(split, safe=True)
    return True
