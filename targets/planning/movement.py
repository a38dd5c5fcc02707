"""Elementwise groups and operators that move data -> views where strides suffice, calls where not."""

from __future__ import annotations

import math

import onnx_ir as ir

from ...ir.errors import UserError
from ...ir.groups import Group
from ...ir.resizing import repeats
from ..fused import fuse
from ..graph_facts import describe, numbers, permutation, shape_of
from ..lowering import Constant, Lowering
from ..packing import ROUNDED
from ..views import View


def lower_elementwise(lowering: Lowering, group: Group) -> None:
    fused = fuse(lowering, group, None)
    shape = shape_of(fused.result)
    same = [view for view in fused.loads if view.count == math.prod(shape) and 0 not in view.strides]
    like = max(same or fused.loads, key=lambda view: view.count, default=None)
    whole = (
        like is not None
        and like.shape == shape
        and all(stride or extent == 1 for stride, extent in zip(like.strides, shape, strict=True))
    )
    order = like.order() if whole and like is not None else None
    out = lowering.fresh(shape, order, lowering.dtype(fused.result))
    lowering.device.map(lowering, out, fused.loads, fused.bound, str(group.nodes[-1].name))
    lowering.views[str(fused.result.name)] = out


def lower_concat(lowering: Lowering, group: Group) -> None:
    node = group.anchor
    shape = shape_of(node.outputs[0])
    axis = node.attributes["axis"].as_int() % len(shape)
    parts = [lowering.view(value) for value in node.inputs if value is not None]
    order = max(parts, key=lambda view: view.count).order()
    out = lowering.fresh(shape, order, lowering.dtype(group.result))
    start = 0
    for part in parts:
        lowering.copy(out.slice(axis, start, part.shape[axis]), part, str(node.name))
        start += part.shape[axis]
    lowering.views[str(group.result.name)] = out


def lower_gather(lowering: Lowering, group: Group) -> None:
    node = group.anchor
    data, chosen = node.inputs[0], node.inputs[1]
    assert data is not None and chosen is not None
    table, indices = lowering.view(data), lowering.view(chosen)
    rank = len(table.shape)
    axis = node.attributes.get_int("axis", 0) % rank
    table = table.transpose([axis, *(other for other in range(rank) if other != axis)])
    inner = table.shape[1:]
    columns = math.prod(inner)
    table = lowering.reshaped(table, (table.shape[0], columns))
    flat = lowering.reshaped(indices, (indices.count,))
    if flat.strides != (1,):
        flat = lowering.materialised(flat)
    out = lowering.fresh((*indices.shape, *inner), dtype=lowering.dtype(group.result))
    lowering.device.gather(lowering, out, table, flat, str(node.name))
    # The numbers' axes stand where the axis that they choose from was.
    taken = len(indices.shape)
    places = [*range(taken, taken + axis), *range(taken), *range(taken + axis, taken + rank - 1)]
    lowering.views[str(group.result.name)] = out.transpose(places)


def lower_resize(lowering: Lowering, group: Group) -> None:
    """Nearest-neighbour enlargement by whole factors: a copy whose source repeats along new axes."""
    node = group.anchor
    data = node.inputs[0]
    assert data is not None
    x, shape = lowering.view(data), shape_of(node.outputs[0])
    if not repeats(node):
        raise UserError(
            f"operator Resize from {x.shape} to {shape} with a region, an aspect ratio or of a graph that was not "
            f"imported is not supported (to sizes or by scales is), at {describe(node)}"
        )
    if str(group.result.name) in lowering.frames:
        out = lowering.device.image(lowering, group.result, shape, str(node.name))
    else:
        out = lowering.fresh(shape, x.order(), lowering.dtype(group.result))
    blocks = [
        size for extent, wanted in zip(x.shape, shape, strict=True) for size in (extent, wanted // extent)
    ]
    target = lowering.reshaped(out, blocks)
    strides = [stride for step in x.strides for stride in (step, 0)]
    source = View(x.buffer, tuple(blocks), tuple(strides), x.offset)
    lowering.copy(target, source, str(node.name))
    lowering.views[str(group.result.name)] = out


def lower_pad(lowering: Lowering, group: Group) -> None:
    node = group.anchor
    data = node.inputs[0]
    assert data is not None
    x = lowering.view(data)
    rank = len(x.shape)
    given = numbers(node, 1) or []
    axes = numbers(node, 3)
    axes = [axis % rank for axis in axes] if axes is not None else list(range(rank))
    before, after = [0] * rank, [0] * rank
    for position, axis in enumerate(axes):
        before[axis], after[axis] = given[position], given[position + len(axes)]
    filler = node.inputs[2] if len(node.inputs) > 2 else None
    zeros = filler is None or lowering.literal(filler) == 0 or not math.prod(shape_of(filler))
    plain = zeros and node.attributes.get_string("mode", "constant") == "constant"
    if not plain or any(before[:2] + after[:2]) or min(before + after) < 0 or rank not in (3, 4):
        raise UserError(
            f"operator Pad other than by zeros around an image is not supported, at {describe(node)}"
        )
    view = lowering.device.padded(lowering, x, before[2:], after[2:], str(node.name))
    lowering.views[str(group.result.name)] = view


def lower_view(lowering: Lowering, node: ir.Node) -> None:
    """Reshape, Transpose, Split, Slice, Expand and their like: strides only, wherever possible."""
    data = node.inputs[0]
    assert data is not None
    if node.op_type == "Cast":
        _keep_format(lowering, data, node.outputs[0])
        return
    x = lowering.view(data)
    if node.op_type == "Transpose":
        results = [x.transpose(permutation(node))]
    elif node.op_type == "Expand":
        results = [x.expand(shape_of(node.outputs[0]))]
    elif node.op_type == "Split":
        axis = node.attributes.get_int("axis", 0) % len(x.shape)
        results, start = [], 0
        for output in node.outputs:
            extent = shape_of(output)[axis]
            results.append(x.slice(axis, start, extent))
            start += extent
    elif node.op_type == "Slice":
        results = [_sliced(node, x)]
    else:
        results = [lowering.reshaped(x, shape_of(node.outputs[0]))]
    for output, view in zip(node.outputs, results, strict=True):
        lowering.views[str(output.name)] = view


def _keep_format(lowering: Lowering, source: ir.Value, result: ir.Value) -> None:
    """A Cast that no kernel does: weights are rounded when they are packed, and kernels widen what they read."""
    name = str(source.name)
    if name in lowering.constants:
        known = lowering.constants[name]
        rounded = lowering.dtype(result) in ROUNDED
        dtype = lowering.dtype(result) if rounded else known.dtype
        lowering.constants[str(result.name)] = Constant(known.source, dtype)
    else:
        lowering.views[str(result.name)] = lowering.view(source)


def _sliced(node: ir.Node, x: View) -> View:
    starts, ends = numbers(node, 1) or [], numbers(node, 2) or []
    axes = numbers(node, 3) or list(range(len(starts)))
    steps = numbers(node, 4) or [1] * len(starts)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        size = x.shape[axis]
        first, last, stride = slice(start, end, step).indices(size)
        x = x.slice(axis, first, len(range(first, last, stride)), stride)
    return x
