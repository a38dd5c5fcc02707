"""Graphs of narrower or wider floating-point numbers, as graphs of float32."""

from __future__ import annotations

import onnx_ir as ir

from ..formats import as_float32

FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})


def widen(model: ir.Model) -> None:
    """Let the graph compute in float32 throughout, in place, whatever its weights are stored in.

    Weights keep their names and their numbers, all of which float32 has but those of float64.
    """
    for graph in (model.graph, *model.graph.subgraphs()):
        _widen(graph)


def _widen(graph: ir.Graph) -> None:
    for value in (*graph.inputs, *graph.outputs, *(one for node in graph for one in node.outputs)):
        if value.dtype in FLOATS:
            value.type = ir.TensorType(ir.DataType.FLOAT)
    for node in graph:
        for name, attribute in node.attributes.items():
            if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in FLOATS:
                wide = ir.tensor(as_float32(attribute.as_tensor()))
                node.attributes[name] = ir.AttrTensor(name, wide)
            elif name in ("to", "dtype") and ir.DataType(attribute.as_int()) in FLOATS:
                node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is not None and tensor.dtype in FLOATS:
            value.const_value = ir.tensor(as_float32(tensor), name=name)
            value.type = ir.TensorType(ir.DataType.FLOAT)
