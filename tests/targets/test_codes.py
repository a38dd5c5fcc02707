"""Products with weights of few bits against float64 NumPy, over drawn shapes, as they are planned for each machine.

A float32 sum of K products errs by at most K roundings of the sum of their sizes, and a few more for scales: the bound.
Sums of integers are exact.
"""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fick.ir.formats import FLOATS, INTEGERS, FloatFormat, Format, format_called
from fick.targets import profile as profiles
from fick.targets.cpu.lower_sums import Sums, plan
from fick.targets.expressions import Apply, Load, Value
from fick.targets.packing import bfloat16_words
from fick.targets.planning.factors import read_power

from .kernels import ARM, Emulated, Host, allow_tiles
from .test_int8 import integers
from .test_kernels import UNIT, noise
from .test_tiles import widened

HERE = [Host(one) for one in profiles.fitting()]
MACHINES = st.sampled_from([*HERE, *HERE, *ARM])
CODES = [*INTEGERS, *FLOATS, FloatFormat(2, 1, 4).name]
few = settings(max_examples=24, deadline=None)


@pytest.fixture(scope="module", autouse=True)
def permission() -> None:
    allow_tiles()


def weights(format: Format, seed: int, *shape: int) -> np.ndarray:
    """Any of the format's numbers, but none so large that nothing else counts."""
    codes = np.random.default_rng(seed).integers(0, 1 << format.bits, shape).astype(np.uint8)
    numbers = format.decode(codes)
    if isinstance(format, FloatFormat):
        return np.where(np.abs(numbers) > 2.0**6 * np.median(np.abs(format.values)), 0, numbers)
    return numbers.astype(np.int8)


def product(
    machine: Host | Emulated, left: str, a: np.ndarray, format: Format, b: np.ndarray, parts: int, scale: np.ndarray,
    blocks: np.ndarray | None = None, group: int = 0,
) -> tuple[np.ndarray, int]:  # fmt: skip
    """(a b') scale as planned, or of two halves of the columns the difference; and the bytes that b takes."""
    rows, depth = a.shape
    columns = len(b) // parts
    sums = Sums((rows,), (depth,), (depth,), (1,), columns, parts, (columns, 1))
    way = plan(sums, (0, 1), (left, format.name), machine.profile, group)
    packed = np.ascontiguousarray(way.packing.pack(b))
    assert packed.shape == way.packed_shape
    scratch = [np.zeros(count, {"bfloat16": np.uint16}.get(dtype, dtype)) for dtype, count in way.scratch]
    scales = [] if way.scales is None or blocks is None else [way.scales.pack(blocks)]
    assert [one.shape for one in scales] == [way.scales_shape] * bool(group)
    halves = Value() if parts == 1 else Apply("Sub", (Value(0), Value(1)))
    inner = (*(dtype for dtype, _ in way.scratch), *("float32" for _ in scales))
    kernel = way.kernel(
        (left, str(packed.dtype), "float32", *inner, "float32"),
        Apply("Mul", (halves, Load(3 + len(inner), (0, 1)))),
    )
    out = np.full((rows, columns), np.nan, np.float32)
    machine.run(kernel, a, packed, out, *scratch, *scales, scale)
    return out, packed.nbytes


@few
@given(
    MACHINES, st.sampled_from(CODES), st.sampled_from(["float32", "bfloat16"]), st.integers(1, 70), st.integers(1, 90),
    st.sampled_from([1, 7, 32, 60, 96, 192]), st.integers(1, 2),
)  # fmt: skip
def test_numbers_times_codes(machine, name, left, rows, columns, depth, parts):
    format = format_called(name)
    a, b = noise(1, rows, depth), weights(format, 2, columns * parts, depth)
    if left == "bfloat16":
        a = bfloat16_words(a)
    scale = np.exp2(np.arange(columns) % 7 - 3).astype(np.float32)
    got, taken = product(machine, left, a, format, b, parts, scale)
    wide = widened(a) if left == "bfloat16" else a.astype(np.float64)
    real = scale / read_power(name)
    numbers = b.T.astype(np.float64)  # int8 has no number as large as its smallest is small
    exact, sizes = wide @ numbers, np.abs(wide) @ np.abs(numbers)
    if parts == 2:
        exact, sizes = exact[:, :columns] - exact[:, columns:], sizes[:, :columns] + sizes[:, columns:]
    assert np.all(np.abs(got - exact * real) <= (depth + 2) * UNIT * sizes * real)
    # A last panel may repeat columns of the one before it, or be filled up.
    assert taken <= (2 * columns * parts + 256) * depth * format.bits / 8


@few
@given(
    MACHINES, st.sampled_from([*INTEGERS]), st.sampled_from(["float32", "bfloat16", "int8"]), st.integers(1, 40),
    st.integers(1, 70), st.integers(1, 150), st.sampled_from([16, 32, 64]), st.integers(1, 2),
)  # fmt: skip
def test_scales_of_blocks(machine, name, left, rows, columns, depth, group, parts):
    format = INTEGERS[name]
    a, b = noise(1, rows, depth), weights(format, 2, columns * parts, depth)
    a = {"bfloat16": bfloat16_words, "int8": lambda x: (16 * x).astype(np.int8)}.get(left, np.copy)(a)
    blocks = np.abs(noise(3, columns * parts, -(-depth // group))) + np.float32(0.5)
    scale = np.exp2(np.arange(columns) % 7 - 3).astype(np.float32)
    got, _ = product(machine, left, a, format, b, parts, scale, blocks, group)
    wide = widened(a) if left == "bfloat16" else a.astype(np.float64)
    scaled = b.T.astype(np.float64) * np.repeat(blocks, group, 1)[:, :depth].T
    exact, sizes = wide @ scaled, np.abs(wide) @ np.abs(scaled)
    if parts == 2:
        exact, sizes = exact[:, :columns] - exact[:, columns:], sizes[:, :columns] + sizes[:, columns:]
    assert np.all(np.abs(got - exact * scale) <= (depth + 3) * UNIT * sizes * scale)


@few
@given(
    MACHINES, st.sampled_from([*INTEGERS]), st.integers(1, 70), st.integers(1, 90),
    st.sampled_from([1, 4, 7, 28, 64, 96, 192]), st.integers(1, 2),
)  # fmt: skip
def test_integers_times_integers(machine, name, rows, columns, depth, parts):
    a, b = integers(1, rows, depth), weights(INTEGERS[name], 2, columns * parts, depth)
    scale = np.exp2(np.arange(columns) % 7 - 3).astype(np.float32)
    got, _ = product(machine, "int8", a, INTEGERS[name], b, parts, scale)
    sums = a.astype(np.int64) @ b.T.astype(np.int64)
    assert np.abs(sums).max() < 2**24
    wanted = sums if parts == 1 else sums[:, :columns] - sums[:, columns:]
    np.testing.assert_array_equal(got, wanted * scale)
