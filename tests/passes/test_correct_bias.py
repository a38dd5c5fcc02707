"""The correction of biases: every product's means come out right, in the graph's order, wherever its bias is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from fick.ir.canonical import canonicalise
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.ir.rates import Rate
from fick.passes.base import Context, apply
from fick.passes.correct import CorrectBias
from fick.passes.hoist import Hoist
from fick.passes.quantise import Quantise, QuantiseConfig

from . import rounded, small_unet
from .serialised import serialised

PRODUCTS = """<ir_version: 11, opset_import: ["" : 24]>
g (float[2, 8, 6, 5] x, float[1] t) => (float[2, 8, 6, 5] y, float[60, 7] z)
<float[8, 8, 3, 3] w1, float[8] c1, float[8, 8, 1, 1] w2, float[8, 16] w3, float[16] c3, float[16, 8] w4, float[8, 7] w5,
 float[7] c5, float[7, 7] w6, int64[3] flat = {2, 8, 30}, int64[4] grid = {2, 8, 6, 5}, int64[2] rows = {60, 8}>
{
  a = Conv <pads = [1, 1, 1, 1]> (x, w1, c1)
  timed = Add(a, t)
  r = Relu(timed)
  b = Conv(r, w2)
  s = Swish(b)
  f = Reshape(s, flat)
  u = Transpose <perm = [0, 2, 1]> (f)
  d = MatMul(u, w3)
  e = Add(c3, d)
  h = Gelu(e)
  m = MatMul(h, w4)
  back = Transpose <perm = [0, 2, 1]> (m)
  y = Reshape(back, grid)
  k = Reshape(m, rows)
  g1 = Gemm(k, w5, c5)
  z = Gemm(g1, w6)
}"""
"""A product with a bias of its own, one with one behind it and one without, of each kind."""

VALUES = ["a", "b", "e", "m", "g1", "z"]


def products(seed: int = 0, text: str = PRODUCTS) -> Program:
    proto = onnx.parser.parse_model(text)
    rng = np.random.default_rng(seed)
    for declared in list(proto.graph.value_info):
        shape = [size.dim_value for size in declared.type.tensor_type.shape.dim]
        drawn = rng.standard_normal(shape) / np.sqrt(max(np.prod(shape[1:]), 8)) + 0.05
        proto.graph.initializer.append(onnx.numpy_helper.from_array(drawn.astype(np.float32), declared.name))
    del proto.graph.value_info[:]
    weights = frozenset(one.name for one in proto.graph.initializer if one.name[0] in "wc")
    return Program(
        "products", {"full": canonicalise(ir.from_proto(proto))}, {"x": Rate.SAMPLE, "t": Rate.STEP}, weights=weights
    )  # fmt: skip


def call(seed: int) -> dict[str, NDArray[np.float32]]:
    x = np.random.default_rng(seed).standard_normal((2, 8, 6, 5)).astype(np.float32)
    return {"x": x, "t": np.array([0.5], np.float32)}


def means(
    program: Program, names: list[str], inputs: dict[str, NDArray[np.float32]]
) -> list[NDArray[np.float64]]:
    results = Interpreter(program, names)(inputs)
    axes = {4: (0, 2, 3), 3: (0, 1), 2: (0,)}
    return [results[name].astype(np.float64).mean(axes[results[name].ndim]) for name in names]


def test_one_call_s_means_all_come_out_right() -> None:
    """What is fitted to one call and judged by the same is exact but for rounding, whatever comes before what."""
    reference = products()
    program = rounded.rounded(reference)
    context = Context(referee=Interpreter, calibration=[call(1)] * 2, reference=reference)
    after = apply([CorrectBias()], program, context)
    exact, before, now = (means(one, VALUES, call(1)) for one in (reference, program, after))
    for name, wanted, wrong, right in zip(VALUES, exact, before, now, strict=True):
        assert np.abs(wrong - wanted).max() > 1e-2, name
        # Sums of a few dozen float32 numbers about one.
        np.testing.assert_allclose(right, wanted, rtol=0, atol=3e-6, err_msg=name)
    effect = after.history[-1].effect
    assert effect["products"] == len(VALUES)
    assert effect["mean_error"] < 1e-5 < 1e-2 < effect["mean_error_before"]
    assert effect["output_error"] < effect["output_error_before"]


ONE_ROW = """<ir_version: 11, opset_import: ["" : 24]>
g (float[1, 8] x, float[1] t) => (float[1, 7] z) <float[8, 9] w1, float[9] c1, float[9, 7] w2>
{
  timed = Add(x, t)
  a = Gemm(timed, w1, c1)
  r = Relu(a)
  z = Gemm(r, w2)
}"""


def test_the_mean_of_one_row_is_the_row() -> None:
    reference = products(text=ONE_ROW)
    one = {"x": call(1)["x"][:1, :, 0, 0], "t": call(1)["t"]}
    context = Context(referee=Interpreter, calibration=[one] * 2, reference=reference)
    after = apply([CorrectBias()], rounded.rounded(reference), context)
    exact, now = (Interpreter(program)(one)["z"] for program in (reference, after))
    np.testing.assert_allclose(now, exact, rtol=0, atol=3e-6)
    assert after.history[-1].effect["products"] == 2


def test_biases_that_are_there_are_used() -> None:
    reference = products()
    context = Context(referee=Interpreter, calibration=[call(1)] * 2, reference=reference)
    before = rounded.rounded(reference)
    after = apply([CorrectBias()], before, context)

    def count(program: Program, operator: str) -> int:
        return [node.op_type for node in program.variants["full"].graph].count(operator)

    # m has no bias and gets an addition, of what is constant.
    assert count(after, "Add") == count(before, "Add") + 1
    hoisted = apply([Hoist()], after, Context())
    assert count(hoisted, "Sub") == 0
    constants = [node.op_type for node in hoisted.variants["constant"].graph]
    assert constants.count("Sub") == 3  # of those of a, e and g1: another checkpoint's are corrected as well


def test_calls_that_were_not_fitted_to_come_out_nearer() -> None:
    reference = products()
    program = rounded.rounded(reference)
    calls = [call(seed) for seed in range(24)]
    context = Context(referee=Interpreter, calibration=calls, reference=reference)
    after = apply([CorrectBias()], program, context)
    # They are of one timestep: every fourth judges.
    exact, before, now = (
        np.concatenate([Interpreter(one)(inputs)[name].ravel() for inputs in calls[3::4] for name in "yz"])
        for one in (reference, program, after)
    )
    errors = [np.linalg.norm(one - exact) / np.linalg.norm(exact) for one in (before, now)]
    effect = after.history[-1].effect
    assert [effect["output_error_before"], effect["output_error"]] == pytest.approx(errors, rel=1e-4)
    # What is left is not the means'.
    assert errors[1] < 0.8 * errors[0]
    assert effect["mean_error"] < 0.4 * effect["mean_error_before"]


def test_int8_is_corrected_as_well() -> None:
    reference = small_unet.program()
    context = rounded.context(reference)
    after = apply([Quantise(QuantiseConfig(least_depth=1)), CorrectBias()], reference, context)
    effect = after.history[-1].effect
    assert effect["output_error"] <= effect["output_error_before"] and effect["products"] in (0, 16)


def test_what_does_not_help_is_left() -> None:
    """Its own reference shifts nothing, so that nothing can come nearer."""
    program = rounded.rounded(products())
    context = Context(referee=Interpreter, calibration=[call(1), call(2)], reference=program)
    after = apply([CorrectBias()], program, context)
    effect = after.history[-1].effect
    assert effect["products"] == 0 and effect["output_error"] == 0
    assert len(after.variants["full"].graph) == len(program.variants["full"].graph)


def test_what_is_missing_is_said_in_a_sentence() -> None:
    program = rounded.rounded(small_unet.program())
    context = rounded.context(small_unet.program())
    for missing, said in (("calibration", "needs calibration"), ("reference", "needs reference")):
        with pytest.raises(UserError, match=f"pass correct-bias {said}; give it when compiling"):
            apply([CorrectBias()], program, replace(context, **{missing: None}))
    with pytest.raises(UserError, match="needs two calls or more, one to fit"):
        apply([CorrectBias()], program, replace(context, calibration=rounded.calls(1)[:1]))
    with pytest.raises(UserError, match="finds no quantised product; name it after the pass that quantises"):
        apply([CorrectBias()], small_unet.program(), context)


def test_calls_of_a_timestep_each_are_as_good_as_of_one() -> None:
    reference = products()
    calls = [{**call(seed), "t": np.array([0.5 + seed / 1e6], np.float32)} for seed in range(8)]
    context = Context(referee=Interpreter, calibration=calls, reference=reference)
    effect = apply([CorrectBias()], rounded.rounded(reference), context).history[-1].effect
    assert effect["products"] == len(VALUES) and effect["output_error"] < effect["output_error_before"]


def test_once_is_enough() -> None:
    program = rounded.rounded(small_unet.program())
    with pytest.raises(UserError, match="pass correct-bias stands in the recipe twice"):
        apply([CorrectBias(), CorrectBias()], program, rounded.context(small_unet.program()))


def test_twice_gives_the_same_bytes() -> None:
    reference = products()
    context = Context(referee=Interpreter, calibration=[call(1), call(2)], reference=reference)
    first, second = (
        serialised(apply([CorrectBias()], rounded.rounded(reference), context)) for _ in range(2)
    )
    assert first == second
