"""What is chosen by measuring: every choice computes the same, and a file of choices is what compiling goes by."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

import fick
from fick.compiler.compile import compile
from fick.compiler.programs import fused
from fick.compiler.tuning.tune import tune
from fick.compiler.tuning.tuned import Tuned, read_tuned
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.targets.lower import planned_calls, questions
from fick.targets.profile import load

from .test_bfloat16 import GRAPHS, imported
from .test_operators import model

NAMES = ("a resnet", "a transformer")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A convolution that minimal filtering suits, and two products."""
    path = tmp_path / "model.onnx"
    ir.save(model(GRAPHS["a resnet"], np.random.default_rng(4)), path)
    return path


def kernels(program, profile) -> set[object]:
    return {call.kernel for calls in planned_calls(program, profile)[0].values() for call in calls}


@pytest.mark.parametrize("name", NAMES)
def test_the_first_choices_are_the_predicted_ones_and_others_make_other_kernels(name: str) -> None:
    program, host = fused(imported(name)[0]), load("host")
    asked = questions(program, host)
    assert all(len(set(one.choices)) == len(one.choices) for one in asked.values())

    def chosen(rank: int) -> dict[str, str]:
        return {problem: one.choices[min(rank, len(one.choices) - 1)] for problem, one in asked.items()}

    predicted = kernels(program, host)
    assert kernels(program, host.model_copy(update={"tuned": chosen(0)})) == predicted
    assert kernels(program, host.model_copy(update={"tuned": chosen(1)})) != predicted
    assert kernels(program, host.model_copy(update={"tuned": {"another": "choice"}})) == predicted


@pytest.mark.parametrize("rank", [1, 3])
def test_other_choices_compute_the_same(source: Path, tmp_path: Path, rank: int) -> None:
    name, host = "a resnet", load("host")
    asked = questions(fused(imported(name)[0]), host)
    tuned = {problem: one.choices[rank] for problem, one in asked.items() if rank < len(one.choices)}
    feeds = imported(name)[1]
    compile(source, host.model_copy(update={"tuned": tuned}), tmp_path / "other.fick")
    with fick.load(tmp_path / "other.fick") as loaded:
        got = loaded.run(**feeds)["y"]
    given, _ = imported(name)
    weights = model(GRAPHS[name], np.random.default_rng(4)).graph.initializers
    for key, value in given.model.graph.initializers.items():
        if key in weights:
            value.const_value = weights[key].const_value
    exact = Interpreter(fused(given))(feeds)["y"]
    # Sums of at most 864 products in another order.
    assert np.abs(got - exact).max() < 864 * 2**-23 * np.abs(exact).max()


def test_what_was_measured_is_kept_and_compiled_with(source: Path, tmp_path: Path) -> None:
    place = tmp_path / "here.json"
    found = tune(source, place, choices=2, rounds=1)
    first = place.read_bytes()
    tuned = read_tuned(place)
    assert found["problems"] == len(tuned.shares) > 2
    assert all(share > 0 for shares in tuned.shares.values() for share in shares.values())
    # Everything was measured: nothing is again.
    assert tune(source, place, choices=2, rounds=1)["problems"] == found["problems"]
    assert place.read_bytes() == first

    forced = {
        problem: dict.fromkeys(shares, 0.5) for problem, shares in tuned.shares.items() if "conv" in problem
    }
    place.write_text(tuned.model_copy(update={"shares": forced}).model_dump_json())
    names = []
    for settings in ({}, {"tuned": place}):
        compile(source, output=tmp_path / "one.fick", **settings)
        with fick.load(tmp_path / "one.fick") as loaded:
            loaded.run(**imported("a resnet")[1])
            names.append(sorted(call.kernel for call in loaded.profile()))
    assert names[0] != names[1]


def test_a_place_that_cannot_be_written_is_told_before_anything_is_compiled(
    source: Path, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"cannot write .* in a folder that exists"):
        tune(source, tmp_path / "missing" / "here.json")


def test_a_target_of_another_machine_is_told_before_anything_is_compiled(
    source: Path, tmp_path: Path
) -> None:
    other = "rpi5" if platform.machine() == "x86_64" else "x86-64-v3"
    with pytest.raises(UserError, match=rf"--target {other} runs code for .*tune on the device itself"):
        tune(source, tmp_path / "here.json", target=other)


def test_a_choice_has_to_be_worth_it() -> None:
    tuned = Tuned(target="x", cores=1, shares={"a": {"this": 0.99}, "b": {"this": 0.9, "that": 0.8}, "c": {}})
    assert tuned.choices() == {"b": "that"}


def test_choices_of_another_number_of_cores_are_refused() -> None:
    host = load("host")
    with pytest.raises(
        UserError, match=rf"measured on {host.cores + 1} cores, and {host.name} has {host.cores}"
    ):
        Tuned(target=host.name, cores=host.cores + 1).of(host)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "Invalid JSON|invalid json"),
        (json.dumps({"format": "fick-tuned", "target": "pdp-11", "cores": 1}), "measured on pdp-11, and the target is"),
        (json.dumps({"target": "x", "cores": 0}), "cores: "),
        (json.dumps({"target": "x", "cores": 1, "shares": {"a": {"b": "fast"}}}), r"shares\.a\.b: "),
        (None, "cannot be read: No such file"),
    ],
)  # fmt: skip
def test_a_file_that_does_not_fit_is_one_sentence(
    content: str | None, said: str, source: Path, tmp_path: Path
) -> None:
    place = tmp_path / "tuned.json"
    if content is not None:
        place.write_text(content)
    with pytest.raises(UserError, match=said):
        compile(source, output=tmp_path / "no.fick", tuned=place)
    assert not (tmp_path / "no.fick").exists()
