"""What the referee does for its callers beside calling ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from fick.ir import referee

HEADER = '<ir_version: 13, opset_import: ["" : 24]>\n'


def graph(text: str) -> ir.Model:
    return ir.from_proto(onnx.parser.parse_model(HEADER + text))


@pytest.mark.parametrize("bits", [4, 2])
def test_numbers_of_few_bits_pass_as_bytes(bits: int) -> None:
    narrow = ir.DataType[f"INT{bits}"]
    weights = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    scale = np.array([0.125, 0.25, 0.5], np.float32)
    giving = graph(
        "g (float[5, 3] w, float[3] s) => (int8[5, 3] q) "
        f"{{ q = QuantizeLinear <axis = 1, output_dtype = {int(narrow)}> (w, s) }}"
    )
    taking = graph(
        "g (int8[5, 3] q, float[3] s) => (float[5, 3] d) { d = DequantizeLinear <axis = 1> (q, s) }"
    )
    giving.graph.outputs[0].type = taking.graph.inputs[0].type = ir.TensorType(narrow)
    found = referee.run(giving, {"w": weights, "s": scale})["q"]
    np.testing.assert_array_equal(
        found, np.clip(np.rint(weights / scale), -(2 ** (bits - 1)), 2 ** (bits - 1) - 1).astype(np.int8)
    )
    back = referee.run(taking, {"q": found, "s": scale})["d"]
    np.testing.assert_array_equal(back, found * scale)
    # The models are as they were.
    assert giving.graph.outputs[0].dtype is taking.graph.inputs[0].dtype is narrow
    assert [len(model.graph) for model in (giving, taking)] == [1, 1]


def test_numbers_of_two_bits_inside_are_rounded_as_such() -> None:
    values = np.linspace(-2, 2, 15, dtype=np.float32).reshape(5, 3)
    scale = np.array([0.125, 0.5, 1], np.float32)
    there_and_back = graph("""g (float[5, 3] w, float[3] s) => (float[5, 3] d) {
      q = QuantizeLinear <axis = 1, output_dtype = 26> (w, s)
      d = DequantizeLinear <axis = 1> (q, s)
    }""")
    next(iter(there_and_back.graph)).outputs[0].type = ir.TensorType(ir.DataType.INT2)
    found = referee.run(there_and_back, {"w": values, "s": scale})["d"]
    np.testing.assert_array_equal(found, np.clip(np.rint(values / scale), -2, 1) * scale)


def test_weights_of_two_bits_are_read_as_bytes() -> None:
    taking = graph(
        "g (float[4] x) => (float[4] y) <int8[4] q = {-2, -1, 0, 1}, float s = {0.5}> "
        "{ d = DequantizeLinear (q, s) y = Mul(d, x) }"
    )
    weights = taking.graph.initializers["q"]
    assert weights.const_value is not None
    narrow = ir.tensor(weights.const_value.numpy().astype(ir.DataType.INT2.numpy()), name="q")
    weights.const_value, weights.type = narrow, ir.TensorType(ir.DataType.INT2)
    np.testing.assert_array_equal(referee.run(taking, {"x": np.full(4, 2, np.float32)})["y"], [-2, -1, 0, 1])
    assert weights.const_value is narrow
