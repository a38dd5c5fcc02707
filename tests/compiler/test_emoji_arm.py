"""emoji-sd from a prompt to a PNG by fick-run for 64-bit Arm, under qemu, beside what this machine draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

import fick
from fick.compiler.cache import cache_folder
from fick.compiler.runner import program
from fick.runtime import TextToImage

from ..emulated import run_program
from .test_emoji import MODEL

PROMPT, STEPS, SEED = "google smiley, loudly crying face", 2, 7


def test_a_board_draws_what_this_machine_draws(tmp_path: Path) -> None:
    """To one of 255: sums are added up in another order."""
    fick.compile(MODEL, "rpi5", tmp_path / "board.fick")
    runner = tmp_path / "fick-run"
    runner.write_bytes(program("aarch64", cache_folder() / "core"))
    runner.chmod(0o755)
    asked = ["--prompt", PROMPT, "--steps", str(STEPS), "--guidance", "5", "--seed", str(SEED), "--quiet"]
    ran = run_program(runner, "cortex-a76", "board.fick", *asked, "--output", "x.png", cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    with fick.load(fick.compile(MODEL, output=tmp_path / "host.fick").bundle) as here:
        assert isinstance(here, TextToImage)
        wanted = here.generate(PROMPT, steps=STEPS, guidance_scale=5.0, seed=SEED)
    found = np.asarray(Image.open(tmp_path / "x.png"))
    assert found.shape == wanted.shape and np.ptp(wanted) > 20
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1
