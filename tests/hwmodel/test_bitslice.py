"""The bit-slice core: passes by hand, utilisation, counts. Its time is held in test_tiled.py."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fick.hwmodel.bitslice import BitSliceCore
from fick.hwmodel.hardware import load
from fick.hwmodel.nonlinear import Task
from fick.hwmodel.specs import BitSlice
from fick.hwmodel.workload import Convolution, Gemm, Kind
from fick.ir.errors import UserError

from .cases import operation, with_values


@pytest.fixture(scope="module")
def dbsc() -> BitSlice:
    spec = load("dbsc").spec
    assert isinstance(spec, BitSlice)
    return spec


def busy(spec: BitSlice, bounds: Gemm | Convolution, bits: tuple[int, int, int]) -> float:
    kind = Kind.CONVOLUTION if isinstance(bounds, Convolution) else Kind.MATMUL
    return BitSliceCore(spec).time(Task(operation(bounds, kind, bits))).busy["array"] - spec.array.fill_cycles


def test_peak_is_the_published_one(dbsc: BitSlice) -> None:
    array = dbsc.array
    assert array.inputs * array.taps * array.held * array.streamed == 7680
    assert 2 * 7680 * dbsc.clock_hz == 3.84e12


@pytest.mark.parametrize(
    ("bits", "passes"), [((6, 8, 12), 1), ((12, 8, 12), 2), ((12, 12, 12), 4), ((4, 4, 4), 1), ((7, 9, 8), 4)]
)
def test_both_modes_at_full_use_take_a_pass_for_each_pair_of_slices(
    dbsc: BitSlice, bits: tuple[int, int, int], passes: int
) -> None:
    convolution = Convolution(1, 32, 40, 8, 16, (8, 16), (3, 3), (1, 1))
    product = Gemm(1, 64, 120, 32)
    assert busy(dbsc, convolution, bits) == passes * convolution.macs / 7680
    assert busy(dbsc, product, bits) == passes * product.macs / 7680


def test_edges_cost_whole_tiles(dbsc: BitSlice) -> None:
    """Queries of 40 features fill 40 of 60 lanes; a kernel of 5 columns takes 3 taps twice; 17 tokens two tiles."""
    scores = Gemm(1, 64, 40, 64)
    assert scores.macs / (7680 * busy(dbsc, scores, (6, 8, 12))) == pytest.approx(40 / 60)
    wide = Convolution(1, 16, 20, 8, 8, (8, 8), (5, 5), (1, 1))
    assert wide.macs / (7680 * busy(dbsc, wide, (6, 8, 12))) == pytest.approx(5 / 6)
    assert busy(dbsc, Gemm(1, 17, 60, 8), (6, 8, 12)) == 2


@given(st.integers(1, 16), st.integers(1, 16), st.integers(2, 8), st.integers(2, 8))
def test_any_slices(first: int, second: int, activation_slice: int, weight_slice: int) -> None:
    """As many products of slices as pairs of slices cover both operands, and one joint fewer."""
    spec = load("dbsc").spec
    assert isinstance(spec, BitSlice)
    spec = with_values(
        spec,
        array__activation_slice_bits=activation_slice,
        array__weight_slice_bits=weight_slice,
        array__accumulator_bits=32,
    )
    task = Task(operation(Gemm(1, 3, 5, 7), bits=(first, second, 8)))
    actions = BitSliceCore(spec).time(task).actions
    pairs = len(range(0, first, activation_slice)) * len(range(0, second, weight_slice))
    assert actions.products == {(activation_slice, weight_slice): pairs * 105}
    assert actions.combines == (pairs - 1) * 105


def test_what_is_held_is_read_once(dbsc: BitSlice) -> None:
    """Tokens stay while 32 columns pass, eight a cycle; every column of the weights passes all of the tokens."""
    shape = BitSliceCore(dbsc).product(Gemm(1, 16, 60, 32), (6, 8))
    assert shape.reads == {"matmul_activations": Fraction(16 * 60 * 6, 4), "matmul_weights": 8 * 60 * 8}
    actions = BitSliceCore(dbsc).time(Task(operation(Gemm(1, 16, 60, 32), bits=(6, 8, 12)))).actions
    assert actions.sram_bits["matmul_activations"] == 16 * 60 * 6
    assert actions.sram_bits["matmul_weights"] == 32 * 60 * 8
    assert actions.wire_bits == 16 * 60 * 6 + 32 * 60 * 8
    # 16 x 60 x 6, 60 x 32 x 8 and 16 x 32 x 12 bits cross the pins, in words of 512.
    assert actions.sram_bits["ports"] == 512 * (12 + 4 * 8 + 4 * 3)


def test_sums_that_are_too_wide(dbsc: BitSlice) -> None:
    with pytest.raises(UserError, match="multiplies 16 by 16 bits and dbsc sums in 24; quantise the model"):
        BitSliceCore(dbsc).widths(operation(Gemm(1, 2, 2, 2), bits=(16, 16, 8)))
