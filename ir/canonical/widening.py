"""Graphs of narrower or wider floating-point numbers, as graphs of float32."""

from __future__ import annotations

import onnx_ir as ir

FLOATS = frozenset({ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE})


def widen(model: ir.Model) -> None:
    """Let the graph compute in float32 throughout, in place, whatever its weights are stored in.

    Weights stay as they are, by name and number: a Cast of constant rate stands behind each.
    """
    graph = model.graph
    for value in (*graph.inputs, *graph.outputs, *(one for node in graph for one in node.outputs)):
        if value.dtype in FLOATS:
            value.type = ir.TensorType(ir.DataType.FLOAT)
    for node in graph:
        for name, attribute in node.attributes.items():
            if attribute.type == ir.AttributeType.TENSOR and attribute.as_tensor().dtype in FLOATS:
                wide = ir.tensor(attribute.as_tensor().numpy().astype("float32"))
                node.attributes[name] = ir.AttrTensor(name, wide)
            elif name in ("to", "dtype") and ir.DataType(attribute.as_int()) in FLOATS:
                node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
    casts: list[ir.Node] = []
    for name, value in graph.initializers.items():
        tensor = value.const_value
        if tensor is None or tensor.dtype not in FLOATS or not value.uses():
            continue
        cast = ir.node("Cast", [value], {"to": int(ir.DataType.FLOAT)}, name=f"{name}.float32")
        (result,) = cast.outputs
        result.name = f"{name}.float32"
        uses = [use for use in value.uses() if use.node is not cast]
        for use in uses:
            use.node.replace_input_with(use.idx, result)
        casts.append(cast)
    if casts:
        graph.insert_before(graph[0], casts)
