"""fick-run on a pipeline of a few lines of C, beside what Python draws with the same bundle."""

from __future__ import annotations

import json
import platform
import subprocess
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fick.compiler.runner import program
from fick.runtime import ClassToImage, FickError, TextToImage, load, samplers

from ..emulated import run_program
from . import tiny_pipeline

PROMPT, STEPS, SEED = "Cat & dog", 4, 7
DRAWN = ("--prompt", PROMPT, "--steps", str(STEPS), "--seed", str(SEED), "--threads", "2", "--quiet")
NOISE = {"clip_sample": False, "prediction_type": "epsilon"}

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny-pipeline")


@pytest.fixture(scope="module")
def bundle(folder: Path, core_cache: Path) -> Path:
    return tiny_pipeline.write(folder / "tiny.fick", folder, core_cache)


@pytest.fixture(scope="module")
def run(folder: Path, core_cache: Path) -> Run:
    """For the system's C library, which needs not be built; nothing else is other than in the static one."""
    path = folder / "fick-run"
    path.write_bytes(program(platform.machine(), core_cache, "gnu"))
    path.chmod(0o755)
    return lambda *arguments: subprocess.run(
        [path, *map(str, arguments)], capture_output=True, text=True, check=False
    )


def assert_same(path: Path, bundle: Path, **how: object) -> None:
    """To one of 255: noise and samplers are rounded otherwise by a few units in the last place."""
    with load(bundle, threads=2) as opened:
        assert isinstance(opened, TextToImage)
        wanted = opened.generate(PROMPT, **{"steps": STEPS, "seed": SEED, **how})  # type: ignore[arg-type]
    with Image.open(path) as image:
        found = np.asarray(image)
    assert found.shape == wanted.shape and np.ptp(wanted) > 20
    assert np.abs(found.astype(int) - wanted.astype(int)).max() <= 1


@pytest.mark.filterwarnings("ignore:the model has schedules")
@pytest.mark.parametrize("sampler", [None, *samplers.KINDS])
def test_it_draws_what_python_draws(bundle: Path, run: Run, tmp_path: Path, sampler: str | None) -> None:
    """Alternatives run where the schedule says so: theirs is another picture."""
    chosen = ("--sampler", sampler) if sampler else ()
    ran = run(bundle, *DRAWN, *chosen, "--negative", "dog", "--guidance", "3", "-o", tmp_path / "x.png")
    assert (ran.returncode, ran.stderr) == (0, "")
    spec = {**NOISE, "kind": sampler} if sampler else None
    assert_same(tmp_path / "x.png", bundle, sampler=spec, negative_prompt="dog", guidance_scale=3.0)


@pytest.mark.filterwarnings("ignore:the model has schedules")
@pytest.mark.parametrize("steps", [1, 5, 9])
def test_a_loop_of_another_length(bundle: Path, run: Run, tmp_path: Path, steps: int) -> None:
    assert run(bundle, *DRAWN, "--steps", steps, "-o", tmp_path / "x.png").returncode == 0
    assert_same(tmp_path / "x.png", bundle, steps=steps)


@pytest.mark.filterwarnings("ignore:the model has schedules")
@pytest.mark.parametrize("sampler", [None, *samplers.KINDS])
def test_a_picture_to_start_from(bundle: Path, run: Run, tmp_path: Path, sampler: str | None) -> None:
    """From the middle of the loop on: multistep samplers have nothing behind them there."""
    chosen = ("--sampler", sampler) if sampler else ()
    init = np.random.default_rng(5).integers(0, 256, (6, 6, 3), np.uint8)
    Image.fromarray(init).save(tmp_path / "i.png")
    started = ("--init", tmp_path / "i.png", "--strength", "0.6", "--steps", "7")
    ran = run(bundle, *DRAWN, *started, *chosen, "-o", tmp_path / "x.png")
    assert (ran.returncode, ran.stderr) == (0, "")
    spec = {**NOISE, "kind": sampler} if sampler else None
    assert_same(tmp_path / "x.png", bundle, sampler=spec, init=init, strength=0.6, steps=7)


@pytest.mark.filterwarnings("ignore:the model has schedules")
def test_classes_by_number_and_by_name(run: Run, folder: Path, core_cache: Path, tmp_path: Path) -> None:
    names = {"tench": 0, "caf\u00e9 \U0001f600": 2, '"quoted"': 3}
    bundle = tiny_pipeline.write(tmp_path / "c.fick", folder, core_cache, names=names)

    def drawn(label: str) -> np.ndarray:
        asked = ("--steps", "3", "--quiet", "-o", tmp_path / "x.png")
        assert run(bundle, "--class-label", label, *asked).returncode == 0
        with Image.open(tmp_path / "x.png") as image:
            return np.asarray(image).astype(int)

    with load(bundle) as opened:
        assert isinstance(opened, ClassToImage)
        for name, number in names.items():
            assert np.array_equal(drawn(name), drawn(str(number)))
            assert np.abs(drawn(name) - opened.generate(name, steps=3)).max() <= 1
    assert not np.array_equal(drawn("0"), drawn("3"))
    for wrong, said in (
        ("carp", "no class called carp; give its number, 0 to 3"),
        ("4", "there is no class 4"),
    ):
        ran = run(bundle, "--class-label", wrong, "-o", tmp_path / "y.png")
        _refused(ran)
        assert said in ran.stderr
    assert "the bundle draws classes" in run(bundle, "--prompt", "cat", "-o", tmp_path / "y.png").stderr


def test_progress_and_what_fell_off(bundle: Path, run: Run, tmp_path: Path) -> None:
    long = " ".join(["cat"] * 10 + ["dog", "xy"])
    ran = run(bundle, "--prompt", long, "--steps", 2, "-o", tmp_path / "x.png")
    assert ran.returncode == 0
    said = ran.stderr.splitlines()
    assert said[0].endswith("this fell off: dog xy")
    assert [line.split(",")[0] for line in said[1:4]] == [f"step {one} of 2" for one in range(3)]
    assert "6 x 6" in said[4] and "working set" in said[4]


def test_the_self_test_names_the_first_wrong_layer(
    bundle: Path, run: Run, folder: Path, core_cache: Path, tmp_path: Path
) -> None:
    nothing = run(bundle, "--self-test")
    assert nothing.returncode == 2 and "compile it with --self-test" in nothing.stderr
    wrong = tiny_pipeline.write(tmp_path / "w.fick", folder, core_cache, golden=tiny_pipeline.golden(1e9))
    ran = run(wrong, "--self-test")
    assert ran.returncode == 1
    said, wanted = ran.stderr.split("variant full: ")
    assert said == "fick-run: 1 of 2 kernel calls are wrong; the first is unet/shifted of unet, "
    found = float(wanted.split()[0])
    right = tiny_pipeline.write(tmp_path / "r.fick", folder, core_cache, golden=tiny_pipeline.golden(found))
    ran = run(right, "--self-test")
    assert (ran.returncode, ran.stdout) == (0, "2 kernel calls give what they should\n")
    for broken in (
        {"components": {"unet": {"full": [[2, 2, 0, 1, 1e9, 0]]}}},
        {"components": {"unet": {"full": [[0]]}}},
        {},
    ):
        damaged = tiny_pipeline.write(tmp_path / "d.fick", folder, core_cache, golden=broken)
        _refused(run(damaged, "--self-test"))


def test_a_memory_limit(bundle: Path, run: Run, tmp_path: Path) -> None:
    refused = run(bundle, *DRAWN, "--memory-limit", "1KB", "-o", tmp_path / "x.png")
    assert refused.returncode == 2
    least = int(refused.stderr.split("needs ")[1].split()[0])
    assert run(bundle, *DRAWN, "--memory-limit", least - 1, "-o", tmp_path / "x.png").returncode == 2
    assert not (tmp_path / "x.png").exists()
    assert run(bundle, *DRAWN, "--memory-limit", least + 64, "-o", tmp_path / "x.png").returncode == 0
    assert_same(tmp_path / "x.png", bundle)
    Image.new("RGB", (6, 6)).save(tmp_path / "i.png")
    started = run(bundle, *DRAWN, "--init", tmp_path / "i.png", "--memory-limit", 1, "-o", tmp_path / "x.png")
    with pytest.raises(FickError) as python:
        load(bundle, memory_limit_bytes=1)
    assert started.stderr == f"fick-run: {python.value}\n"


def test_a_profile_has_every_call(bundle: Path, run: Run, tmp_path: Path) -> None:
    assert run(bundle, *DRAWN, "--profile", tmp_path / "p.json", "-o", tmp_path / "x.png").returncode == 0
    calls = json.loads((tmp_path / "p.json").read_text())["calls"]
    runs = {(one["component"], one["variant"], one["node"]): one["runs"] for one in calls}
    assert runs == {
        ("unet", "prompt", "prompt/average"): 1,
        ("unet", "step", "time/angle"): STEPS,
        **{("unet", "full", f"unet/{node}"): 1 for node in ("scaled", "kept", "shifted")},
        **{("unet", "anew", f"unet/{node}"): 1 for node in ("scaled", "kept", "shifted")},
        ("unet", "rest", "unet/shifted"): 2,
        ("text_encoder", "full", "text/encode"): 2,
        ("vae_decoder", "full", "vae/decode"): 1,
    }
    assert all(one["seconds"] >= 0 for one in calls)


def test_a_kernel_that_refuses(run: Run, folder: Path, core_cache: Path, tmp_path: Path) -> None:
    bundle = tiny_pipeline.write(tmp_path / "n.fick", folder, core_cache, scales=-tiny_pipeline.SCALES)
    ran = run(bundle, *DRAWN, "-o", tmp_path / "x.png")
    assert ran.returncode == 2 and "kernel scaled failed at unet/scaled" in ran.stderr


MISTAKES: dict[str, tuple[Sequence[str], str]] = {
    "no bundle": ((), "name a bundle"),
    "no output": (("B", "--prompt", "cat"), "say where the picture goes"),
    "no prompt": (("B", "-o", "O"), "say what to draw"),
    "another option": (("B", "--sead", "7", "-o", "O"), "there is no option --sead"),
    "no number": (
        ("B", "--steps", "many", *("--prompt", "cat", "-o", "O")),
        "--steps many is no whole number",
    ),
    "no steps": (("B", "--steps", "0", *("--prompt", "cat", "-o", "O")), "--steps 0 is no whole number"),
    "too many steps": (
        ("B", *("--steps", "2000"), *("--prompt", "cat", "-o", "O")),
        "2000 steps are not possible",
    ),
    "no sampler": (
        ("B", *("--sampler", "best"), *("--prompt", "cat", "-o", "O")),
        "sampler best is not known",
    ),
    "a class": (("B", *("--class-label", "3"), *("-o", "O")), "the bundle draws prompts"),
    "not UTF-8": (("B", *("--prompt", "\udcff"), *("-o", "O")), "the prompt is not UTF-8"),
    "no picture": (
        ("B", *("--init", "none.png"), *("--prompt", "cat", "-o", "O")),
        "cannot open none.png: No such file",
    ),
    "no strength": (
        ("B", *("--strength", "some"), *("--prompt", "cat", "-o", "O")),
        "--strength some is no number",
    ),
    "no folder": (("B", *DRAWN, "-o", "none/x.png"), "cannot write none/x.png"),
    "no file": (("none.fick", *DRAWN, "-o", "O"), "cannot open none.fick"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(bundle: Path, run: Run, tmp_path: Path, name: str) -> None:
    arguments, said = MISTAKES[name]
    places = {"B": str(bundle), "O": str(tmp_path / "x.png")}
    ran = run(*(places.get(one, one) for one in arguments))
    assert ran.returncode == 2 and ran.stderr.startswith(f"fick-run: {said}") and ran.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_bundle_is_one_sentence(bundle: Path, run: Run, tmp_path: Path) -> None:
    damaged, whole = tmp_path / "damaged.fick", bundle.read_bytes()
    for at in (0, 1, len(whole) // 2, len(whole) - 5):
        damaged.write_bytes(whole[:at])
        _refused(run(damaged, *DRAWN, "-o", tmp_path / "x.png"))
    with zipfile.ZipFile(bundle) as archive:
        for entry in archive.infolist():
            place = whole.index(archive.read(entry)[:64], entry.header_offset) if entry.file_size else 0
            if place:
                flipped = whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :]
                damaged.write_bytes(flipped)
                _refused(run(damaged, *DRAWN, "-o", tmp_path / "x.png"))
    assert not (tmp_path / "x.png").exists()


def _refused(ran: subprocess.CompletedProcess[str]) -> None:
    assert ran.returncode == 2 and ran.stderr.startswith("fick-run: ") and ran.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"pipeline": {}}, "holds a model alone"),
        ({"target": {"name": "x", "arch": "riscv64"}}, "is compiled for riscv64"),
        ({"format_version": 2}, "update fick"),
        ({"program_id": "ef" * 32}, "for another library"),
        ({"components": {"unet": {"schedules": {"4": ["full", "quick"]}}}}, "schedules of unet do not fit"),
        ({"components": {"unet": {"residual": {"timesteps": [1]}}}}, "table of residuals is damaged"),
        (
            {"pipeline": {"tokenizer": {"tokens": 7, "start": 1, "end": 1, "padding": 1}}},
            "do not fit together",
        ),
        ({"pipeline": {"tokenizer": {}}}, "tokenizer is damaged"),
        ({"sampler": {"kind": "diffusers"}}, "needs what a scheduler_config.json holds"),
    ],
)
def test_a_manifest_that_does_not_fit(
    run: Run, folder: Path, core_cache: Path, tmp_path: Path, changed: dict[str, object], said: str
) -> None:
    bundle = tiny_pipeline.write(tmp_path / "x.fick", folder, core_cache, **changed)
    ran = run(bundle, *DRAWN, "-o", tmp_path / "x.png")
    _refused(ran)
    assert said in ran.stderr


def test_32_bit_arm(bundle: Path, core_cache: Path, tmp_path: Path) -> None:
    """Under qemu the same picture from a bundle for it, and one sentence about a bundle for this machine."""
    core, runner = "cortex-a7", tmp_path / "fick-run"
    runner.write_bytes(program("armv7l", core_cache, "gnu"))
    runner.chmod(0o755)
    expected = {"components": {"text_encoder": tiny_pipeline.golden(0)["components"]["text_encoder"]}}  # type: ignore[index]
    (tmp_path / "kernels").mkdir()
    there = tiny_pipeline.write(tmp_path / "a.fick", tmp_path / "kernels", core_cache, core, golden=expected)
    ran = run_program(runner, core, str(there), *DRAWN, "-o", str(tmp_path / "x.png"))
    assert (ran.returncode, ran.stderr) == (0, "")
    assert_same(tmp_path / "x.png", bundle)
    ran = run_program(runner, core, str(there), "--self-test")
    assert (ran.returncode, ran.stdout) == (0, "1 kernel calls give what they should\n")
    ran = run_program(runner, core, str(bundle), *DRAWN, "-o", str(tmp_path / "y.png"))
    _refused(ran)
    assert f"is compiled for {platform.machine()} and this runner is for armv7l" in ran.stderr
