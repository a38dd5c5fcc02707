"""Convolutions one behind the other, which one can stand for once what lies between them is dropped.

LayerMerge (Kim et al., arXiv 2406.12837): without the activation between two convolutions they are one, whose kernel
is as large as both together, less one; and of those that are left out altogether nothing is added to it. There dynamic
programming over segments of a chain chooses by tables of latency and importance. Here every segment is a candidate like
any other, priced by the cost model and measured, and those that overlap exclude each other: what the programme then
finds is the best of all ways to part the chain. In a UNet a residual connection ends a chain, so that segments are the
two convolutions of a resnet, whose normalisation and share of the timestep go with the activation. What stands for them
is not the product of their kernels, but the kernel with the least squares of what they gave.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from ...ir.modules import module_path
from ...ir.shapes import shape_of

BETWEEN = frozenset({"Add", "Gelu", "GroupNormalization", "Mul", "Relu", "Sigmoid", "Swish"})
"""Operators that a merged convolution drops."""


def segments(graph: ir.Graph) -> Iterator[tuple[str, str, str, tuple[int, ...]]]:
    """Runs of two convolutions and more whose results nothing else reads: name, entry, exit, and widths of kernels."""
    for node in graph:
        if (width := _width(node)) is None:
            continue
        entry, widths, last = node.inputs[0], [width], node
        assert entry is not None
        while (following := _next(last)) is not None and (width := _width(following)) is not None:
            last = following
            widths.append(width)
            yield _name(node, last), str(entry.name), str(last.outputs[0].name), tuple(widths)


def _width(node: ir.Node) -> int | None:
    """Of a kernel that keeps a picture's size; None for any other node."""
    if node.op_type != "Conv" or node.attributes.get_int("group", 1) != 1:
        return None
    source, weight = node.inputs[0], node.inputs[1]
    assert source is not None and weight is not None
    width, *others = shape_of(weight)[2:]
    dilated = any(one != 1 for one in node.attributes.get_ints("dilations", ()))
    same = shape_of(source)[2:] == shape_of(node.outputs[0])[2:] and width % 2 == 1
    return width if same and others == [width] and not dilated else None


def _next(node: ir.Node) -> ir.Node | None:
    """The convolution that follows, past what lies between."""
    while True:
        (value,) = node.outputs[:1]
        readers = [one for one, _ in value.uses()]
        if len(readers) != 1 or value.is_graph_output():
            return None
        (node,) = readers
        if node.op_type == "Conv":
            return node if node.inputs[0] is value else None
        others = [one for one in node.inputs if one is not None and one is not value]
        # What is as large as a picture comes from elsewhere: a residual connection.
        if node.op_type not in BETWEEN or any(shape_of(one)[2:] == shape_of(value)[2:] for one in others):
            return None


def _name(first: ir.Node, last: ir.Node) -> str:
    ours, theirs = (module_path(one) or str(one.outputs[0].name) for one in (first, last))
    return f"{ours}+{theirs.rpartition('.')[2]}"
