"""Weights and activations in small floats: which numbers they become, in which of the formats, with what scales."""

from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from fick.ir import referee
from fick.ir.formats import FLOATS, INTEGERS, FloatFormat, format_of
from fick.ir.interpreter import Interpreter
from fick.ir.making import Maker
from fick.ir.program import Program
from fick.passes.base import apply
from fick.passes.fuse import Fuse
from fick.passes.hoist import Hoist
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.passes.quantise.choices import AMONG
from fick.passes.quantise.floats import rounded
from fick.passes.quantise.products import products
from fick.passes.quantise.ranges import RangeConfig, measure
from fick.passes.quantise.weights import by_columns, fitted

from . import small_unet

EVERY = [*FLOATS.values(), FloatFormat(2, 1, 4), FloatFormat(4, 3, 11)]


def by_arithmetic(format: FloatFormat, numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    text = (
        f'<ir_version: 11, opset_import: ["" : 24]> g (float[{numbers.size}] x) => (float[{numbers.size}] y) '
    )
    model = ir.from_onnx_text(f"{text}{{ y = Identity(x) }}")
    node = model.graph[0]
    maker = Maker(node, "rounded")
    maker.replace(rounded(maker, model.graph.inputs[0], format))
    return referee.run(model, {"x": numbers})["y"]


@pytest.mark.parametrize("format", EVERY, ids=lambda one: one.name)
@settings(deadline=None, max_examples=40)
@given(drawn=st.lists(st.floats(-4, 4, width=32), max_size=40), power=st.integers(-20, 0))
def test_the_arithmetic_gives_the_nearest_numbers(
    format: FloatFormat, drawn: list[float], power: int
) -> None:
    """On any, on the format's own, and on all that lie in the middle of two and next to that."""
    own = np.unique(format.values)
    ties = (own[1:] + own[:-1]) / 2
    beside = [np.nextafter(ties, np.float32(end)) for end in (-np.inf, np.inf)]
    some = np.array(drawn, np.float32) * np.float32(format.largest * 2.0**power)
    numbers = np.concatenate([own, ties, *beside, some]).astype(np.float32)
    np.testing.assert_array_equal(by_arithmetic(format, numbers), format.rounded(numbers))


def quantised(**settings: object) -> Program:
    config = QuantiseConfig(**{"least_depth": 1, **settings})  # type: ignore[arg-type]
    return apply([Quantise(config)], small_unet.program(), small_unet.context())


def error(**settings: object) -> float:
    return quantised(**settings).history[-1].effect["output_error"]


def codes(program: Program) -> dict[str, ir.Node]:
    """What opens codes, by the name of the weight that they stand for."""
    found = {}
    for node in program.variants["full"].graph:
        if node.op_type == "Mul" and node.inputs[0] is not None and format_of(node.inputs[0]) is not None:
            found[str(node.outputs[0].name).split("/")[1].split(".")[1]] = node
    return found


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("name", ["fp8", "fp4"])
def test_weights_are_numbers_of_the_format_that_loses_least(name: str, clip: bool) -> None:
    program, exact_program = (
        quantised(weights=name, activations="float32", clip_weights=clip),
        small_unet.program(),
    )
    found, graph = codes(program), exact_program.variants["full"].graph
    initializers = graph.initializers
    assert set(found) == {str(one.right.name) for one in products(graph, exact_program.rates)}
    watched = [str(value.name) for node in found.values() for value in (node.inputs[0], node.outputs[0])]
    results = Interpreter(program, watched)(small_unet.calls()[0])
    for weight, node in found.items():
        format, exact = format_of(node.inputs[0]), initializers[weight].const_value.numpy()
        format.encode(results[str(node.inputs[0].name)])
        lost = float(np.square(results[str(node.outputs[0].name)] - exact).sum())
        axis = 0 if exact.ndim == 4 else 1
        others = tuple(one for one in range(exact.ndim) if one != axis)
        for other, share in itertools.product(AMONG[name], (0.7, 0.9, 1.0, 1.2) if clip else (1.0,)):
            scale = np.abs(exact).max(others, keepdims=True) * (share / other.largest)
            kept = other.rounded(exact / scale) * scale
            # A format for all, and shares for every column: no worse than any one share.
            assert lost <= 1.0001 * np.square(kept - exact).sum(), (weight, other.name, share)


def test_formats_are_chosen_by_what_tensors_hold() -> None:
    rng = np.random.default_rng(0)
    even = rng.uniform(-1, 1, (64, 64)).astype(np.float32)
    spread = (rng.standard_normal((64, 64)) * (1 + 30 * (even > 0.95))).astype(np.float32)
    chosen = []
    for array in (even, spread):
        value = ir.Value(name="w", const_value=ir.tensor(array), shape=ir.Shape(array.shape))
        chosen.append(fitted(value, by_columns(array.shape, 1), AMONG["fp8"], clip=False)[0].name)
    assert chosen[0] == "e2m5" and chosen[1] in ("e3m4", "e4m3")


def test_activations_are_rounded_to_the_format_that_loses_least() -> None:
    names = ["timed", "active", "g"]
    call = Interpreter(small_unet.program(), names)
    seen = {name: np.concatenate([call(one)[name].ravel() for one in small_unet.calls()]) for name in names}
    for estimator, name in itertools.product(("peak", "mse"), ("fp8", "fp4")):
        config = RangeConfig(estimator=estimator)  # type: ignore[arg-type]
        ranges = measure(small_unet.context(), small_unet.program(), names, config, AMONG[name])
        for value, x in seen.items():

            def lost(format: FloatFormat, end: float, x: NDArray[np.float32] = x) -> float:
                scale = end / format.largest
                return float(np.square(format.rounded(x / scale) * scale - x).sum())

            format, end, peak = ranges.formats[value], float(ranges.ends[value]), float(np.abs(x).max())
            others = [lost(one, peak) for one in AMONG[name]]
            # Values count as the middle of a bin, of which the peak has 2048.
            assert lost(format, end) <= 1.05 * min(others)


def test_products_read_rounded_activations() -> None:
    program = quantised(weights="e3m4", activations="e4m3")
    format = FLOATS["e4m3"]
    again = products(program.variants["full"].graph, program.rates)
    assert not again
    read = {}
    for node in program.variants["full"].graph:
        scaling = node.inputs[0].producer() if node.op_type in ("Conv", "MatMul") and node.inputs[0] else None
        if scaling is not None and scaling.op_type == "Mul" and scaling.inputs[1] is not None:
            read[str(scaling.inputs[0].name)] = str(scaling.inputs[1].name)
    assert len(read) == 13
    results = Interpreter(program, [*read, *set(read.values())])(small_unet.calls()[0])
    for numbers in read:
        format.encode(results[numbers])
        assert np.abs(results[numbers]).max() > format.largest / 4


def test_errors_fall_with_bits_and_with_what_is_searched() -> None:
    eight, four = error(weights="fp8", activations="float32"), error(weights="fp4", activations="float32")
    assert 4 * eight < four < 0.4
    assert error(weights="fp4", activations="float32", clip_weights=True) < 0.97 * four
    assert eight < 1.02 * min(error(weights=one, activations="float32") for one in ("e4m3", "e5m2"))
    both = error(weights="fp8", activations="fp8")
    assert eight < both < error(weights="fp8", activations="fp4")


def test_every_timestep_may_have_scales_of_its_own() -> None:
    program = quantised(weights="float32", activations="fp8", per_step=True)
    hoisted = apply([Hoist(), Fuse()], program, small_unet.context())
    assert program.history[-1].effect["output_error"] < 0.1
    carried = [str(value.name) for value in hoisted.variants["step"].graph.outputs]
    assert len([one for one in carried if "fp8" in one]) == 13


def test_codes_are_made_when_compiling_and_marked_where_they_are_read() -> None:
    program = apply([Hoist(), Fuse()], quantised(weights="e2m1", activations="float32"), small_unet.context())
    kept = [
        format_of(value) for value in program.variants["full"].graph.inputs if format_of(value) is not None
    ]
    assert kept == [FLOATS["e2m1"]] * len(kept) and len(kept) == 14


def test_blocks_are_of_integers() -> None:
    with pytest.raises(ValidationError, match="block"):
        QuantiseConfig(weights="fp4", block=32)
    with pytest.raises(ValidationError, match="block"):
        QuantiseConfig(weights="float32", block=32)


def test_scales_of_blocks_are_those_of_their_largest_weights() -> None:
    config = QuantiseConfig(weights="int4", activations="float32", block=8, least_depth=1)
    program = apply([Quantise(config)], small_unet.program(), small_unet.context())
    weights = small_unet.program().variants["full"].graph.initializers
    found = {
        str(node.inputs[0].producer().inputs[0].name): node
        for node in program.variants["full"].graph
        if node.op_type == "DequantizeLinear"
    }
    scales = Interpreter(program, [str(node.inputs[1].name) for node in found.values()])(
        small_unet.calls()[0]
    )
    blocked = 0
    for name, node in found.items():
        exact, scale = weights[name].const_value.numpy(), scales[str(node.inputs[1].name)]
        axis = 1 if exact.ndim == 4 else 0
        if exact.shape[axis] % 8:
            assert node.attributes.get_int("block_size", 0) == 0 and scale.ndim == 1
            continue
        blocked += 1
        split = np.abs(exact).reshape(*exact.shape[:axis], -1, 8, *exact.shape[axis + 1 :]).max(axis + 1)
        np.testing.assert_allclose(scale, split / INTEGERS["int4"].largest, rtol=1e-6)
    assert blocked > 10
    assert error(weights="int4", activations="float32", block=8) < 0.8 * error(
        weights="int4", activations="float32"
    )
