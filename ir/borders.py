"""What goes into a set of nodes, and what comes out of it."""

from __future__ import annotations

from collections.abc import Iterable

import onnx_ir as ir


def inputs_of(nodes: Iterable[ir.Node]) -> list[ir.Value]:
    """Values read from outside, weights among them, each once, in order of first use."""
    inside = dict.fromkeys(nodes)
    read = dict.fromkeys(value for node in inside for value in node.inputs if value is not None)
    return [value for value in read if value.producer() not in inside]


def outputs_of(nodes: Iterable[ir.Node]) -> list[ir.Value]:
    """Values used outside or by the graph's caller, in the order of the nodes."""
    inside = dict.fromkeys(nodes)
    return [
        value
        for node in inside
        for value in node.outputs
        if value.is_graph_output() or any(user not in inside for user, _ in value.uses())
    ]
