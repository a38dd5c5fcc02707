"""Cached steps in integers, corrected, through the whole compiler: each alternative computes what the referee does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

import fick
from fick.compiler.bundle.build import build, tensors
from fick.compiler.cache import cache_folder
from fick.compiler.programs import fused
from fick.compiler.recipes import NOTHING, Recipe
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.base import Context
from fick.passes.caching import DeepCache, DeepCacheConfig
from fick.passes.correct import CorrectNoise, CorrectNoiseConfig
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.passes.split_joins import SplitJoins, SplitJoinsConfig
from fick.runtime.model import Model
from fick.targets import profile

from ..passes.test_schedule_reuse import draw
from .test_correct import imported

STEPS = 6
ORDER = ["full", "cached", "cached"] * 2


class Drawing(Recipe):
    """With pictures as a pipeline would draw them."""

    def context(self, program: Program, model: Any, seed: int, reporter: Any, sampler: Any = None) -> Context:
        calls = [call for one in draw(program, STEPS, 2) for call in one.calls]
        return Context(referee=Interpreter, reference=program, calibration=calls, draw=draw)


RECIPE = Drawing(
    passes=(
        SplitJoins(SplitJoinsConfig(least_depth=1)),
        DeepCache(DeepCacheConfig(interval=3, steps=(STEPS,))),
        Quantise(QuantiseConfig(least_depth=1, pictures=2)),
        CorrectNoise(CorrectNoiseConfig(pictures=4)),
    )
)


def test_a_loop_computes_what_the_referee_computes(tmp_path: Path) -> None:
    given = imported()
    skeleton = build({"unet": given}, profile.load("host"), cache_folder(), name="small", recipe=RECIPE)
    skeleton.write(tmp_path / "small.fick", {"unet": tensors(given.model)})
    changed, exact = fused(imported(), recipe=RECIPE), Interpreter(fused(imported(), recipe=NOTHING))
    program = Interpreter(changed)
    got, wanted, float_results = [], [], []
    (picture,) = draw(changed, STEPS, 1)
    with fick.load(tmp_path / "small.fick", threads=1) as model:
        assert isinstance(model, Model)
        assert model.schedules == {STEPS: ORDER} and model.whole == ["full"]
        for variant, call in zip(ORDER, picture.calls, strict=True):
            feeds: dict[str, Any] = dict(call)
            got.append(model.run(variant=variant, **feeds)["output"])
            wanted.append(program(call, variant)["output"])
            float_results.append(exact(call)["output"])
        unet = model.manifest["components"]["unet"]
    # A few of the integers may be their neighbours, where the referee rounds sums that here are exact.
    assert np.std(np.subtract(got, wanted)) < 0.15 * np.std(np.subtract(wanted, float_results))
    effects = {one["pass"]: one["effect"] for one in unet["history"]}
    assert effects["correct-noise"]["corrected"] > 0
    assert len(unet["residual"]["timesteps"]) == STEPS
    # Weights lie in the bundle once, whichever alternative reads them.
    numbers = sum(array.nbytes for array in tensors(given.model).values())
    assert unet["memory"]["weights_bytes"] < 0.6 * numbers
