"""Distillation: what it replaces, what that is worth on calls it has not seen, and that it can be taken up again."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from fick.ir.constants import numbers_of
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.base import Context, apply
from fick.passes.hoist import Hoist
from fick.passes.learned.distil import Distil, DistilConfig
from fick.passes.learned.rounding import LearnRounding, LearnRoundingConfig
from fick.passes.learned.student import Student
from fick.passes.quantise import Quantise, QuantiseConfig

from . import distilling, small_unet
from .distilling import interrupted
from .serialised import serialised

CALLS = 15
QUICK = {"iterations": 100, "rank": 4, "learning_rate": 5e-3, "scale_rate": 5e-3}

context = partial(distilling.context, CALLS)


def quantised(**config: object) -> Program:
    chosen = QuantiseConfig.model_validate({"weights": "int4", "least_depth": 1, **config})
    return apply([Quantise(chosen)], small_unet.program(), context())


def distilled(program: Program, given: Context | None = None, **config: object) -> Program:
    chosen = DistilConfig.model_validate({**QUICK, **config})
    return apply([Distil(chosen)], program, given or context())


def error(program: Program, calls: list[dict[str, np.ndarray]]) -> float:
    """|given - wanted| / |wanted| of the output, by the referee."""
    given, wanted = (
        np.stack([Interpreter(which)(call)["output"] for call in calls]).astype(np.float64)
        for which in (program, small_unet.program())
    )
    return float(np.linalg.norm(given - wanted) / np.linalg.norm(wanted))


@pytest.mark.parametrize("per_step", [False, True], ids=["one scale", "one a timestep"])
def test_the_output_comes_nearer_on_calls_that_were_not_learned_from(per_step: bool) -> None:
    before = quantised(per_step=per_step)
    after = distilled(before)
    effect = after.history[-1].effect
    held_out = effect["held_out_error"]
    # Of a dozen calls of noise little can be learned but what the network itself does to them.
    assert held_out["learned"] < 0.85 * held_out["nearest"]
    # Torch taught it, ONNX Runtime examines it: sums in another order may round to another integer.
    assert effect["output_error"] == pytest.approx(held_out["learned"], rel=0.02)
    assert error(after, small_unet.calls(CALLS)) < 0.85 * error(before, small_unet.calls(CALLS))
    assert effect["weights"] == 16 and effect["activations"] > 8
    graph = after.variants["full"].graph
    kept = [node for node in graph if node.op_type == "QuantizeLinear"]
    assert len(kept) == effect["activations"]
    assert all(np.all(numbers_of(one) > 0) for node in kept if (one := node.inputs[1]).is_initializer())
    assert not after.weights & {"w1", "wq1", "conv_mid"} and "gamma" in after.weights
    # The loop computes the same once its constant parts are moved out.
    call = small_unet.calls(CALLS)[4]
    split = apply([Hoist()], after, context())
    np.testing.assert_allclose(
        Interpreter(split)(call)["output"], Interpreter(after)(call)["output"], atol=1e-5
    )


def test_nothing_learned_is_nothing_changed() -> None:
    """Rates of next to nothing: no integer is another, and the program is the one that was given."""
    before = quantised()
    after = distilled(before, iterations=2, learning_rate=1e-30, scale_rate=1e-30)
    assert serialised(after) == serialised(before) and after.weights == before.weights


def test_a_student_that_has_learned_nothing_is_the_program() -> None:
    program = quantised()
    student = Student(program, rank=4, seed=0, device="cpu")
    call = small_unet.calls(CALLS)[3]
    with torch.no_grad():
        given = student.graph(["output"])(
            {**{name: torch.tensor(one) for name, one in call.items()}, **student.values()}
        )
    np.testing.assert_allclose(given["output"].numpy(), Interpreter(program)(call)["output"], atol=2e-5)


def test_what_was_interrupted_goes_on_to_the_same_end(tmp_path: Path) -> None:
    program = quantised()
    whole = distilled(program, iterations=40)
    with interrupted():
        distilled(program, context(tmp_path), iterations=40)
    told: list[int] = []
    given = replace(
        context(tmp_path), progress=lambda done, total: told.append(done) if total == 40 else None
    )
    assert serialised(distilled(program, given, iterations=40)) == serialised(whole)
    # Of the fourth part of ten nothing was kept.
    assert told == list(range(13, 41))
    (kept,) = (tmp_path / "distil").iterdir()
    kept.write_bytes(kept.read_bytes()[:1000])
    assert serialised(distilled(program, context(tmp_path), iterations=40)) == serialised(whole)


def test_what_cannot_be() -> None:
    with pytest.raises(UserError, match="pass distil finds no weight that is rounded to integers"):
        distilled(small_unet.program())
    rounding = LearnRoundingConfig(iterations=1, calls=4)
    with pytest.raises(UserError, match="and learn-rounding not"):
        distilled(apply([LearnRounding(rounding)], quantised(), context()))
