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

from numpy.typing import NDArray

PRODUCTS = ["Conv", "Gemm", "MatMul"]
"""What fick has integers for; attention's products among them, in which a peer has more of them than fick."""


def quantised(model: Path, feeds: Mapping[str, NDArray[Any]], folder: Path) -> Path:
    """``model`` with products of integers, in ``folder``, ranges being those of one call on ``feeds``.

    Weights have a scale a channel. Activations are without a sign, which x86's instructions multiply fastest.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )
    from onnxruntime.quantization.shape_inference import (
        quant_pre_process,
    )

    class OneCall(CalibrationDataReader):
        def __init__(self) -> None:
            self._left = [dict(feeds)]

        def get_next(self) -> Any:
            return self._left.pop() if self._left else None

    prepared, result = folder / "prepared.onnx", folder / "int8.onnx"
    with _quiet():
        # Weights of any size, for protobuf stops at 2 GB. Shapes are static: symbols have nothing to infer.
        quant_pre_process(
            os.fspath(model), os.fspath(prepared), skip_symbolic_shape=True, save_as_external_data=True,
            all_tensors_to_one_file=True, external_data_location="prepared.data",
        )  # fmt: skip
        quantize_static(
            os.fspath(prepared), os.fspath(result), OneCall(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8, op_types_to_quantize=PRODUCTS,
            use_external_data_format=True,
        )  # fmt: skip
    return result


@contextmanager
def _quiet() -> Any:
    """Without what the library logs of a model that has been prepared as it advises."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
