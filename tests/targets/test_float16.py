"""Products of float16 numbers that are added up in runs, against float64 NumPy over drawn shapes, on emulated Arm cores.

Each of the additions of a run rounds what it gives, which is no more than the sum of its products' sizes, by 2^-11 of
it at most; float32 sums take runs. On average it is far less (halves.py), which one large product shows.
"""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fick.targets import profile as profiles
from fick.targets.cpu.contraction import Contraction
from fick.targets.cpu.halves import LEAST_RUN, in_runs
from fick.targets.cpu.lower_sums import Sums, plan
from fick.targets.cpu.register_tiles import Step, choose_tile, panel_starts
from fick.targets.cpu.winograd import WinogradInput, WinogradOutput
from fick.targets.cpu.worker import assembly
from fick.targets.expressions import Apply, Load, Value
from fick.targets.packing import Packing, WinogradPanels
from fick.targets.winograd import ERRORS, HALF_RUNS, input_scale

from .kernels import ARM, Emulated
from .test_kernels import noise
from .test_winograd import OUTPUTS, convolved

HALF, ROUNDING = "float16", 2.0**-11
MACHINES = [one for one in ARM if one.profile.half_run]
few = settings(max_examples=16, deadline=None)


def halves(seed: int, *shape: int) -> np.ndarray:
    return noise(seed, *shape).astype(np.float16)


def planned(
    machine: Emulated, sums: Sums, order: tuple[int, ...], parts: int = 1
) -> tuple[Contraction, Packing]:
    """The kernel for results of the same strides in float32, times a scale of each column, and its packing."""
    way = plan(sums, order, (HALF, HALF), machine.profile)
    whole = Value() if parts == 1 else Apply("Sub", (Value(0), Value(1)))
    scale = Load(3 + len(way.scratch), (*(0 for _ in sums.rows), 1))
    dtypes = (HALF, HALF, "float32", *(dtype for dtype, _ in way.scratch), "float32")
    kernel = way.kernel(dtypes, Apply("Mul", (whole, scale)))
    assert isinstance(kernel, Contraction)
    return kernel, way.packing


def run(
    machine: Emulated, kernel: Contraction, a: np.ndarray, packed: np.ndarray, out: np.ndarray
) -> np.ndarray:
    """The scales of the columns that were drawn."""
    scale = np.exp2(np.arange(out.shape[-1]) % 7 - 3).astype(np.float32)
    scratch = [np.zeros(kernel.scratch_floats, np.float32)] if kernel.splits else []
    machine.run(kernel, a, packed, out, *scratch, scale)
    return scale


def bound(kernel: Contraction, sizes: np.ndarray) -> np.ndarray:
    depth = math.prod(kernel.reduce)
    return (1.01 * kernel.run * ROUNDING + 2 * depth * 2.0**-23) * sizes + 2.0**-24


@few
@given(
    st.sampled_from(MACHINES), st.integers(1, 40), st.integers(1, 70), st.integers(1, 200), st.integers(1, 2),
)  # fmt: skip
def test_matrix_product(machine: Emulated, rows: int, columns: int, depth: int, parts: int) -> None:
    a, b = halves(1, rows, depth), halves(2, columns * parts, depth)
    sums = Sums((rows,), (depth,), (depth,), (1,), columns, parts, (columns, 1))
    kernel, packing = planned(machine, sums, (0, 1), parts)
    out = np.full((rows, columns), np.nan, np.float32)
    scale = run(machine, kernel, a, packing.pack(b).astype(np.float16), out)
    left, right = a.astype(np.float64), b.astype(np.float64)
    wanted, sizes = left @ right.T, np.abs(left) @ np.abs(right).T
    if parts == 2:
        wanted, sizes = wanted[:, :columns] - wanted[:, columns:], sizes[:, :columns] + sizes[:, columns:]
    assert np.all(np.abs(out - wanted * scale) <= bound(kernel, sizes) * scale)


@few
@given(
    st.sampled_from(MACHINES), st.integers(3, 12), st.integers(3, 12), st.integers(1, 80), st.integers(1, 40),
    st.integers(1, 2),
)  # fmt: skip
def test_convolution(
    machine: Emulated, height: int, width: int, inputs: int, outputs: int, stride: int
) -> None:
    """Runs are several taps, one, or a part of one's channels."""
    image, weight = halves(3, height, width, inputs), halves(4, outputs, inputs, 3, 3)
    size = (height - 3) // stride + 1, (width - 3) // stride + 1
    row = width * inputs
    sums = Sums(
        size, (stride * row, stride * inputs), (3, 3, inputs), (row, inputs, 1), outputs, 1,
        (size[1] * outputs, outputs, 1),
    )  # fmt: skip
    kernel, packing = planned(machine, sums, (0, 2, 3, 1))
    out = np.full((*size, outputs), np.nan, np.float32)
    scale = run(machine, kernel, image, packing.pack(weight).astype(np.float16), out)
    windows = np.lib.stride_tricks.sliding_window_view(image.astype(np.float64), (3, 3), axis=(0, 1))
    windows, exact = windows[::stride, ::stride], weight.astype(np.float64)
    wanted = np.einsum("yxcij,ocij->yxo", windows, exact)
    sizes = np.einsum("yxcij,ocij->yxo", np.abs(windows), np.abs(exact))
    assert np.all(np.abs(out - wanted * scale) <= bound(kernel, sizes) * scale)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda one: one.profile.name)
def test_runs_are_off_by_what_a_random_walk_is(machine: Emulated) -> None:
    rows, columns, depth = 40, 64, 640
    a, b = halves(5, rows, depth), halves(6, columns, depth)
    kernel, packing = planned(
        machine, Sums((rows,), (depth,), (depth,), (1,), columns, 1, (columns, 1)), (0, 1)
    )
    assert kernel.run == machine.profile.half_run == 64
    out = np.full((rows, columns), np.nan, np.float32)
    scale = run(machine, kernel, a, packing.pack(b).astype(np.float16), out)
    wanted = a.astype(np.float64) @ b.astype(np.float64).T
    error = np.sqrt(np.square(out / scale - wanted).mean() / np.square(wanted).mean())
    assert 0.8 < error / (0.3 * kernel.run**0.5 * ROUNDING) < 1.2


@given(st.lists(st.integers(1, 400), min_size=1, max_size=3), st.integers(0, 128))
def test_a_cut_reduction_walks_the_same_places(extents: list[int], longest: int) -> None:
    strides = [math.prod(extents[axis + 1 :]) for axis in range(len(extents))]
    reduce, steps, axes = in_runs(tuple(extents), tuple(strides), longest)
    assert math.prod(reduce) == math.prod(extents)
    assert steps == tuple(math.prod(reduce[axis + 1 :]) for axis in range(len(reduce)))
    assert not axes or LEAST_RUN <= math.prod(reduce[-axes:]) <= longest


@pytest.mark.parametrize("machine", MACHINES, ids=lambda one: one.profile.name)
def test_eight_products_are_one_instruction(machine: Emulated) -> None:
    kernel, _ = planned(machine, Sums((64,), (320,), (320,), (1,), 96, 1, (96, 1)), (0, 1))
    text = assembly(kernel, machine.profile.llvm_target())
    tile = kernel.tile
    assert len(re.findall(r"\tfmla\tv\d+\.8h, v\d+\.8h, v\d+\.h\[", text)) >= tile.rows * tile.width
    assert not re.search(r"\tfcvt\t|\tbl\t__\w*hf", text)  # numbers are widened by the vector


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(MACHINES), st.sampled_from(OUTPUTS), st.integers(3, 14), st.integers(3, 14),
    st.sampled_from([8, 16, 48, 64]), st.integers(1, 40),
)  # fmt: skip
def test_minimal_filtering(
    machine: Emulated, outputs: int, rows: int, columns: int, inputs: int, filters: int
) -> None:
    """Largest errors are below ten deviations of them."""
    image, weight = halves(7, 1, rows, columns, inputs), noise(8, filters, inputs, 3, 3)
    tiles = (1, -(-rows // outputs), -(-columns // outputs))
    count, positions, scale = math.prod(tiles), (outputs + 2) ** 2, input_scale(outputs)
    reduce, a_reduce, axes = in_runs((inputs,), (1,), HALF_RUNS[outputs])
    tile = choose_tile(count, filters, 1, machine.profile, Step(in_half=axes > 0))
    panels = WinogradPanels(
        outputs=outputs, width=tile.width, starts=panel_starts(filters, tile.width), format=HALF
    )
    strides, lanes = (columns * rows * filters, columns * filters, filters, 1), machine.profile.vector_lanes
    first = WinogradInput(
        (HALF, HALF), outputs, tiles, (rows, columns), (1, 1), inputs,
        (rows * columns * inputs, columns * inputs, inputs), lanes, scale,
    )  # fmt: skip
    product = Contraction(
        (HALF, HALF, "float32"), rows=(count,), a_rows=(inputs,), reduce=reduce, a_reduce=a_reduce, columns=filters,
        parts=1, out_strides=(filters, 1), epilogue=Value(), splits=0, blocks=1, tile=tile, pieces=1,
        batch=(positions, count * inputs, count * filters), run_axes=axes,
    )  # fmt: skip
    last = WinogradOutput(
        ("float32", HALF), outputs, tiles, (rows, columns), filters, strides, Value(), lanes, 1 / scale
    )
    changed = np.full((positions, count, inputs), np.nan, np.float16)
    machine.run(first, image, changed)
    assert np.abs(changed).max() <= np.abs(image).max()
    sums = np.full((positions, count, filters), np.nan, np.float32)
    machine.run(product, changed, panels.pack(weight), sums)
    out = np.full((1, rows, columns, filters), np.nan, np.float16)
    machine.run(last, sums, out)
    exact = convolved(image, weight, (1, 1), (rows, columns))
    assert np.abs(out - exact).max() <= 10 * ERRORS[HALF][outputs] * np.sqrt(9 * inputs)


@pytest.mark.parametrize("name", [one for one in profiles.names() if one != "host"])
def test_what_adds_in_float16_stores_it(name: str) -> None:
    target = profiles.load(name)
    assert not target.half_run or HALF in target.formats
    if target.arch == "aarch64" and target.kind == "cpu":
        assert (HALF in target.formats) == {"asimdhp", "fphp"}.issubset(target.requires)
