"""An optimised schedule, corrected, through the whole compiler: a small pipeline within a budget of latency."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fick
from fick.compiler.costs.predicted import Predicted
from fick.compiler.frontends import open_model
from fick.compiler.programs import fused, structure, unchanged
from fick.compiler.quality.evaluate import Prompt
from fick.compiler.quality.studio import Studio
from fick.compiler.recipes import read_recipe
from fick.compiler.schedule_plot import computed, draw
from fick.ir.errors import UserError
from fick.passes.base import Context, apply
from fick.passes.caching import DeepCache, DeepCacheConfig
from fick.runtime import TextToImage
from fick.targets import profile as profiles

from . import pipelines

STEPS, GUIDANCE = 4, 4.0
RECIPE = f"""
[calibration]
prompts = "prompts.txt"
steps = {STEPS}
guidance_scale = {GUIDANCE}

[[pass]]
name = "schedule-reuse"
budget = "latency=0.8x"
steps = [{STEPS}]
pictures = 2
probes = 2
evaluations = 3
longest = 3

[[pass]]
name = "correct-reuse"
pictures = 2
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("reuse")
    pipelines.make(home)
    (home / "prompts.txt").write_text("cat\ndog\n")
    (home / "reuse.toml").write_text(RECIPE)
    return home


def test_a_pipeline_is_scheduled_and_corrected_on_its_own_trajectories(home: Path) -> None:
    fick.compile(home / "tiny-sd", output=home / "reuse.fick", recipe=home / "reuse.toml")
    with fick.load(home / "reuse.fick", threads=2) as model:
        assert isinstance(model, TextToImage)
        unet = model.manifest["components"]["unet"]
        effects = {one["pass"]: one["effect"] for one in unet["history"]}
        said = effects["schedule-reuse"]
        loop = said["loops"][str(STEPS)]
        assert loop["predicted_cost"] <= said["cost"]["budget"] < said["cost"]["full"]
        assert loop["order"].split() == list(model.unet.schedules[STEPS]) and "full" in loop["order"]
        assert effects["correct-reuse"]["places"] > 0
        got = model.generate("cat", seed=0, steps=STEPS, guidance_scale=GUIDANCE)
    # The same as the program on the referee.
    studio = Studio(home / "tiny-sd", [Prompt("cat")], steps=STEPS, guidance_scale=GUIDANCE)
    imported = open_model(home / "tiny-sd").components["unet"].imported()
    program = fused(
        imported, recipe=read_recipe(home / "reuse.toml"), model=home / "tiny-sd",
        cost_model=Predicted(profiles.load("host"), "float32"),
    )  # fmt: skip
    assert program.schedule[STEPS] == loop["order"].split()
    (drawn,), _ = studio.draw(program)
    assert np.abs(got.astype(int) - drawn.picture).max() <= 1


def test_whole_pictures_follow_each_other_call_by_call(home: Path) -> None:
    imported = open_model(home / "tiny-sd").components["unet"].imported()
    program = unchanged(imported)
    studio = Studio(
        home / "tiny-sd", [Prompt("cat"), Prompt("dog")], steps=STEPS, guidance_scale=GUIDANCE,
        folder_kept=home / "kept",
    )  # fmt: skip
    context = studio.context(program)
    assert context.draw is not None and context.calibration is not None
    drawn = context.draw(program, STEPS, 2)
    assert [len(one.calls) for one in drawn] == [STEPS, STEPS]
    for ours, theirs in zip((call for one in drawn for call in one.calls), context.calibration, strict=True):
        for name, array in theirs.items():
            np.testing.assert_array_equal(ours[name], array)
    (longer,) = context.draw(program, STEPS + 2, 1)
    assert len(longer.calls) == STEPS + 2 and longer.latents.shape == drawn[0].latents.shape
    # A schedule that recomputes everything draws the same bits.
    cached = apply([DeepCache(DeepCacheConfig(steps=(STEPS,)))], program, Context())
    full = replace(
        cached, schedule={STEPS: ["full"] * STEPS}, variants={"full": cached.variants["full"]}, state={}
    )
    np.testing.assert_array_equal(context.draw(full, STEPS, 1)[0].latents, drawn[0].latents)
    assert not np.array_equal(context.draw(cached, STEPS, 1)[0].latents, drawn[0].latents)


def test_a_schedule_as_a_picture(home: Path, tmp_path: Path) -> None:
    (tmp_path / "cache.toml").write_text('[[pass]]\nname = "deep-cache"\ninterval = 3\nsteps = [6]\n')
    fick.compile(home / "tiny-sd", output=tmp_path / "cached.fick", recipe=tmp_path / "cache.toml")
    program = structure(tmp_path / "cached.fick")
    names, filled = computed(program, 6)
    assert filled.shape == (len(names), 6) and filled[:, [0, 3]].all()
    outermost = [name.startswith("up_blocks.1") and ".1" in name[12:] for name in names]
    for column in (1, 2, 4, 5):
        np.testing.assert_array_equal(filled[:, column], outermost)
    with Image.open(io.BytesIO(draw(program, 6))) as picture:
        assert picture.format == "PNG"
    with pytest.raises(UserError, match="has no schedule for 7 steps; it has 6"):
        draw(program, 7)
