"""A model in 8-bit integers as a peer's user would make it: by ONNX Runtime's own static quantisation.

OpenVINO reads the same file and runs it on its own integer kernels.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...ir import referee

Feeds = Mapping[str, NDArray[Any]]

PRODUCTS = ["Conv", "Gemm", "MatMul"]
"""What fick has integers for; attention's products among them, in which a peer has more of them than fick."""


def quantised(model: Path, feeds: Feeds, folder: Path) -> Path:
    """``model`` with products of integers, in ``folder``, ranges being those of one call on ``feeds``.

    Weights have a scale a channel. Activations are without a sign, which x86's instructions multiply fastest.
    """
    from onnxruntime.quantization import (
        CalibrationMethod,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.calibrate import (
        TensorsData,
        save_tensors_data,
    )
    from onnxruntime.quantization.shape_inference import (
        quant_pre_process,
    )

    prepared, result, kept = (folder / name for name in ("prepared.onnx", "int8.onnx", "ranges.json"))
    with _quiet():
        # Weights of any size, for protobuf stops at 2 GB. Shapes are static: symbols have nothing to infer.
        quant_pre_process(
            os.fspath(model), os.fspath(prepared), skip_symbolic_shape=True, save_as_external_data=True,
            all_tensors_to_one_file=True, external_data_location="prepared.data",
        )  # fmt: skip
        save_tensors_data(TensorsData(CalibrationMethod.MinMax, {**ranges(prepared, feeds)}), kept)
        quantize_static(
            os.fspath(prepared), os.fspath(result), None, calibration_cache_path=kept,
            quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=PRODUCTS,
            use_external_data_format=True,
        )  # fmt: skip
    return result


def ranges(path: Path, feeds: Feeds) -> dict[str, tuple[NDArray[Any], NDArray[Any]]]:
    """The least and the largest number of whatever products read and give, weights apart.

    The library would find the same, with a model's weights in memory several times over.
    """
    model: ir.Model = ir.load(path)  # pyright: ignore[reportUnknownMemberType]
    graph = model.graph
    for value in graph.initializers.values():
        if value.const_value is not None:  # mapped, wherever the model goes from here
            value.const_value = ir.Tensor(value.const_value.numpy())
    nodes = [node for node in graph if node.op_type in PRODUCTS]
    values = dict.fromkeys(value for node in nodes for value in (*node.inputs, *node.outputs) if value)
    ends: dict[str, tuple[str, str]] = {}
    for value in [value for value in values if not value.is_initializer()]:
        name = str(value.name)
        ends[name] = f"{name}/least", f"{name}/most"
        for operator, end in zip(("ReduceMin", "ReduceMax"), ends[name], strict=True):
            node = ir.node(operator, [value], {"keepdims": 0})
            node.outputs[0].name, node.outputs[0].type = end, ir.TensorType(ir.DataType.FLOAT)
            graph.append(node)
            graph.outputs.append(node.outputs[0])
    found = referee.caller(model, [end for both in ends.values() for end in both])(feeds)
    return {name: (np.asarray(found[least]), np.asarray(found[most])) for name, (least, most) in ends.items()}


@contextmanager
def _quiet() -> Any:
    """Without what the library logs of a model that has been prepared as it advises."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
