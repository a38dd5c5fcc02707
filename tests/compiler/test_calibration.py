"""What passes are given to look at where no prompts can be drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fick.compiler.calibration import Calibration, drawn_calls
from fick.compiler.progress import Silent
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.passes.base import apply
from fick.passes.quantise import Quantise

from ..passes import small_unet
from . import pipelines


def test_drawn_calls_are_calls_of_the_program() -> None:
    program = small_unet.program()
    calls = drawn_calls(program, 5, seed=0)
    assert [float(call["timestep"][0]) for call in calls] == [999, 749, 500, 250, 0]
    assert all(np.isfinite(Interpreter(program)(call)["output"]).all() for call in calls)
    assert abs(np.concatenate([call["sample"].ravel() for call in calls]).std() - 1) < 0.05
    for one, other in zip(calls, drawn_calls(program, 5, seed=0), strict=True):
        assert all(np.array_equal(one[name], other[name]) for name in one)


def test_a_model_that_reads_no_prompts_is_calibrated_on_noise(tmp_path: Path) -> None:
    program = small_unet.program()
    context = Calibration(calls=3).context(program, "ddpm-cifar10", 0, Silent())
    changed = apply([Quantise()], program, context)
    assert 0 < changed.history[0].effect["output_error"] < 0.1
    pipelines.make(tmp_path)
    with pytest.raises(UserError, match=r"calibrates .*tiny-sd with no prompts; name a file as prompts"):
        Calibration().context(program, tmp_path / "tiny-sd", 0, Silent())
