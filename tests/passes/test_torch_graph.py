"""Graphs in torch against ONNX Runtime on the same graph, and gradients against what they are defined by."""

from __future__ import annotations

import diffusers
import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx_ir.passes.common import ShapeInferencePass

from fick.compiler.frontends.torch_module import import_module
from fick.ir import referee
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.passes.learned.torch_graph import TorchGraph
from fick.passes.learned.torch_operators import OPERATORS, REDUCTIONS
from fick.targets.planning.operators import PLANS

from . import small_unet

HEADER = '<ir_version: 11, opset_import: ["" : 24]>\n'

BINARY = {
    name: f"g (float[2, 3, 4] x, float[3, 1] z) => (float[2, 3, 4] y) {{ y = {name}(x, z) }}"
    for name in ("Add", "Div", "Max", "Min", "Mul", "Sub")
}
UNARY = {
    name: f"g (float[2, 3, 17] x) => (float[2, 3, 17] y) {{ y = {name}(x) }}"
    for name in (
        "Abs", "Cos", "Erf", "Exp", "Floor", "Gelu", "Identity", "Neg", "Reciprocal", "Relu", "Round", "Sigmoid",
        "Sin", "Softmax", "Swish", "Tanh",
    )
}  # fmt: skip
STATISTICS = {
    f"{name}, which {stays}": (
        f"g (float[2, 3, 4] x) => (float[{size}] y) <int64[2] a = {{0, -1}}> "
        f"{{ s = Sigmoid(x) y = {name}<keepdims={keep}>(s, a) }}"
    )
    for name in REDUCTIONS
    for stays, size, keep in (("stays", "1, 3, 1", 1), ("goes", "3", 0))
}
HEADS = "q_num_heads = 4, kv_num_heads = 4"
GRAPHS = {
    **BINARY,
    **UNARY,
    **STATISTICS,
    "powers and roots": "g (float[2, 5] x) => (float[2, 5] y) <float two = {2.0}> { p = Pow(x, two) r = Sqrt(p) s = Add(p, two) l = Log(s) y = Mul(r, l) }",
    "tanh's gelu": 'g (float[2, 9] x) => (float[2, 9] y) { y = Gelu<approximate="tanh">(x) }',
    "steeper swish": "g (float[2, 9] x) => (float[2, 9] y) { y = Swish<alpha=1.702>(x) }",
    "small values go": "g (float[2, 9] x) => (float[2, 9] y) { y = ThresholdedRelu<alpha=0.5>(x) }",
    "clipped on both sides": "g (float[2, 9] x) => (float[2, 9] y) <float a = {-0.5}, float b = {0.7}> { y = Clip(x, a, b) }",
    "clipped above": "g (float[2, 9] x) => (float[2, 9] y) <float b = {0.7}> { y = Clip(x, , b) }",
    "a choice": "g (float[2, 9] x, float[2, 9] z) => (float[2, 9] y) { m = Less(x, z) n = Not(m) y = Where(n, x, z) }",
    "whole numbers": "g (int64[1] t, float[1, 6] x) => (float[1, 6] y) { f = Cast<to = 1>(t) y = Mul(x, f) }",
    "bfloat16": "g (float[3, 6] x) => (float[3, 6] y) { n = Cast<to = 16>(x) y = Cast<to = 1>(n) }",
    "softmax of an inner axis": "g (float[2, 3, 5] x) => (float[2, 3, 5] y) { y = Softmax<axis=1>(x) }",
    "products of stacks": "g (float[2, 3, 4, 5] x, float[3, 5, 6] z) => (float[2, 3, 4, 6] y) { y = MatMul(x, z) }",
    "gemm": "g (float[5, 3] x, float[7, 5] z, float[7] c) => (float[3, 7] y) { y = Gemm<transA=1, transB=1, alpha=0.5, beta=2.0>(x, z, c) }",
    "convolution": "g (float[2, 4, 7, 6] x, float[6, 2, 3, 3] w, float[6] b) => (float[2, 6, 4, 3] y) { y = Conv<group=2, pads=[1,1,1,1], strides=[2,2]>(x, w, b) }",
    "a frame on two sides": "g (float[1, 4, 6, 8] x, float[6, 4, 3, 3] w) => (float[1, 6, 3, 4] y) { y = Conv<pads=[0,0,1,1], strides=[2,2]>(x, w) }",
    "dilation": "g (float[1, 2, 9, 9] x, float[3, 2, 3, 3] w) => (float[1, 3, 5, 5] y) { y = Conv<dilations=[2,2]>(x, w) }",
    "mean of windows": "g (float[1, 3, 6, 8] x) => (float[1, 3, 3, 4] y) { y = AveragePool<kernel_shape=[2,2], strides=[2,2]>(x) }",
    "groups": "g (float[2, 8, 3, 5] x, float[8] s, float[8] b) => (float[2, 8, 3, 5] y) { y = GroupNormalization<num_groups=4, epsilon=0.001>(x, s, b) }",
    "layers": "g (float[2, 5, 8] x, float[8] s, float[8] b) => (float[2, 5, 8] y) { y = LayerNormalization<epsilon=0.01>(x, s, b) }",
    "joined": "g (float[1, 2, 4] x, float[1, 3, 4] z) => (float[1, 5, 4] y) { y = Concat<axis=1>(x, z) }",
    "split in halves": "g (float[2, 6] x) => (float[2, 3] y) { a, b = Split<axis=1, num_outputs=2>(x) y = Sub(b, a) }",
    "split unevenly": "g (float[2, 6] x) => (float[2, 4] y) <int64[2] n = {2, 4}> { a, y = Split<axis=1>(x, n) }",
    "every other one, backwards": (
        "g (float[2, 3, 8] x) => (float[2, 2, 4] y) <int64[2] s = {-1, 1}, int64[2] e = {-9223372036854775807, 9223372036854775807}, "
        "int64[2] a = {2, 1}, int64[2] t = {-2, 1}> { y = Slice(x, s, e, a, t) }"
    ),
    "a range": "g (float[2, 3, 8] x) => (float[2, 3, 3] y) <int64[1] s = {-6}, int64[1] e = {-3}, int64[1] a = {2}> { y = Slice(x, s, e, a) }",
    "reshaped": "g (float[2, 3, 8] x) => (float[2, 12, 2] y) <int64[3] n = {0, -1, 2}> { y = Reshape(x, n) }",
    "transposed": "g (float[2, 3, 8] x) => (float[8, 2, 3] y) { y = Transpose<perm=[2,0,1]>(x) }",
    "squeezed": "g (float[1, 3, 1] x) => (float[3] y) <int64[2] a = {0, -1}> { y = Squeeze(x, a) }",
    "unsqueezed": "g (float[3] x) => (float[1, 3, 1] y) <int64[2] a = {0, -1}> { y = Unsqueeze(x, a) }",
    "flat": "g (float[2, 3, 4] x) => (float[2, 12] y) { y = Flatten(x) }",
    "expanded both ways": "g (float[2, 1, 4] x) => (float[2, 3, 4] y) <int64[2] n = {3, 1}> { y = Expand(x, n) }",
    "tiled": "g (float[2, 3] x) => (float[4, 9] y) <int64[2] n = {2, 3}> { y = Tile(x, n) }",
    "gathered": "g (float[3, 5, 6] x) => (float[3, 2, 2, 6] y) <int64[2, 2] at = {4, -2, 0, 1}> { y = Gather<axis=1>(x, at) }",
    "zeros around": "g (float[1, 3, 5, 6] x) => (float[1, 3, 8, 9] y) <int64[8] p = {0, 0, 1, 2, 0, 0, 2, 1}> { y = Pad(x, p) }",
    "fives around": "g (float[3, 5] x) => (float[3, 8] y) <int64[2] p = {1, 2}, float five = {5.0}, int64[1] a = {-1}> { y = Pad(x, p, five, a) }",
    "nearest of halves": "g (float[1, 3, 4, 5] x) => (float[1, 3, 12, 10] y) <int64[4] size = {1, 3, 12, 10}> { y = Resize(x, , , size) }",
    "nearest of corners": (
        "g (float[1, 3, 4, 5] x) => (float[1, 3, 8, 10] y) <float[4] k = {1.0, 1.0, 2.0, 2.0}> "
        '{ y = Resize<coordinate_transformation_mode="asymmetric", nearest_mode="floor">(x, , k) }'
    ),
    "attention": f"g (float[2, 9, 32] q, float[2, 7, 32] k, float[2, 7, 32] v) => (float[2, 9, 32] y) {{ y = Attention<{HEADS}, scale=0.5>(q, k, v) }}",
    "causal attention": f"g (float[2, 9, 32] q, float[2, 9, 32] k, float[2, 9, 32] v) => (float[2, 9, 32] y) {{ y = Attention<is_causal=1, {HEADS}>(q, k, v) }}",
    "attention with an added mask": (
        "g (float[2, 9, 32] q, float[2, 40, 32] k, float[2, 40, 32] v, float[2, 1, 9, 40] m) => (float[2, 9, 32] y) "
        f"{{ y = Attention<{HEADS}>(q, k, v, m) }}"
    ),
    "attention with hidden keys": (
        "g (float[1, 3, 32] q, float[1, 4, 32] k, float[1, 4, 32] v) => (float[1, 3, 32] y) "
        f"<bool[3, 4] m = {{1, 0, 0, 1, 1, 1, 0, 0, 0, 0, 1, 0}}> {{ y = Attention<{HEADS}>(q, k, v, m) }}"
    ),
    "attention with shared keys": (
        "g (float[2, 4, 9, 8] q, float[2, 2, 21, 8] k, float[2, 2, 21, 8] v) => (float[2, 4, 9, 8] y) { y = Attention(q, k, v) }"
    ),
    "what attention looks at": (
        "g (float[2, 9, 32] q, float[2, 7, 32] k, float[2, 7, 32] v) => (float[2, 4, 9, 7] y) "
        f"{{ r, , , y = Attention<qk_matmul_output_mode=3, {HEADS}>(q, k, v) }}"
    ),
    "one scale": "g (float[3, 17] x) => (float[3, 17] y) <float s = {0.01}, int8 z = {3}> { q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }",
    "a scale a channel": (
        "g (float[3, 5] x) => (float[3, 5] y) <float[3] s = {0.2, 0.1, 0.01}> "
        "{ q = QuantizeLinear<axis=0, output_dtype=3>(x, s) y = DequantizeLinear<axis=0>(q, s) }"
    ),
    "a scale a block, of four bits": (
        "g (float[2, 6] x) => (float[2, 6] y) <float[2, 2] s = {0.2, 0.1, 0.3, 0.05}> "
        "{ q = QuantizeLinear<axis=1, block_size=3, output_dtype=22>(x, s) y = DequantizeLinear<axis=1, block_size=3>(q, s) }"
    ),
    "largest of windows": "g (float[1, 3, 7, 8] x) => (float[1, 3, 4, 4] y) { y = MaxPool<kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,0]>(x) }",
    "largest of dilated windows": "g (float[2, 3, 9] x) => (float[2, 3, 3] y) { y = MaxPool<kernel_shape=[3], strides=[2], dilations=[2]>(x) }",
    "largest, the last window short": "g (float[1, 2, 6, 6] x) => (float[1, 2, 3, 3] y) { y = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(x) }",
    "unsigned numbers": (
        "g (float[3, 5] x) => (float[3, 5] y) <float s = {0.01}, uint8 z = {128}> "
        "{ q = QuantizeLinear(x, s, z) y = DequantizeLinear(q, s, z) }"
    ),
}  # fmt: skip


def drawn(value: onnx.ValueInfoProto, rng: np.random.Generator) -> np.ndarray:
    kind = value.type.tensor_type
    shape = [size.dim_value for size in kind.shape.dim]
    if kind.elem_type == onnx.TensorProto.INT64:
        return rng.integers(0, 11, shape)
    return rng.standard_normal(shape, dtype=np.float32)


def parsed(text: str) -> ir.Model:
    model = ir.from_proto(onnx.parser.parse_model(HEADER + text))
    ShapeInferencePass()(model)
    return model


@pytest.mark.parametrize("name", GRAPHS)
def test_an_operator_agrees_with_onnx_runtime(name: str) -> None:
    """Sums of at most 60 products of values of up to three: 60 * 9 * 2^-24, and as much again for exponentials."""
    rng = np.random.default_rng(7)
    model = parsed(GRAPHS[name])
    feeds = {value.name: drawn(value, rng) for value in ir.serde.serialize_model(model).graph.input}
    wanted = referee.run(model, feeds)["y"]
    graph = TorchGraph(model.graph, ["y"])
    assert sorted(graph.inputs) == sorted(feeds)
    got = graph({name: torch.tensor(array) for name, array in feeds.items()})["y"].numpy()
    assert got.shape == wanted.shape and got.dtype == wanted.dtype
    np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=6e-5)


def test_torch_knows_all_that_targets_plan() -> None:
    assert PLANS.keys() <= OPERATORS.keys()


def test_what_torch_is_not_taught_is_said_in_one_sentence() -> None:
    for body in ("y = HardSwish(x)", "y = LpNormalization(x)", "c = Cast<to = 7>(x) y = Reshape(x, c)"):
        model = parsed(f"g (float[4] x) => (float[4] y) {{ {body} }}")
        with pytest.raises(UserError, match="is none that passes learn through") as caught:
            TorchGraph(model.graph, ["y"])({"x": torch.zeros(4)})
        assert "\n" not in str(caught.value)


def test_a_whole_unet_agrees_with_onnx_runtime() -> None:
    """To 1e-5 of the output's deviation, a few roundings of each of some twenty layers."""
    torch.manual_seed(0)
    unet = diffusers.UNet2DConditionModel(
        sample_size=8, block_out_channels=(16, 32), layers_per_block=1, cross_attention_dim=16, attention_head_dim=2,
        norm_num_groups=8, down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    ).eval()  # fmt: skip
    model = import_module(unet, None).model
    rng = np.random.default_rng(0)
    feeds = {
        str(value.name): rng.standard_normal(value.shape.numpy()).astype(value.dtype.numpy())
        for value in model.graph.inputs
    }
    wanted = referee.run(model, feeds)
    graph = TorchGraph(model.graph, list(wanted))
    with torch.no_grad():
        got = graph({name: torch.tensor(feeds[name]) for name in graph.inputs})
    for name, exact in wanted.items():
        np.testing.assert_allclose(got[name].numpy(), exact, rtol=0, atol=1e-5 * exact.std())


def test_a_region_reads_what_is_given_and_nothing_before_it() -> None:
    graph = small_unet.program().variants["full"].graph
    inputs = small_unet.calls()[0]
    seen = Interpreter(small_unet.program(), ["r1", "k2", "v2", "r2"])(inputs)
    region = TorchGraph(graph, ["r2"], given=["r1", "k2", "v2"])
    assert sorted(region.inputs) == ["k2", "r1", "v2"]
    got = region({name: torch.tensor(seen[name]) for name in region.inputs})["r2"]
    np.testing.assert_allclose(got.numpy(), seen["r2"], atol=1e-5)
    # A value that is given takes the place of what the region would compute, constants included.
    doubled = TorchGraph(graph, ["r2"], given=["r1", "k2", "v2", "wo2"])
    assert "wo2" in doubled.inputs
    weight = torch.tensor(graph.initializers["wo2"].const_value.numpy())
    values = {name: torch.tensor(seen[name]) for name in region.inputs}
    more = doubled({**values, "wo2": 2 * weight})["r2"]
    torch.testing.assert_close(more - values["r1"], 2 * (got - values["r1"]), atol=1e-5, rtol=1e-5)
    with pytest.raises(KeyError, match="no node makes nothing"):
        TorchGraph(graph, ["nothing"])


def test_gradients_reach_parameters_by_name() -> None:
    """Against the difference quotient of the referee's own outputs."""
    program, inputs = small_unet.program(), small_unet.calls()[0]
    graph = program.variants["full"].graph
    trained = TorchGraph(graph, ["output"], trainable=["wq1", "conv_mid"])
    assert set(trained.parameters) == {"wq1", "conv_mid"}
    loss = trained({name: torch.tensor(inputs[name]) for name in trained.inputs})["output"].square().mean()
    loss.backward()
    for name, parameter in trained.parameters.items():
        weight = graph.initializers[name].const_value.numpy()
        direction = parameter.grad.numpy() / np.linalg.norm(parameter.grad.numpy())
        losses = []
        for step in (-0.005, 0.005):
            graph.initializers[name].const_value = ir.tensor(weight + np.float32(step) * direction)
            losses.append(np.square(referee.run(program.variants["full"], inputs)["output"]).mean())
        graph.initializers[name].const_value = ir.tensor(weight)
        # The quotient errs by the third derivative, and by the last bits of float32 over the step.
        assert (losses[1] - losses[0]) / 0.01 == pytest.approx(
            np.linalg.norm(parameter.grad.numpy()), rel=0.02
        )


def test_rounding_counts_as_the_identity_and_saturation_as_what_it_is() -> None:
    text = "g (float[3] x, float s) => (float[3] y) { q = QuantizeLinear<output_dtype=3>(x, s) y = DequantizeLinear(q, s) }"
    graph = TorchGraph(parsed(text).graph, ["y"])
    value, scale = (
        torch.tensor([0.26, -0.14, 99.0], requires_grad=True),
        torch.tensor(0.1, requires_grad=True),
    )
    graph({"x": value, "s": scale})["y"].sum().backward()
    np.testing.assert_array_equal(value.grad.numpy(), [1, 1, 0])
    # LSQ: what rounding added, in steps, and the end of the range where it saturates.
    np.testing.assert_allclose(scale.grad.numpy(), (3 - 2.6) + (-1 + 1.4) + 127, rtol=1e-5)
