"""What the referee does for its callers beside calling ONNX Runtime."""

from __future__ import annotations

import resource
from pathlib import Path

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


def product_of(weights: np.ndarray, format: str) -> ir.Model:
    rows, columns = weights.shape
    taking = graph(
        f"g (float[2, {rows}] x, float[{rows}, {columns}] w) => (float[2, {columns}] y) {{ y = MatMul(x, w) }}"
        if format == "float32"
        else f"g (float[2, {rows}] x, int8[{rows}, {columns}] w) => (float[2, {columns}] y) <float s = {{0.125}}> "
        "{ d = DequantizeLinear (w, s) y = MatMul(x, d) }"
    )
    value = taking.graph.inputs.pop()
    value.const_value = ir.tensor(weights.astype(format), name="w")
    taking.graph.register_initializer(value)
    return taking


@pytest.mark.parametrize("format", ["float32", "int8"])
def test_weights_of_large_models_are_lent(monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    weights = np.random.default_rng(0).integers(-100, 100, (300, 300))
    taking = product_of(weights, format)
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 300)).astype(np.float32)}
    copied = referee.run(taking, feeds)["y"]
    monkeypatch.setattr(referee, "LARGEST_PROTO_BYTES", 1)
    assert [value.name for value in referee.session(taking).get_inputs()] == ["x"]
    np.testing.assert_allclose(referee.run(taking, feeds)["y"], copied, rtol=1e-5, atol=1e-3)
    assert list(taking.graph.initializers) and [value.name for value in taking.graph.inputs] == ["x"]


def test_lent_weights_take_no_memory_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def memory_bytes() -> int:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    weights = np.ones((8192, 8192), np.float32)
    taking = product_of(weights, "float32")
    monkeypatch.setattr(referee, "LARGEST_PROTO_BYTES", 1)
    before = memory_bytes()
    call = referee.caller(taking, ["y"])
    assert call({"x": np.ones((2, 8192), np.float32)})["y"][0, 0] == 8192
    assert memory_bytes() - before < weights.nbytes / 4
