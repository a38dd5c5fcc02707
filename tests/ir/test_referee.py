"""What the referee does for its callers beside calling ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from fick.ir import referee

HEADER = '<ir_version: 13, opset_import: ["" : 24]>\n'


def graph(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(HEADER + text))


def test_numbers_of_four_bits_pass_as_bytes() -> None:
    weights = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    scale = np.array([0.125, 0.25, 0.5], np.float32)
    giving = graph(
        "g (float[5, 3] w, float[3] s) => (int4[5, 3] q) { q = QuantizeLinear <axis = 1, output_dtype = 22> (w, s) }"
    )
    taking = graph(
        "g (int4[5, 3] q, float[3] s) => (float[5, 3] d) { d = DequantizeLinear <axis = 1> (q, s) }"
    )
    found = referee.run(giving, {"w": weights, "s": scale})["q"]
    np.testing.assert_array_equal(found, np.clip(np.rint(weights / scale), -8, 7).astype(np.int8))
    back = referee.run(taking, {"q": found, "s": scale})["d"]
    np.testing.assert_array_equal(back, found * scale)
    # The models are as they were.
    assert giving.graph.outputs[0].dtype is taking.graph.inputs[0].dtype is ir.DataType.INT4
    assert [len(model.graph) for model in (giving, taking)] == [1, 1]
