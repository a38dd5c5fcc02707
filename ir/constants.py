"""Numbers of values that follow from weights alone."""

from __future__ import annotations

from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from . import referee


def numbers_of(value: ir.Value) -> NDArray[Any]:
    """The numbers of an initializer, or of what is computed from initializers. Raises ValueError for anything else."""
    if value.const_value is not None:
        return value.const_value.numpy()
    nodes = _made_by(value)
    read = {one for node in nodes for one in node.inputs if one is not None and one.producer() is None}
    if any(one.const_value is None for one in read):
        raise ValueError(f"{value.name} does not follow from weights alone")
    copies = {
        one: ir.Value(name=one.name, const_value=one.const_value, shape=one.shape, type=one.type)
        for one in read
    }
    initializers = list(copies.values())
    made: list[ir.Node] = []
    for node in nodes:
        copy = ir.node(
            node.op_type,
            [None if one is None else copies[one] for one in node.inputs],
            node.attributes,
            num_outputs=len(node.outputs),
            name=node.name,
        )
        for old, new in zip(node.outputs, copy.outputs, strict=True):
            new.name, new.shape, new.type = old.name, old.shape, old.type
            copies[old] = new
        made.append(copy)
    opset = dict(nodes[0].graph.opset_imports)  # type: ignore[union-attr]
    graph = ir.Graph(
        [], [copies[value]], nodes=made, initializers=initializers, opset_imports=opset, name="constant"
    )
    return referee.run(ir.Model(graph, ir_version=11), {})[str(value.name)]


def _made_by(value: ir.Value) -> list[ir.Node]:
    """The nodes that a value is computed by, in order."""
    seen: dict[ir.Node, None] = {}

    def visit(one: ir.Value | None) -> None:
        node = one.producer() if one is not None else None
        if node is None or node in seen:
            return
        for each in node.inputs:
            visit(each)
        seen[node] = None

    visit(value)
    return list(seen)
