"""The estimate as a whole: what adds up, what changes it, and how fast it is."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from fick.hwmodel import memory, topology
from fick.hwmodel.estimate import estimate
from fick.hwmodel.hardware import Hardware, load, names
from fick.hwmodel.workload import Workload
from fick.ir.errors import UserError
from fick.ir.program import Program
from fick.ir.rates import Rate

from . import matrices

KEYS = {
    "macs",
    "step_cycles",
    "step_latency_s",
    "image_latency_s",
    "step_energy_mj",
    "ema_bytes",
    "operators",
}
OPERATOR_KEYS = {"name", "kind", "shape", "bits", "macs", "cycles", "bound"}
BOUNDS = {"compute", "nonlinear", "bandwidth", "fill", "untimed"}


@pytest.fixture(scope="module", params=names())
def made(request: pytest.FixtureRequest, published: dict[str, Program]) -> dict[str, Any]:
    return estimate(published["bk-sdm-tiny"], load(request.param), 25)


def test_keys_and_json(made: dict[str, Any]) -> None:
    assert made.keys() >= KEYS
    assert json.loads(json.dumps(made)) == made
    assert all(one.keys() >= OPERATOR_KEYS and one["bound"] in BOUNDS for one in made["operators"])
    assert set(made["step_energy_mj"]) == {"compute", "sram", "dram"}
    assert set(made["ema_bytes"]) == {
        "weights",
        "activations",
        "self-attention scores",
        "cross-attention scores",
    }


def test_operators_add_up_to_stages_and_stages_to_the_step(made: dict[str, Any]) -> None:
    steps = made["steps"]
    in_step = [one for one in made["operators"] if one["variant"] != "prompt"]
    for key, total in (("macs", made["macs"]), ("cycles", made["step_cycles"])):
        assert sum(one[key] * one["runs"] for one in in_step) == steps * total
        assert sum(stage[key] for stage in made["stages"]) == total
    for part, total in made["step_energy_mj"].items():
        assert sum(one["energy_mj"][part] * one["runs"] for one in in_step) == pytest.approx(steps * total)
        assert sum(stage["energy_mj"][part] for stage in made["stages"]) == pytest.approx(total)
    for part, total in made["ema_bytes"].items():
        assert sum(stage["ema_bytes"][part] for stage in made["stages"]) == total
    cycles = sum(one["cycles"] * one["runs"] for one in made["operators"])
    assert made["image_latency_s"] == pytest.approx(cycles / made["clock_hz"])
    assert made["step_latency_s"] == pytest.approx(made["step_cycles"] / made["clock_hz"])
    assert [stage["stage"] for stage in made["stages"]][:4] == ["step", "in", "down 0", "down 1"]


def test_the_same_bytes_twice(published: dict[str, Program]) -> None:
    first, second = (json.dumps(estimate(published["bk-sdm-tiny"], load("dbsc"), 4)) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", ["sda", "dbsc"])
@pytest.mark.parametrize("slower", [1, 16])
def test_not_a_digit_changes_if_loops_are_timed_by_matrices(
    workloads: dict[str, Workload], name: str, slower: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of whole models, whose loops have more turns than a simulation of every cycle could play."""
    hardware = load(name).scaled("memory.dram_bytes_per_s", 1 / slower)
    assert hardware
    made = [json.dumps(estimate(workload, hardware, 50)) for workload in workloads.values()]
    monkeypatch.setattr(memory, "makespan", matrices.makespan)
    assert made == [json.dumps(estimate(workload, hardware, 50)) for workload in workloads.values()]


def test_a_schedule_of_cached_steps_costs_less(workloads: dict[str, Workload]) -> None:
    """Every other step runs half of the operators: the mean step lies in the middle."""
    full = workloads["bk-sdm-tiny"].variants["full"]
    variants = {"full": full, "cached": full[: len(full) // 2]}
    rates = dict.fromkeys(variants, Rate.SAMPLE)
    one, other = (
        estimate(Workload("w", variants, rates, {2: run}), load("sda"), 2)
        for run in (("full", "full"), ("full", "cached"))
    )
    only = estimate(Workload("w", {"full": variants["cached"]}, {"full": Rate.SAMPLE}, {}), load("sda"), 2)
    assert other["step_cycles"] == (one["step_cycles"] + only["step_cycles"]) / 2 < one["step_cycles"]
    assert other["macs"] == (one["macs"] + only["macs"]) / 2


def test_a_table_of_layers_on_a_plain_array(tmp_path: Path) -> None:
    path = tmp_path / "net.csv"
    path.write_text("Layer, M, N, K,\nqk, 256, 256, 40,\nff, 256, 640, 320,\n")
    hardware = load("systolic-32x32")
    made = estimate(topology.load(path, hardware.spec.bits), hardware, 1)
    assert [one["cycles"] for one in made["operators"]] == [6528, 61120]
    assert made["macs"] == 256 * 256 * 40 + 256 * 640 * 320


def test_dram_by_name_changes_joules_and_no_bytes(published: dict[str, Program]) -> None:
    cheap, dear = (estimate(published["bk-sdm-tiny"], load("dbsc"), 1, name) for name in ("hbm2", "ddr3"))
    assert cheap["ema_bytes"] == dear["ema_bytes"]
    assert dear["step_energy_mj"]["dram"] == pytest.approx(70 / 3.9 * cheap["step_energy_mj"]["dram"])


def test_no_steps(published: dict[str, Program]) -> None:
    with pytest.raises(UserError, match="0 steps cannot be estimated; give 1 or more"):
        estimate(published["bk-sdm-tiny"], load("sda"), 0)


@pytest.mark.parametrize("name", ["sda", "dbsc"])
def test_sd15_is_estimated_in_a_blink(published: dict[str, Program], name: str) -> None:
    """0.2 s of a quiet core from the program to the dictionary; a machine that others use gets five times as long."""
    hardware: Hardware = load(name)

    def seconds() -> float:
        started = time.process_time()
        estimate(published["sd-1.5"], hardware, 50)
        return time.process_time() - started

    assert min(seconds() for _ in range(8)) < 1.0
