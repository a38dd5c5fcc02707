"""The correction of the output: what it finds, that it helps on calls it has not seen, and what it says is left."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from fick.ir.annotations import residual
from fick.ir.errors import UserError
from fick.ir.groups import groups
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.ir.rates import Rate
from fick.passes.base import Context, apply
from fick.passes.correct import CorrectNoise
from fick.passes.correct.judging import judges
from fick.passes.correct.regression import candidates, products, square
from fick.passes.fuse import Fuse
from fick.passes.guidance import UNGUIDED, Guidance
from fick.passes.hoist import Hoist
from fick.passes.quantise import Quantise, QuantiseConfig

from . import rounded, small_unet
from .serialised import serialised

DRAWS = 200_000


@pytest.mark.parametrize("slope", [0.0, 0.3, -0.2])
def test_slope_means_and_what_is_left_are_found_again(slope: float) -> None:
    """Errors that are k x + mu + r, with r of two rows correlated; standard errors are a few in a thousand of r's."""
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((2, 3, DRAWS)) + np.array([0.5, 0, -2])[:, None]).astype(np.float32)
    means = np.array([0.2, -0.1, 0.0])
    covariance = np.array([[0.04, 0.03], [0.03, 0.09]])
    noise = np.einsum("ij,jcn->icn", np.linalg.cholesky(covariance), rng.standard_normal(x.shape))
    # In pieces, as calls bring it.
    error = slope * x + means[:, None] + noise
    sums = sum(products(x[..., part::4], error[..., part::4]) for part in range(4))
    nothing, shifted, sloped = candidates(sums)
    assert sloped.slope == pytest.approx(max(slope, 0), abs=0.003)
    direct = np.einsum("icn,jcn->ij", error, error) / (3 * DRAWS)
    np.testing.assert_allclose(nothing.residual(sums), direct, rtol=1e-6)
    assert shifted.slope == 0
    np.testing.assert_allclose(shifted.mean, means + slope * np.array([0.5, 0, -2]), atol=0.003)
    if slope >= 0:
        np.testing.assert_allclose(sloped.mean, means, atol=0.004)
        np.testing.assert_allclose(sloped.residual(sums), covariance / (1 + slope) ** 2, rtol=0.02)
    alone, joined = UNGUIDED, Guidance(5.0)
    assert sloped.error(sums, alone) <= shifted.error(sums, alone) * (1 + 1e-9) <= nothing.error(sums, alone)
    assert nothing.error(sums, joined) == pytest.approx(np.square(joined.taken(error)).mean())
    assert square(sums, joined) == pytest.approx(np.square(joined.taken(x.astype(np.float64))).mean())


def test_an_output_that_does_not_vary_has_no_slope() -> None:
    x = np.full((2, 3, 40), 7.0, np.float32)
    sums = products(x, np.full(x.shape, 0.5))
    sloped = candidates(sums)[-1]
    assert sloped.slope == 0
    np.testing.assert_allclose(sloped.mean, 0.5)
    assert sloped.error(sums, UNGUIDED) == pytest.approx(0, abs=1e-12)


def test_a_fourth_of_every_timestep_judges() -> None:
    assert judges([9, 5, 9, 5, 9, 5, 9, 5, 5]) == [False] * 6 + [True, True, False]
    assert judges([9, 9, 9, 5]) == [False, False, True, False]


def corrected(program: Program, pictures: int = 6) -> tuple[Program, Program]:
    reference = small_unet.program()
    return apply([CorrectNoise()], program, rounded.context(reference, pictures)), reference


def outputs(program: Program, calls: list[dict[str, NDArray[np.float32]]]) -> NDArray[np.float64]:
    call = Interpreter(program)
    return np.stack([call(inputs)["output"] for inputs in calls]).astype(np.float64)


def test_calls_that_were_not_fitted_to_come_out_nearer() -> None:
    before = rounded.rounded(small_unet.program(), largest=3)
    after, reference = corrected(before)
    calls = rounded.calls()
    held_out = judges([float(one["timestep"][0]) for one in calls])
    judging = [inputs for inputs, one in zip(calls, held_out, strict=True) if one]
    assert len(judging) == 3
    exact = outputs(reference, judging)
    errors = [
        np.linalg.norm(outputs(one, judging) - exact) / np.linalg.norm(exact) for one in (before, after)
    ]
    effect = after.history[-1].effect
    assert effect["timesteps"] == 3 and effect["corrected"] >= 1
    assert effect["output_error_before"] == pytest.approx(errors[0], rel=1e-5)
    assert effect["output_error"] == pytest.approx(errors[1], rel=1e-5)
    assert errors[1] < errors[0]
    for one in effect["by_timestep"].values():
        assert one["output_error"] <= one["output_error_before"] and one["slope"] >= 0


def test_what_is_left_is_said_of_the_output() -> None:
    after, reference = corrected(rounded.rounded(small_unet.program(), largest=3))
    (output,) = after.variants["full"].graph.outputs
    said = residual(output)
    assert output.name == "output"
    calls = rounded.calls()
    left = outputs(after, calls) - outputs(reference, calls)
    assert said["timesteps"] == pytest.approx([one / 1000 for one in rounded.TIMESTEPS])
    for index, covariance in enumerate(said["covariance"]):
        ours = left[index::3].transpose(1, 0, 2, 3, 4).reshape(2, -1)
        np.testing.assert_allclose(covariance, ours @ ours.T / ours.shape[1], rtol=1e-4)
    # It is carried to whatever is compiled.
    assert residual(apply([Hoist(), Fuse()], after, Context()).variants["full"].graph.outputs[0]) == said


def test_the_correction_ends_the_last_product_and_its_numbers_are_made_before_the_loop() -> None:
    after, _ = corrected(rounded.rounded(small_unet.program(), largest=3))
    hoisted = apply([Hoist(), Fuse()], after, Context())
    last = groups(hoisted.variants["full"])[-1]
    assert last.nodes[0].op_type == "Conv" and last.result.name == "output"
    assert {node.op_type for node in last.nodes[1:]} <= {"Mul", "Add", "Reshape"}
    assert len(last.nodes) > 1
    assert [node.op_type for node in hoisted.variants["step"].graph].count("MatMul") >= 1


def test_int8_is_corrected_as_well() -> None:
    reference = small_unet.program()
    after = apply(
        [Quantise(QuantiseConfig(least_depth=1)), CorrectNoise()], reference, rounded.context(reference)
    )
    effect = after.history[-1].effect
    assert 0 < effect["output_error"] <= effect["output_error_before"] < 0.1


def test_what_needs_no_correction_gets_none() -> None:
    after, reference = corrected(small_unet.program())
    assert after.history[-1].effect["corrected"] == 0
    assert len(after.variants["full"].graph) == len(reference.variants["full"].graph)
    assert not np.any(residual(after.variants["full"].graph.outputs[0])["covariance"])


def test_a_timestep_of_one_call_stays_as_it_is() -> None:
    context = rounded.context(small_unet.program())
    calls = [*rounded.calls(), {**rounded.calls()[0], "timestep": np.array([0.7], np.float32)}]
    program = rounded.rounded(small_unet.program(), largest=3)
    after = apply([CorrectNoise()], program, replace(context, calibration=calls))
    assert after.history[-1].effect["timesteps"] == 4
    alone = calls[-1:]
    np.testing.assert_allclose(outputs(after, alone), outputs(program, alone), rtol=0, atol=1e-6)
    assert len(residual(after.variants["full"].graph.outputs[0])["covariance"]) == 4


def test_what_is_missing_is_said_in_a_sentence() -> None:
    program = small_unet.program()
    context = rounded.context(program)
    for missing, said in (("calibration", "needs calibration"), ("reference", "needs reference")):
        with pytest.raises(UserError, match=f"pass correct-noise {said}; give it when compiling"):
            apply([CorrectNoise()], program, replace(context, **{missing: None}))
    with pytest.raises(UserError, match="two calls or more of a timestep"):
        apply([CorrectNoise()], program, replace(context, calibration=rounded.calls(1)))
    with pytest.raises(UserError, match="reads no timestep"):
        still = replace(program, rates={**program.rates, "timestep": Rate.SAMPLE})
        apply([CorrectNoise()], still, context)


def test_once_is_enough() -> None:
    program = rounded.rounded(small_unet.program())
    with pytest.raises(UserError, match="pass correct-noise stands in the recipe twice"):
        apply([CorrectNoise(), CorrectNoise()], program, rounded.context(small_unet.program()))


def test_twice_gives_the_same_bytes() -> None:
    first, second = (
        serialised(corrected(rounded.rounded(small_unet.program(), largest=3))[0]) for _ in range(2)
    )
    assert first == second
