"""Which channels stand or fall together, found in the graph.

Every position along every axis of every value gets a number. Operators say which positions are one and the same: what
is added has to agree, a product sums over its operand's, a normalisation scales what it reads, a head of attention is
one thing. What connects is a *channel*: all positions that go when one of them does (the dependency groups of DepGraph,
Fang et al., arXiv 2301.12900, with the graph in place of torch's). What an operator that is not known here reads or
gives is fixed, as is what the caller sees.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...ir.operators import ELEMENTWISE
from ...ir.shapes import shape_of

Ids = NDArray[np.int64]
Axes = list[Ids]
"""Of a value: for each axis, a number for each position."""

FIXED = 0
"""The number of all positions that stay."""


@dataclass
class Channels:
    """``axes`` by the name of a value, numbers of one channel being equal; ``produced`` and ``summed`` are the axes of
    weights that make channels and that sum over them, as (name, axis); ``norms`` are channels that stand in groups
    which stay of one size, as a group normalisation's do, with the number of groups.
    """

    axes: dict[str, Axes]
    produced: list[tuple[str, int]]
    summed: list[tuple[str, int]]
    norms: list[tuple[Ids, int]]


@dataclass
class _Walk:
    axes: dict[str, Axes] = field(default_factory=dict[str, Axes])
    pairs: list[NDArray[np.int64]] = field(default_factory=list[NDArray[np.int64]])
    produced: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    summed: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    norms: list[tuple[Ids, int]] = field(default_factory=list[tuple[Ids, int]])
    count: int = 1
    whole_heads: bool = True

    def fresh(self, size: int) -> Ids:
        self.count += size
        return np.arange(self.count - size, self.count)

    def of(self, value: ir.Value) -> Axes:
        name = str(value.name)
        if name not in self.axes:
            stored = value.const_value is not None
            self.axes[name] = [self.fresh(size) if stored else fixed(size) for size in shape_of(value)]
        return self.axes[name]

    def same(self, one: Ids, other: Ids) -> None:
        self.pairs.append(np.stack([one, other]))

    def fix(self, ids: Ids) -> None:
        self.same(ids, fixed(len(ids)))


def fixed(size: int) -> Ids:
    return np.full(size, FIXED)


def find(graph: ir.Graph, whole_heads: bool = True) -> Channels:
    """The channels of a canonical graph of static shapes. Of attention these are ``whole_heads``, or what each of them
    is made of, of which all keep as many.
    """
    walk = _Walk(whole_heads=whole_heads)
    for value in graph.initializers.values():
        walk.of(value)
    for node in graph:
        rule = RULES.get(node.op_type)
        made = rule(walk, node) if rule is not None else None
        if made is None:
            for value in node.inputs:
                for ids in walk.of(value) if value is not None else ():
                    walk.fix(ids)
        for index, value in enumerate(node.outputs):
            if value.shape is None:
                continue  # an output that was not asked for
            known = made[index] if made is not None and index < len(made) else None
            walk.axes[str(value.name)] = known or [fixed(size) for size in shape_of(value)]
    for value in graph.outputs:
        for ids in walk.of(value):
            walk.fix(ids)
    labels = _labels(walk)
    return Channels(
        {name: [labels[ids] for ids in axes] for name, axes in walk.axes.items()},
        walk.produced,
        walk.summed,
        [(labels[ids], groups) for ids, groups in walk.norms],
    )


def _labels(walk: _Walk) -> Ids:
    """The least number of each component."""
    import scipy.sparse  # pyright: ignore[reportMissingTypeStubs]  # slow to load
    from scipy.sparse import csgraph  # pyright: ignore[reportMissingTypeStubs]

    sparse: Any = scipy.sparse
    graphs: Any = csgraph
    ends = np.concatenate(walk.pairs, 1) if walk.pairs else np.zeros((2, 0), np.int64)
    links = sparse.coo_array((np.ones(ends.shape[1], np.int8), (ends[0], ends[1])), shape=(walk.count,) * 2)
    _, found = graphs.connected_components(links, directed=False)
    first = np.full(found.max() + 1, walk.count)
    np.minimum.at(first, found, np.arange(walk.count))
    return first[found]


Made = list[Axes] | None
"""Axes of a node's outputs; None where nothing is known of them."""


def _elementwise(walk: _Walk, node: ir.Node) -> Made:
    return [_together(walk, [walk.of(value) for value in node.inputs if value is not None])]


def _together(walk: _Walk, operands: Sequence[Axes]) -> Axes:
    """Axes of operands that are broadcast to each other: what is of size one is any."""
    rank = max(map(len, operands))
    found: Axes = []
    for axis in range(-rank, 0):
        ids = [axes[axis] for axes in operands if len(axes) >= -axis]
        wide = [one for one in ids if len(one) > 1] or ids[:1]
        for one in wide[1:]:
            walk.same(wide[0], one)
        found.append(wide[0])
    return found


def _conv(walk: _Walk, node: ir.Node) -> Made:
    read, weight = (walk.of(_input(node, index)) for index in (0, 1))
    if node.attributes.get_int("group", 1) != 1:
        return None
    walk.same(read[1], weight[1])
    for ids in weight[2:]:
        walk.fix(ids)
    _count(walk, node, produced=0, summed=1)
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        walk.same(walk.of(node.inputs[2])[0], weight[0])
    sizes = shape_of(node.outputs[0])
    return [[read[0], weight[0], *(fixed(size) for size in sizes[2:])]]


def _matmul(walk: _Walk, node: ir.Node) -> Made:
    left, right = (walk.of(_input(node, index)) for index in (0, 1))
    if len(right) != 2:
        return None  # attention taken apart: products of what is computed
    walk.same(left[-1], right[0])
    _count(walk, node, produced=1, summed=0)
    return [[*left[:-1], right[1]]]


def _gemm(walk: _Walk, node: ir.Node) -> Made:
    if node.attributes.get_int("transA", 0):
        return None
    left, right = (walk.of(_input(node, index)) for index in (0, 1))
    rows = node.attributes.get_int("transB", 0)
    walk.same(left[1], right[rows])
    _count(walk, node, produced=1 - rows, summed=rows)
    made = [left[0], right[1 - rows]]
    if len(node.inputs) > 2 and node.inputs[2] is not None:
        _together(walk, [made, walk.of(node.inputs[2])])
    return [made]


def _count(walk: _Walk, node: ir.Node, produced: int, summed: int) -> None:
    """A product with a weight as it is stored, or turned, or with several that are stacked.

    What another does with its channels could not be told by its numbers.
    """
    waiting = [(_input(node, 1), produced, summed)]
    while waiting:
        weight, rows, columns = waiting.pop()
        maker = weight.producer()
        if weight.const_value is not None:
            walk.produced.append((str(weight.name), rows))
            walk.summed.append((str(weight.name), columns))
        elif maker is not None and maker.op_type == "Transpose":
            order = maker.attributes.get_ints("perm", range(len(shape_of(weight)))[::-1])
            waiting.append((_input(maker, 0), order[rows], order[columns]))
        elif maker is not None and maker.op_type == "Concat" and maker.attributes.get_int("axis", 0) == rows:
            waiting += [(value, rows, columns) for value in maker.inputs[::-1] if value is not None]
        else:
            for ids in walk.of(weight):
                walk.fix(ids)


def _group_norm(walk: _Walk, node: ir.Node) -> Made:
    read, scale, bias = (walk.of(_input(node, index)) for index in range(3))
    for one in (scale[0], bias[0]):
        walk.same(read[1], one)
    walk.norms.append((read[1], node.attributes.get_int("num_groups", 1)))
    return [read]


def _layer_norm(walk: _Walk, node: ir.Node) -> Made:
    read = walk.of(_input(node, 0))
    if node.attributes.get_int("axis", -1) not in (-1, len(read) - 1):
        return None
    for value in node.inputs[1:]:
        if value is not None:
            walk.same(read[-1], walk.of(value)[0])
    return [read]


def _attention(walk: _Walk, node: ir.Node) -> Made:
    """Heads of queries, keys and values go together, or what queries and keys are compared by, and values apart from
    it. More operands than these are not known of.
    """
    if len(node.inputs) != 3 and any(value is not None for value in node.inputs[3:]):
        return None
    query, key, value = (walk.of(_input(node, index)) for index in range(3))
    heads, shared = (node.attributes.get_int(name, 0) for name in ("q_num_heads", "kv_num_heads"))
    if len(query) != 3 or heads != shared or not heads:
        return None
    if not walk.whole_heads:
        walk.same(query[2], key[2])
        maker = _input(node, 0).producer()
        if maker is None or maker.op_type != "MatMul":
            walk.fix(query[2])
        else:
            # No weight reads them but each other: what they matter is told by the one that makes them.
            _count(walk, maker, produced=1, summed=1)
        walk.norms += [(query[2], heads), (value[2], heads)]
        return [[query[0], query[1], value[2]]]
    whole = query[2].reshape(heads, -1)[:, 0]
    for axes in (query, key, value):
        parts = axes[2].reshape(heads, -1)
        walk.same(parts.ravel(), np.repeat(whole, parts.shape[1]))
    return [[query[0], query[1], value[2]]]


def _concat(walk: _Walk, node: ir.Node) -> Made:
    operands = [walk.of(value) for value in node.inputs if value is not None]
    joined = node.attributes.get_int("axis", 0) % len(operands[0])
    made = _together(walk, [[ids for axis, ids in enumerate(axes) if axis != joined] for axes in operands])
    made.insert(joined, np.concatenate([axes[joined] for axes in operands]))
    return [made]


def _split(walk: _Walk, node: ir.Node) -> Made:
    read = walk.of(_input(node, 0))
    axis = node.attributes.get_int("axis", 0) % len(read)
    parts = np.split(read[axis], np.cumsum([shape_of(value)[axis] for value in node.outputs])[:-1])
    return [[*read[:axis], part, *read[axis + 1 :]] for part in parts]


def _transpose(walk: _Walk, node: ir.Node) -> Made:
    read = walk.of(_input(node, 0))
    order = node.attributes.get_ints("perm", range(len(read))[::-1])
    return [[read[axis] for axis in order]]


def _reshape(walk: _Walk, node: ir.Node) -> Made:
    """Axes that stay as they are, with what is joined or parted between them, which is fixed."""
    read, sizes = walk.of(_input(node, 0)), shape_of(node.outputs[0])
    before = [len(ids) for ids in read]
    made = [fixed(size) for size in sizes]
    kept: set[int] = set()
    for axis, size in enumerate(before):
        for place, wanted in enumerate(sizes):
            ahead = math.prod(before[:axis]) == math.prod(sizes[:place])
            if size == wanted and size > 1 and ahead:
                made[place] = read[axis]
                kept.add(axis)
    for axis, ids in enumerate(read):
        if axis not in kept:
            walk.fix(ids)
    return [made]


def _resize(walk: _Walk, node: ir.Node) -> Made:
    read, sizes = walk.of(_input(node, 0)), shape_of(node.outputs[0])
    return [[*read[:2], *(fixed(size) for size in sizes[2:])]]


def _input(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    assert value is not None
    return value


RULES: Mapping[str, Callable[[_Walk, ir.Node], Made]] = {
    **dict.fromkeys(ELEMENTWISE, _elementwise),
    "Attention": _attention, "Concat": _concat, "Conv": _conv, "Gemm": _gemm,
    "GroupNormalization": _group_norm, "LayerNormalization": _layer_norm, "MatMul": _matmul,
    "Reshape": _reshape, "Resize": _resize, "Split": _split, "Squeeze": _reshape, "Transpose": _transpose,
    "Unsqueeze": _reshape,
}  # fmt: skip
