"""Errors are those of what a sampler takes: what both branches of guidance have alike counts once, the rest by scale."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fick.ir.making import Maker
from fick.ir.program import Program
from fick.passes.base import Arrays, Context, apply
from fick.passes.disturbance import Disturbance
from fick.passes.guidance import Guidance
from fick.passes.learned.distil import Distil, DistilConfig
from fick.passes.measuring import output_error
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.runtime.loop import guided

from . import small_unet

SCALE = 5.0
GUIDED = Guidance(SCALE)


@given(scale=st.floats(0.0, 20.0), pairs=st.integers(1, 3))
def test_what_is_taken_is_what_the_loop_takes(scale: float, pairs: int) -> None:
    rows = np.random.default_rng(0).standard_normal((2 * pairs, 4, 3, 3))
    wanted = guided(rows[pairs:], rows[:pairs], scale)
    # The loop rounds to float32.
    atol = (1 + 2 * scale) * np.abs(rows).max() * np.finfo(np.float32).eps
    np.testing.assert_allclose(Guidance(scale).taken(rows), wanted, rtol=0, atol=atol)
    square = float(Guidance(scale).square(torch.from_numpy(rows)))
    assert square == pytest.approx(np.square(rows).sum() + np.square(wanted).sum(), rel=1e-5)


def test_rows_without_guidance_stand_alone() -> None:
    rows = np.arange(8.0).reshape(2, 4)
    assert Guidance().taken(rows) is rows
    assert GUIDED.taken(rows[:1]).shape == (1, 4)  # of one row there is nothing to take
    assert float(Guidance().square(torch.from_numpy(rows))) == np.square(rows).sum()


def off_by(difference: np.ndarray) -> Program:
    """The small UNet, whose output is ``difference`` more."""
    changed = small_unet.program().copy()
    (output,) = changed.variants["full"].graph.outputs
    node = output.producer()
    assert node is not None and output.shape is not None
    maker = Maker(node, "off")
    total = maker.add("Add", (output, maker.constant(difference.astype(np.float32))), output.shape.numpy())
    maker.after()
    total.name, output.name = output.name, "before"
    changed.variants["full"].graph.outputs[0] = total
    return changed


@pytest.mark.parametrize(("signs", "times"), [((1, 1), 1.0), ((-1, 1), 2 * SCALE - 1)])
def test_branches_that_err_alike_err_once(signs: tuple[int, int], times: float) -> None:
    """e in both is e; -e and e are (2 s - 1) e."""
    program, plain = small_unet.program(), small_unet.context()
    context = replace(plain, guidance=GUIDED)
    calls = context.require("calibration", "test")
    difference = 0.1 * np.array(signs, np.float64).reshape(2, 1, 1, 1)
    found = output_error(context, program, off_by(difference), calls)
    outputs = [plain.require("referee", "test")(program, [])(one) for one in calls]
    taken = np.stack([GUIDED.taken(one.astype(np.float64)) for each in outputs for one in each.values()])
    assert found == pytest.approx(times * 0.1 / np.sqrt(np.square(taken).mean()), rel=1e-4)
    disturbance = Disturbance(context, program, calls, "test", "origin")
    assert disturbance.noise(off_by(difference)) == pytest.approx(found**2, rel=1e-4)


def of_one_sample(count: int) -> list[Arrays]:
    """Calls whose branches differ in the prompt alone, as a sampler's do."""
    return [one | {"sample": np.repeat(one["sample"][:1], 2, axis=0)} for one in small_unet.calls(count)]


def test_what_is_learned_is_what_is_taken() -> None:
    """Told of guidance, a student comes nearer to what a sampler takes than one that minds each branch by itself."""
    program, calls = small_unet.program(), of_one_sample(32)
    quantise = Quantise(QuantiseConfig(weights="int4", activations="float32", least_depth=1))
    teach = Distil(DistilConfig(calls=32, held_out=0.25, iterations=100, batch=4, rank=4))
    plain = Context(calibration=calls, reference=program, referee=small_unet.context().referee)
    aware = replace(plain, guidance=GUIDED)
    errors = [
        output_error(aware, program, apply([quantise, teach], program, one), calls) for one in (plain, aware)
    ]
    assert errors[1] < 0.95 * errors[0]
