"""What passes are given to look at where no prompts can be drawn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler

from fick.compiler.calibration import Calibration, drawn_calls
from fick.compiler.frontends import Imported
from fick.compiler.programs import fused
from fick.compiler.progress import Silent
from fick.compiler.recipes import Recipe
from fick.ir.canonical import canonicalise
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.ir.rates import Rate
from fick.passes.base import Context, apply
from fick.passes.caching import Fora
from fick.passes.caching.fora import ForaConfig
from fick.passes.hoist import hoisted
from fick.passes.quantise import Quantise
from fick.runtime.errors import FickError
from fick.runtime.noise import Noise

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


DDIM = {"kind": "ddim", "prediction_type": "epsilon"}
VALUES = {"encoder_hidden_states": [0.5, -1.0]}


def test_a_model_with_a_sampler_is_calibrated_in_its_loops() -> None:
    program = small_unet.program()
    asked = Calibration(pictures=3, steps=4, values=VALUES)
    context = asked.context(program, "ddpm-cifar10", 7, Silent(), DDIM)
    calls = context.require("calibration", "a test")
    assert [float(call["timestep"][0]) for call in calls] == 3 * [750, 500, 250, 0]
    assert [float(call["encoder_hidden_states"].mean()) for call in calls[::4]] == [0.5, -1.0, 0.5]

    scheduler, network = DDIMScheduler(), Interpreter(program)
    scheduler.set_timesteps(4)
    x = torch.from_numpy(Noise(8).standard_normal(calls[4]["sample"].shape))
    for call, timestep in zip(calls[4:8], scheduler.timesteps, strict=True):
        np.testing.assert_allclose(call["sample"], x, atol=1e-5)
        output = network(call)["output"]
        (x, *_) = scheduler.step(torch.from_numpy(output), int(timestep), x, return_dict=False)
    second = context.require_draw("a test")(program, 4, 2)[1]
    np.testing.assert_allclose(second.latents, x[0], atol=1e-5)


def test_loops_of_what_hoisting_leaves_are_those_of_the_model() -> None:
    """What the prompt alone decides is a variant of its own then, which reads the prompt in place of "full"."""
    program = small_unet.program()
    draw = Calibration(pictures=2, steps=3).context(program, "x", 0, Silent(), DDIM).require_draw("a test")
    split = hoisted(program)
    assert "encoder_hidden_states" not in {str(one.name) for one in split.variants["full"].graph.inputs}
    for wanted, got in zip(draw(program, 3, 2), draw(split, 3, 2), strict=True):
        np.testing.assert_allclose(got.latents, wanted.latents, atol=1e-5)


def test_a_schedule_is_made_and_quantised_without_prompts() -> None:
    program = small_unet.program()
    context = Calibration(pictures=2, steps=3).context(program, "x", 0, Silent(), DDIM)
    made = apply([Fora(ForaConfig(steps=(3,))), Quantise()], program, context)
    assert made.schedule[3][0] == "full" and "output_error" in made.history[1].effect


def test_loops_take_the_levels_that_a_sampler_lists() -> None:
    program = small_unet.program()
    sampler = {"kind": "consistency", "sigmas": [80.0, 24.0, 6.0]}
    context = Calibration(pictures=2).context(program, "terrain.onnx", 0, Silent(), sampler)
    times = [float(call["timestep"][0]) for call in context.require("calibration", "a test")]
    assert times == 2 * [80, 24, 6]


def test_values_that_nothing_takes_are_refused() -> None:
    program = small_unet.program()
    with pytest.raises(UserError, match=r"values of hardness, which is no .*those are encoder_hidden_states"):
        Calibration(values={"hardness": [1.0]}).context(program, "terrain.onnx", 0, Silent(), DDIM)
    with pytest.raises(UserError, match=r"gives values to loops of terrain.onnx.*name it as --sampler"):
        Calibration(values=VALUES).context(program, "terrain.onnx", 0, Silent())
    program.rates["encoder_hidden_states"] = Rate.SAMPLE
    with pytest.raises(UserError, match=r"is none of one sample that comes out again; leave them out"):
        Calibration(values=VALUES).context(program, "terrain.onnx", 0, Silent(), DDIM)


CLASSES = (
    '<ir_version: 11, opset_import: ["" : 24]> g (float[1, 1] x, float t, int64[1] label) => (float[1, 1] y) '
    "<float[3, 1] classes = {0.0, 0.5, 1.0}> { c = Gather(classes, label) s = Mul(x, t) y = Add(s, c) }"
)
RATES = {"x": Rate.SAMPLE, "t": Rate.STEP, "label": Rate.PROMPT}


def test_classes_are_whole_numbers_of_the_table() -> None:
    program = Program("classes", {"full": ir.from_onnx_text(CLASSES)}, RATES)

    def labels(*values: float) -> set[int]:
        asked = Calibration(pictures=2, steps=2, values={"label": [*values]})
        context = asked.context(program, "classes.onnx", 0, Silent(), DDIM)
        return {int(call["label"][0]) for call in context.require("calibration", "a test")}

    assert labels(0, 2) == {0, 2}
    for wrong in (1.5, 3, -1):
        with pytest.raises(UserError, match=rf"with {wrong} for label, .* whole numbers from 0 to 2\."):
            labels(0, wrong)


def test_levels_that_are_no_list_are_refused() -> None:
    program = Program("classes", {"full": ir.from_onnx_text(CLASSES)}, RATES)
    with pytest.raises(FickError, match="sigmas"):
        Calibration().context(program, "classes.onnx", 0, Silent(), {"kind": "consistency", "sigmas": 80})


def test_a_folder_says_how_it_is_sampled() -> None:
    asked: list[Any] = []

    class Asking(Recipe):
        def context(
            self, program: Program, model: Any, seed: int, reporter: Any, sampler: Any = None
        ) -> Context:
            asked.append(sampler)
            return Context(seed=seed)

    scheduler = {"_class_name": "DDIMScheduler"}
    for given in (None, DDIM):
        rates = {name: rate.value for name, rate in RATES.items()}
        facts = {"scheduler": scheduler}
        graph = canonicalise(ir.from_onnx_text(CLASSES))
        imported = Imported(graph, "classes", "diffusers", rates, frozenset(), metadata=facts)
        fused(imported, recipe=Asking(), sampler=given)
    assert asked == [{"kind": "diffusers", "config": scheduler}, DDIM]
