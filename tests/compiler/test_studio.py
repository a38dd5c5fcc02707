"""Pictures by programs on the referee, against diffusers and against the compiled bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fick.compiler.frontends import open_model
from fick.compiler.quality.drawing import PipelineArtist
from fick.compiler.quality.evaluate import Prompt
from fick.compiler.quality.studio import Studio
from fick.ir.errors import UserError
from fick.ir.program import Program
from fick.ir.rates import Rate
from fick.passes.base import apply
from fick.passes.hoist import Hoist
from fick.passes.pssa import PruneScores, PruneScoresConfig

from . import pipelines

STEPS, GUIDANCE = 3, 4.0
PROMPTS = [Prompt("cat"), Prompt("dog")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("studio")
    pipelines.make(home)
    return home / "tiny-sd"


@pytest.fixture(scope="module")
def program(folder: Path) -> Program:
    imported = open_model(folder).components["unet"].imported()
    rates = {name: Rate(rate) for name, rate in imported.inputs.items()}
    return Program("unet", {"full": imported.model}, rates, weights=imported.weights)


def test_a_program_draws_what_diffusers_draws(folder: Path, program: Program) -> None:
    told: list[tuple[int, int]] = []
    studio = Studio(
        folder,
        PROMPTS,
        steps=STEPS,
        guidance_scale=GUIDANCE,
        progress=lambda done, total: told.append((done, total)),
    )
    drawings, calls = studio.draw(apply([Hoist()], program.copy(), studio.context(program)))
    theirs = PipelineArtist(folder)
    for seed, (prompt, ours) in enumerate(zip(PROMPTS, drawings, strict=True)):
        wanted = theirs.draw(prompt.text, seed, STEPS, GUIDANCE)
        # Rounding of the last bit: float32 sums in another order.
        assert np.abs(ours.picture.astype(int) - wanted.picture).max() <= 1
        np.testing.assert_allclose(ours.latents, wanted.latents, atol=1e-3)
    assert len(calls) == STEPS * len(PROMPTS)
    assert calls[0]["sample"].shape[0] == 2  # both branches of guidance
    assert calls[0]["timestep"] > calls[STEPS - 1]["timestep"]
    assert told[0] == (0, 2) and told[-1] == (2, 2)


def test_what_a_change_does_to_pictures(folder: Path, program: Program) -> None:
    context = Studio(folder, PROMPTS, steps=STEPS, guidance_scale=GUIDANCE).context(program)
    assert context.quality is not None and context.reference is program
    same = context.quality(program)
    assert same["psnr_db"]["value"] == 100 and same["latent_error"]["value"] == 0
    pruned = apply([PruneScores(PruneScoresConfig(threshold=1.5))], program, context)
    changed = context.quality(pruned)
    assert changed["psnr_db"]["value"] < 100 and changed["latent_error"]["value"] > 0


def test_prompts_are_needed(folder: Path) -> None:
    with pytest.raises(UserError, match="no prompts to calibrate with"):
        Studio(folder, [], steps=STEPS, guidance_scale=GUIDANCE)
