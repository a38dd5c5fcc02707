"""Reductions over axes of views: statistics, pooling, and products that no packed weights are a side of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import onnx_ir as ir

from ...ir.errors import UserError
from ...ir.groups import Group
from ..expressions import Apply, Expression, Literal, Load, Value, bound
from ..fused import Fused
from ..graph_facts import describe, numbers, shape_of
from ..lowering import Lowering
from ..views import View, merged
from .device import Reduction

ITSELF = Load(0, ())
JOINED = Value()
SQUARE = Apply("Mul", (ITSELF, ITSELF))

STATISTICS: dict[str, tuple[str, Expression, str | None]] = {
    "ReduceL1": ("Add", Apply("Abs", (ITSELF,)), None),
    "ReduceL2": ("Add", SQUARE, "Sqrt"),
    "ReduceLogSum": ("Add", ITSELF, "Log"),
    "ReduceMax": ("Max", ITSELF, None),
    "ReduceMean": ("Add", ITSELF, "Mean"),
    "ReduceMin": ("Min", ITSELF, None),
    "ReduceProd": ("Mul", ITSELF, None),
    "ReduceSum": ("Add", ITSELF, None),
    "ReduceSumSquare": ("Add", SQUARE, None),
}
"""What joins elements, what of each of them is joined, and what becomes of the result."""

POOLS = {"AveragePool": ("Add", "Mean"), "MaxPool": ("Max", None)}


def lower_statistic(lowering: Lowering, group: Group) -> None:
    """A result for each place along the axes that are kept."""
    node = group.anchor
    x, shape = lowering.view(_first(node)), shape_of(node.outputs[0])
    rank = len(x.shape)
    axes = [axis % rank for axis in numbers(node, 1) or ()]
    if not axes and not node.attributes.get_int("noop_with_empty_axes", 0):
        axes = list(range(rank))
    kept = [axis for axis in range(rank) if axis not in axes]
    operator, term, after = STATISTICS[node.op_type]
    sizes = tuple(x.shape[axis] for axis in axes)
    # Row-major over what is kept, but for the order in which x lies.
    order = [kept.index(axis) for axis in x.order() if axis in kept]
    out = lowering.fresh([x.shape[axis] for axis in kept], order, lowering.dtype(group.result))
    epilogue = _finished(after, sizes)
    reduce(lowering, node, out, sizes, [x.transpose([*kept, *axes])], [term], operator, epilogue)
    strides = dict(zip(kept, out.strides, strict=True))
    if len(shape) == rank:
        out = replace(out, shape=shape, strides=tuple(strides.get(axis, 0) for axis in range(rank)))
    lowering.views[str(group.result.name)] = out


def lower_pool(lowering: Lowering, group: Group) -> None:
    """The mean or the largest of every window that lies within an image."""
    node = group.anchor
    attributes = node.attributes
    x, shape = lowering.view(_first(node)), shape_of(node.outputs[0])
    window = tuple(attributes["kernel_shape"].as_ints())
    steps = attributes.get_ints("strides", [1] * len(window))
    dilations = attributes.get_ints("dilations", [1] * len(window))
    framed = any(attributes.get_ints("pads", [0])) or attributes.get_int("ceil_mode", 0)
    plain = attributes.get_string("auto_pad", "NOTSET") in ("NOTSET", "VALID")
    indices = any(one.uses() or one.is_graph_output() for one in node.outputs[1:])
    if framed or not plain or indices:
        raise UserError(
            f"operator {node.op_type} with windows beyond the image, or with indices, is not supported, "
            f"at {describe(node)}"
        )
    out = lowering.fresh(shape, x.order(), lowering.dtype(group.result))
    operator, after = POOLS[node.op_type]
    taps = _windows(x, shape, window, steps, dilations)
    reduce(lowering, node, out, window, [taps], [ITSELF], operator, _finished(after, window))
    lowering.views[str(group.result.name)] = out


def _finished(after: str | None, sizes: Sequence[int]) -> Expression:
    if after == "Mean":
        # Divided rather than multiplied by a rounded reciprocal: means of whole numbers stay whole.
        return Apply("Div", (JOINED, Literal(float(math.prod(sizes)))))
    return JOINED if after is None else Apply(after, (JOINED,))


def _windows(
    x: View, shape: Sequence[int], window: Sequence[int], steps: Sequence[int], dilations: Sequence[int]
) -> View:
    """(N, C, spatial..., taps...) of (N, C, spatial...): neighbours share elements."""
    along = x.strides[2:]
    moved = (step * stride for step, stride in zip(steps, along, strict=True))
    apart = (dilation * stride for dilation, stride in zip(dilations, along, strict=True))
    return replace(x, shape=(*shape, *window), strides=(*x.strides[:2], *moved, *apart))


def reduce(
    lowering: Lowering,
    node: ir.Node,
    out: View,
    sizes: Sequence[int],
    factors: Sequence[View],
    terms: Sequence[Expression],
    operator: str = "Add",
    epilogue: Expression = JOINED,
    loads: Sequence[View] = (),
) -> None:
    """Add the call for out = epilogue(operator over axes of these ``sizes`` of each term).

    ``factors`` are what the terms load, of the shape (*out.shape, *sizes), and ``loads`` what the epilogue does.
    """
    rank = len(out.shape)
    views = [out, *factors, *loads]
    extents, along = merged(views, out.order())
    inner = sorted(range(rank, rank + len(sizes)), key=lambda axis: -factors[0].strides[axis])
    reduced, inside = merged(factors, inner)
    count = len(factors)
    walked = [(*within, *outside) for within, outside in zip(inside, along[1:], strict=False)]
    lowering.device.reduction(
        lowering,
        Reduction(
            node=node,
            operands=tuple(views),
            extents=extents,
            out_strides=along[0],
            reduce=reduced,
            operator=operator,
            terms=tuple(bound(term, 1, walked) for term in terms),
            epilogue=bound(epilogue, 1 + count, along[1 + count :]),
        ),
    )


def sum_of_products(
    lowering: Lowering, node: ir.Node, fused: Fused, left: View, right: View, shape: Sequence[int]
) -> View:
    """Add the call for the sums of left times right, both (*shape, reduction...), columns last, with what follows.

    Returns where the result lies. Of a gated layer the columns are two halves.
    """
    rank, parts = len(shape), fused.parts
    columns = shape[-1] // parts
    halves = [
        view.slice(rank - 1, part * columns, columns) for part in range(parts) for view in (left, right)
    ]
    terms = [Apply("Mul", (Load(2 * part, ()), Load(2 * part + 1, ()))) for part in range(parts)]
    out = lowering.fresh((*shape[:-1], columns), dtype=lowering.dtype(fused.result))
    sizes = left.shape[rank:]
    reduce(lowering, node, out, sizes, halves, terms, "Add", fused.expression, fused.loads)
    return out


def _first(node: ir.Node) -> ir.Value:
    value = node.inputs[0]
    assert value is not None
    return value
