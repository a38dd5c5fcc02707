"""Operators from graph to machine code and back, against ONNX Runtime on the same graph."""

import diffusers
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch

import fick
from fick.compiler.bundle.build import build, tensors
from fick.compiler.cache import cache_folder
from fick.compiler.frontends import Imported, import_model
from fick.ir import referee
from fick.ir.canonical import canonicalise
from fick.ir.errors import UserError
from fick.targets import profile

HEADER = '<ir_version: 10, opset_import: ["" : 23]>\n'
ATTENTION = "q_num_heads = 4, kv_num_heads = 4"

GRAPHS = {
    "a flip keeps its shape and is no copy": (
        "g (float[2, 3, 8] x) => (float[2, 3, 8] y) "
        "<int64[1] s = {-1}, int64[1] e = {-9}, int64[1] a = {2}, int64[1] t = {-1}> { f = Slice(x, s, e, a, t) y = Relu(f) }"
    ),
    "part of a signal": (
        "g (float[2, 3, 8] x) => (float[2, 3, 3] y) "
        "<int64[1] s = {1}, int64[1] e = {7}, int64[1] a = {2}, int64[1] t = {2}> { f = Slice(x, s, e, a, t) y = Relu(f) }"
    ),
    "zeros around an image": (
        "g (float[1, 3, 5, 6] x) => (float[1, 3, 8, 9] y) <int64[8] p = {0, 0, 1, 2, 0, 0, 2, 1}> { y = Pad(x, p) }"
    ),
    "mean of windows": (
        "g (float[1, 3, 6, 8] x) => (float[1, 3, 3, 4] y) "
        "{ y = AveragePool <kernel_shape = [2, 2], strides = [2, 2]> (x) }"
    ),
    "nearest of halves": (
        "g (float[1, 3, 4, 5] x) => (float[1, 3, 12, 10] y) <int64[4] size = {1, 3, 12, 10}> "
        "{ y = Resize (x, , , size) }"
    ),
    "nearest of corners": (
        "g (float[1, 3, 4, 5] x) => (float[1, 3, 8, 10] y) <float[4] k = {1.0, 1.0, 2.0, 2.0}> "
        '{ y = Resize <coordinate_transformation_mode = "asymmetric", nearest_mode = "floor"> (x, , k) }'
    ),
    "one scale for all channels": (
        "g (float[1, 8, 3, 3] x) => (float[1, 8, 3, 3] y) <float[1] one, float[8] b, int64[1] n = {8}> "
        "{ s = Expand(one, n) y = GroupNormalization <num_groups = 2> (x, s, b) }"
    ),
    "a whole number becomes a float": (
        "g (int64[1] t, float[1, 6] x) => (float[1, 6] y) { f = Cast <to = 1> (t) y = Mul(x, f) }"
    ),
    "a head of 512 channels": (
        "g (float[1, 1, 40, 512] q, float[1, 1, 40, 512] k, float[1, 1, 40, 512] v) => (float[1, 1, 40, 512] y) "
        "{ y = Attention (q, k, v) }"
    ),
    "small probabilities go": (
        "g (float[2, 3, 17] x) => (float[2, 3, 17] y) { s = Softmax(x) y = ThresholdedRelu <alpha = 0.05> (s) }"
    ),
    "integers and back": (
        "g (float[2, 3, 17] x) => (float[2, 3, 17] y) <float s = {0.01}, int8 z = {3}> "
        "{ a = Mul(x, x) q = QuantizeLinear(a, s, z) d = DequantizeLinear(q, s, z) y = Relu(d) }"
    ),
    "names beyond ASCII": 'g (float[1, 4] "größe") => (float[1, 4] y) { y = Relu("größe") }',
    "an input that nothing reads": "g (float[1, 4] x, float[3] spare) => (float[1, 4] y) { y = Relu(x) }",
    "concatenation": "g (float[1, 2, 4] x, float[1, 3, 4] z) => (float[1, 5, 4] y) { y = Concat <axis = 1> (x, z) }",
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
    "two computed matrices": (
        "g (float[2, 3, 9, 40] a, float[2, 1, 40, 21] b, float[21] c) => (float[2, 3, 9, 21] y) "
        "{ p = MatMul(a, b) q = Add(p, c) y = Relu(q) }"
    ),
    "two computed matrices, one turned": (
        "g (float[1, 3, 9, 40] a, float[1, 3, 21, 40] b) => (float[1, 9, 3, 21] y) "
        "<float k = {0.16}> { t = Transpose <perm = [0, 1, 3, 2]> (b) p = MatMul(a, t) s = Mul(p, k) "
        "y = Transpose <perm = [0, 2, 1, 3]> (s) }"
    ),
    "a gate of computed halves": (
        "g (float[1, 9, 12] a, float[1, 12, 26] b) => (float[1, 9, 13] y) "
        "<float k = {0.29}> { q = Mul(a, k) p = MatMul(q, b) u, v = Split <axis = -1, num_outputs = 2> (p) g = Gelu(v) "
        "y = Mul(u, g) }"
    ),
    "many constant matrices": (
        "g (float[2, 3, 5, 7] a) => (float[2, 3, 5, 4] y) <float[3, 7, 4] b> { y = MatMul(a, b) }"
    ),
    "gemm of computed matrices": (
        "g (float[7, 5] a, float[9, 7] b, float[9] c) => (float[5, 9] y) "
        "{ y = Gemm <transA = 1, transB = 1> (a, b, c) }"
    ),
    "one filter a channel": (
        "g (float[2, 21, 9, 11] x, float[2, 21, 5, 4] r) => (float[2, 21, 5, 4] y) <float[21, 1, 3, 5] w, float[21] b> "
        "{ c = Conv <group = 21, strides = [2, 3], pads = [1, 2, 1, 1]> (x, w, b) d = Add(c, r) s = Sigmoid(d) y = Mul(d, s) }"
    ),
    "two filters a channel": (
        "g (float[1, 8, 6, 5] x) => (float[1, 16, 6, 5] y) <float[16, 1, 3, 3] w> "
        "{ y = Conv <group = 8, dilations = [2, 1], pads = [2, 1, 2, 1]> (x, w) }"
    ),
    "groups of channels": (
        "g (float[1, 24, 7, 6] x) => (float[1, 40, 7, 6] y) <float[40, 6, 3, 3] w, float[40] b, float k = {0.14}> "
        "{ c = Conv <group = 4, pads = [1, 1, 1, 1]> (x, w, b) y = Mul(c, k) }"
    ),
    "groups along a signal": (
        "g (float[1, 6, 9] x) => (float[1, 9, 7] y) <float[9, 2, 3] w> { y = Conv <group = 3> (x, w) }"
    ),
    "computed filters": (
        "g (float[1, 5, 6, 7] x, float[8, 5, 3, 3] w) => (float[1, 8, 6, 7] y) <float k = {0.15}> "
        "{ c = Conv <pads = [1, 1, 1, 1]> (x, w) y = Mul(c, k) }"
    ),
    "means of channels": (
        "g (float[2, 37, 4, 5] x) => (float[2, 37, 4, 5] y) <int64[1] a = {1}> { m = ReduceMean(x, a) y = Sub(x, m) }"
    ),
    "lengths of channels, innermost": (
        "g (float[2, 4, 5, 37] x) => (float[2, 4, 5] y) <int64[1] a = {-1}> { y = ReduceL2 <keepdims = 0> (x, a) }"
    ),
    "largest of all": "g (float[2, 3, 5] x) => (float y) { y = ReduceMax <keepdims = 0> (x) }",
    "products along two axes": (
        "g (float[2, 3, 4, 2] x) => (float[1, 3, 1, 2] y) <int64[2] a = {0, 2}> { y = ReduceProd(x, a) }"
    ),
    "largest of windows": (
        "g (float[1, 19, 7, 9] x) => (float[1, 19, 3, 4] y) { y = MaxPool <kernel_shape = [3, 2], strides = [2, 2]> (x) }"
    ),
    "largest of framed windows": (
        "g (float[1, 3, 7, 9] x) => (float[1, 3, 4, 5] y) "
        "{ y = MaxPool <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (x) }"
    ),
    "mean of dilated windows, framed": (
        "g (float[1, 3, 9, 9] x) => (float[1, 3, 5, 5] y) "
        "{ y = AveragePool <kernel_shape = [2, 2], dilations = [6, 6], pads = [1, 1, 1, 1]> (x) }"
    ),
    "linear enlargement": (
        "g (float[1, 3, 4, 5] x) => (float[1, 3, 8, 10] y) <float[4] k = {1.0, 1.0, 2.0, 2.0}> "
        '{ y = Resize <mode = "linear"> (x, , k) }'
    ),
    "transposed convolution": (
        "g (float[1, 6, 5, 4] x) => (float[1, 8, 10, 8] y) <float[6, 8, 4, 4] w, float[8] b> "
        "{ y = ConvTranspose <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w, b) }"
    ),
    "reflection": (
        "g (float[1, 3, 4, 5] x) => (float[1, 3, 7, 8] y) <int64[8] p = {0, 0, 1, 2, 0, 0, 2, 1}> "
        '{ y = Pad <mode = "reflect"> (x, p) }'
    ),
    "choices": (
        "g (float[2, 9] x, float[9] z) => (float[2, 9] y) <float half = {0.5}, float low = {-9.0}> "
        "{ l = Less(x, z) g = GreaterOrEqual(x, half) n = Not(g) b = And(l, n) o = Or(b, g) c = Ceil(x) s = Sign(x) "
        "d = Add(c, s) y = Where(o, d, low) }"
    ),
    "a float becomes a whole number": (
        "g (float[2, 9] x) => (float[2, 9] y) { i = Cast <to = 7> (x) b = Cast <to = 9> (i) z = Cast <to = 1> (b) "
        "f = Cast <to = 1> (i) y = Add(f, z) }"
    ),
    "whole numbers divided": (
        "g (int64[3, 9] x) => (int64[3, 9] y) <int64 k = {3}> { d = Div(x, k) y = Mul(d, k) }"
    ),
    "means of whole numbers": (
        "g (int64[9, 1] x) => (int64[9] y) <int64[2] s = {9, 41}, int64[1] a = {1}> "
        "{ e = Expand(x, s) y = ReduceMean <keepdims = 0> (e, a) }"
    ),
    "what groups compute becomes pixels": (
        "g (float[1, 8, 4, 4] x) => (float[1, 2, 8, 8] y) <float[8, 2, 3, 3] w> "
        "{ c = Conv <group = 4, pads = [1, 1, 1, 1]> (x, w) d = DepthToSpace <blocksize = 2> (c) y = Relu(d) }"
    ),
    "a flip of everything, summed": (
        "g (float[5, 9] x) => (float y) <int64[1] s = {-1}, int64[1] e = {-99}, int64[1] a = {1}, int64[1] t = {-1}> "
        "{ f = Slice(x, s, e, a, t) y = ReduceSum <keepdims = 0> (f) }"
    ),
    "filters over three axes": (
        "g (float[1, 6, 3, 5, 4] x) => (float[1, 8, 3, 5, 4] y) <float[8, 6, 3, 3, 3] w, float[8] b, float k = {0.08}> "
        "{ c = Conv <pads = [1, 1, 1, 1, 1, 1]> (x, w, b) y = Mul(c, k) }"
    ),
    "running sums and rests of whole numbers": (
        "g (int64[3, 9] x) => (int64[3, 9] y) <int64 k = {-4}, int64 a = {1}> { c = CumSum <exclusive = 1> (x, a) y = Mod(c, k) }"
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


def side_by_side(graphs, path):
    """The graphs in one, as a file at ``path``; inputs for it, and what ONNX Runtime gives."""
    rng = np.random.default_rng(7)
    protos = [ir.to_proto(model(text, rng)) for text in graphs.values()]
    whole = onnx.compose.add_prefix(protos[0], "g0/")
    for index, proto in enumerate(protos[1:], 1):
        whole = onnx.compose.merge_models(whole, proto, io_map=[], prefix2=f"g{index}/")
    onnx.save(whole, path)
    feeds = {value.name: drawn(value, rng) for value in whole.graph.input}
    return feeds, referee.run(ir.from_proto(whole), feeds)


def assert_agree(graphs, got, wanted) -> None:
    """What ``side_by_side`` gives, to 5e-6 of values around one, or of the deviation of larger ones: as sums of unit
    noise have them, whose roundings grow with it.
    """
    assert got.keys() == wanted.keys() and len(got) == len(graphs)
    for title, output in zip(graphs, wanted, strict=True):
        assert got[output].shape == wanted[output].shape, title
        scale = max(1.0, float(np.std(wanted[output])))
        np.testing.assert_allclose(got[output], wanted[output], rtol=0, atol=5e-6 * scale, err_msg=title)


def compiled(graph: ir.Model, path):
    weights = frozenset(graph.graph.initializers)
    inputs = {str(value.name): "sample" for value in graph.graph.inputs}
    imported = Imported(canonicalise(graph), "operator", "onnx", inputs, weights)
    skeleton = build({"operator": imported}, profile.load("host"), cache_folder(), name="operator")
    skeleton.write(path, {"operator": tensors(imported.model)})
    return fick.load(path)


@pytest.mark.parametrize("name", GRAPHS)
def test_an_operator_agrees_with_onnx_runtime(name, tmp_path):
    """To 5e-6 of values around one: a sum of 512 products, scaled by 1 / sqrt(512), errs by up to 512 * 2^-24 of
    that, 1.3e-6, and weighs values of up to three.
    """
    rng = np.random.default_rng(7)
    graph = model(GRAPHS[name], rng)
    feeds = {value.name: drawn(value, rng) for value in ir.serde.serialize_model(graph).graph.input}
    wanted = referee.run(graph, feeds)["y"]
    with compiled(graph, tmp_path / "operator.fick") as loaded:
        got = loaded.run(**{name: feeds[name] for name in loaded.inputs})["y"]
    assert got.shape == wanted.shape
    np.testing.assert_allclose(got, wanted, rtol=0, atol=5e-6)


def test_the_mean_of_everything_is_summed_in_lanes(tmp_path):
    """A million tenths one after another err by almost a hundredth, in lanes by at most as many roundings as a lane
    has terms.
    """
    x = np.full((1, 4, 512, 512), 0.1, np.float32)
    graph = model("g (float[1, 4, 512, 512] x) => (float y) { y = ReduceMean <keepdims = 0> (x) }", None)
    with compiled(graph, tmp_path / "operator.fick") as loaded:
        got = loaded.run(x=x)["y"]
    assert abs(got / x.flat[0] - 1) <= x.size / profile.load("host").vector_lanes * 2.0**-24


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
        ("g (float[4] a) => (float[4] y) { y = Frobnicate(a) }", "operator Frobnicate is not supported"),
        (
            "g (float[1, 1, 8, 8] x) => (float[1, 1, 4, 4] y) { y, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x) "
            "f = Cast <to = 1> (i) z = Add(y, f) }".replace("(float[1, 1, 4, 4] y)", "(float[1, 1, 4, 4] z)"),
            "with indices",
        ),
        (
            "g (float[1, 1, 8, 8] x) => (float[1, 1, 4, 4] y, int64[1, 1, 4, 4] i) "
            "{ y, i = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (x) }",
            "with indices",
        ),
        (
            "g (float[4, 2] x, float[2] s) => (float[4, 2] y) { y, m, v = BatchNormalization <training_mode = 1> (x, s, s, s, s) }",
            "operator BatchNormalization is not supported",
        ),
        (
            "g (float[4] x, int64[2, 1] i, float[2] u) => (float[4] y) { y = ScatterND(x, i, u) }",
            "operator ScatterND is not supported",
        ),
        (
            "g (float[2] x) => (float[1] a) { a, b, c = Split <num_outputs = 3> (x) }",
            "which holds nothing",
        ),
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


def test_a_fault_in_the_bytes_of_a_graph_is_a_sentence(tmp_path):
    """Whatever happens to a file on its way, the front end answers with a graph or with a UserError."""
    random = np.random.default_rng(5)
    proto = onnx.parser.parse_model(
        HEADER
        + "g (float[1, 4, 8, 8] x, float[1] sigma) => (float[1, 4, 8, 8] y) <float[4, 4, 3, 3] w, float[4] b> "
        "{ c = Conv <pads = [1, 1, 1, 1]> (x, w, b) s = Sigmoid(c) m = Mul(c, s) r = Reshape <allowzero = 0> (sigma, one) "
        "k = Add(m, r) y = Identity(k) }".replace("(sigma, one)", "(sigma, sh)").replace(
            "float[4] b>", "float[4] b, int64[4] sh = {1, 1, 1, 1}>"
        )
    )
    for declared in list(proto.graph.value_info):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(drawn(declared, random), declared.name))
    del proto.graph.value_info[:]
    data = proto.SerializeToString()
    path = tmp_path / "mutant.onnx"
    path.write_bytes(data)
    assert import_model(path).model.graph.num_nodes()
    refused = 0
    for _ in range(400):
        mutant = bytearray(data)
        for place in random.integers(0, len(data), random.integers(1, 4)):
            mutant[place] = random.integers(0, 256)
        path.write_bytes(bytes(mutant))
        try:
            import_model(path)
        except UserError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 50
