"""Malformed and foreign ONNX files: each mistake is one sentence that says what is wrong and where."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from fick.compiler.frontends import open_model
from fick.ir.errors import UserError

TEXT = """<ir_version: 8, opset_import: ["" : 18]>
unet (float[1,4,8,8] x, float[1] t) => (float[1,4,8,8] y)
{
  [conv1] a = Conv<pads=[1,1,1,1]>(x, w1, b1)
  [row] r = Reshape(t, to_row)
  [time] e = MatMul(r, w2)
  [column] c = Reshape(e, to_column)
  [add] s = Add(a, c)
  [gate] g = Sigmoid(s)
  [mul] m = Mul(s, g)
  [conv2] y = Conv<pads=[1,1,1,1]>(m, w3)
}"""
WEIGHTS = {"w1": (8, 4, 3, 3), "b1": (8,), "w2": (1, 8), "w3": (4, 8, 3, 3)}


def sound() -> ModelProto:
    model = onnx.parser.parse_model(TEXT)
    rng = np.random.default_rng(0)
    arrays: dict[str, Any] = {name: rng.standard_normal(shape, np.float32) for name, shape in WEIGHTS.items()}
    arrays |= {"to_row": np.array([1, 1]), "to_column": np.array([1, 8, 1, 1])}
    model.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in arrays.items())
    return model


def node(model: ModelProto, name: str) -> onnx.NodeProto:
    return next(one for one in model.graph.node if one.name == name)


def weight(model: ModelProto, name: str) -> TensorProto:
    return next(one for one in model.graph.initializer if one.name == name)


def put(model: ModelProto, name: str, array: np.ndarray[Any, Any]) -> None:
    weight(model, name).CopyFrom(numpy_helper.from_array(array, name))


def outside(model: ModelProto, name: str, place: str, **span: int) -> None:
    """Let an initializer say that its numbers are in another file."""
    tensor = weight(model, name)
    onnx.external_data_helper.set_external_data(tensor, place, **span)
    tensor.ClearField("raw_data")


def branch(model: ModelProto) -> None:
    body = helper.make_graph(
        [helper.make_node("Identity", ["s"], ["then"])],
        "then",
        [],
        [helper.make_tensor_value_info("then", TensorProto.FLOAT, [1, 8, 8, 8])],
    )
    model.graph.input.append(helper.make_tensor_value_info("which", TensorProto.BOOL, []))
    node(model, "gate").CopyFrom(
        helper.make_node("If", ["which"], ["g"], "gate", then_branch=body, else_branch=body)
    )


FAULTS: list[tuple[Callable[[ModelProto], object], str]] = [
    (lambda m: m.graph.initializer.remove(weight(m, "w3")), "Conv node conv2 reads w3, which is no input"),
    (lambda m: node(m, "conv1").input.__setitem__(0, "m"), "conv1 reads m, which follows from its own result"),
    (lambda m: m.graph.node.reverse(), "Conv node conv2 reads m before Mul node mul makes it"),
    (lambda m: node(m, "gate").output.__setitem__(0, "s"), "Sigmoid node gate makes s, which Add node add makes"),
    (lambda m: node(m, "gate").output.__setitem__(0, "x"), "Sigmoid node gate makes x, which is an input"),
    (lambda m: node(m, "conv2").output.pop(), "Conv node conv2 makes nothing"),
    (lambda m: setattr(m.graph.output[0], "name", "z"), "output z is made by nothing"),
    (lambda m: m.graph.output.append(m.graph.output[0]), "output y stands there 2 times"),
    (lambda m: m.graph.initializer.append(weight(m, "w1")), "initializer w1 stands there 2 times"),
    (lambda m: setattr(weight(m, "w1"), "name", ""), "an initializer has no name"),
    (lambda m: setattr(weight(m, "w1"), "data_type", 99), "initializer w1 is of the unknown type 99"),
    (lambda m: weight(m, "w1").dims.__setitem__(0, -8), "initializer w1 has shape \\[-8, 4, 3, 3\\]"),
    (lambda m: weight(m, "w1").dims.__setitem__(0, 10**15), "does not hold the FLOAT numbers .* initializer w1"),
    (lambda m: setattr(weight(m, "w1"), "raw_data", b"few"), "does not hold the FLOAT numbers .* initializer w1"),
    (lambda m: weight(m, "b1").CopyFrom(helper.make_tensor("b1", 8, [1], [b"x"])), "b1 holds no numbers"),
    (lambda m: outside(m, "w1", "gone.bin"), "keeps its weights in .*gone.bin, which is missing"),
    (lambda m: outside(m, "w1", "model.onnx", offset=10**9), "model.onnx does not hold the FLOAT numbers"),
    (lambda m: outside(m, "w1", "/etc/hostname"), "keeps initializer w1 in /etc/hostname, outside of its folder"),
    (lambda m: outside(m, "w1", "a/../../b"), "keeps initializer w1 in a/../../b, outside of its folder"),
    (lambda m: setattr(node(m, "gate"), "op_type", "Sigmoidal"), "operator Sigmoidal is not supported, .* gate"),
    (lambda m: setattr(node(m, "gate"), "domain", "my.own"), "operator my.own.Sigmoid is not supported"),
    (branch, "If node gate chooses between two graphs by which, which is known only when the model runs"),
    (lambda m: (branch(m), node(m, "gate").attribute.pop()), "If node gate has no two branches of as many results"),
    (lambda m: (branch(m), setattr(node(m, "gate"), "op_type", "Loop")), "Loop node gate runs a graph of its own"),
    (lambda m: (branch(m), node(m, "gate").attribute[0].g.node[0].input.__setitem__(0, "q")), "Identity node then reads q, which is no input"),
    (lambda m: node(m, "add").input.pop(), "do not fit at Add node add: .* input size 1"),
    (lambda m: node(m, "row").input.pop(), "do not fit at Reshape node row"),
    (lambda m: put(m, "w1", np.ones((8, 4, 3, 3), np.int32)), "do not fit at Conv node conv1: W .*int32"),
    (lambda m: put(m, "w3", np.ones((4, 7, 3, 3), np.float32)), "conv2: filters .* do not go over 8 channels"),
    (lambda m: put(m, "b1", np.ones(7, np.float32)), r"conv1: b1 has shape \[7\] and should have \[8\]"),
    (lambda m: put(m, "to_column", np.array([1, 8, 2, 1])), "types or shapes do not fit at "),
    (lambda m: node(m, "conv1").attribute[0].ints.pop(), "at Conv node conv1: Attribute pads"),
    (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[2], "dim_param", "h"), r"size 2 \(h\) of input x"),
    (lambda m: setattr(m.graph.input[0].type.tensor_type.shape.dim[2], "dim_value", 0), "size 2 of input x is 0"),
    (lambda m: m.graph.input[0].ClearField("type"), "input x has no declared shape"),
    (lambda m: setattr(m.opset_import[0], "version", 99), "it says opset 99, and the newest known is"),
    (lambda m: setattr(m.opset_import[0], "version", 1), "opset 1 cannot be brought to 24"),
    (lambda m: m.opset_import.pop(), "it does not say its opset"),
    (lambda m: m.graph.ClearField("node"), "not a complete ONNX file"),
]  # fmt: skip


def read(model: bytes, folder: Path) -> None:
    path = folder / "model.onnx"
    path.write_bytes(model)
    open_model(path).main.imported()


def test_the_model_is_sound(tmp_path: Path) -> None:
    read(sound().SerializeToString(), tmp_path)


@pytest.mark.parametrize(("spoil", "said"), FAULTS)
def test_each_fault_is_named(spoil: Callable[[ModelProto], object], said: str, tmp_path: Path) -> None:
    model = sound()
    spoil(model)
    with pytest.raises(UserError, match=said) as caught:
        read(model.SerializeToString(), tmp_path)
    assert "\n" not in str(caught.value)


def test_opset_8_is_read_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = sound()
    model.opset_import[0].version = 8
    read(model.SerializeToString(), tmp_path)
    assert not caplog.records


NAMES = st.sampled_from([*WEIGHTS, "x", "t", "y", "a", "s", "m", "to_row", "to_column", "", "nothing"])
OPERATORS = st.sampled_from(
    [
        "Add",
        "Concat",
        "Conv",
        "Einsum",
        "Gather",
        "LSTM",
        "MatMul",
        "Range",
        "Resize",
        "Slice",
        "Split",
        "Sum",
    ]
)


@st.composite
def spoiled(draw: st.DrawFn) -> bytes:
    """The sound model after a few changes of any kind, and perhaps of its bytes."""
    model = sound()
    graph = model.graph
    for _ in range(draw(st.integers(1, 3))):
        if not graph.node:
            break
        one = graph.node[draw(st.integers(0, len(graph.node) - 1))]
        tensor = graph.initializer[draw(st.integers(0, len(graph.initializer) - 1))]
        size = draw(st.integers(-1, 9))
        match draw(st.integers(0, 8)):
            case 0 if one.input:
                one.input[draw(st.integers(0, len(one.input) - 1))] = draw(NAMES)
            case 1:
                one.op_type = draw(OPERATORS)
            case 2:
                graph.node.remove(one)
            case 3:
                one.attribute.append(
                    helper.make_attribute(draw(st.sampled_from(["axis", "group", "pads"])), size)
                )
            case 4:
                tensor.CopyFrom(numpy_helper.from_array(np.full(draw(st.integers(0, 9)), size), tensor.name))
            case 5 if tensor.dims:
                tensor.dims[0] = size
            case 6:
                graph.input[0].type.tensor_type.shape.dim[draw(st.integers(0, 3))].dim_value = size
            case 7:
                graph.input[draw(st.integers(0, 1))].type.tensor_type.elem_type = draw(st.integers(0, 20))
            case _:
                one.output[0] = draw(NAMES)
    data = bytearray(model.SerializeToString())
    for _ in range(draw(st.integers(0, 1)) * draw(st.integers(0, 3))):
        data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
    return bytes(data)


@given(spoiled())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_spoiled_is_read_or_refused_in_a_sentence(tmp_path: Path, model: bytes) -> None:
    try:
        read(model, tmp_path)
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 1000
