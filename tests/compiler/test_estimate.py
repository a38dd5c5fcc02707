"""fick estimate: every kind of model, and each mistake as one sentence."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

import fick
from fick.compiler.bundle.file import Entry, write_bundle
from fick.compiler.bundle.skeleton import FACTS, program_entry
from fick.hwmodel.estimate import estimate
from fick.hwmodel.hardware import load
from fick.ir.errors import UserError
from fick.ir.program import Program
from fick.ir.saved import pack
from fick.runtime.loader import LIBRARY

from ..hwmodel import programs
from .test_repack import SMALL

SDA = files("fick.hwmodel").joinpath("specs", "sda.toml").read_text(encoding="utf-8")
HEADING = "Layer, Height, Width, R, S, C, M, Stride,\n"


def fick_estimate(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "fick", "estimate", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Program:
    return programs.kept("bk-sdm-tiny", tmp_path_factory.mktemp("program"))


@pytest.fixture(scope="module")
def gpu_bundle(tiny: Program, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As much of a bundle as an estimate reads, of a target that this machine cannot run."""
    facts: dict[str, Any] = {
        "format": "fick-bundle", "format_version": 1, "name": "bk-sdm-tiny", "random_weights": True, "files": [],
        "target": {"name": "adreno-640", "arch": "aarch64", "cpu_features": ["opencl"]},
        "components": {"unet": {name: kind() for name, kind in FACTS.items()}},
    }  # fmt: skip
    path = tmp_path_factory.mktemp("bundle") / "gpu.fick"
    write_bundle(path, [Entry.of(program_entry("unet"), pack(tiny)), Entry.of(LIBRARY, b"\x7fELF")], facts)
    return path


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "net.csv"
    path.write_text(HEADING + "conv, 34, 34, 3, 3, 80, 80, 1,\ndeep, 6, 6, 3, 3, 640, 80, 1,\n")
    return path


def test_a_bundle_for_another_machine_is_estimated_from_its_program(tiny: Program, gpu_bundle: Path) -> None:
    made = fick.estimate(gpu_bundle, "dbsc", steps=4)
    assert made.pop("random_weights") is True and made.pop("passes") == []
    assert made == estimate(tiny, load("dbsc"), 4)


def test_on_the_terminal_and_as_json(gpu_bundle: Path, tmp_path: Path) -> None:
    files = ("--json", tmp_path / "e.json", "-o", tmp_path / "e.html", "--trace", tmp_path / "trace.json")
    result = fick_estimate(gpu_bundle, "--hardware", "sda", "--steps", "25", *files)
    assert (result.returncode, result.stderr) == (0, "")
    facts = json.loads((tmp_path / "e.json").read_text())
    assert "<title>bk-sdm-tiny on sda</title>" in (tmp_path / "e.html").read_text()
    assert json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    assert f"{facts['step_cycles']:,} cycles at 200 MHz" in result.stdout
    assert "an image of 25 steps" in result.stdout and "random" in result.stdout
    assert all(f" {stage['stage']} " in result.stdout for stage in facts["stages"])
    costliest = max(facts["operators"], key=lambda one: one["cycles"])
    assert costliest["name"][-12:] in result.stdout and " compute" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 80


def test_a_table_of_layers_and_json_alone(table: Path) -> None:
    result = fick_estimate(table, "--hardware", "systolic-32x32", "--dram", "hbm2", "--json", "-")
    facts = json.loads(result.stdout)
    assert [one["name"] for one in facts["operators"]] == ["conv", "deep"]
    assert (facts["dram"], facts["random_weights"], facts["steps"]) == ("hbm2", False, 50)


def test_a_configuration_alone_has_random_weights(tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"_class_name": "UNet2DModel", **SMALL}))
    made = fick.estimate(config, "sda", steps=2, shapes={"sample": [1, 3, 16, 16]})
    assert made["random_weights"] is True
    last = made["operators"][-1]
    assert (last["shape"]["outputs"], last["shape"]["rows"]) == (3, 16)


def changed(old: str, new: str) -> str:
    assert old in SDA
    return SDA.replace(old, new, 1)


MISTAKES = {
    "a negative clock": (
        changed("200e6", "-200e6"),
        "hardware {spec}: clock_hz is -200000000.0 but should be greater than 0, in Hz.",
    ),
    "zero buffers": (
        changed("3_276_800", "0"),
        "hardware {spec}: buffers.matmul_activations is 0 but should be greater than 0, in bits.",
    ),
    "an operand width that the core lacks": (
        changed("weights = { value = 4", "weights = { value = 16"),
        "conv has an operand of 16 bits and sda multiplies at most 8; quantise the model to 8 bits or fewer.",
    ),
    "a layer that fits in no buffer": (
        changed("1_966_080", "80_000"),
        "deep does not fit on sda: buffers.lines holds 80000 bits and 92160 are needed: 12160 too few.",
    ),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_machine_that_cannot_be_is_one_sentence(table: Path, tmp_path: Path, mistake: str) -> None:
    text, message = MISTAKES[mistake]
    spec = tmp_path / "my.toml"
    spec.write_text(text)
    result = fick_estimate(table, "--hardware", spec)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"fick: {message.format(spec=spec)}\n"


def test_other_mistakes_are_one_sentence(table: Path, gpu_bundle: Path, tmp_path: Path) -> None:
    for model, hardware, options, message in (
        (table, "npu", {}, "hardware 'npu' is not known"),
        (table, "sda", {"dram": "sram"}, "DRAM table 'sram' is not known; give one of"),
        (table, "sda", {"shapes": {"x": [1]}}, "has its shapes already"),
        (gpu_bundle, "sda", {"shapes": {"x": [1]}}, "has its shapes already"),
        (table, "sda", {"steps": 0}, "0 steps cannot be estimated"),
        (tmp_path / "none.csv", "sda", {}, "not a readable topology table"),
        (tmp_path / "none.onnx", "sda", {}, "neither a file, a folder nor a known model"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            fick.estimate(model, hardware, **options)
        assert "\n" not in str(caught.value)
