"""Corrected programs through the whole compiler: what is computed, what it costs, and what the loop is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import fick
from fick.compiler.bundle.build import build, tensors
from fick.compiler.cache import cache_folder
from fick.compiler.frontends import Imported
from fick.compiler.programs import fused
from fick.compiler.recipes import NOTHING, Recipe
from fick.ir.canonical import canonicalise
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.base import Context, Pass
from fick.passes.correct import CorrectBias, CorrectNoise
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.runtime.model import Model
from fick.targets import profile

from ..passes import rounded, small_unet


class Calibrated(Recipe):
    """With calls as a pipeline would give them."""

    def context(self, program: Program, model: Any, seed: int, reporter: Any, sampler: Any = None) -> Context:
        return rounded.context(program)


INT8: tuple[Pass[Any], ...] = (Quantise(QuantiseConfig(least_depth=1)),)
CORRECTED = Calibrated(passes=(*INT8, CorrectBias(), CorrectNoise()))
SAMPLER = {"kind": "ddim", "eta": 1.0, "clip_sample": False}


def imported() -> Imported:
    program = small_unet.program()
    rates = {name: rate.value for name, rate in program.rates.items()}
    return Imported(canonicalise(program.variants["full"]), "small", "onnx", rates, program.weights)


def load(folder: Path, recipe: Recipe) -> Model:
    given = imported()
    weights = tensors(given.model)
    skeleton = build(
        {"unet": given}, profile.load("host"), cache_folder(), name="small", recipe=recipe, sampler=SAMPLER
    )
    skeleton.write(folder / "small.fick", {"unet": weights})
    loaded = fick.load(folder / "small.fick")
    assert isinstance(loaded, Model)
    return loaded


@pytest.fixture(scope="module")
def corrected(tmp_path_factory: pytest.TempPathFactory) -> Model:
    return load(tmp_path_factory.mktemp("corrected"), CORRECTED)


def test_the_compiled_program_computes_what_the_referee_computes(corrected: Model) -> None:
    exact, program = (Interpreter(fused(imported(), recipe=one)) for one in (NOTHING, CORRECTED))
    got, wanted, float_results = [], [], []
    for inputs in rounded.calls():
        got.append(corrected.run(**inputs)["output"])
        wanted.append(program(inputs)["output"])
        float_results.append(exact(inputs)["output"])
    # Half of a percent of the integers may be their neighbours, where the referee rounds sums that here are exact.
    assert np.std(np.subtract(got, wanted)) < 0.15 * np.std(np.subtract(wanted, float_results))
    history = corrected.manifest["components"]["unet"]["history"]
    assert [one["pass"] for one in history][:3] == ["quantise", "correct-bias", "correct-noise"]
    effect = history[2]["effect"]
    assert effect["corrected"] > 0 and effect["output_error"] < effect["output_error_before"]


def test_a_correction_is_no_kernel_of_the_loop(corrected: Model, tmp_path: Path) -> None:
    def calls(model: Model) -> int:
        return model.manifest["components"]["unet"]["variants"]["full"]["calls"]

    with load(tmp_path, Calibrated(passes=INT8)) as plain:
        assert calls(corrected) == calls(plain)
        assert "residual" not in plain.manifest["components"]["unet"]


def test_the_loop_is_told_what_is_left(corrected: Model) -> None:
    said = corrected.manifest["components"]["unet"]["residual"]
    assert said["timesteps"] == pytest.approx([one / 1000 for one in rounded.TIMESTEPS])
    assert corrected.residual().deviation(0.8) ** 2 == pytest.approx(said["covariance"][0][1][1])
    assert corrected.residual(3.0).deviation(0.8) ** 2 == pytest.approx(
        np.array([-2, 3]) @ said["covariance"][0] @ np.array([-2, 3])
    )


def test_pictures_are_drawn_with_less_noise(corrected: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    text = rounded.calls()[0]["encoder_hidden_states"]

    def draw(**options: Any) -> NDArray[np.float32]:
        return corrected.generate(steps=4, seed=3, encoder_hidden_states=text, **options)

    with_table = draw()
    quiet = draw(sampler={**SAMPLER, "eta": 0.0})
    np.testing.assert_array_equal(with_table, draw())
    monkeypatch.delitem(corrected.manifest["components"]["unet"], "residual")
    without = draw()
    # The same draws, a little smaller.
    assert 0 < np.abs(with_table - without).max() < 0.5 * np.abs(without).max()
    np.testing.assert_array_equal(quiet, draw(sampler={**SAMPLER, "eta": 0.0}))
