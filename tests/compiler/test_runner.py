"""fick-run on a compiled pipeline, on 64-bit Arm, beside what diffusers draws."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

import fick
from fick.compiler.bundle.file import Entry, write_bundle
from fick.compiler.bundle.repack import repack
from fick.compiler.bundle.skeleton import GOLDEN
from fick.compiler.cache import cache_folder
from fick.compiler.runner import program
from fick.ir.errors import UserError

from ..emulated import run_program
from . import pipelines

PROMPT, STEPS, SEED = "Cat & dog", 3, 7
TABLE_BYTES = 65536
"""More than what three steps have in common with every picture takes."""

DRAWN = ("--prompt", PROMPT, "--steps", str(STEPS), "--seed", str(SEED), "--threads", "2", "--quiet")


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> StableDiffusionPipeline:
    return pipelines.make(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="module")
def source(theirs: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "tiny-sd"
    theirs.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def bundle(source: Path) -> Path:
    return fick.compile(source, "cortex-a76", source.parent / "arm.fick", self_test=True).bundle


@pytest.fixture(scope="module")
def runner(source: Path) -> Path:
    """For the system's C library, which needs not be built; nothing else is other than in the static one."""
    path = source.parent / "fick-run"
    path.write_bytes(program("aarch64", cache_folder() / "core", "gnu"))
    path.chmod(0o755)
    return path


def test_it_draws_what_diffusers_draws(
    theirs: StableDiffusionPipeline, bundle: Path, runner: Path, tmp_path: Path
) -> None:
    """To one of 255, as bundles for this machine do (test_pipeline.py)."""
    ran = run_program(runner, "cortex-a76", str(bundle), *DRAWN, "-o", str(tmp_path / "x.png"))
    assert (ran.returncode, ran.stderr) == (0, "")
    generator = torch.Generator().manual_seed(SEED)
    [wanted] = theirs(PROMPT, generator=generator, num_inference_steps=STEPS, guidance_scale=5.0).images
    with Image.open(tmp_path / "x.png") as image:
        assert np.abs(np.asarray(image).astype(int) - np.asarray(wanted).astype(int)).max() <= 1


def test_weights_that_do_not_fit_are_read_again(bundle: Path, runner: Path, tmp_path: Path) -> None:
    def drawn(limit: int) -> tuple[int, str]:
        """The exit code and what was said, with the picture in a file named after the limit."""
        place = ("-o", str(tmp_path / f"{limit}.png"))
        ran = run_program(runner, "cortex-a76", str(bundle), *DRAWN, "--memory-limit", str(limit), *place)
        return ran.returncode, ran.stderr

    code, said = drawn(1000)
    assert code == 2
    least = int(said.split("needs ")[1].split()[0])
    with zipfile.ZipFile(bundle) as archive:
        unet = json.loads(archive.read("manifest.json"))["components"]["unet"]
    enough = 10 * unet["memory"]["peak_bytes"]
    assert least + TABLE_BYTES < unet["memory"]["peak_bytes"]
    assert drawn(enough)[0] == drawn(least + TABLE_BYTES)[0] == 0
    assert (tmp_path / f"{enough}.png").read_bytes() == (tmp_path / f"{least + TABLE_BYTES}.png").read_bytes()
    assert drawn(least - 1)[0] == 2


def test_every_kernel_gives_what_the_referee_gives(bundle: Path, runner: Path, tmp_path: Path) -> None:
    """And one that is told otherwise is named."""
    with zipfile.ZipFile(bundle) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    manifest, golden = json.loads(entries.pop("manifest.json")), json.loads(entries[GOLDEN])
    checked = sum(len(rows) for one in golden["components"].values() for rows in one.values())
    calls = sum(
        one["calls"] for facts in manifest["components"].values() for one in facts["variants"].values()
    )
    assert checked > calls / 2
    ran = run_program(runner, "cortex-a76", str(bundle), "--self-test")
    # Nothing runs the encoder of pictures here.
    unused = sum(len(rows) for rows in golden["components"]["vae_encoder"].values())
    assert (ran.stdout, ran.stderr) == (f"{checked - unused} kernel calls give what they should\n", "")
    rows = golden["components"]["unet"]["full"]
    for row in rows[len(rows) // 2 :]:
        row[5] += 2 * row[3] + 1
    entries[GOLDEN] = json.dumps(golden).encode()
    wrong = tmp_path / "wrong.fick"
    write_bundle(wrong, [Entry.of(name, data) for name, data in entries.items()], manifest)
    ran = run_program(runner, "cortex-a76", str(wrong), "--self-test")
    assert (
        ran.returncode == 1 and f"fick-run: {len(rows) - len(rows) // 2} of {checked - unused} " in ran.stderr
    )


def test_a_core_without_the_instructions_is_told_so(bundle: Path, runner: Path, tmp_path: Path) -> None:
    ran = run_program(runner, "cortex-a53", str(bundle), *DRAWN, "-o", str(tmp_path / "x.png"))
    assert ran.returncode == 2 and "uses asimdhp, which this processor lacks" in ran.stderr


def test_repacking_leaves_golden_values_out(source: Path, bundle: Path, tmp_path: Path) -> None:
    repacked = repack(bundle, next((source / "unet").glob("*.safetensors")), tmp_path / "new.fick")
    with zipfile.ZipFile(repacked) as archive:
        assert GOLDEN not in archive.namelist()


def test_an_architecture_without_a_runner() -> None:
    with pytest.raises(UserError, match="there is no runner for riscv64"):
        program("riscv64", cache_folder())
