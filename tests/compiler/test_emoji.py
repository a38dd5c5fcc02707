"""The trained pipeline that comes with the repository: what it holds, and that its bundle draws what diffusers draws, here
and by fick-run for 64-bit Arm, under qemu.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import fick
from fick.compiler.cache import cache_folder
from fick.compiler.quality.drawing import PipelineArtist
from fick.compiler.quality.evaluate import judged, read_prompts
from fick.compiler.quality.fidelity import psnr_db
from fick.compiler.quality.judge import Judge
from fick.compiler.runner import program
from fick.runtime import TextToImage

from ..emulated import run_program

MODEL = Path(__file__).resolve().parents[2] / "models" / "emoji-sd"
STEPS, GUIDANCE = 20, 5.0
PROMPTS = ("google smiley, loudly crying face", "twitter flag, france flag")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fick.compile(MODEL, output=tmp_path_factory.mktemp("emoji") / "emoji.fick").bundle


@pytest.fixture(scope="module")
def ours(bundle: Path) -> Iterator[TextToImage]:
    with fick.load(bundle) as opened:
        assert isinstance(opened, TextToImage)
        yield opened


@pytest.fixture(scope="module")
def theirs() -> PipelineArtist:
    return PipelineArtist(MODEL)


def test_it_is_as_small_as_it_says() -> None:
    assert sum(path.stat().st_size for path in MODEL.rglob("*") if path.is_file()) <= 40e6
    card = (MODEL / "README.md").read_text(encoding="utf-8")
    for name in ("Noto Emoji", "Twemoji", "CC-BY 4.0", "emojilib"):
        assert name in card
    measures = json.loads((MODEL / "measures.json").read_text(encoding="utf-8"))
    asked = measures["prompts.txt"]
    for key in ("category_accuracy", "retrieval_accuracy", "frechet_distance"):
        assert asked[key]["low"] <= asked[key]["value"] <= asked[key]["high"]


def test_the_bundle_draws_what_diffusers_draws(ours: TextToImage, theirs: PipelineArtist) -> None:
    for seed, prompt in enumerate(PROMPTS):
        wanted = theirs.draw(prompt, seed, STEPS, GUIDANCE).picture
        got = ours.generate(prompt, seed=seed, steps=STEPS, guidance_scale=GUIDANCE)
        assert psnr_db(wanted, got) >= 40
        assert wanted.std() > 20  # it shows something


def test_the_unet_drops_into_a_pipeline_of_diffusers(ours: TextToImage, theirs: PipelineArtist) -> None:
    wanted = theirs.draw(PROMPTS[0], 3, 5, GUIDANCE).picture
    dropped = PipelineArtist(MODEL)
    dropped.replace_network(ours.as_diffusers_unet())
    assert psnr_db(wanted, dropped.draw(PROMPTS[0], 3, 5, GUIDANCE).picture) >= 40


def test_pictures_show_what_was_asked(ours: TextToImage) -> None:
    """Of sixteen prompts' pictures the judge finds most in their category and beside their caption: by chance it would
    be two and one.
    """
    asked = read_prompts(MODEL / "prompts.txt")[:16]
    drawn = [
        ours.generate(prompt.text, seed=seed, steps=STEPS, guidance_scale=GUIDANCE)
        for seed, prompt in enumerate(asked)
    ]
    found = judged(Judge(MODEL / "judge"), np.stack(drawn), asked)
    assert found["category_accuracy"].value >= 0.5
    assert found["retrieval_accuracy"].value >= 0.75


def test_a_board_draws_what_this_machine_draws(ours: TextToImage, tmp_path: Path) -> None:
    """To one of 255: sums are added up in another order."""
    prompt, steps, seed = PROMPTS[0], 2, 7
    fick.compile(MODEL, "rpi5", tmp_path / "board.fick")
    runner = tmp_path / "fick-run"
    runner.write_bytes(program("aarch64", cache_folder() / "core"))
    runner.chmod(0o755)
    asked = ["--prompt", prompt, "--steps", str(steps), "--guidance", "5", "--seed", str(seed), "--quiet"]
    ran = run_program(runner, "cortex-a76", "board.fick", *asked, "--output", "x.png", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    wanted = ours.generate(prompt, steps=steps, guidance_scale=5.0, seed=seed)
    with Image.open(tmp_path / "x.png") as image:
        found = np.asarray(image)
    assert found.shape == wanted.shape and np.ptp(wanted) > 20
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1
