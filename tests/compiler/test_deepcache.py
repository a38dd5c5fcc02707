"""DeepCache through the whole compiler: a small pipeline whose UNet runs its outermost layers between full steps."""

from __future__ import annotations

import json
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fick
from fick.compiler.frontends import open_model
from fick.compiler.programs import fused
from fick.compiler.quality.evaluate import Prompt
from fick.compiler.quality.studio import Studio
from fick.compiler.recipes import read_recipe
from fick.ir.interpreter import Interpreter
from fick.runtime import Cancelled, TextToImage

from . import pipelines

STEPS, GUIDANCE = 6, 4.0
RECIPE = '[[pass]]\nname = "deep-cache"\ninterval = 3\nsteps = [6]\n'


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pipeline, its bundle, and that of the same with cached steps."""
    home = tmp_path_factory.mktemp("deepcache")
    pipelines.make(home)
    (home / "cache.toml").write_text(RECIPE)
    fick.compile(home / "tiny-sd", output=home / "plain.fick")
    fick.compile(home / "tiny-sd", output=home / "cached.fick", recipe=home / "cache.toml")
    return home


opened = partial(pipelines.opened, kind=TextToImage)


def calls(model: TextToImage, count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(2)
    text = rng.standard_normal(model.unet.inputs["encoder_hidden_states"].shape).astype(np.float32)
    return [
        {
            "sample": rng.standard_normal(model.unet.inputs["sample"].shape).astype(np.float32),
            "timestep": np.array([900 - 100 * step], np.float32),
            "encoder_hidden_states": text,
        }
        for step in range(count)
    ]


def test_full_steps_are_those_of_the_model_without_a_cache(home: Path) -> None:
    with opened(home / "plain.fick") as plain, opened(home / "cached.fick") as cached:
        for call in calls(plain, 3):
            ours, theirs = (next(iter(one.unet.run(**call).values())) for one in (cached, plain))
            np.testing.assert_array_equal(ours, theirs)
        assert cached.unet.memory.weights_bytes == plain.unet.memory.weights_bytes
        assert cached.unet.memory.arena_bytes == plain.unet.memory.arena_bytes
        # Two branches of 16 channels of 8 x 8.
        assert cached.unet.memory.state_bytes - plain.unet.memory.state_bytes == 4 * 2 * 16 * 64
        with pytest.warns(UserWarning, match="loops of 6 calls, and 1 follow that for 6"):
            alone = cached.generate("cat", seed=1, steps=1)
        np.testing.assert_array_equal(alone, plain.generate("cat", seed=1, steps=1))


def test_a_loop_computes_what_the_referee_computes(home: Path) -> None:
    program = fused(
        open_model(home / "tiny-sd").components["unet"].imported(), recipe=read_recipe(home / "cache.toml")
    )
    referee = Interpreter(program)
    with opened(home / "cached.fick") as model:
        assert model.unet.schedules == program.schedule == {6: ["full", "cached", "cached"] * 2}
        for variant, call in zip(program.schedule[6], calls(model, 6), strict=True):
            got, wanted = model.unet.run(variant=variant, **call), referee(call, variant)
            # Some thirty layers of values around one, each of which errs by single roundings of its sums.
            np.testing.assert_allclose(
                *(next(iter(one.values())) for one in (got, wanted)), rtol=0, atol=2e-5
            )


def test_what_a_cached_step_multiplies(home: Path) -> None:
    """By hand: the first and the last convolution, the last resnet and the transformer behind it, for two branches of
    8 x 8 pixels. What follows from the prompt or the timestep is variants of its own.
    """
    channels, pixels = 16, 64
    ends = 2 * 9 * 4 * channels
    resnet = 9 * (2 * channels * channels + channels * channels) + 2 * channels * channels
    # Projections in and out; queries, keys, values and result; queries and result; two halves in and one out.
    products = channels * channels * (2 + 4 + 2) + channels * (8 * channels) + 4 * channels * channels
    scores = 2 * channels * (pixels + pipelines.TOKENS)
    wanted = 2 * pixels * (ends + resnet + products + scores)
    with opened(home / "cached.fick") as model:
        variants = model.manifest["components"]["unet"]["variants"]
    assert variants["cached"]["macs"] == wanted < variants["full"]["macs"]


def test_pictures_are_those_of_the_program_on_the_referee(home: Path) -> None:
    """Drawn by diffusers' pipeline, its UNet replaced by the program and its schedule."""
    studio = Studio(home / "tiny-sd", [Prompt("cat"), Prompt("dog")], steps=STEPS, guidance_scale=GUIDANCE)
    imported = open_model(home / "tiny-sd").components["unet"].imported()
    program = fused(imported, recipe=read_recipe(home / "cache.toml"))
    wanted, _ = studio.draw(program)
    with opened(home / "cached.fick") as cached, opened(home / "plain.fick") as plain:
        pipelines.assert_drawn(cached, plain, wanted, ("cat", "dog"), steps=STEPS, guidance_scale=GUIDANCE)


def test_a_picture_to_start_from_begins_with_a_full_step(home: Path) -> None:
    """Of six steps the last four run: the first of them is a cached one in the schedule."""
    with opened(home / "cached.fick") as model:
        size = (*model.picture_size, 3)
        init = np.random.default_rng(0).integers(0, 256, size, dtype=np.uint8)
        ran: list[str] = []
        run = model.unet.run

        def noted(*, variant: str, **given: Any) -> Any:
            ran.append(variant)
            return run(variant=variant, **given)

        model.unet.run = noted  # type: ignore[method-assign]
        settings: dict[str, Any] = {"seed": 1, "steps": STEPS, "init": init, "strength": 0.7}
        wanted = model.generate("cat", **settings)
        assert ran == ["full", "full", "cached", "cached"]
        # What another picture left, or one that was stopped, has no part in it.
        model.generate("dog", seed=5, steps=STEPS)
        with pytest.raises(Cancelled):
            model.generate("dog", seed=6, steps=STEPS, progress=lambda done, total: done == 4)
        np.testing.assert_array_equal(model.generate("cat", **settings), wanted)


def test_a_recipe_says_what_it_did_and_its_loops_follow(home: Path) -> None:
    with opened(home / "cached.fick") as model:
        (entry, *_) = model.manifest["components"]["unet"]["history"]
        assert entry["pass"] == "deep-cache" and entry["effect"]["runs"] == {"6": {"full": 2, "cached": 4}}
        assert entry["effect"]["state_bytes"] == 4 * 2 * 16 * 64
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model.generate("cat", steps=6)
        with pytest.warns(UserWarning, match="12 follow that for 6 by position"):
            model.generate("cat", steps=12)
    assert json.dumps(entry["config"]["steps"]) == "[6]"
