"""What windows and copies do at the edges of an image: said by explicit zeros, or by pieces that are joined."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .propagate import dims, literal
from .writing import first, kept, operand, same_pads, span, table, written_out

LOWEST = np.array(np.finfo(np.float32).min)


def _given_pads(node: ir.Node) -> tuple[list[int], list[int]] | None:
    """How many elements Pad puts before and after every axis, where that is known."""
    rank = len(dims(first(node)))
    pads, axes = literal(operand(node, 1)), literal(operand(node, 3))
    if pads is None or (operand(node, 3) is not None and axes is None):
        return None
    places = list(range(rank)) if axes is None else [int(axis) % rank for axis in axes.ravel()]
    before, after = [0] * rank, [0] * rank
    for place, axis in enumerate(places):
        before[axis], after[axis] = int(pads[place]), int(pads[place + len(places)])
    return before, after


def _filler(node: ir.Node) -> float | None:
    value = operand(node, 2)
    if value is None:
        return 0.0
    number = literal(value)
    return None if number is None else float(number.reshape(-1)[0]) if number.size else 0.0


def _is_joined(node: ir.Node) -> bool:
    """Whether a Pad is anything but zeros around an image, which is an operator of its own."""
    pads, mode = _given_pads(node), node.attributes.get_string("mode", "constant")
    if pads is None or (mode == "constant" and _filler(node) is None):
        return False
    before, after = pads
    image = len(before) in (3, 4) and not any(before[:2] + after[:2]) and min(before + after) >= 0
    return not (image and mode == "constant" and _filler(node) == 0)


def _joined(op: Any, node: ir.Node) -> Any:
    pads = _given_pads(node)
    assert pads is not None
    mode = node.attributes.get_string("mode", "constant")
    kind = first(node).dtype or ir.DataType.FLOAT
    filler = np.array(_filler(node) or 0.0, kind.numpy())
    return _framed(op, first(node), list(dims(first(node))), *pads, mode, filler)


def _framed(
    op: Any, x: Any, sizes: list[int], before: list[int], after: list[int], mode: str, filler: NDArray[Any]
) -> Any:
    """``x`` of these ``sizes`` with pieces joined to it axis by axis; fewer than none are cut off."""
    for axis, (early, late) in enumerate(zip(before, after, strict=True)):
        if early < 0 or late < 0:
            x = span(op, x, axis, max(-early, 0), sizes[axis] - max(-late, 0))
            sizes[axis] += min(early, 0) + min(late, 0)
        size = sizes[axis]
        pieces = [x]
        if early > 0:
            pieces.insert(0, _piece(op, x, sizes, axis, early, mode, filler, first=True))
        if late > 0:
            pieces.append(_piece(op, x, sizes, axis, late, mode, filler, first=False))
        if len(pieces) > 1:
            x = op.Concat(*pieces, axis=axis)
        sizes[axis] = size + max(early, 0) + max(late, 0)
    return x


def _piece(
    op: Any, x: Any, sizes: list[int], axis: int, count: int, mode: str, filler: NDArray[Any], *, first: bool
) -> Any:
    """So many elements before the first or after the last."""
    size = sizes[axis]
    shape = [*sizes[:axis], count, *sizes[axis + 1 :]]
    if mode == "constant":
        one = op.Constant(value=ir.tensor(filler.reshape([1] * len(sizes))))
        return op.Expand(one, table(op, shape))
    if mode == "edge":
        at = 0 if first else size - 1
        return op.Expand(span(op, x, axis, at, at + 1), table(op, shape))
    if mode == "wrap":
        return span(op, x, axis, size - count, size) if first else span(op, x, axis, 0, count)
    start = count if first else size - 2
    end = start - count
    return span(op, x, axis, start, end if end >= 0 else -size - 1, -1)


def _window(node: ir.Node) -> tuple[list[int], list[int], list[int]]:
    """Extents of a pool's window, dilation counted, how far apart windows are, and their kernel."""
    kernel = list(node.attributes["kernel_shape"].as_ints())
    steps = list(node.attributes.get_ints("strides", [1] * len(kernel)))
    dilations = node.attributes.get_ints("dilations", [1] * len(kernel))
    return [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)], steps, kernel


def _pool_pads(node: ir.Node) -> tuple[list[int], list[int], list[int]]:
    """What stands before and after each axis of the image, and how far windows may reach behind it."""
    windows, steps, _ = _window(node)
    extents, results = dims(first(node))[2:], dims(node.outputs[0])[2:]
    auto = node.attributes.get_string("auto_pad", "NOTSET")
    count = len(windows)
    if auto.startswith("SAME"):
        pads = same_pads(extents, windows, steps, auto == "SAME_UPPER")
    else:
        pads = list(node.attributes.get_ints("pads", [0] * 2 * count))
    reached = [
        (result - 1) * step + window - extent - before
        for result, step, window, extent, before in zip(
            results, steps, windows, extents, pads[:count], strict=True
        )
    ]
    return pads[:count], pads[count:], [max(one, 0) for one in reached]


def _reaches_out(node: ir.Node) -> bool:
    before, _, reached = _pool_pads(node)
    framed = any(before) or any(reached)
    said = node.attributes.get_int("ceil_mode", 0) or any(node.attributes.get_ints("pads", [0]))
    return framed or bool(said) or node.attributes.get_string("auto_pad", "NOTSET") != "NOTSET"


def _framed_pool(op: Any, node: ir.Node) -> Any:
    """A pool whose windows lie within an image that is framed before. Means count what they are means of."""
    x = first(node)
    before, after, reached = _pool_pads(node)
    sizes = list(dims(x))
    mean = node.op_type == "AveragePool"
    if any(before) or any(reached):
        if mean:
            x = op.Pad(x, table(op, [0, 0, *before, 0, 0, *reached]))
        else:
            x = _framed(op, x, sizes, [0, 0, *before], [0, 0, *reached], "constant", LOWEST)
    names = ("auto_pad", "ceil_mode", "count_include_pad", "pads", "storage_order")
    result = getattr(op, node.op_type)(x, **kept(node, *names))
    if not mean:
        return result
    counted = _counts(node, before, after, reached)
    if np.all(counted == 1):
        return result
    return op.Mul(result, op.Constant(value=ir.tensor(counted.astype(np.float32))))


def _counts(node: ir.Node, before: list[int], after: list[int], reached: list[int]) -> np.ndarray[Any, Any]:
    """Elements of a window over those that count, for each result: [1, 1, spatial...]."""
    windows, steps, kernel = _window(node)
    padding = node.attributes.get_int("count_include_pad", 0)
    shares = np.ones((1, 1), np.float64)
    for axis, extent in enumerate(dims(first(node))[2:]):
        early, late = before[axis], min(after[axis], reached[axis])
        inside = np.zeros(early + extent + reached[axis])
        inside[0 if padding else early : early + extent + (late if padding else 0)] = 1
        taps = np.linspace(0, windows[axis] - 1, kernel[axis]).astype(int)
        starts = np.arange(dims(node.outputs[0])[2 + axis]) * steps[axis]
        counts = inside[starts[:, None] + taps].sum(axis=1)
        shares = shares[..., None] * (kernel[axis] / counts)
    return shares


def _automatic(node: ir.Node) -> bool:
    return node.attributes.get_string("auto_pad", "NOTSET").startswith("SAME")


def _explicit(op: Any, node: ir.Node) -> Any:
    """A convolution whose pads are numbers."""
    kernel = dims(operand(node, 1))[2:]
    steps = node.attributes.get_ints("strides", [1] * len(kernel))
    dilations = node.attributes.get_ints("dilations", [1] * len(kernel))
    windows = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    upper = node.attributes.get_string("auto_pad", "") == "SAME_UPPER"
    pads = same_pads(dims(first(node))[2:], windows, steps, upper)
    return op.Conv(*node.inputs, **kept(node, "auto_pad"), pads=pads)


def _over_all(op_type: str) -> Any:
    def build(op: Any, node: ir.Node) -> Any:
        return getattr(op, op_type)(first(node), table(op, range(2, len(dims(first(node))))))

    return build


def _is_image(node: ir.Node) -> bool:
    return len(dims(first(node))) > 2 and math.prod(dims(first(node))) > 0


EDGES = [
    written_out("Pad", _joined, _is_joined),
    *(written_out(name, _framed_pool, _reaches_out) for name in ("AveragePool", "MaxPool")),
    written_out("Conv", _explicit, _automatic),
    written_out("GlobalAveragePool", _over_all("ReduceMean"), _is_image),
    written_out("GlobalMaxPool", _over_all("ReduceMax"), _is_image),
]
