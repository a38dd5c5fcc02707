"""One forward walk that gives every value its static type and folds what depends on no weight."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import defs, shape_inference
from onnx.reference import ReferenceEvaluator

from ..errors import UserError, first_line
from ..modules import module_path
from .branches import take_branch

LARGEST_FOLD = 1 << 20
"""Results with more elements than this stay nodes: a folded table should not outweigh the weights."""

LITERAL = "fick.literal"
"""Key in ``Value.meta`` (not serialised) of initializers that are constants of the code, not weights."""

UNTYPED_BY_ONNX = frozenset({"GroupNormalization", "MeanVarianceNormalization", "HardSwish"})
"""Operators that ONNX types only by expanding a function body; all keep their input's type."""

SHAPING_FLOATS = {"Resize": (1, 2), "Upsample": (1,)}
"""Inputs that are float and yet decide a shape: what stands there is a constant of the code, no weight."""


def literal(value: ir.Value | None) -> np.ndarray[Any, Any] | None:
    """The number or table behind a value if it is a constant of the code; None for weights, activations."""
    if value is None or value.const_value is None:
        return None
    is_literal: bool = LITERAL in value.meta or value.dtype is None or not value.dtype.is_floating_point()
    if is_literal or value.const_value.shape.rank() == 0:
        return value.const_value.numpy()
    return None


def is_static(value: ir.Value | None) -> bool:
    """Whether the rank and every size of a value are numbers."""
    return value is not None and value.shape is not None and value.shape.is_static()


def scalar(value: ir.Value | None) -> float | None:
    """The number behind a value of one element, else None."""
    if value is None or value.const_value is None or value.const_value.size != 1:
        return None
    return float(value.const_value.numpy().reshape(())[()])


def dims(value: ir.Value | None) -> tuple[int, ...]:
    """The static shape of a value that `propagate` has seen."""
    if value is None or value.shape is None:
        return ()
    return tuple(int(extent) for extent in value.shape)  # type: ignore[arg-type]


def add_literal(graph: ir.Graph, array: np.ndarray[Any, Any], name: str) -> ir.Value:
    """Register a constant of the code as an initializer under a name that is free."""
    unique, tried = name, 0
    while unique in graph.initializers:
        tried += 1
        unique = f"{name}_{tried}"
    tensor = ir.tensor(np.array(array), name=unique)
    value = ir.Value(name=unique, shape=ir.Shape(array.shape), type=ir.TensorType(tensor.dtype))
    value.const_value = tensor
    value.meta[LITERAL] = True
    graph.register_initializer(value)
    return value


def propagate(model: ir.Model) -> None:
    """Type every value of the graph; replace weight-free nodes by initializers. Changes the model in place.

    Raises UserError for an operator that the standard does not know, or whose result has no static shape.
    """
    graph = model.graph
    for value in graph.initializers.values():
        if value.const_value is None:
            raise UserError(
                f"initializer {value.name} has no data in the file; export the model with weights."
            )
        value.shape = ir.Shape(value.const_value.shape.numpy())
        value.type = ir.TensorType(value.const_value.dtype)
        if any(index in SHAPING_FLOATS.get(node.op_type, ()) for node, index in value.uses()):
            value.meta[LITERAL] = True
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in model.opset_imports.items()]
    for node in graph:
        if node.op_type == "If" and not node.domain:
            _decide(node)  # what stands in its place now comes next
            continue
        folded = _fold(node, imports)
        if folded is None:
            _infer(node, imports, model.ir_version)
            continue
        for output, array in zip(node.outputs, folded, strict=True):
            constant = add_literal(graph, array, output.name or "constant")
            ir.convenience.replace_all_uses_with(output, constant, replace_graph_outputs=True)
        graph.remove(node, safe=True)


def _decide(node: ir.Node) -> None:
    chosen = literal(node.inputs[0])
    if chosen is None or chosen.size != 1:
        name = node.inputs[0] and node.inputs[0].name
        raise UserError(
            f"{where(node)} chooses between two graphs by {name}, which is known only when the model runs; export the "
            "model without that choice."
        )
    take_branch(node, "then_branch" if chosen.reshape(()) else "else_branch")


def _fold(node: ir.Node, imports: list[Any]) -> list[np.ndarray[Any, Any]] | None:
    if node.domain or any(output.is_graph_output() for output in node.outputs):
        return None
    if node.op_type in ("Shape", "Size"):
        return _measure(node)
    known = [literal(value) for value in node.inputs]
    missing = any(
        value is not None and array is None for value, array in zip(node.inputs, known, strict=True)
    )
    if missing or node.op_type.startswith("Random") or _sequence(node):
        return None
    if any(attribute.type == ir.AttributeType.GRAPH for attribute in node.attributes.values()):
        return None
    proto = ir.serde.serialize_node(node)
    names = [name for name in proto.input if name]
    feeds = {value.name: array for value, array in zip(node.inputs, known, strict=True) if value is not None}
    graph = onnx.helper.make_graph(
        [proto],
        "one",
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in dict.fromkeys(names)],
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in proto.output],
    )
    whole = onnx.helper.make_model(graph, opset_imports=imports)
    try:
        results = [np.asarray(result) for result in ReferenceEvaluator(whole).run(None, feeds)]  # type: ignore[arg-type]
    except Exception as error:  # The evaluator is NumPy, and stumbles where a node makes no sense.
        raise UserError(f"{where(node)} cannot be computed: {first_line(error)}.") from error
    return results if all(result.size <= LARGEST_FOLD for result in results) else None


def _sequence(node: ir.Node) -> bool:
    return "Sequence" in node.op_type


def _measure(node: ir.Node) -> list[np.ndarray[Any, Any]] | None:
    value = node.inputs[0]
    if not is_static(value):
        return None
    shape = np.array(dims(value), np.int64)
    if node.op_type == "Size":
        return [np.array(shape.prod(), np.int64)]
    return [shape[node.attributes.get_int("start", 0) : node.attributes.get_int("end", len(shape))]]


def _infer(node: ir.Node, imports: list[Any], ir_version: int) -> None:
    if node.domain == "" and node.op_type in UNTYPED_BY_ONNX:
        assert node.inputs[0] is not None
        _set(node.outputs[0], node.inputs[0].shape, node.inputs[0].type)
        return
    if node.op_type == "SequenceAt":
        _infer_part(node)
        return
    versions = {opset.domain: opset.version for opset in imports}
    try:
        schema = defs.get_schema(node.op_type, versions.get(node.domain, 1), node.domain)
    except defs.SchemaError:
        return  # A rule may still raise it; `require_static` names what is left.
    types: dict[str, onnx.TypeProto] = {}
    data: dict[str, onnx.TensorProto] = {}
    for value in node.inputs:
        if value is None or value.name is None:
            continue
        types[value.name] = _type_proto(value)
        array = literal(value)
        if array is not None:
            data[value.name] = onnx.numpy_helper.from_array(array, value.name)
    try:
        inferred = shape_inference.infer_node_outputs(
            schema, ir.serde.serialize_node(node), types, data, opset_imports=imports, ir_version=ir_version
        )
    except Exception as error:  # The C++ extension raises bare exceptions of several kinds.
        reason = re.sub(r"^\[\w+\] ", "", first_line(error))
        raise UserError(f"types or shapes do not fit at {where(node)}: {reason}.") from error
    for output in node.outputs:
        if output.name in inferred:
            proto = inferred[output.name]
            kind = proto.WhichOneof("value")
            if kind != "tensor_type":
                continue
            shape = ir.serde.deserialize_type_proto_for_shape(proto)
            _set(output, shape, ir.serde.deserialize_type_proto_for_type(proto))


def sequence_parts(split: ir.Node) -> tuple[int, list[int]] | None:
    """(axis, size of each part) of a SplitToSequence, else None: of another node or where sizes are open."""
    value = split.inputs[0]
    if split.op_type != "SplitToSequence" or not is_static(value):
        return None
    if len(split.inputs) > 1:
        chunk = literal(split.inputs[1])
    else:  # Parts of size one; without keepdims they also lose the axis, which no Split does.
        chunk = np.array(1) if split.attributes.get_int("keepdims", 1) else None
    if chunk is None:
        return None
    axis = split.attributes.get_int("axis", 0) % len(dims(value))
    if chunk.ndim:
        return axis, [int(size) for size in chunk]
    total, step = dims(value)[axis], int(chunk)
    return axis, [min(step, total - start) for start in range(0, total, step)]


def _infer_part(node: ir.Node) -> None:
    """Type one part of a sequence, which ONNX does not: all behind it is then known in the same walk."""
    split, place = node.inputs[0] and node.inputs[0].producer(), literal(node.inputs[1])
    parts = sequence_parts(split) if split is not None else None
    if split is None or parts is None or place is None:
        return
    (axis, sizes), value = parts, split.inputs[0]
    assert value is not None
    if not -len(sizes) <= int(place) < len(sizes):
        raise UserError(f"{where(node)} reads part {int(place)} of {len(sizes)}; export the model again.")
    shape = list(dims(value))
    shape[axis] = sizes[int(place)]
    _set(node.outputs[0], ir.Shape(shape), value.type)


def _set(output: ir.Value, shape: ir.Shape | None, kind: Any) -> None:
    if shape is not None:
        output.shape = ir.Shape(list(shape))
    if kind is not None:
        output.type = kind


def _type_proto(value: ir.Value) -> onnx.TypeProto:
    if value.type is None:
        return onnx.TypeProto()
    proto = onnx.TypeProto()
    ir.serde.serialize_type_into(proto, value.type)
    if value.shape is not None:
        ir.serde.serialize_shape_into(proto, value.shape)
    return proto


def where(node: ir.Node) -> str:
    path = module_path(node)
    return f"{node.op_type} node {node.name}" + (f" of module {path}" if path else "")


def require_static(model: ir.Model) -> None:
    """Raise UserError for the first value whose type or shape is not static."""
    for node in model.graph:
        for output in node.outputs:
            if not output.name:
                continue
            if output.dtype is None or not is_static(output):
                if node.domain:
                    raise UserError(
                        f"operator {node.domain}.{node.op_type} is not supported, at {where(node)}."
                    )
                raise UserError(f"the result of {where(node)} has no static shape; fix its sizes at export.")
