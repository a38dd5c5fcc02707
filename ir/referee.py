"""ONNX Runtime as the referee: the answer that every graph of ours is held against."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort  # pyright: ignore[reportMissingTypeStubs]
from numpy.typing import NDArray

_ort: Any = ort
"""The package carries no types for what its C++ extension gives."""

LARGEST_PROTO_BYTES = 1 << 30
"""Protobuf stops at 2 GB. Above half of that, weights go to a file of their own."""


def session(model: ir.Model | Path, *, threads: int = 0, optimise: bool = True) -> ort.InferenceSession:
    """A CPU session for a model of any size, or for an .onnx file as it is. ``threads`` 0 lets ONNX Runtime choose."""
    options = _ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    if not optimise:
        options.graph_optimization_level = _ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    providers = ["CPUExecutionProvider"]
    if isinstance(model, Path):
        return _ort.InferenceSession(os.fspath(model), options, providers=providers)
    # Of a program, dequantised numbers are multiplied as it says, not by kernels that round elsewhere.
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    if weight_bytes(model) < LARGEST_PROTO_BYTES:
        proto = ir.serde.serialize_model(model).SerializeToString()
        return _ort.InferenceSession(proto, options, providers=providers)
    with tempfile.TemporaryDirectory(prefix="fick-referee-") as folder:
        path = Path(folder) / "model.onnx"
        ir.save(model, os.fspath(path), external_data="model.data")  # pyright: ignore[reportUnknownMemberType]
        return _ort.InferenceSession(os.fspath(path), options, providers=providers)


def run(model: ir.Model, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Run a model once. ``inputs`` by name, in the model's shapes; returns its outputs by name."""
    names = [str(value.name) for value in model.graph.outputs]
    runner: Any = session(model)
    results: list[Any] = runner.run(names, dict(inputs))
    return {name: np.asarray(result) for name, result in zip(names, results, strict=True)}


def weight_bytes(model: ir.Model) -> int:
    """Bytes of all initializers."""
    return sum(
        int(value.const_value.nbytes)
        for value in model.graph.initializers.values()
        if value.const_value is not None
    )
