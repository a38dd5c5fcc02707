"""Ranges of activations from streamed statistics, against the values themselves; ranges of weights against a search."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from fick.ir.constants import numbers_of
from fick.ir.formats import INTEGERS, IntegerFormat
from fick.ir.interpreter import Interpreter
from fick.passes.quantise.ranges import BINS, SHARES, RangeConfig, measure
from fick.passes.quantise.weights import by_columns, fitted

from . import small_unet

NAMES = ["timed", "active", "g", "encoder_hidden_states"]


def values(name: str) -> list[NDArray[np.float32]]:
    call = Interpreter(small_unet.program(), NAMES)
    return [{**inputs, **call(inputs)}[name].ravel() for inputs in small_unet.calls()]


def ends(**settings: object) -> dict[str, NDArray[np.float32]]:
    config = RangeConfig(**settings)  # type: ignore[arg-type]
    return measure(small_unet.context(), small_unet.program(), NAMES, config).ends


def rounded(x: NDArray[np.float64], end: float, least: int, largest: int) -> NDArray[np.float64]:
    step = end / largest
    return np.clip(np.rint(x / step), least, largest) * step


def test_peaks_are_the_largest_values_of_all_calls() -> None:
    for name, end in ends().items():
        assert end.shape == ()
        assert end == max(np.abs(one).max() for one in values(name))


def test_a_percentile_leaves_out_the_share_it_says() -> None:
    for name, end in ends(estimator="percentile", percentile=95).items():
        everything = np.abs(np.concatenate(values(name)))
        two_bins = 2 * everything.max() / BINS
        assert np.mean(everything <= end) >= 0.95 > np.mean(everything <= end - two_bins)


@pytest.mark.parametrize("format", [INTEGERS["int8"], INTEGERS["int4"]])
def test_the_least_error_is_that_of_a_search_over_the_values(format: IntegerFormat) -> None:
    largest = format.largest
    config = RangeConfig(estimator="mse")
    found = measure(small_unet.context(), small_unet.program(), NAMES, config, [format]).ends
    for name, end in found.items():
        x = np.concatenate(values(name)).astype(np.float64)
        tried = {
            share: np.square(rounded(x, share * np.abs(x).max(), -largest, largest) - x).sum()
            for share in SHARES
        }
        # A bin's values count as its centre, off by a thirty-second of a step between integers of 8 bits at most.
        assert np.square(rounded(x, float(end), -largest, largest) - x).sum() <= 1.05 * min(tried.values())
    if largest == 7:
        assert all(found[name] < 0.95 * np.abs(np.concatenate(values(name))).max() for name in ("timed", "g"))


def test_every_timestep_may_have_its_own() -> None:
    program = small_unet.program()
    # The same call comes twice, and calls come in the order of the loop: from the noise down.
    calls = [*small_unet.calls()[::-1], small_unet.calls()[0]]
    context = small_unet.context()
    context = type(context)(referee=Interpreter, calibration=calls)
    ranges = measure(context, program, NAMES, RangeConfig(per_step=True))
    assert ranges.timesteps is not None
    np.testing.assert_array_equal(ranges.timesteps, np.float32([0, 1 / 3, 2 / 3]))
    for name, rows in ranges.ends.items():
        np.testing.assert_array_equal(rows, [np.abs(one).max() for one in values(name)])


def test_weights_lose_least_where_their_range_ends() -> None:
    weight = small_unet.program().variants["full"].graph.initializers["conv_mid"]
    columns = weight.const_value.numpy().astype(np.float64).reshape(small_unet.CHANNELS, -1)
    sharing = by_columns(weight.shape.numpy(), 0)
    _, shares = fitted(weight, sharing, [INTEGERS["int4"]], clip=True)
    for column, share in zip(columns, shares, strict=True):
        peak = np.abs(column).max()
        lost = [
            np.square(rounded(column, one * peak, -8, 7) - column).sum() for one in (share, 1.0, share - 0.06)
        ]
        assert lost[0] <= min(lost[1:])
    assert 0.5 < shares.mean() < 0.98
    np.testing.assert_array_equal(fitted(weight, sharing, [INTEGERS["int8"]], clip=True)[1] >= 0.9, True)


def test_numbers_of_what_follows_from_weights() -> None:
    model = ir.from_onnx_text(
        '<ir_version: 11, opset_import: ["" : 24]> g (float[2] x) => (float[2] y) <float[2] a = {1, 2}, float b = {3}> '
        "{ c = Mul(a, b) d = Add(c, a) e = Add(x, b) y = Add(d, e) }"
    )
    inside = {str(value.name): value for node in model.graph for value in node.outputs}
    np.testing.assert_array_equal(numbers_of(inside["d"]), [4, 8])
    np.testing.assert_array_equal(numbers_of(model.graph.initializers["a"]), [1, 2])
    with pytest.raises(ValueError, match="y does not follow from weights alone"):
        numbers_of(inside["y"])
