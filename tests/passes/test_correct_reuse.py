"""Corrections of reused values: least squares by hand, and what they do to a loop."""

from __future__ import annotations

import numpy as np
import pytest

from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.base import Context, Trajectory, apply
from fick.passes.caching import DeepCache, DeepCacheConfig
from fick.passes.correct import CorrectReuse, CorrectReuseConfig
from fick.passes.correct.reuse import Sums, _products  # pyright: ignore[reportPrivateUsage]
from fick.passes.hoist import Hoist
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.runtime.schedule import order

from . import small_unet
from .test_caching_policies import plain
from .test_schedule_reuse import draw

STEPS = 6
CACHE = DeepCache(DeepCacheConfig(interval=3, steps=(STEPS,)))


def context(reference: Program | None = None) -> Context:
    return Context(
        referee=Interpreter, draw=draw, reference=reference or plain(), calibration=small_unet.calls()
    )


def test_scale_and_shift_by_hand() -> None:
    rng = np.random.default_rng(0)
    reused = rng.standard_normal((2, 3, 4, 4)).astype(np.float32)
    reused[:, 2] = 5
    slopes, shifts = np.array([2, -1, 3])[:, None, None], np.array([1, 0, -10])[:, None, None]
    sums = Sums(_products(reused, slopes * reused + shifts))
    scale, shift = sums.fitted(0.0)
    np.testing.assert_allclose(scale, [2, -1, 1], atol=1e-6)  # what does not vary keeps its scale
    np.testing.assert_allclose(shift, [1, 0, 0], atol=1e-5)
    # 96 squares, summed in float64 as differences of sums that are some thousands.
    assert sums.error(np.stack([scale, shift])) == pytest.approx(0, abs=1e-6)
    # Half of the variance more draws a slope of two a third of its way to one.
    np.testing.assert_allclose(sums.fitted(0.5)[0][0], 5 / 3, atol=1e-6)
    tokens = Sums(
        _products(reused.reshape(2, 3, 16).transpose(0, 2, 1), reused.reshape(2, 3, 16).transpose(0, 2, 1))
    )
    np.testing.assert_allclose(tokens.fitted(0.1), [[1, 1, 1], [0, 0, 0]], atol=1e-6)


def replayed(program: Program, picture: Trajectory) -> list[np.ndarray]:
    run = Interpreter(program)
    calls = zip(picture.calls, order(program.schedule, STEPS), strict=True)
    return [run(inputs, variant)["output"] for inputs, variant in calls]


@pytest.mark.parametrize("integers", [False, True])
def test_reused_values_come_nearer_and_full_steps_stay(integers: bool) -> None:
    passes = [Quantise(QuantiseConfig(least_depth=1)), CACHE] if integers else [CACHE]
    cached = apply(passes, plain(), context())
    corrected = apply([CorrectReuse(CorrectReuseConfig(pictures=4))], cached, context())
    effect = corrected.history[-1].effect
    assert 0 < effect["corrected"] <= effect["places"] == 4
    assert effect["reuse_error"] < effect["reuse_error_before"]
    errors = effect["latent_error"][str(STEPS)]
    assert 0 < errors["after"] < errors["before"]
    # A picture that was neither fitted to nor judged by.
    (*_, unseen) = draw(apply([Hoist()], cached, Context()), STEPS, 6)
    exact, before, after = (replayed(one, unseen) for one in (plain(), cached, corrected))
    for step, variant in enumerate(cached.schedule[STEPS]):
        if variant == "full":
            np.testing.assert_array_equal(after[step], before[step])
    off = [
        sum(float(np.square(a - b).sum()) for a, b in zip(one, exact, strict=True)) for one in (before, after)
    ]
    assert off[1] < off[0]
    hoisted = apply([Hoist()], corrected, Context())
    for got, wanted in zip(replayed(hoisted, unseen), after, strict=True):
        # The same sums; ONNX Runtime may fuse otherwise. Integers may round to the next, of a step of a hundredth.
        np.testing.assert_allclose(got, wanted, rtol=0, atol=0.05 if integers else 1e-5)
    # Rows are picked before the loop: the alternative reads them.
    picked = [node for node in hoisted.variants["cached"].graph if "nearest" in str(node.outputs[0].name)]
    assert {node.op_type for node in picked} <= {"Reshape"}


def test_where_it_makes_no_sense() -> None:
    with pytest.raises(
        UserError, match="pass correct-reuse corrects what steps reuse, and these reuse nothing"
    ):
        apply([CorrectReuse()], plain(), context())
    once = apply([CACHE, CorrectReuse(CorrectReuseConfig(pictures=2))], plain(), context())
    with pytest.raises(UserError, match="correct-reuse stands in the recipe twice"):
        apply([CorrectReuse()], once, context())
