"""Minimal filtering: the matrices exactly, the kernels against float64 NumPy over drawn shapes."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fick.targets.cpu.contraction import Contraction
from fick.targets.cpu.register_tiles import choose_tile, panel_starts
from fick.targets.cpu.winograd import WinogradInput, WinogradOutput
from fick.targets.expressions import Apply, Load, Value
from fick.targets.packing import WinogradPanels, bfloat16_words
from fick.targets.winograd import ERRORS, HALF_RUNS, POINTS, Transforms, toom_cook, transforms

from .kernels import Emulated, Host, machines
from .test_kernels import noise

OUTPUTS = sorted(POINTS)


def convolved(
    image: np.ndarray, weight: np.ndarray, before: tuple[int, int], size: tuple[int, int]
) -> np.ndarray:
    """[n, rows, columns, outputs] in double precision; zeros around the image."""
    rows, columns = size
    after = [
        max(one + 2 - was - first, 0) for one, was, first in zip(size, image.shape[1:3], before, strict=True)
    ]
    framed = np.pad(image.astype(np.float64), ((0, 0), (before[0], after[0]), (before[1], after[1]), (0, 0)))
    exact = weight.astype(np.float64)
    return sum(
        framed[:, y : y + rows, x : x + columns] @ exact[:, :, y, x].T for y in range(3) for x in range(3)
    )  # type: ignore[return-value]


@pytest.mark.parametrize("outputs", OUTPUTS)
def test_the_algorithm_is_exact_in_fractions(outputs: int) -> None:
    made, size = transforms(outputs), outputs + 2
    signal = [Fraction(place * place - 7, place + 3) for place in range(size)]
    taps = [Fraction(2, 3), Fraction(-5), Fraction(1, 7)]

    def times(matrix: tuple[tuple[Fraction, ...], ...], vector: list[Fraction]) -> list[Fraction]:
        return [sum((a * b for a, b in zip(row, vector, strict=True)), Fraction(0)) for row in matrix]

    products = [a * b for a, b in zip(times(made.inputs, signal), times(made.filters, taps), strict=True)]
    wanted = [sum(taps[tap] * signal[place + tap] for tap in range(3)) for place in range(outputs)]
    assert times(made.outputs, products) == wanted


def test_lavin_and_gray_s_matrices_are_those_of_their_points_up_to_scale() -> None:
    made = toom_cook(4, [Fraction(point) for point in (0, 1, -1, 2, -2)])
    assert made.outputs[3] == (0, 1, -1, 8, -8, 1)
    assert made.inputs[5] == (0, 4, 0, -5, 0, 1)
    assert [entry * 24 for entry in made.filters[3]] == [1, 2, 4]


@settings(max_examples=20, deadline=None)
@given(
    machines, st.sampled_from(OUTPUTS), st.integers(1, 2), st.integers(1, 14), st.integers(1, 14), st.integers(1, 40),
    st.integers(1, 70), st.tuples(st.integers(0, 1), st.integers(0, 1)), st.integers(1, 3), st.booleans(),
)  # fmt: skip
def test_convolution_with_an_epilogue(
    machine: Host | Emulated, outputs: int, images: int, rows: int, columns: int, inputs: int, filters: int, before: tuple[int, int],
    blocks: int, relu: bool,
) -> None:  # fmt: skip
    """Results at every place of a picture with zeros around it, edges of tiles among them."""
    shape = (max(rows + 2 - 2 * before[0], 1), max(columns + 2 - 2 * before[1], 1))
    size = (shape[0] + 2 * before[0] - 2, shape[1] + 2 * before[1] - 2)
    if min(size) < 1:
        return
    image, weight = noise(1, images, *shape, inputs), noise(2, filters, inputs, 3, 3)
    residual = noise(3, images, *size, filters)
    tiles = (images, -(-size[0] // outputs), -(-size[1] // outputs))
    count, side = int(np.prod(tiles)), outputs + 2
    tile = choose_tile(count, filters, 1, machine.profile)
    panels = WinogradPanels(outputs=outputs, width=tile.width, starts=panel_starts(filters, tile.width))
    strides = (size[0] * size[1] * filters, size[1] * filters, filters, 1)
    epilogue = Apply("Add", (Value(), Load(2, strides)))
    first = WinogradInput(
        ("float32",) * 2, outputs, tiles, shape, before, inputs,
        (shape[0] * shape[1] * inputs, shape[1] * inputs, inputs), machine.profile.vector_lanes,
    )  # fmt: skip
    product = Contraction(
        ("float32",) * 3,
        rows=(count,),
        a_rows=(inputs,),
        reduce=(inputs,),
        a_reduce=(1,),
        columns=filters,
        parts=1,
        out_strides=(filters, 1),
        epilogue=Value(),
        splits=0,
        blocks=min(blocks, count),
        tile=tile,
        pieces=1,
        batch=(side * side, count * inputs, count * filters),
    )
    last = WinogradOutput(
        ("float32",) * 3, outputs, tiles, size, filters, strides, Apply("Relu", (epilogue,)) if relu else epilogue,
        machine.profile.vector_lanes,
    )  # fmt: skip
    changed = np.full((side * side, count, inputs), np.nan, np.float32)
    machine.run(first, image, changed)
    sums = np.full((side * side, count, filters), np.nan, np.float32)
    machine.run(product, changed, panels.pack(weight), sums)
    out = np.full((images, *size, filters), np.nan, np.float32)
    machine.run(last, sums, out, residual)
    wanted = convolved(image, weight, before, size) + residual
    exact = np.maximum(wanted, 0) if relu else wanted
    # The error of the algorithm itself, relative to the deviation of a sum of 9 x inputs products; its largest of
    # some thousand is below a hundred deviations of it (its rounding errors are not of one size).
    assert np.abs(out - exact).max() <= 100 * ERRORS["float32"][outputs] * np.sqrt(9 * inputs)


def bfloat16(numbers: np.ndarray) -> np.ndarray:
    return (bfloat16_words(numbers).astype(np.uint32) << 16).view(np.float32)


def float16(numbers: np.ndarray) -> np.ndarray:
    return numbers.astype(np.float16).astype(np.float32)


STORED: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "float32": np.copy,
    "bfloat16": bfloat16,
    "float16": float16,
}


def summed(changed: np.ndarray, filters: np.ndarray, run: int) -> np.ndarray:
    """Over channels, in float32; or so many products at a time in float16."""
    if not run:
        return np.einsum("tcij,kcij->tkij", changed, filters, dtype=np.float32)
    total = np.zeros((len(changed), len(filters), *changed.shape[2:]), np.float32)
    for first in range(0, changed.shape[1], run):
        short = np.zeros_like(total)
        for channel in range(first, first + run):
            short = float16(short + changed[:, None, channel] * filters[:, channel])
        total += short
    return total


def rounding(made: Transforms, format: str = "float32") -> float:
    """Of sums over 320 channels of unit noise, what is multiplied being rounded to a format: root of the mean square
    relative to that of the result."""
    rng, single, channels = np.random.default_rng(0), np.float32, 320
    outputs, side = len(made.outputs), len(made.inputs)
    first, taps, last = (
        np.array([[float(entry) for entry in row] for row in matrix])
        for matrix in (made.inputs, made.filters, made.outputs)
    )
    stored = STORED[format]
    image = stored(rng.standard_normal((64, side, side, channels)).astype(single))
    weight = (rng.standard_normal((16, channels, 3, 3)) / np.sqrt(9 * channels)).astype(single)
    changed = stored(first.astype(single) @ image.transpose(0, 3, 1, 2) @ first.T.astype(single))
    filters = stored((taps @ weight.astype(np.float64) @ taps.T).astype(single))
    sums = summed(changed, filters, HALF_RUNS[outputs] if format == "float16" else 0)
    found = last.astype(single) @ sums @ last.T.astype(single)
    wanted = convolved(image, weight, (0, 0), (outputs, outputs)).transpose(0, 3, 1, 2)
    return float(np.sqrt(np.square(found - wanted).mean() / np.square(wanted).mean()))


@pytest.mark.parametrize("outputs", OUTPUTS)
@pytest.mark.parametrize("format", ERRORS)
def test_the_stated_error_is_the_measured_one(format: str, outputs: int) -> None:
    stated = ERRORS[format][outputs]
    assert stated / 2 < rounding(transforms(outputs), format) < stated


def test_the_points_lose_less_than_lavin_and_gray_s() -> None:
    theirs = toom_cook(4, [Fraction(point) for point in (0, 1, -1, 2, -2)])
    assert rounding(transforms(4)) < rounding(theirs)
