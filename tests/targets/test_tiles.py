"""Kernels for a matrix unit against float64 NumPy, over drawn shapes; on machines that have one.

Products of bfloat16 numbers float32 holds exactly, so their sums are held to float32's own tolerance. Those of int8
numbers are exact.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fick.targets import profile as profiles
from fick.targets.cpu.register_tiles import panel_starts
from fick.targets.cpu.tile_attention import TileAttention
from fick.targets.cpu.tiles import FORMATS, STEP, WIDTH, TileContraction
from fick.targets.cpu.vector_math import COARSE_EXP2_POLYNOMIAL
from fick.targets.expressions import Apply, Literal, Load, Value
from fick.targets.packing import TilePanels, bfloat16_words

from .kernels import Host, allow_tiles
from .test_int8 import integers
from .test_kernels import UNIT, attended, few, noise, sum_tolerance

PROFILE = profiles.load("x86-64-amx")
MACHINE = Host(PROFILE)

pytestmark = pytest.mark.skipif(
    PROFILE.name not in [one.name for one in profiles.fitting()], reason="no emulator has a matrix unit"
)


@pytest.fixture(scope="module", autouse=True)
def permission() -> None:
    allow_tiles()


def widened(words: np.ndarray) -> np.ndarray:
    return (words.astype(np.uint32) << 16).view(np.float32).astype(np.float64)


@few
@given(
    st.integers(1, 70), st.integers(1, 90), st.integers(1, 5), st.integers(0, 1), st.integers(1, 3),
    st.integers(1, 3), st.integers(1, 2), st.booleans(),
)  # fmt: skip
def test_matrix_product_with_bias(rows, columns, steps, splits, blocks, groups, parts, rounds):
    depth = steps * STEP
    a, b = bfloat16_words(noise(1, rows, depth)), noise(2, columns * parts, depth)
    bias = noise(3, columns)
    starts = panel_starts(columns, WIDTH // parts)
    packed = TilePanels(order=(0, 1), width=WIDTH, starts=starts, parts=parts, format="bfloat16").pack(b)
    gate = Value() if parts == 1 else Apply("Mul", (Value(0), Value(1)))
    height = min(16, rows)
    kernel = TileContraction(
        dtypes=("bfloat16", "bfloat16", "bfloat16" if rounds else "float32", "float32", "float32"),
        rows=(rows,), a_rows=(depth,), reduce=(steps, 1) if splits else (steps,),
        a_reduce=(STEP, STEP) if splits else (STEP,), columns=columns, parts=parts, tile_rows=height,
        out_strides=(columns, 1), epilogue=Apply("Add", (gate, Load(4, (0, 1)))), splits=splits,
        blocks=min(blocks, -(-rows // (2 * height))), groups=min(groups, len(starts)), lanes=16,
    )  # fmt: skip
    out = np.full((rows, columns), 0x7FC0 if rounds else np.nan, np.uint16 if rounds else np.float32)
    MACHINE.run(kernel, a, packed, out, np.zeros(kernel.scratch_floats, np.float32), bias)
    product = widened(a) @ widened(bfloat16_words(b)).T
    if parts == 2:
        product = product[:, :columns] * product[:, columns:]
    tolerance = sum_tolerance(depth) * max(1.0, np.abs(product).max()) + 4 * UNIT
    got = widened(out) if rounds else out
    np.testing.assert_allclose(got, product + bias, rtol=2**-8 if rounds else 0, atol=tolerance)


@few
@given(
    st.integers(1, 70), st.integers(1, 90), st.integers(1, 4), st.integers(0, 1), st.integers(1, 3),
    st.integers(1, 3), st.integers(1, 2), st.booleans(),
)  # fmt: skip
def test_products_of_integers(rows, columns, steps, splits, blocks, groups, parts, rounds):
    step = FORMATS["int8"].step
    depth = steps * step
    a, b, starts = (
        integers(1, rows, depth),
        integers(2, columns * parts, depth),
        panel_starts(columns, WIDTH // parts),
    )
    packed = TilePanels(order=(0, 1), width=WIDTH, starts=starts, parts=parts, together=4).pack(b)
    halves = Value() if parts == 1 else Apply("Sub", (Value(0), Value(1)))
    scaled = Apply("Mul", (halves, Load(4, (0, 1))))
    stored = Apply("Max", (Apply("Min", (Apply("Round", (scaled,)), Literal(127.0))), Literal(-128.0)))
    kernel = TileContraction(
        dtypes=("int8", "int8", "int8" if rounds else "float32", "int32", "float32"),
        rows=(rows,), a_rows=(depth,), reduce=(steps, 1) if splits else (steps,),
        a_reduce=(step, step) if splits else (step,), columns=columns, parts=parts, tile_rows=min(16, rows),
        out_strides=(columns, 1), epilogue=stored if rounds else scaled, splits=splits,
        blocks=min(blocks, -(-rows // (2 * min(16, rows)))), groups=min(groups, len(starts)), lanes=16,
    )  # fmt: skip
    out = np.full((rows, columns), 99 if rounds else np.nan, np.int8 if rounds else np.float32)
    scale = np.exp2(np.arange(columns) % 7 - 14).astype(np.float32)
    MACHINE.run(kernel, a, packed, out, np.zeros(kernel.scratch_floats, np.int32), scale)
    sums = a.astype(np.int64) @ b.astype(np.int64).T
    assert np.abs(sums).max() < 2**24  # what float32 holds
    wanted = (sums if parts == 1 else sums[:, :columns] - sums[:, columns:]) * scale.astype(np.float64)
    np.testing.assert_array_equal(out, np.clip(np.rint(wanted), -128, 127) if rounds else wanted)


@few
@given(st.integers(1, 20), st.integers(1, 40), st.integers(1, 2), st.integers(1, 2), st.integers(1, 40))
def test_convolution_is_a_contraction(height, width, stride, steps, outputs):
    channels = steps * STEP
    image = bfloat16_words(noise(4, height + 2, width + 2, channels))
    weight = noise(5, outputs, channels, 3, 3)
    rows = ((height + 1) // stride, (width + 1) // stride) if stride == 2 else (height, width)
    starts = panel_starts(outputs, WIDTH)
    packed = TilePanels(order=(0, 2, 3, 1), width=WIDTH, starts=starts, format="bfloat16").pack(weight)
    line = (width + 2) * channels
    kernel = TileContraction(
        dtypes=("bfloat16", "bfloat16", "float32", "float32"),
        rows=rows, a_rows=(stride * line, stride * channels), reduce=(3, 3, steps),
        a_reduce=(line, channels, STEP), columns=outputs, parts=1, tile_rows=min(16, rows[1]),
        out_strides=(rows[1] * outputs, outputs, 1), epilogue=Value(), splits=1, blocks=1, groups=1, lanes=16,
    )  # fmt: skip
    out = np.full((*rows, outputs), np.nan, np.float32)
    MACHINE.run(kernel, image, packed, out, np.zeros(kernel.scratch_floats, np.float32))
    wide, filters = widened(image), widened(bfloat16_words(weight))
    wanted = sum(
        wide[y : y + stride * rows[0] : stride, x : x + stride * rows[1] : stride][: rows[0], : rows[1]]
        @ filters[:, :, y, x].T
        for y in range(3)
        for x in range(3)
    )
    np.testing.assert_allclose(out, wanted, rtol=0, atol=sum_tolerance(9 * channels) * np.abs(wanted).max())


def test_coarse_powers_are_as_good_as_they_say():
    fraction = np.linspace(0, 1, 10001)
    assert np.abs(np.polyval(COARSE_EXP2_POLYNOMIAL, fraction) / 2**fraction - 1).max() < 8e-5


@few
@given(
    st.integers(1, 70), st.integers(1, 200), st.integers(1, 80), st.integers(1, 50), st.integers(1, 2),
    st.integers(1, 3), st.booleans(),
)  # fmt: skip
def test_attention(queries, keys, depth, value_depth, heads, blocks, rounds):
    q, k, v = (
        bfloat16_words(noise(seed, tokens, heads, channels))
        for seed, tokens, channels in ((1, queries, depth), (2, keys, depth), (3, keys, value_depth))
    )
    kernel = TileAttention(
        dtypes=("bfloat16",) * 4 + ("float32", "bfloat16" if rounds else "float32"),
        batch=1, heads=heads, queries=queries, keys=keys, depth=depth, value_depth=value_depth,
        scale=depth**-0.5, q_strides=(0, depth, heads * depth, 1), k_strides=(0, depth, heads * depth, 1),
        v_strides=(0, value_depth, heads * value_depth, 1),
        out_strides=(0, value_depth, heads * value_depth, 1), block=min(128, -(-keys // STEP) * STEP),
        blocks=min(blocks, -(-queries // 32)),
    )  # fmt: skip
    out = np.full(
        (queries, heads, value_depth), 0x7FC0 if rounds else np.nan, np.uint16 if rounds else np.float32
    )
    packed = np.full(kernel.packed_words, 0x7FC0, np.uint16)
    MACHINE.run(kernel, q, k, v, packed, np.full(kernel.scratch_floats, np.nan, np.float32), out)
    (wanted,) = attended(*(widened(one)[None] for one in (q, k, v)))
    # A weight is rounded to 8 bits and its power of two is good to 8e-5.
    tolerance = (2**-9 + 2e-4) * np.abs(widened(v)).max()
    got = widened(out) if rounds else out
    np.testing.assert_allclose(got, wanted, rtol=2**-8 if rounds else 0, atol=tolerance)
