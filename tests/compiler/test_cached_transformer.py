"""A diffusion transformer whose attention and feed-forward layers are reused (FORA), calibrated on pictures of classes:
through the whole compiler, beside diffusers.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fick
from fick.compiler.calibration import Calibration, drawn_calls
from fick.compiler.frontends import open_model
from fick.compiler.programs import fused, unchanged
from fick.compiler.progress import Silent
from fick.compiler.quality.drawing import BundleArtist, ClassArtist
from fick.compiler.quality.evaluate import Prompt
from fick.compiler.quality.studio import Studio
from fick.compiler.recipes import read_recipe
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.macs import macs
from fick.ir.program import Program
from fick.passes.base import Context, apply
from fick.passes.caching import Fora, ForaConfig
from fick.passes.correct import CorrectNoise
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.runtime import ClassToImage

from . import pipelines

STEPS, GUIDANCE = 6, 3.0
RECIPE = f"""
[calibration]
prompts = "classes.txt"
steps = {STEPS}
guidance_scale = {GUIDANCE}

[[pass]]
name = "fora"
interval = 3
steps = [{STEPS}]
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("fora")
    pipelines.make_class_conditional(home)
    (home / "classes.txt").write_text("207\ngoldfish\n")
    (home / "fora.toml").write_text(RECIPE)
    fick.compile(home / "tiny-dit", output=home / "plain.fick")
    fick.compile(home / "tiny-dit", output=home / "cached.fick", recipe=home / "fora.toml")
    return home


opened = partial(pipelines.opened, kind=ClassToImage)


@cache
def program(home: Path) -> Program:
    return unchanged(open_model(home / "tiny-dit").components["transformer"].imported())


def studio(home: Path) -> Studio:
    return Studio(
        home / "tiny-dit", [Prompt("207"), Prompt("goldfish")], steps=STEPS, guidance_scale=GUIDANCE
    )


def test_calls_of_classes_are_those_that_diffusers_makes(home: Path) -> None:
    drawings, calls = studio(home).draw(program(home))
    theirs = ClassArtist(home / "tiny-dit")
    for seed, (label, ours) in enumerate(zip(("207", "goldfish"), drawings, strict=True)):
        wanted = theirs.draw(label, seed, STEPS, GUIDANCE)
        assert np.abs(ours.picture.astype(int) - wanted.picture).max() <= 1
        np.testing.assert_allclose(ours.latents, wanted.latents, atol=1e-3)
    # As in all loops of ours no class comes first.
    assert [call["class_labels"].tolist() for call in calls[::STEPS]] == [[1000, 207], [1000, 1]]
    assert len(calls) == 2 * STEPS and calls[0]["timestep"] > calls[STEPS - 1]["timestep"]


@pytest.mark.parametrize("named", [True, False])
def test_each_layer_leaves_what_it_adds(home: Path, named: bool) -> None:
    whole = program(home).copy()
    for node in whole.variants["full"].graph if not named else ():
        node.metadata_props.clear()  # as in a foreign graph, where nobody says what belongs together
    cached = apply([Fora(ForaConfig(interval=3, steps=(STEPS,)))], whole, Context())
    # An attention and a feed-forward layer of two blocks: both branches, 16 patches, 32 channels.
    assert list(cached.state.values()) == [(2, 16, 32)] * 4
    assert cached.schedule == {STEPS: ["full", "kept", "kept"] * 2}
    # Patches go in and out, the timestep is embedded, and the last norm has its shift and scale: nothing else is left.
    latent, width, patches = 4, 32, 16
    embedding = 256 * width + width * width
    left = 2 * patches * (4 * latent + 8 * latent) * width + 2 * 2 * width**2 + embedding
    assert macs(cached.variants["kept"]) == left < macs(cached.variants["full"])


def test_pictures_are_those_of_the_program_on_the_referee(home: Path) -> None:
    imported = open_model(home / "tiny-dit").components["transformer"].imported()
    cached = fused(imported, recipe=read_recipe(home / "fora.toml"), model=home / "tiny-dit")
    wanted, _ = studio(home).draw(cached)
    with opened(home / "cached.fick") as ours, opened(home / "plain.fick") as plain:
        assert ours.unet.schedules == cached.schedule
        (entry, *_) = ours.manifest["components"]["transformer"]["history"]
        assert entry["pass"] == "fora" and 10 < entry["effect"]["quality"]["psnr_db"]["value"] < 100
        pipelines.assert_drawn(ours, plain, wanted, (207, "goldfish"), steps=STEPS, guidance_scale=GUIDANCE)


def test_integers_and_corrections_go_by_the_loops_that_reuse(home: Path) -> None:
    context = studio(home).context(program(home))
    cache = Fora(ForaConfig(interval=3, steps=(STEPS,)))
    before = apply([cache, Quantise(QuantiseConfig(least_depth=1, pictures=1))], program(home), context)
    changed = apply([CorrectNoise()], before, context)
    effects = {one.pass_name: one.effect for one in changed.history}
    assert effects["quantise"]["attentions"] == 0 and 0 < effects["quantise"]["output_error"] < 0.5
    noise = effects["correct-noise"]
    assert noise["timesteps"] == STEPS and noise["output_error"] <= noise["output_error_before"]
    labels = list(noise["by_timestep"])
    assert [label.endswith("kept") for label in labels] == [False, True, True] * 2
    # The variance that the model learned beside is nobody's to correct.
    (picture,) = context.draw(program(home), STEPS, 1)  # type: ignore[misc]
    ours, theirs = (Interpreter(one)(picture.calls[0])["out_sample"] for one in (changed, before))
    np.testing.assert_array_equal(ours[:, 4:], theirs[:, 4:])


def test_recomputing_everything_gives_the_same_bits(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: dict[str, Any] = {"steps": STEPS, "guidance_scale": GUIDANCE, "seed": 5}
    with opened(home / "cached.fick") as ours, opened(home / "plain.fick") as plain:
        monkeypatch.setattr(ours.unet, "order", lambda calls, first=0: ["full"] * calls)
        np.testing.assert_array_equal(ours.generate(1, **settings), plain.generate(1, **settings))
    context = studio(home).context(program(home))
    cached = apply([Fora(ForaConfig(interval=2, steps=(STEPS,)))], program(home), Context())
    full = replace(
        cached, schedule={STEPS: ["full"] * STEPS}, variants={"full": cached.variants["full"]}, state={}
    )
    assert context.draw is not None
    ours_drawn, theirs = (context.draw(one, STEPS, 1)[0].latents for one in (full, program(home)))
    np.testing.assert_array_equal(ours_drawn, theirs)


def test_a_bundle_is_evaluated_by_classes(home: Path) -> None:
    artist = BundleArtist(home / "cached.fick")
    drawing = artist.draw("goldfish", 3, STEPS, GUIDANCE)
    assert drawing.latents.shape == (STEPS, 4, 8, 8)
    cost = artist.cost(STEPS)
    assert 0 < STEPS * cost["macs_per_step"] < cost["macs_per_image"]


def test_prompts_that_are_no_classes(home: Path, tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("a goldfish in the snow\n")
    calibration = Calibration(prompts=tmp_path / "classes.txt", steps=2)
    with pytest.raises(UserError, match=r"'a goldfish in the snow' names no class: .* no class called"):
        calibration.context(program(home), home / "tiny-dit", 0, Silent())
    with pytest.raises(UserError, match=r"calibrates .*tiny-dit with no prompts; name a file as prompts"):
        Calibration().context(program(home), home / "tiny-dit", 0, Silent())


def test_drawn_calls_have_classes_that_there_are(home: Path) -> None:
    labels = np.concatenate([call["class_labels"] for call in drawn_calls(program(home), 32, seed=0)])
    assert labels.dtype == np.int64 and labels.min() >= 0 and labels.max() <= 1000
    assert len(np.unique(labels)) > 32
