"""Recipes: what is read, and what is said of what cannot be."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path

import onnx_ir as ir
import pytest

import fick
from fick.compiler.explore import state
from fick.compiler.frontends import import_model
from fick.compiler.programs import fused
from fick.compiler.quality.evaluate import Prompt, read_prompts
from fick.compiler.recipes import PASSES, Recipe, read_recipe
from fick.ir.errors import UserError
from fick.ir.files import LARGEST_BYTES
from fick.passes.pssa import PruneScores
from fick.passes.tips import Tips

from ..passes import small_unet
from . import pipelines

EXAMPLES = Path(__file__).resolve().parents[2] / "examples" / "recipes"


def recipe(folder: Path, text: str) -> Path:
    path = folder / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_examples_can_be_read_and_say_how_to_compile_them(path: Path) -> None:
    assert read_recipe(path).passes
    assert f"--recipe examples/recipes/{path.name}" in path.read_text(encoding="utf-8")


def test_passes_come_in_order_with_their_parameters(tmp_path: Path) -> None:
    read = read_recipe(
        recipe(
            tmp_path,
            '[[pass]]\nname = "tips"\nlow_bits = 5\n[[pass]]\nname = "prune-scores"\n[[pass]]\nname = "tips"\n',
        )
    )
    made = read.passes
    assert read.calibration is None
    assert [type(one) for one in made] == [Tips, PruneScores, Tips]
    assert made[0].config.low_bits == 5
    assert made[2].config == Tips().config


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[[pass]", "cannot be read"),
        ("", r"should hold tables \[\[pass\]\]"),
        ("pass = 3", r"should hold tables \[\[pass\]\]"),
        ("pass = [3]", "pass 1: there is no pass None; the passes are assign, .*, tips"),
        ("[[pass]]\nname = 'tips'\n[other]\n", r"should hold tables \[\[pass\]\]"),
        ("[[pass]]\nthreshold = 1\n", "there is no pass None"),
        ("[[pass]]\nname = 'tip'\n", "there is no pass 'tip'"),
        ("[[pass]]\nname = ['tips']\n", "there is no pass"),
        ("[[pass]]\nname = 'tips'\nlow_bits = 40\n", r"pass 1 \(tips\), low_bits: .*less than or equal to 8"),
        ("[[pass]]\nname = 'tips'\nlimit = 1\n", r"limit: .*its parameters are threshold, high_bits, low_bits"),
        ("[[pass]]\nname = 'tips'\nthreshold = nan\n", "threshold: .*finite"),
        ("[[pass]]\nname = 'tips'\nlow_bits = 7\nhigh_bits = 6\n", "low_bits 7 should be less than high_bits 6"),
        ("costs = 'guessed'\n[[pass]]\nname = 'tips'\n", "costs: 'guessed' should be 'predicted' or 'measured'"),
        ("calibration = 1\n[[pass]]\nname = 'tips'\n", "calibration, : .*its parameters are prompts"),
        ("[calibration]\nsteps = 0\n[[pass]]\nname = 'tips'\n", "calibration, steps: .*greater than or equal to 1"),
        ("[calibration]\nprompts = 'none.txt'\n[[pass]]\nname = 'tips'\n", "none.txt: no such file of prompts"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_sentence(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told) as caught:
        read_recipe(recipe(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        read_recipe(tmp_path / "missing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot be read"):
        read_recipe(tmp_path / "binary.toml")
    (tmp_path / "large.toml").write_bytes(b"#" * (LARGEST_BYTES + 1))
    with pytest.raises(UserError, match="1 MiB"):
        read_recipe(tmp_path / "large.toml")


def test_hardware_that_a_pass_is_not_for() -> None:
    recipe = Recipe(passes=(Tips(),))
    recipe.check_hardware("bit-slice", "dbsc")
    with pytest.raises(UserError, match="pass tips needs a bit-slice core, which x86-64-v4 does not have"):
        recipe.check_hardware("cpu", "x86-64-v4")


@pytest.mark.parametrize("name", PASSES)
def test_parameters_are_documented_with_their_unit(name: str) -> None:
    for field in PASSES[name].Config.model_fields.values():
        number = field.annotation in (int, float)
        assert field.description and field.description.endswith("]." if number else "."), field


def test_a_processor_without_the_core_refuses_before_any_work(tmp_path: Path) -> None:
    path = recipe(tmp_path, "[[pass]]\nname = 'tips'\n")
    arguments = ("compile", "sd-1.5", "--target", "x86-64-v3", "--recipe", str(path))
    command = [sys.executable, "-m", "fick", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=100)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert "pass tips needs a bit-slice core, which x86-64-v3 does not have" in done.stderr
    assert not (tmp_path / "sd-1.5.fick").exists()


def test_an_estimate_with_a_recipe_is_that_of_the_changed_program(tmp_path: Path) -> None:
    pipelines.make(tmp_path)
    (tmp_path / "prompts.txt").write_text("cat\ndog\n")
    path = recipe(
        tmp_path,
        "[calibration]\nprompts = 'prompts.txt'\npictures = 1\nsteps = 2\n"
        "[[pass]]\nname = 'prune-scores'\nthreshold = 1.0\n[[pass]]\nname = 'tips'\n",
    )
    model = tmp_path / "tiny-sd"
    plain, changed = (fick.estimate(model, "dbsc", steps=2, recipe=one) for one in (None, path))
    assert [one["pass"] for one in changed["passes"]] == ["prune-scores", "tips"]
    effect = changed["passes"][0]["effect"]
    assert 0 < effect["score_bytes_saved"] < 1 and effect["output_error"] > 0
    scores = "self-attention scores"
    assert changed["ema_bytes"][scores] <= plain["ema_bytes"][scores]
    assert changed["macs"] == plain["macs"]
    assert any(one["name"].endswith("at 6 bits") for one in changed["operators"])
    # The same again, out of what was kept.
    assert fick.estimate(model, "dbsc", steps=2, recipe=path) == changed
    with pytest.raises(UserError, match="needs a bit-slice core, which sda does not have"):
        fick.estimate(model, "sda", recipe=path)
    with pytest.raises(UserError, match="reads none; give the folder of a whole pipeline"):
        fick.estimate("bk-sdm-tiny", "dbsc", recipe=path)


def test_an_estimate_and_a_space_are_calibrated_in_loops_of_the_sampler(tmp_path: Path) -> None:
    model, ddim = tmp_path / "small.onnx", {"kind": "ddim", "prediction_type": "epsilon"}
    ir.save(small_unet.program().variants["full"], model)
    path = recipe(
        tmp_path,
        "[calibration]\npictures = 2\nsteps = 3\nvalues = {encoder_hidden_states = [0.5]}\n"
        "[[pass]]\nname = 'quantise'\nleast_depth = 1\n",
    )
    space = tmp_path / "space.toml"
    space.write_text(
        f"hardware = 'sda'\n[parameters]\nclock_hz = [2e8]\n[software.w8a8]\nrecipe = {path.name!r}\n"
    )
    for make in (partial(fick.estimate, model, "sda", recipe=path), partial(state, model, space)):
        with pytest.raises(UserError, match=r"whose sampler is not known; name it as --sampler"):
            make()
    made = fick.estimate(model, "sda", recipe=path, sampler=ddim)
    compiled = fused(import_model(model), recipe=read_recipe(path), model=model, sampler=ddim)
    assert made["passes"] == [one.facts() for one in compiled.history if one.pass_name == "quantise"]
    assert [*state(model, space, sampler=ddim).problem.workloads]
    with pytest.raises(UserError, match="--sampler is what a recipe is calibrated in; give a recipe"):
        fick.estimate(model, "sda", sampler=ddim)


def test_what_nothing_would_heed_is_refused(tmp_path: Path) -> None:
    space = tmp_path / "space.toml"
    space.write_text("hardware = 'sda'\n[parameters]\nclock_hz = [2e8]\n")
    with pytest.raises(UserError, match="--sampler is what a recipe is calibrated in"):
        state("sd-1.5", space, sampler={"kind": "ddim"})
    for model in ("made.fick", "layers.csv"):
        for ask in (partial(state, model, space), partial(fick.estimate, model, "sda")):
            with pytest.raises(UserError, match=f"{model} has its shapes already"):
                ask(shapes={"sample": [1, 4, 8, 8]})


def test_a_mark_at_the_beginning_is_no_text(tmp_path: Path) -> None:
    """As some editors write it."""
    (tmp_path / "prompts.txt").write_text("cat\tanimals\na dog\u2028on a log\n", encoding="utf-8-sig")
    assert read_prompts(tmp_path / "prompts.txt") == [
        Prompt("cat", "animals"),
        Prompt("a dog\u2028on a log"),
    ]
    path = recipe(tmp_path, "\ufeff[[pass]]\nname = 'tips'\n")
    assert [type(one) for one in read_recipe(path).passes] == [Tips]
