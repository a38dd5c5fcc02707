"""Operators that are said in others, form by form: ONNX Runtime on the graph before and after, and nothing that no target
plans.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx_ir as ir
import pytest

from fick.ir import referee
from fick.ir.canonical import canonicalise
from fick.ir.operators import VIEWS
from fick.targets.planning.operators import PLANS

from .test_canonical import agree, kinds, parse

HALF = 'coordinate_transformation_mode="half_pixel"'
SCALED = "s = Constant<value_floats=[1.0, 1.0, 2.0, 2.0]>() "
TENS = "ten = Constant<value_float=10.0>() t = Mul(x, ten) i = Cast<to=7>(t) "
SIGNED = "k = Constant<value_ints=[3, -3, 4, -4, 1, 7, -7, -1]>() "
SIZED = "s = Constant<value_ints=[1, 6, 7, 11]>() "

FORMS = {
    "linear by two": SCALED + f'y = Resize<mode="linear", {HALF}>(x, , s)',
    "linear, corners aligned": SIZED
    + 'y = Resize<mode="linear", coordinate_transformation_mode="align_corners">(x, , , s)',
    "linear of whole pixels": SCALED + 'y = Resize<mode="linear", coordinate_transformation_mode="asymmetric">(x, , s)',
    "cubic": SCALED + f'y = Resize<mode="cubic", cubic_coeff_a=-0.75, {HALF}>(x, , s)',
    "smaller, without aliases": "s = Constant<value_ints=[1, 6, 3, 4]>() "
    f'y = Resize<mode="linear", antialias=1, {HALF}>(x, , , s)',
    "nearest to an odd size": SIZED
    + 'y = Resize<mode="nearest", nearest_mode="floor", coordinate_transformation_mode="asymmetric">(x, , , s)',
    "nearest, smaller": "s = Constant<value_floats=[1.0, 1.0, 0.5, 0.6]>() "
    'y = Resize<mode="nearest", nearest_mode="ceil">(x, , s)',
    "reflected": 'p = Constant<value_ints=[0, 0, 1, 3, 0, 0, 4, 2]>() y = Pad<mode="reflect">(x, p)',
    "repeated at the edge": 'p = Constant<value_ints=[0, 0, 1, 3, 0, 0, 6, 2]>() y = Pad<mode="edge">(x, p)',
    "wrapped": 'p = Constant<value_ints=[0, 0, 1, 3, 0, 0, 4, 2]>() y = Pad<mode="wrap">(x, p)',
    "fives around channels": "p = Constant<value_ints=[0, 2, 1, 0, 0, 1, 0, 2]>() v = Constant<value_float=5.0>() "
    "y = Pad(x, p, v)",
    "cut by negative pads": "p = Constant<value_ints=[0, -1, -2, 1, 0, 0, 1, -3]>() y = Pad(x, p)",
    "means that count zeros": "y = AveragePool<kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1>(x)",
    "means that do not": "y = AveragePool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]>(x)",
    "means up to the last pixel": "y = AveragePool<kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1>(x)",
    "means of equal sizes": 'y = AveragePool<kernel_shape=[3, 3], strides=[2, 2], auto_pad="SAME_LOWER">(x)',
    "largest, framed": "y = MaxPool<kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]>(x)",
    "largest up to the last pixel": "y = MaxPool<kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1>(x)",
    "mean of all pixels": "y = GlobalAveragePool(x)",
    "largest of all pixels": "y = GlobalMaxPool(x)",
    "pixels repeated": "r = Constant<value_ints=[1, 2, 3, 1]>() y = Tile(x, r)",
    "channels to pixels": "r = Constant<value_ints=[1, 2, 1, 1]>() t = Tile(x, r) y = DepthToSpace<blocksize=2>(t)",
    "channels to pixels, torch's order": "r = Constant<value_ints=[1, 2, 1, 1]>() t = Tile(x, r) "
    'y = DepthToSpace<blocksize=2, mode="CRD">(t)',
    "pixels to channels": "r = Constant<value_ints=[1, 1, 2, 1]>() t = Tile(x, r) y = SpaceToDepth<blocksize=2>(t)",
    "einsum over two axes": 'y = Einsum<equation="bchw,bdhw->bcd">(x, x)',
    "einsum of three": 'y = Einsum<equation="bchw,bdhw,bdiw->bcid">(x, x, x)',
    "einsum without a sum": 'y = Einsum<equation="bchw,bchw->bhwc">(x, x)',
    "einsum, sums of one": 'y = Einsum<equation="bchw->wb">(x)',
    "einsum with an ellipsis": 'y = Einsum<equation="...hw,...vw->...vh">(x, x)',
    "einsum of what is left over": 'y = Einsum<equation="bchw,bdhv">(x, x)',
    "whole numbers around channels": "p = Constant<value_ints=[0, 2, 1, 0, 0, 1, 0, 2]>() v = Constant<value_int=5>() "
    "i = Cast<to=7>(x) q = Pad(i, p, v) y = CastLike(q, x)",
    "vectors": "s = Constant<value_ints=[240]>() v = Reshape(x, s) y = MatMul(v, v)",
    "a vector and matrices": "v = Constant<value_floats=[1.0, 2.0, 3.0, 4.0, 5.0]>() y = MatMul(v, x)",
    "factors of a product": "s = Constant<value_ints=[30, 8]>() m = Reshape(x, s) "
    "y = Gemm<alpha=0.5, beta=2.0, transA=1>(m, m)",
    "one channel": "i = Constant<value_int=-2>() y = Gather<axis=1>(x, i)",
    "one row, kept": "i = Constant<value_ints=[3]>() y = Gather<axis=2>(x, i)",
    "running sums": "a = Constant<value_int=2>() y = CumSum(x, a)",
    "running sums from behind": "a = Constant<value_ints=[-1]>() y = CumSum<reverse=1>(x, a)",
    "running sums of what came before": "a = Constant<value_int=1>() y = CumSum<exclusive=1>(x, a)",
    "running sums of one, without it": "a = Constant<value_int=0>() y = CumSum<exclusive=1>(x, a)",
    "running sums of whole numbers": TENS + "a = Constant<value_int=3>() c = CumSum<exclusive=1, reverse=1>(i, a) "
    "y = CastLike(c, x)",
    "logarithms of sums of powers": "a = Constant<value_ints=[1, -1]>() y = ReduceLogSumExp(x, a)",
    "one logarithm of all": "h = Constant<value_float=100.0>() b = Mul(x, h) y = ReduceLogSumExp<keepdims=0>(b)",
    "length one": "y = LpNormalization<axis=1>(x)",
    "sizes that add up to one, or to zero": "p = Constant<value_ints=[0, 0, 1, 0, 0, 0, 0, 0]>() b = Pad(x, p) "
    "y = LpNormalization<p=1>(b)",
    "what a division leaves": "k = Constant<value_floats=[0.75]>() y = Mod<fmod=1>(x, k)",
    "what a division of whole numbers leaves": TENS + SIGNED + "m = Mod<fmod=1>(i, k) y = CastLike(m, x)",
    "the same with the divisor's sign": TENS + SIGNED + "m = Mod(i, k) y = CastLike(m, x)",
    "places by number": "i = Constant<value = int64[2,3] {0, 1, -1, 0, 5, 2}>() y = GatherND(x, i)",
    "places by number in each image": "s = Constant<value_ints=[2, 3, 5, 8]>() r = Reshape(x, s) "
    "i = Constant<value = int64[2,2,1] {0, -1, 2, 2}>() y = GatherND<batch_dims=1>(r, i)",
    "what holds nothing, joined": "s = Constant<value_ints=[0]>() a = Constant<value_ints=[1]>() n = Slice(x, s, s, a) "
    "y = Concat<axis=1>(n, x, n, x)",
    "normalised over two axes, scaled along one": "k = Constant<value_floats=[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]>() "
    "y = LayerNormalization<axis=2>(x, k)",
    "normalised over two axes": "o = Shape<start=2, end=4>(x) k = ConstantOfShape<value = float[1] {2.0}>(o) "
    "y = LayerNormalization<axis=2>(x, k)",
}  # fmt: skip

ACTIVATIONS = [
    "Elu<alpha=0.7>", "Celu<alpha=0.7>", "Selu", "HardSigmoid", "HardSwish", "LeakyRelu<alpha=0.2>", "Mish",
    "Softplus", "Softsign", "LogSoftmax<axis=1>",
]  # fmt: skip


def loose(body: str, opset: int = 22) -> ir.Model:
    """The body as a graph of x whose result's sizes are what they turn out to be."""
    return parse("(float[1,6,5,8] x) => (float[] y)", body, opset=opset)


def supported(canonical: ir.Model) -> Counter[str]:
    found = kinds(canonical)
    assert set(found) <= PLANS.keys() | VIEWS
    return found


@pytest.mark.parametrize("name", FORMS)
def test_a_form_is_said_in_operators_that_targets_plan(name: str) -> None:
    supported(agree(loose(FORMS[name])))


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations_are_said_in_plain_ones(activation: str) -> None:
    supported(agree(loose(f"l = Mul(x, x) m = Sub(l, x) n = Mul(m, x) y = {activation}(n)")))


def test_mish_is_recovered_from_its_parts() -> None:
    found = supported(agree(loose("s = Softplus(x) t = Tanh(s) y = Mul(x, t)")))
    assert "Log" not in found and "Tanh" not in found


@pytest.mark.parametrize("root", ["1.4142135", "1.4140625"])
def test_gelu_is_recovered_with_the_root_that_float16_has(root: str) -> None:
    """Which differs from the other by 1.1e-4 of its argument, and gelu by no more than half of that."""
    body = f"d = Constant<value_float={root}>() q = Div(x, d) e = Erf(q) o = Constant<value_float=1.0>() "
    model = loose(body + "p = Add(e, o) m = Mul(x, p) h = Constant<value_float=0.5>() y = Mul(m, h)")
    canonical = canonicalise(model)
    assert kinds(canonical) == {"Gelu": 1}
    x = np.linspace(-4, 4, 240, dtype=np.float32).reshape(1, 6, 5, 8)
    before, after = (referee.run(one, {"x": x})["y"] for one in (model, canonical))
    np.testing.assert_allclose(after, before, rtol=0, atol=6e-5)


def test_slopes_and_statistics_that_a_checkpoint_brings() -> None:
    rng = np.random.default_rng(1)
    weights = {name: rng.uniform(0.5, 2, 6).astype(np.float32) for name in ("s", "b", "m", "v")}
    weights["p"] = rng.standard_normal((6, 1, 1)).astype(np.float32)
    signature = (
        "(float[1,6,5,8] x, float[6] s, float[6] b, float[6] m, float[6] v, float[6,1,1] p) => (float[] y)"
    )
    body = "n = BatchNormalization<epsilon=0.01>(x, s, b, m, v) i = InstanceNormalization(n, s, b) y = PRelu(i, p)"
    canonical = agree(parse(signature, body, weights, opset=22))
    assert supported(canonical)["GroupNormalization"] == 1
    assert set(weights) <= set(canonical.graph.initializers)


@pytest.mark.parametrize(
    ("groups", "kernel", "attributes"),
    [
        (1, (2, 2), "strides=[2, 2]"),
        (1, (4, 4), "strides=[2, 2], pads=[1, 1, 1, 1]"),
        (1, (3, 3), "strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]"),
        (2, (3, 5), "strides=[1, 3], pads=[0, 2, 1, 1]"),
        (2, (1, 1), "strides=[2, 2], output_padding=[1, 0]"),
        (1, (3, 4), 'strides=[2, 2], auto_pad="SAME_UPPER"'),
        (1, (3, 1), 'strides=[2, 3], auto_pad="SAME_LOWER"'),
        (2, (3, 3), "strides=[2, 2], output_shape=[10, 16]"),
        (1, (3, 2), "strides=[2, 2], dilations=[2, 3], pads=[1, 2, 0, 1]"),
        (2, (1, 3), "strides=[1, 2], dilations=[2, 2], output_padding=[0, 1]"),
    ],
)
def test_a_transposed_convolution_is_as_many_convolutions_as_its_step(
    groups: int, kernel: tuple[int, int], attributes: str
) -> None:
    rng = np.random.default_rng(2)
    shape = (6, 4, *kernel)
    weights = {
        "k": rng.standard_normal(shape).astype(np.float32),
        "b": rng.standard_normal(4 * groups).astype(np.float32),
    }
    signature = (
        f"(float[2,6,5,8] x, float[{','.join(map(str, shape))}] k, float[{4 * groups}] b) => (float[] y)"
    )
    canonical = agree(parse(signature, f"y = ConvTranspose<group={groups}, {attributes}>(x, k, b)", weights))
    assert supported(canonical)["Conv"] == 1
    assert {"k", "b"} <= set(canonical.graph.initializers)


@pytest.mark.parametrize(
    ("groups", "kernel", "attributes"),
    [
        (1, (3, 1, 1), "pads=[1, 0, 0, 1, 0, 0]"),
        (2, (3, 1, 1), "strides=[2, 1, 1], dilations=[2, 1, 1], pads=[2, 0, 0, 1, 0, 0]"),
        (1, (3, 1, 1), "pads=[1, 0, 2, 1, 1, 0]"),
        (1, (1, 3, 3), "pads=[0, 1, 1, 0, 1, 1]"),
        (2, (3, 3, 2), "strides=[2, 1, 3], dilations=[1, 2, 1], pads=[1, 2, 0, 0, 1, 1]"),
        (1, (1, 1, 1), "strides=[2, 2, 2]"),
        (1, (2, 2, 2), 'auto_pad="SAME_UPPER", strides=[2, 2, 1]'),
        (1, (2, 1, 3), 'auto_pad="VALID"'),
        (6, (3, 3, 3), "pads=[1, 1, 1, 1, 1, 1]"),
    ],
)
def test_a_convolution_over_three_axes_is_one_over_two(
    groups: int, kernel: tuple[int, int, int], attributes: str
) -> None:
    rng = np.random.default_rng(5)
    shape = (12, 6 // groups, *kernel)
    weights = {
        "k": rng.standard_normal(shape).astype(np.float32),
        "b": rng.standard_normal(12).astype(np.float32),
    }
    signature = f"(float[2,6,5,4,7] x, float[{','.join(map(str, shape))}] k, float[12] b) => (float[] y)"
    canonical = agree(parse(signature, f"y = Conv<group={groups}, {attributes}>(x, k, b)", weights))
    assert supported(canonical)["Conv"] == 1
    (node,) = (one for one in canonical.graph if one.op_type == "Conv")
    assert node.inputs[1] is not None and node.inputs[1].shape is not None and len(node.inputs[1].shape) == 4
    assert weights.keys() <= canonical.graph.initializers.keys()


VOLUMES = {
    "transposed convolution": "y = ConvTranspose<strides=[2, 2, 2], pads=[1, 0, 1, 1, 1, 0]>(x, k)",
    "means": "y = AveragePool<kernel_shape=[2, 3, 3], strides=[1, 2, 2], pads=[1, 1, 1, 0, 1, 1]>(x)",
    "largest": "y = MaxPool<kernel_shape=[2, 2, 2], strides=[2, 2, 2], ceil_mode=1>(x)",
    "mean of all": "y = GlobalAveragePool(x)",
    "enlarged": "s = Constant<value_floats=[1.0, 1.0, 1.0, 2.0, 2.0]>() y = Resize(x, , s)",
    "enlarged, between": 's = Constant<value_floats=[1.0, 1.0, 2.0, 2.0, 2.0]>() y = Resize<mode="linear">(x, , s)',
    "normalised": "y = InstanceNormalization(x, b, b)",
    "normalised by statistics": "y = BatchNormalization(x, b, b, b, b)",
    "framed": 'p = Constant<value_ints=[0, 0, 1, 1, 2, 0, 0, 1, 1, 0]>() y = Pad<mode="reflect">(x, p)',
}


@pytest.mark.parametrize("name", VOLUMES)
def test_what_else_is_done_to_volumes(name: str) -> None:
    rng = np.random.default_rng(6)
    weights = {
        "k": rng.standard_normal((6, 4, 3, 2, 3)).astype(np.float32),
        "b": rng.uniform(0.5, 2, 6).astype(np.float32),
    }
    read = {label: array for label, array in weights.items() if f" {label}" in VOLUMES[name]}
    inputs = "".join(f", float[{','.join(map(str, array.shape))}] {label}" for label, array in read.items())
    supported(agree(parse(f"(float[1,6,3,4,5] x{inputs}) => (float[] y)", VOLUMES[name], read)))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(
    ("opset", "factors"), [(7, (2.0, 3.0)), (9, (1.5, 1.0)), (10, (2.0, 1.25)), (10, (0.6, 0.4))]
)
def test_resizing_of_old_opsets_has_corners_at_whole_coordinates(
    mode: str, opset: int, factors: tuple[float, float]
) -> None:
    scales = [1.0, 1.0, *factors]
    if opset == 7:
        body = f'y = Upsample<mode="{mode}", scales={scales}>(x)'
    else:
        body = f'y = {"Upsample" if opset == 9 else "Resize"}<mode="{mode}">(x, s)'
    given = {} if opset == 7 else {"s": np.array(scales, np.float32)}
    signature = "(float[1,6,5,8] x" + (", float[4] s" if given else "") + ") => (float[] y)"
    supported(agree(parse(signature, body, given, opset=opset)))


def test_numbers_beyond_float32_are_at_its_ends() -> None:
    """Of a row that is left out whole, float64's lowest keeps the softmax even; infinity stays what it is."""
    lowest = np.finfo(np.float64).min
    mask = np.array([[0, lowest, 0], [lowest] * 3, [0, 0, -np.inf]])
    body = "a = Add(x, m) y = Softmax(a)"
    canonical = canonicalise(
        parse("(double[3,3] x, double[3,3] m) => (double[] y)", body, {"m": mask}, opset=22)
    )
    got = referee.run(canonical, {"x": np.zeros((3, 3), np.float32)})["y"]
    np.testing.assert_allclose(got, [[0.5, 0, 0.5], [1 / 3] * 3, [0.5, 0.5, 0]], rtol=0, atol=2.0**-24)


def test_logarithms_of_nothing_and_of_the_infinite() -> None:
    none = np.array([[-np.inf, 0, 0], [-np.inf] * 3, [-np.inf, np.inf, 0]], np.float32)
    body = "a = Add(x, m) k = Constant<value_ints=[1]>() y = ReduceLogSumExp<keepdims=0>(a, k)"
    model = parse("(float[3,3] x, float[3,3] m) => (float[] y)", body, {"m": none})
    x = {"x": np.ones((3, 3), np.float32)}
    wanted, got = (referee.run(one, x)["y"] for one in (model, canonicalise(model)))
    np.testing.assert_allclose(got, wanted, rtol=2.0**-22)
    assert wanted[1] == -np.inf and wanted[2] == np.inf


def test_a_convolution_that_keeps_sizes_gets_pads() -> None:
    weights = {"k": np.random.default_rng(3).standard_normal((4, 6, 3, 4)).astype(np.float32)}
    for way in ("SAME_UPPER", "SAME_LOWER"):
        body = f'y = Conv<auto_pad="{way}", strides=[2, 1]>(x, k)'
        agree(parse("(float[1,6,5,8] x, float[4,6,3,4] k) => (float[] y)", body, weights))


@pytest.mark.parametrize("kind", ["float16", "double", "bfloat16"])
def test_a_graph_of_other_floats_computes_in_float32_and_keeps_its_weights(kind: str) -> None:
    """Widened numbers are the same numbers: what differs from the narrow graph is its own rounding."""
    types = {"float16": ir.DataType.FLOAT16, "double": ir.DataType.DOUBLE, "bfloat16": ir.DataType.BFLOAT16}
    rng = np.random.default_rng(4)
    numbers = rng.standard_normal((4, 6, 3, 3)).astype(types[kind].numpy())
    model = parse(
        f"({kind}[1,6,5,8] x, {kind}[4,6,3,3] k, float[1] t) => ({kind}[] y)",
        f"c = Conv<pads=[1, 1, 1, 1]>(x, k) w = Cast<to={int(types[kind])}>(t) "
        f"h = Constant<value_float=0.5>() o = Cast<to={int(types[kind])}>(h) a = Add(w, o) y = Mul(c, a)",
        {"k": numbers},
        opset=22,
    )
    canonical = canonicalise(model)
    assert all(
        value.dtype is ir.DataType.FLOAT for value in (*canonical.graph.inputs, *canonical.graph.outputs)
    )
    kept = canonical.graph.initializers["k"].const_value
    assert kept is not None and kept.numpy().dtype == np.float32
    np.testing.assert_array_equal(kept.numpy(), numbers.astype(np.float32))
    x, t = rng.standard_normal((1, 6, 5, 8)).astype(np.float32), np.array([1.5], np.float32)
    got = referee.run(canonical, {"x": x, "t": t})["y"]
    framed = np.pad(x.astype(np.float64), [(0, 0), (0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(framed, (3, 3), axis=(2, 3))
    wanted = 2 * np.einsum("nchwij,ocij->nohw", windows, numbers.astype(np.float64))
    np.testing.assert_allclose(got, wanted, rtol=0, atol=54 * 2.0**-24 * np.abs(wanted).max())
