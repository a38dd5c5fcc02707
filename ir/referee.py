"""ONNX Runtime as the referee: the answer that every graph of ours is held against."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

from .formats import INTEGERS

_ort: Any = ort
"""The package carries no types for what its C++ extension gives."""

HALF_BYTES = frozenset({ir.DataType.INT4})
"""Types that ONNX Runtime computes with and that its Python takes and gives no arrays of."""

LARGEST_PROTO_BYTES = 1 << 30
"""Protobuf stops at 2 GB. Above half of that, weights go to a file of their own, or are lent."""

LENT_BYTES = 1 << 16
"""Smaller tensors stay in a large model, where ONNX Runtime may read shapes from them."""

LENT = frozenset({ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.INT8, ir.DataType.UINT8})
"""Types of weights that its Python takes as they are."""

Arrays = Mapping[str, NDArray[Any]]
Results = dict[str, NDArray[Any]]


def session(
    model: ir.Model | Path, *, threads: int = 0, optimise: bool = True, spare: bool = False
) -> ort.InferenceSession:
    """A CPU session for a model of any size, or for an .onnx file as it is. ``threads`` 0 lets ONNX Runtime choose;
    to ``spare`` memory it gives back what it can at once.

    Numbers of four bits and of two that a model, not a file, takes and gives are int8 for the caller.
    """
    options = _ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.enable_cpu_mem_arena = options.enable_mem_pattern = not spare
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = _ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    if isinstance(model, Path):
        return _ort.InferenceSession(os.fspath(model), options, providers=providers)
    model = _with_half_bytes_cast(_with_two_bits_clipped(model))
    # Of a program, dequantised numbers are multiplied as it says, not by kernels that round elsewhere.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if not large(model):
        proto = ir.serde.serialize_model(model).SerializeToString()
        return _ort.InferenceSession(proto, options, providers=providers)
    with tempfile.TemporaryDirectory(prefix="fick-referee-") as folder:
        path = Path(folder) / "model.onnx"
        ir.save(model, os.fspath(path), external_data="model.data")  # pyright: ignore[reportUnknownMemberType]
        return _ort.InferenceSession(os.fspath(path), options, providers=providers)


def caller(model: ir.Model, names: Sequence[str], threads: int = 0) -> Callable[[Arrays], Results]:
    """Inputs by name -> the outputs ``names``.

    A session copies its weights, and once more where it changes their layout. Those of a large model stay where they
    are and are given with every call, so that what follows from weights alone is computed in every call as well.
    """
    lent = dict[str, NDArray[Any]]()
    if large(model):
        model, lent = _with_weights_lent(model)
    runner: Any = session(model, threads=threads, spare=bool(lent))

    def call(inputs: Arrays) -> dict[str, NDArray[Any]]:
        return dict(zip(names, runner.run(list(names), {**inputs, **lent}), strict=True))

    return call


def run(model: ir.Model, inputs: Arrays) -> dict[str, NDArray[Any]]:
    """Run a model once. ``inputs`` by name, in the model's shapes; returns its outputs by name."""
    results = caller(model, [str(value.name) for value in model.graph.outputs])(inputs)
    return {name: np.asarray(result) for name, result in results.items()}


def large(model: ir.Model) -> bool:
    """Whether copies of its weights are to be spared."""
    return weight_bytes(model) >= LARGEST_PROTO_BYTES


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers."""
    return sum(
        int(value.const_value.nbytes)
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )


def _with_weights_lent(model: ir.Model) -> tuple[ir.Model, dict[str, NDArray[Any]]]:
    """A copy that takes its large weights as inputs, and these."""
    model = model.clone()
    lent = dict[str, NDArray[Any]]()
    for name, value in list(model.graph.initializers.items()):
        tensor = value.const_value
        if tensor is None or value.is_graph_output():
            continue
        if tensor.dtype not in LENT or tensor.nbytes < LENT_BYTES:
            continue
        lent[name] = np.ascontiguousarray(tensor.numpy())
        del model.graph.initializers[name]
        value.const_value = None
        model.graph.inputs.append(value)
    return model, lent


def _with_two_bits_clipped(model: ir.Model) -> ir.Model:
    """The model, or where it has numbers of two bits, a copy with int8 in their place.

    ONNX has them from opset 25 on, where ONNX Runtime 1.31 lacks Swish.
    """
    narrow = ir.DataType.INT2
    if not any(value.dtype is narrow for value in _values(model.graph)):
        return model
    model = model.clone()
    for node in list(model.graph):
        if node.attributes.get_int("output_dtype", 0) != int(narrow):
            continue
        node.attributes["output_dtype"] = ir.AttrInt64("output_dtype", int(ir.DataType.INT8))
        (given,) = node.outputs
        inside = [
            ir.node("Constant", [], {"value": ir.tensor(np.array(end, np.int8))}, name=f"{given.name}.{end}")
            for end in (INTEGERS["int2"].smallest, INTEGERS["int2"].largest)
        ]
        clip = ir.node("Clip", [given, *(end.outputs[0] for end in inside)], name=f"{given.name}.clip")
        (kept,) = clip.outputs
        kept.name, given.name = given.name, f"{given.name}.wide"
        kept.shape, kept.type = given.shape, given.type
        ir.convenience.replace_all_uses_with(given, kept, replace_graph_outputs=True)
        clip.replace_input_with(0, given)
        model.graph.insert_after(node, [*inside, clip])
    for value in _values(model.graph):
        if value.dtype is narrow:
            value.type = ir.TensorType(ir.DataType.INT8)
            if value.const_value is not None:
                value.const_value = ir.tensor(value.const_value.numpy().astype(np.int8), name=value.name)
    return model


def _values(graph: ir.Graph) -> Iterator[ir.Value]:
    yield from graph.inputs
    yield from graph.initializers.values()
    for node in graph:
        yield from node.outputs


def _with_half_bytes_cast(model: ir.Model) -> ir.Model:
    """The model, or where it takes or gives numbers of ``HALF_BYTES``, a copy with int8 in their place."""
    if not any(value.dtype in HALF_BYTES for value in (*model.graph.inputs, *model.graph.outputs)):
        return model
    model = model.clone()
    graph = model.graph

    def cast(value: ir.Value, to: ir.DataType, name: str) -> ir.Node:
        node = ir.node("Cast", [value], {"to": int(to)}, name=f"{name}.cast")
        node.outputs[0].name, node.outputs[0].shape, node.outputs[0].dtype = name, value.shape, to
        return node

    for value in graph.inputs:
        if (narrow := value.dtype) in HALF_BYTES and narrow is not None:
            node = cast(value, narrow, f"{value.name}.narrow")
            ir.convenience.replace_all_uses_with(value, node.outputs[0])
            node.replace_input_with(0, value)
            value.type = ir.TensorType(ir.DataType.INT8)  # clones share types
            first = next(iter(graph), None)
            graph.append(node) if first is None else graph.insert_before(first, node)
    for index, value in enumerate(graph.outputs):
        if value.dtype in HALF_BYTES:
            name = str(value.name)
            value.name = f"{name}.narrow"
            node = cast(value, ir.DataType.INT8, name)
            graph.append(node)
            graph.outputs[index] = node.outputs[0]
    return model
