"""Operators from graph to machine code and back, against ONNX Runtime on the same graph."""

import diffusers
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

import fick
from fick.compiler.build import build, tensors
from fick.compiler.cache import cache_folder
from fick.compiler.frontends import Imported
from fick.ir import referee
from fick.ir.canonical import canonicalise
from fick.ir.errors import UserError
from fick.targets import profile

HEADER = '<ir_version: 10, opset_import: ["" : 23]>\n'
ATTENTION = "q_num_heads = 4, kv_num_heads = 4"

GRAPHS = {
    "token embedding": "g (int64[2, 7] ids) => (float[2, 7, 19] y) <float[11, 19] table> { y = Gather(table, ids) }",
    "gather along columns": (
        "g (float[3, 5, 6] x) => (float[3, 2, 6] y) <int64[2] at = {4, -2}> { y = Gather <axis = 1> (x, at) }"
    ),
    "causal attention": (
        "g (float[2, 9, 32] q, float[2, 9, 32] k, float[2, 9, 32] v) => (float[2, 9, 32] y) "
        f"{{ y = Attention <is_causal = 1, {ATTENTION}> (q, k, v) }}"
    ),
    "attention with an added mask": (
        "g (float[2, 9, 32] q, float[2, 40, 32] k, float[2, 40, 32] v, float[2, 1, 9, 40] m) "
        f"=> (float[2, 9, 32] y) {{ y = Attention <{ATTENTION}> (q, k, v, m) }}"
    ),
    "attention with hidden keys": (
        "g (float[1, 9, 32] q, float[1, 5, 32] k, float[1, 5, 32] v) => (float[1, 9, 32] y) "
        f"<bool[9, 5] m> {{ y = Attention <{ATTENTION}> (q, k, v, m) }}"
    ),
    "attention with shared keys": (
        "g (float[2, 4, 9, 8] q, float[2, 2, 21, 8] k, float[2, 2, 21, 8] v) => (float[2, 4, 9, 8] y) "
        "{ y = Attention (q, k, v) }"
    ),
}  # fmt: skip


def drawn(value: ir.Value | onnx.ValueInfoProto, rng: np.random.Generator) -> np.ndarray:
    kind = value.type.tensor_type
    shape = [size.dim_value for size in kind.shape.dim]
    if kind.elem_type == onnx.TensorProto.INT64:
        return rng.integers(-11, 11, shape)
    if kind.elem_type == onnx.TensorProto.BOOL:
        return rng.integers(0, 2, shape).astype(bool) | np.eye(*shape, dtype=bool)
    return rng.standard_normal(shape, dtype=np.float32)


def model(text: str, rng: np.random.Generator) -> ir.Model:
    """The graph; weights that the text only declares are drawn."""
    proto = onnx.parser.parse_model(HEADER + text)
    for declared in list(proto.graph.value_info):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(drawn(declared, rng), declared.name))
    del proto.graph.value_info[:]
    return ir.from_proto(proto)


def compiled(graph: ir.Model, path):
    weights = frozenset(graph.graph.initializers)
    inputs = {str(value.name): "sample" for value in graph.graph.inputs}
    imported = Imported(canonicalise(graph), "operator", "onnx", inputs, weights)
    skeleton = build({"operator": imported}, profile.load("host"), cache_folder(), name="operator")
    skeleton.write(path, {"operator": tensors(imported.model)})
    return fick.load(path)


@pytest.mark.parametrize("name", GRAPHS)
def test_an_operator_agrees_with_onnx_runtime(name, tmp_path):
    """To 2e-6 of values around one: sums of up to 40 products, twice in a row."""
    rng = np.random.default_rng(7)
    graph = model(GRAPHS[name], rng)
    feeds = {value.name: drawn(value, rng) for value in ir.serde.serialize_model(graph).graph.input}
    wanted = referee.run(graph, feeds)["y"]
    with compiled(graph, tmp_path / "operator.fick") as loaded:
        got = loaded.run(**feeds)["y"]
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-6)


def test_a_number_outside_of_the_table_reads_nothing_else(tmp_path):
    rng = np.random.default_rng(8)
    graph = model(GRAPHS["token embedding"], rng)
    with compiled(graph, tmp_path / "operator.fick") as loaded:
        far = np.array([[2**40, -(2**40), 11, -12, 0, 10, -1]] * 2)
        near = np.array([[10, 0, 10, 0, 0, 10, 10]] * 2)
        np.testing.assert_array_equal(loaded.run(ids=far)["y"], loaded.run(ids=near)["y"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "g (float[1, 2, 9, 8] q, float[1, 2, 9, 8] k) => (float[1, 2, 9, 8] y) { y = Attention <softcap = 5.0> (q, k, k) }",
            "Attention with softcap",
        ),
        ("g (float[3, 4] a, float[4, 5] b) => (float[3, 5] y) { y = MatMul(a, b) }", "two computed matrices"),
        ("g (float[4] a) => (float[4] y) { y = HardSwish(a) }", "operator HardSwish is not supported"),
    ],
)
def test_what_no_kernel_does_is_said_in_one_sentence(text, said, tmp_path):
    with pytest.raises(UserError, match=said):
        compiled(model(text, np.random.default_rng(0)), tmp_path / "operator.fick")


def test_class_labels_choose_their_embedding(tmp_path):
    torch.manual_seed(3)
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=3, out_channels=3, block_out_channels=(8, 16), layers_per_block=1,
        norm_num_groups=4, down_block_types=("DownBlock2D",) * 2, up_block_types=("UpBlock2D",) * 2,
        num_class_embeds=5,
    ).eval()  # fmt: skip
    for tensor in unet.parameters():
        torch.nn.init.normal_(tensor, std=0.1)
    fick.compile(unet, output=tmp_path / "classes.fick")
    sample = np.random.default_rng(0).standard_normal((1, 3, 8, 8), dtype=np.float32)
    with fick.load(tmp_path / "classes.fick") as loaded:
        for label in (0, 3, 4):
            got = loaded.run(sample=sample, timestep=[7], class_labels=[label])
            with torch.no_grad():
                wanted = unet(torch.from_numpy(sample), 7, torch.tensor([label])).sample.numpy()
            np.testing.assert_allclose(next(iter(got.values())), wanted, rtol=0, atol=1e-5)
