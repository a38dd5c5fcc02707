"""Every kernel template against float64 NumPy, over drawn shapes, on this machine and on emulated Arm cores.

Tolerances: a float32 sum of K products of unit-variance numbers errs by about sqrt(K) roundings of its largest
partial sum, sqrt(K) * 2^-24; the bounds below allow eight times that.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fick.targets.cpu.attention import Attention
from fick.targets.cpu.contraction import Contraction
from fick.targets.cpu.elementwise import Map, Pad
from fick.targets.cpu.group_norm import GroupNorm
from fick.targets.cpu.reduction import Reduction
from fick.targets.cpu.register_tiles import choose_tile, panel_starts
from fick.targets.cpu.row_norm import LayerNorm, Softmax
from fick.targets.expressions import Apply, Load, Value
from fick.targets.packing import Panels

from .kernels import MACHINES, machines

UNIT = 2.0**-24
few = settings(max_examples=16, deadline=None)
anywhere = pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.profile.name)


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def attended(q, k, v, masks=(), causal=False) -> np.ndarray:
    """Of (batch, token, head, channel), with a mask (batch, head, query, key) or none, in float64."""
    scores = np.einsum("bqhd,bkhd->bhqk", q.astype(np.float64), k.astype(np.float64)) * q.shape[3] ** -0.5
    scores = sum(masks, scores)
    if causal:
        scores = np.where(np.tri(q.shape[1], k.shape[1], dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.einsum("bhqk,bkhd->bqhd", weights / weights.sum(-1, keepdims=True), v.astype(np.float64))


def sum_tolerance(terms: int) -> float:
    return 8 * terms * UNIT


@few
@given(
    machines,
    st.integers(1, 70),
    st.integers(1, 90),
    st.integers(1, 60),
    st.integers(0, 1),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 2),
)
def test_matrix_product_with_bias(machine, rows, columns, depth, splits, blocks, pieces, parts):
    a, b, bias = noise(1, rows, depth), noise(2, columns * parts, depth), noise(3, columns)
    tile = choose_tile(rows, columns, parts, machine.profile)
    starts = panel_starts(columns, tile.width // parts)
    packed = Panels(order=(0, 1), width=tile.width, starts=starts, parts=parts).pack(b)
    first = 4 if splits else 3
    gate = Value() if parts == 1 else Apply("Mul", (Value(0), Value(1)))
    kernel = Contraction(
        dtypes=("float32",) * (first + 1),
        rows=(rows,), a_rows=(depth,), reduce=(depth, 1) if splits else (depth,),
        a_reduce=(1, 1) if splits else (1,), columns=columns, parts=parts, tile=tile,
        out_strides=(columns, 1), epilogue=Apply("Add", (gate, Load(first, (0, 1)))),
        splits=splits, blocks=min(blocks, rows), pieces=min(pieces, rows),
    )  # fmt: skip
    out = np.full((rows, columns), np.nan, np.float32)
    scratch = [np.zeros(kernel.scratch_floats, np.float32)] if splits else []
    machine.run(kernel, a, packed, out, *scratch, bias)
    product = a.astype(np.float64) @ b.astype(np.float64).T
    if parts == 2:
        product = product[:, :columns] * product[:, columns:]
    tolerance = sum_tolerance(depth) * max(1.0, np.abs(product).max())
    np.testing.assert_allclose(out, product + bias, rtol=0, atol=tolerance + 4 * UNIT)


@few
@given(
    machines,
    st.integers(3, 20),
    st.integers(3, 20),
    st.integers(1, 20),
    st.integers(1, 40),
    st.integers(1, 2),
    st.integers(0, 2),
)
def test_convolution_is_a_contraction(machine, height, width, inputs, outputs, stride, splits):
    image, weight = noise(4, height, width, inputs), noise(5, outputs, inputs, 3, 3)
    out_height, out_width = (height - 3) // stride + 1, (width - 3) // stride + 1
    tile = choose_tile(out_width, outputs, 1, machine.profile)
    starts = panel_starts(outputs, tile.width)
    packed = Panels(order=(0, 2, 3, 1), width=tile.width, starts=starts).pack(weight)
    row, column = width * inputs, inputs
    kernel = Contraction(
        dtypes=("float32",) * (4 if splits else 3),
        rows=(out_height, out_width), a_rows=(stride * row, stride * column),
        reduce=(3, 3, inputs), a_reduce=(row, column, 1), columns=outputs, parts=1, tile=tile,
        out_strides=(out_width * outputs, outputs, 1), epilogue=Value(), splits=splits, blocks=2, pieces=1,
    )  # fmt: skip
    out = np.full((out_height, out_width, outputs), np.nan, np.float32)
    scratch = [np.zeros(kernel.scratch_floats, np.float32)] if splits else []
    machine.run(kernel, image, packed, out, *scratch)
    windows = np.lib.stride_tricks.sliding_window_view(image.astype(np.float64), (3, 3), axis=(0, 1))
    wanted = np.einsum("yxcij,ocij->yxo", windows[::stride, ::stride], weight.astype(np.float64))
    np.testing.assert_allclose(out, wanted, rtol=0, atol=sum_tolerance(9 * inputs))


@few
@given(
    machines, st.integers(1, 3), st.integers(1, 9), st.integers(1, 40), st.integers(1, 3), st.integers(1, 40),
    st.booleans(), st.sampled_from(["Add", "Mul", "Max", "Min"]), st.integers(1, 2),
)  # fmt: skip
def test_a_reduction_of_two_operands(
    machine, batch, rows, columns, taps, depth, turned, operator, parts
):  # fmt: skip
    """b is [batch, taps, depth, columns], or turned so that a result's terms lie side by side."""
    a = noise(20, batch, rows, taps, depth)
    b = [noise(21 + part, batch, taps, depth, columns) for part in range(parts)]
    laid = [np.ascontiguousarray(np.moveaxis(one, 3, 1)) if turned else one for one in b]
    whole = taps * depth
    left = Load(1, (depth, 1, rows * whole, whole, 0))
    steps = (
        (depth, 1, columns * whole, 0, whole) if turned else (depth * columns, columns, columns * whole, 0, 1)
    )
    terms = tuple(Apply("Add", (left, Load(2 + part, steps))) for part in range(parts))
    result = Value() if parts == 1 else Apply("Sub", (Value(0), Value(1)))
    kernel = Reduction(
        dtypes=("float32",) * (3 + parts), extents=(batch, rows, columns),
        out_strides=(rows * columns, columns, 1), reduce=(taps, depth), operator=operator, terms=terms,
        epilogue=Apply("Add", (result, Load(2 + parts, (0, 0, 1)))), lanes=machine.profile.vector_lanes,
    )  # fmt: skip
    out, bias = np.full((batch, rows, columns), np.nan, np.float32), noise(23, columns)
    machine.run(kernel, out, a, *laid, bias)
    join = {"Add": np.add, "Mul": np.multiply, "Max": np.maximum, "Min": np.minimum}[operator]
    wide = a.astype(np.float64)[:, :, :, :, None]
    found = [join.reduce(wide + one.astype(np.float64)[:, None], axis=(2, 3)) for one in b]
    # A product of K factors errs by K roundings of itself, a sum by as many of the sum of its terms' sizes.
    size = [np.add.reduce(np.abs(wide) + np.abs(one)[:, None], axis=(2, 3)) for one in b]
    bound = sum(np.abs(one) if operator == "Mul" else many for one, many in zip(found, size, strict=True))
    wanted = (found[0] if parts == 1 else found[0] - found[1]) + bias
    assert np.all(np.abs(out - wanted) <= 2 * (whole + 4) * UNIT * (bound + np.abs(bias)))


@few
@given(
    machines,
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 40), st.integers(1, 150), st.integers(1, 70),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_attention_never_stores_the_scores_and_agrees(
    machine, batch, heads, queries, keys, depth, causal, masked
):
    q, k, v = (
        noise(6, batch, queries, heads, depth),
        noise(7, batch, keys, heads, depth),
        noise(8, batch, keys, heads, depth),
    )

    def strides(tokens: int) -> tuple[int, int, int, int]:
        return (tokens * heads * depth, depth, heads * depth, 1)

    lanes = machine.profile.vector_lanes
    mask = [noise(16, batch, 1, queries, keys)] if masked else []
    kernel = Attention(
        dtypes=("float32",) * (5 + masked), batch=batch, heads=heads, queries=queries, keys=keys, depth=depth,
        value_depth=depth, scale=depth**-0.5, q_strides=strides(queries), k_strides=strides(keys),
        v_strides=strides(keys), out_strides=strides(queries), tile=min(2 * lanes, queries), rows=5, channels=7,
        block=40, blocks=min(2, -(-queries // (2 * lanes))), lanes=lanes, by_lane=machine.profile.by_lane, causal=causal,
        mask_strides=(queries * keys, 0, keys, 1) if masked else (),
    )  # fmt: skip
    out = np.full_like(q, np.nan)
    machine.run(kernel, q, k, v, np.zeros(kernel.scratch_floats, np.float32), out, *mask)
    wanted = attended(q, k, v, mask, causal)
    # The exponent's error is that of a score (depth terms, at most ~10), carried into a mean of values below ~5.
    np.testing.assert_allclose(out, wanted, rtol=0, atol=5 * sum_tolerance(depth + keys))


@few
@given(
    machines,
    st.integers(1, 2),
    st.sampled_from([1, 4, 6, 16, 24]),
    st.integers(1, 5),
    st.integers(1, 12),
    st.floats(0, 1e3),
)
def test_group_norm_survives_large_means(machine, images, pixels, groups, size, mean):
    channels = groups * size
    x = noise(9, images, pixels, channels) + np.float32(mean)
    scale, bias = noise(10, channels), noise(11, channels)
    kernel = GroupNorm(
        dtypes=("float32",) * 5, images=images, pixels=(pixels,), channels=channels, groups=groups, epsilon=1e-5,
        runs=math.gcd(pixels, 4), x_strides=(pixels * channels, channels),
        out_strides=(pixels * channels, channels, 1), epilogue=Value(), lanes=machine.profile.vector_lanes,
    )  # fmt: skip
    out = np.full_like(x, np.nan)
    machine.run(kernel, x, scale, bias, np.zeros(kernel.scratch_floats, np.float32), out)
    grouped = x.astype(np.float64).reshape(images, pixels, groups, size)
    variance = grouped.var((1, 3), keepdims=True)
    normal = (grouped - grouped.mean((1, 3), keepdims=True)) / np.sqrt(variance + 1e-5)
    wanted = normal.reshape(images, pixels, channels) * scale + bias
    # The mean is rounded to float32: relative to the deviation that is mean/deviation roundings.
    gain = 1 / np.sqrt(variance + 1e-5).min()
    np.testing.assert_allclose(out, wanted, rtol=0, atol=(1e-5 + 16 * UNIT * (mean + 4)) * max(gain, 1) * 4)


@few
@given(machines, st.integers(1, 9), st.integers(1, 70))
def test_row_statistics(machine, rows, columns):
    x = noise(12, rows, columns) * 3 + 5
    common = {
        "dtypes": ("float32",) * 2, "rows": (rows,), "columns": columns, "x_strides": (columns, 1),
        "out_strides": (columns, 1), "epilogue": Value(), "lanes": machine.profile.vector_lanes,
    }  # fmt: skip
    wide = x.astype(np.float64)
    out = np.full_like(x, np.nan)
    machine.run(Softmax(**common), x, out)
    powers = np.exp(wide - wide.max(-1, keepdims=True))
    np.testing.assert_allclose(out, powers / powers.sum(-1, keepdims=True), rtol=0, atol=64 * UNIT)
    machine.run(LayerNorm(**common, epsilon=1e-5), x, out)
    deviation = np.sqrt(wide.var(-1, keepdims=True) + 1e-5)
    wanted = (wide - wide.mean(-1, keepdims=True)) / deviation
    np.testing.assert_allclose(out, wanted, rtol=0, atol=float(256 * UNIT / deviation.min()))


@anywhere
def test_padding_frames_the_image_with_zeros(machine):
    x = noise(13, 2, 5, 7, 19)
    kernel = Pad(
        dtypes=("float32",) * 2, planes=2, height=8, width=10, channels=19, image=(5, 7), before=(1, 2),
        in_strides=(5 * 7 * 19, 7 * 19, 19, 1), lanes=machine.profile.vector_lanes,
    )  # fmt: skip
    out = np.full((2, 8, 10, 19), np.nan, np.float32)
    machine.run(kernel, out, x)
    np.testing.assert_array_equal(out, np.pad(x, ((0, 0), (1, 2), (2, 1), (0, 0))))


ERF = np.vectorize(math.erf)
REFERENCE = {
    "Exp": np.exp,
    "Erf": ERF,
    "Tanh": np.tanh,
    "Sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "Swish": lambda x: x / (1 + np.exp(-x)),
    "Gelu": lambda x: x * 0.5 * (1 + ERF(x / math.sqrt(2))),
    "GeluTanh": lambda x: x * 0.5 * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "Sqrt": lambda x: np.sqrt(np.abs(x)),
}


@anywhere
@pytest.mark.parametrize("op", REFERENCE)
def test_vector_mathematics(op, machine):
    """Within 1e-6 of one, or of the value where that is larger: four units in the last place."""
    x = np.linspace(-12, 12, 5001, dtype=np.float32)
    if op == "Sqrt":
        x = np.abs(x)
    out = np.full_like(x, np.nan)
    kernel = Map(("float32",) * 2, (x.size,), (1,), Apply(op, (Load(1, (1,)),)), machine.profile.vector_lanes)
    machine.run(kernel, out, x)
    wanted = REFERENCE[op](x.astype(np.float64))
    assert np.max(np.abs(out - wanted) / np.maximum(np.abs(wanted), 1)) < 1e-6


@anywhere
def test_strided_map_with_broadcast_reads_the_right_elements(machine):
    x, y = noise(14, 6, 5), noise(15, 33)
    kernel = Map(
        ("float32",) * 3, (5, 6, 33), (6 * 33, 33, 1),
        Apply("Sub", (Load(1, (1, 5, 0)), Load(2, (0, 0, 1)))), machine.profile.vector_lanes,
    )  # fmt: skip
    out = np.full((5, 6, 33), np.nan, np.float32)
    machine.run(kernel, out, x, y)
    np.testing.assert_array_equal(out, x.T[:, :, None] - y)
