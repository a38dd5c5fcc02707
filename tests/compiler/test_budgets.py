"""A budget in place of a recipe: what it stands for, what comes of it, and what is said of what cannot be."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx_ir as ir
import pytest

import fick
from fick.compiler.budgets import recipe_within
from fick.compiler.recipes import Recipe
from fick.ir.errors import UserError
from fick.passes.assign import Assign, AssignConfig
from fick.passes.learned.distil import Distil
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.targets import profile

from ..passes import small_unet
from . import pipelines


@pytest.fixture(scope="module")
def unet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("budgets") / "small.onnx"
    ir.save(small_unet.program().variants["full"], path)
    return path


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    pipelines.make(folder)
    (folder / "prompts.txt").write_text("cat\ndog\n")
    (folder / "empty.txt").write_text("\n")
    return folder


def test_a_bare_model_is_assigned_formats_on_drawn_noise(unet: Path, tmp_path: Path) -> None:
    plain = fick.compile(unet, output=tmp_path / "plain.fick")
    report = fick.compile(unet, output=tmp_path / "small.fick", budget="bytes=0.6x")
    assert [one["pass"] for one in report.history][:2] == ["split-joins", "assign"]
    effect = report.history[1]["effect"]
    assert effect["cost"]["bytes"]["after"] <= 0.6 * effect["cost"]["bytes"]["before"]
    assert effect["products"]["float32"] < sum(effect["products"].values())
    assert report.weight_bytes < 0.75 * plain.weight_bytes
    assert 0 < effect["output_error"] < 0.1
    # Within what it costs as it is, nothing has to change.
    report = fick.compile(unet, output=tmp_path / "same.fick", budget="latency=1x,bytes=1x")
    assert report.history[1]["effect"]["output_error"] == 0


def test_a_pipeline_is_calibrated_with_prompts_and_corrected(pipeline: Path) -> None:
    recipe = recipe_within("latency=0.5x", pipeline / "tiny-sd", pipeline / "prompts.txt")
    assert [one.name for one in recipe.passes] == ["split-joins", "assign", "correct-bias", "correct-noise"]
    assert recipe.calibration is not None and recipe.calibration.prompts == pipeline / "prompts.txt"
    learned = recipe_within("latency=0.5x", pipeline / "tiny-sd", pipeline / "prompts.txt", distil=True)
    assert [one.name for one in learned.passes] == ["split-joins", "assign", "distil", "correct-noise"]


def test_what_a_budget_loses_is_learned_back(unet: Path, tmp_path: Path) -> None:
    recipe = recipe_within("bytes=0.5x", unet, None, distil=True)
    *others, distil = recipe.passes
    assert isinstance(distil, Distil)
    # A fifth of the way is far enough.
    shorter = Distil(distil.config.model_copy(update={"iterations": 160}))
    recipe = recipe.model_copy(update={"passes": (*others, shorter)})
    report = fick.compile(unet, output=tmp_path / "learned.fick", recipe=recipe)
    assert [one["pass"] for one in report.history][:3] == ["split-joins", "assign", "distil"]
    error = report.history[2]["effect"]["held_out_error"]
    assert error["learned"] < error["nearest"]


@pytest.mark.parametrize(
    ("budget", "model", "prompts", "told"),
    [
        ("latency=0.5", "tiny-sd", "prompts.txt", "--budget: 'latency=0.5' should be latency=, bytes= or energy= and"),
        ("size=3MB", "small.onnx", None, "--budget: 'size=3MB' should be"),
        ("bytes=3s", "small.onnx", None, "should end with x or with a unit of bytes, such as MB"),
        ("bytes=0.5x", "tiny-sd", None, "give a file of them, one a line, as --calibrate"),
        ("bytes=0.5x", "tiny-sd", "empty.txt", "empty.txt holds no prompts; give one a line"),
        ("bytes=0.5x", "tiny-sd", "missing.txt", "missing.txt cannot be read as prompts"),
        ("bytes=0.5x", "small.onnx", "prompts.txt", "reads no prompts; leave them out"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(
    pipeline: Path, budget: str, model: str, prompts: str | None, told: str
) -> None:
    with pytest.raises(UserError, match=told) as caught:
        recipe_within(budget, pipeline / model, pipeline / prompts if prompts else None)
    assert "\n" not in str(caught.value)


def test_a_budget_that_cannot_be_met_says_what_can(unet: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot keep to bytes 1 kB: .* the least is bytes .* \(0\.\d+x\)"):
        fick.compile(unet, output=tmp_path / "none.fick", budget="bytes=1kB")
    with pytest.raises(UserError, match=r"a budget of energy, .* is known in latency, bytes"):
        fick.compile(unet, output=tmp_path / "none.fick", budget="energy=0.5x")
    assert not (tmp_path / "none.fick").exists()


def test_options_that_exclude_each_other(unet: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--budget and --recipe exclude each other"):
        fick.compile(unet, budget="bytes=0.5x", recipe=Recipe())
    with pytest.raises(UserError, match="--calibrate goes with --budget"):
        fick.compile(unet, calibrate=tmp_path / "prompts.txt")
    with pytest.raises(UserError, match="--distil goes with --budget"):
        fick.compile(unet, distil=True)
    with pytest.raises(UserError, match="--within goes with --budget"):
        fick.compile(unet, within_s=60)
    with pytest.raises(UserError, match="--distil and --within exclude each other"):
        fick.compile(unet, budget="bytes=0.5x", within_s=60, distil=True)
    with pytest.raises(UserError, match="give the name of a new folder"):
        fick.compile(unet, write_back=tmp_path)
    with pytest.raises(UserError, match="--write-back and --within exclude each other; give the recipe that"):
        fick.compile(unet, budget="bytes=0.5x", within_s=60, write_back=tmp_path / "folder")
    with pytest.raises(
        UserError, match=r"--within judges recipes by pictures, and .* draws none from prompts"
    ):
        fick.compile(unet, budget="bytes=0.5x", within_s=60)
    with pytest.raises(
        UserError, match=r"--write-back writes what prune, prune-blocks, .* begins with nothing; put"
    ):
        fick.compile(unet, write_back=tmp_path / "folder")


def test_what_is_in_the_way_is_told_before_the_search(pipeline: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text("[[pass]]\n")
    with pytest.raises(UserError, match=r"mine\.toml: it is there, and not as --within left it; rename it"):
        fick.compile(
            pipeline / "tiny-sd", output=tmp_path / "mine.fick", budget="latency=0.5x", within_s=3600,
            calibrate=pipeline / "prompts.txt",
        )  # fmt: skip
    assert [*tmp_path.iterdir()] == [mine] and mine.read_text() == "[[pass]]\n"


def test_the_command_line_says_what_was_assigned(unet: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "fick", "compile", str(unet), "--budget", "bytes=0.6x"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "x w8a8" in done.stdout and "(0.5" in done.stdout and "% of the output" in done.stdout


def test_formats_that_a_target_lacks(tmp_path: Path) -> None:
    few = profile.load("x86-64-v3").model_copy(update={"name": "few", "formats": ("float32", "int8")})
    Recipe(passes=(Quantise(),)).check_formats(few)
    # Rounded activations are float32 numbers.
    small = QuantiseConfig(weights="int8", activations="e4m3")
    Recipe(passes=(Quantise(small),)).check_formats(few)
    for one, told in (
        (Quantise(QuantiseConfig(weights="fp4")), "pass quantise writes e2m1, e1m2, for which target few has no"),
        (Assign(AssignConfig(formats=("w8a8", "w4a8"))), "pass assign writes int4, .*; it has float32, int8"),
    ):  # fmt: skip
        with pytest.raises(UserError, match=told):
            Recipe(passes=(one,)).check_formats(few)
    for name in profile.names():
        if isinstance(processor := profile.load(name), profile.Profile):
            Recipe(passes=(Quantise(QuantiseConfig(weights="fp4")),)).check_formats(processor)
