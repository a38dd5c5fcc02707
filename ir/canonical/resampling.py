"""Resizing, transposed convolution and pixel shuffling, said by products, convolutions and views."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .. import referee
from ..resizing import factors, repeats
from .propagate import dims, literal
from .writing import first, kept, operand, span, table, written_out


def say_old_coordinates(model: ir.Model) -> None:
    """Let every Resize say what it meant by saying nothing before opset 11, in place: corners at whole coordinates, and
    the nearest element that comes before, or behind where there are to be fewer.
    """
    for node in model.graph:
        if node.op_type == "Resize" and "coordinate_transformation_mode" not in node.attributes:
            scales = literal(operand(node, 2))
            fewer = scales is not None and bool(np.any(scales < 1))
            node.attributes["coordinate_transformation_mode"] = ir.AttrString(
                "coordinate_transformation_mode", "asymmetric"
            )
            node.attributes["nearest_mode"] = ir.AttrString("nearest_mode", "ceil" if fewer else "floor")


def _is_linear_map(node: ir.Node) -> bool:
    """Whether each axis is resized by itself. Repeating is an operator of its own."""
    corners = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    policy = node.attributes.get_string("keep_aspect_ratio_policy", "stretch")
    return corners != "tf_crop_and_resize" and policy == "stretch" and not repeats(node)


def _resized(op: Any, node: ir.Node) -> Any:
    """Along each axis the product with what the same operator makes of the unit matrix."""
    result: Any = first(node)
    before, after = dims(result), dims(node.outputs[0])
    last = len(before) - 1
    for axis, factor in enumerate(factors(node)):
        if factor == 1 and before[axis] == after[axis]:
            continue
        swapped = [*range(last + 1)]
        swapped[axis], swapped[last] = last, axis
        matrix = op.Constant(value=ir.tensor(_unit_resized(node, axis, factor)))
        turned = result if axis == last else op.Transpose(result, perm=swapped)
        product = op.MatMul(turned, matrix)
        result = product if axis == last else op.Transpose(product, perm=swapped)
    return result


def _unit_resized(node: ir.Node, axis: int, factor: float) -> NDArray[np.float32]:
    """[size before, size after]: resizing is linear in the numbers and, axis by axis, independent."""
    size, wanted = dims(first(node))[axis], dims(node.outputs[0])[axis]
    unit = ir.Value(name="unit", shape=ir.Shape([size, size]), type=ir.TensorType(ir.DataType.FLOAT))
    by_size = operand(node, 3) is not None
    given = np.array([size, wanted], np.int64) if by_size else np.array([1, factor], np.float32)
    tensor = ir.tensor(given, name="given")
    value = ir.Value(
        name="given", const_value=tensor, shape=ir.Shape(given.shape), type=ir.TensorType(tensor.dtype)
    )
    inputs = [unit, None, None, value] if by_size else [unit, None, value]
    alone = ir.node("Resize", inputs, kept(node, "axes"), name="resize")
    alone.outputs[0].name = "result"
    graph = ir.Graph(
        [unit], alone.outputs, nodes=[alone], initializers=[value], opset_imports={"": 23}, name="unit"
    )
    found = referee.run(ir.Model(graph, ir_version=11), {"unit": np.eye(size, dtype=np.float32)})
    return found["result"]


def _cut(node: ir.Node, whole: list[int]) -> list[int]:
    """How much of each axis of a transposed convolution's ``whole`` result lies before what is wanted."""
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    if not auto.startswith("SAME") and "output_shape" not in node.attributes:
        return list(node.attributes.get_ints("pads", [0] * 2 * len(whole)))[: len(whole)]
    spare = [max(size - wanted, 0) for size, wanted in zip(whole, dims(node.outputs[0])[2:], strict=True)]
    return [one // 2 if auto == "SAME_UPPER" else one - one // 2 for one in spare]


def _transposed(op: Any, node: ir.Node) -> Any:
    """As many convolutions as there are places between two elements, whose results are interleaved.

    With stride s, place q s + r of the result, before pads are cut off, is the sum over m of element q - m times tap
    r + m s: an ordinary convolution for each r (Shi et al., arXiv 1609.07009).
    """
    x, weight = first(node), operand(node, 1)
    groups = node.attributes.get_int("group", 1)
    channels, filters, *kernel = dims(weight)
    rank = len(kernel)
    apart = node.attributes.get_ints("dilations", [1] * rank)
    if any(one != 1 for one in apart):
        weight, kernel = _dilated(op, weight, [channels, filters], kernel, apart)
    steps = list(node.attributes.get_ints("strides", [1] * rank))
    more = list(node.attributes.get_ints("output_padding", [0] * rank))
    whole = [
        (size - 1) * s + k + extra for size, s, k, extra in zip(dims(x)[2:], steps, kernel, more, strict=True)
    ]
    before = _cut(node, whole)
    for axis, wanted in enumerate(dims(node.outputs[0])[2:]):
        more[axis] += max(before[axis] + wanted - whole[axis], 0)
    taps = [math.ceil((k + extra) / s) for k, extra, s in zip(kernel, more, steps, strict=True)]
    missing = [t * s - k for t, s, k in zip(taps, steps, kernel, strict=True)]
    inputs = channels // groups
    if any(missing):
        weight = op.Pad(weight, table(op, [0, 0, *[0] * rank, 0, 0, *missing]))
    split = [groups, inputs, filters]
    for t, s in zip(taps, steps, strict=True):
        split += [t, s]
    weight = op.Reshape(weight, table(op, split))
    for axis, t in zip(range(3, 3 + 2 * rank, 2), taps, strict=True):
        weight = span(op, weight, axis, t - 1, -t - 1, -1)
    places, between = list(range(3, 3 + 2 * rank, 2)), list(range(4, 4 + 2 * rank, 2))
    weight = op.Transpose(weight, perm=[0, *between, 2, 1, *places])
    results = groups * math.prod(steps) * filters
    operands = [x, op.Reshape(weight, table(op, [results, inputs, *taps]))]
    if (bias := operand(node, 2)) is not None:
        each = op.Reshape(bias, table(op, [groups, 1, filters]))
        spread = op.Expand(each, table(op, [groups, math.prod(steps), filters]))
        operands.append(op.Reshape(spread, table(op, [results])))
    frame = [t - 1 for t in taps]
    made = op.Conv(*operands, pads=[*frame, *frame], group=groups)
    extents = [size + t - 1 for size, t in zip(dims(x)[2:], taps, strict=True)]
    result = _interleaved(op, made, dims(x)[0], [groups, filters], steps, extents)
    for axis, wanted in enumerate(dims(node.outputs[0])[2:]):
        if wanted != extents[axis] * steps[axis]:
            result = span(op, result, 2 + axis, before[axis], before[axis] + wanted)
    return result


def _dilated(
    op: Any, weight: Any, lead: list[int], kernel: list[int], apart: Sequence[int]
) -> tuple[Any, list[int]]:
    """Filters with the zeros that lie between their taps, and how far they reach then."""
    split, behind = list(lead), [0] * len(lead)
    for size, dilation in zip(kernel, apart, strict=True):
        split += [size, 1]
        behind += [0, dilation - 1]
    spread = op.Pad(op.Reshape(weight, table(op, split)), table(op, [*[0] * len(split), *behind]))
    joined = [*lead, *(size * dilation for size, dilation in zip(kernel, apart, strict=True))]
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, apart, strict=True)]
    spread = op.Reshape(spread, table(op, joined))
    for axis, size in enumerate(reach, start=len(lead)):
        spread = span(op, spread, axis, 0, size)
    return spread, reach


def _interleaved(
    op: Any, made: Any, batch: int, channels: list[int], steps: list[int], extents: list[int]
) -> Any:
    """(N, group, steps..., filter; spatial...) -> (N, group filter, spatial steps...), as channels say."""
    rank, (groups, filters) = len(steps), channels
    apart = op.Reshape(made, table(op, [batch, groups, *steps, filters, *extents]))
    perm = [0, 1, 2 + rank]
    for axis in range(rank):
        perm += [3 + rank + axis, 2 + axis]
    sizes = [extent * step for extent, step in zip(extents, steps, strict=True)]
    return op.Reshape(op.Transpose(apart, perm=perm), table(op, [batch, groups * filters, *sizes]))


def _depth_to_space(op: Any, node: ir.Node) -> Any:
    batch, channels, height, width = dims(first(node))
    block = node.attributes["blocksize"].as_int()
    deep = channels // block**2
    result = [batch, deep, height * block, width * block]
    if node.attributes.get_string("mode", "DCR") == "DCR":
        shape, perm = [batch, block, block, deep, height, width], [0, 3, 4, 1, 5, 2]
    else:
        shape, perm = [batch, deep, block, block, height, width], [0, 1, 4, 2, 5, 3]
    return op.Reshape(op.Transpose(op.Reshape(first(node), table(op, shape)), perm=perm), table(op, result))


def _space_to_depth(op: Any, node: ir.Node) -> Any:
    batch, channels, height, width = dims(first(node))
    block = node.attributes["blocksize"].as_int()
    shape = [batch, channels, height // block, block, width // block, block]
    turned = op.Transpose(op.Reshape(first(node), table(op, shape)), perm=[0, 3, 5, 1, 2, 4])
    return op.Reshape(turned, table(op, dims(node.outputs[0])))


def _tile(op: Any, node: ir.Node) -> Any:
    """Repeating along an axis is a new axis of stride zero before it."""
    sizes, wanted = dims(first(node)), dims(node.outputs[0])
    apart = [part for size in sizes for part in (1, size)]
    spread = [part for size, result in zip(sizes, wanted, strict=True) for part in (result // size, size)]
    repeated = op.Expand(op.Reshape(first(node), table(op, apart)), table(op, spread))
    return op.Reshape(repeated, table(op, wanted))


RESAMPLING = [
    written_out("Resize", _resized, _is_linear_map),
    written_out("ConvTranspose", _transposed),
    written_out("DepthToSpace", _depth_to_space),
    written_out("SpaceToDepth", _space_to_depth),
    written_out("Tile", _tile),
]
