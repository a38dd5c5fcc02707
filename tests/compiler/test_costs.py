"""Costs by node: predicted against what is compiled and measured, and priced against the hardware model's own report."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from fick.compiler.bundle.build import build
from fick.compiler.cache import cache_folder
from fick.compiler.costs import measured
from fick.compiler.costs.joining import named, owned
from fick.compiler.costs.measured import Measured
from fick.compiler.costs.predicted import Predicted
from fick.compiler.costs.priced import Priced
from fick.compiler.frontends import Imported
from fick.compiler.pipeline import pipeline
from fick.compiler.recipes import Recipe
from fick.hwmodel.estimate import estimate
from fick.hwmodel.hardware import load
from fick.ir.canonical import canonicalise
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.ir.rates import Rate
from fick.passes.assign import Assign, AssignConfig
from fick.passes.base import Context, apply
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.runtime.model import CallTime
from fick.targets import profile

from ..passes import small_unet
from .test_operators import model

HOST = profile.load("host")

RESNET = (
    "g (float[2, {c}, {s}, {s}] x) => (float[2, {c}, {s}, {s}] y) "
    "<float[{c}] gamma, float[{c}] beta, float[{c}, {c}, 3, 3] w1, float[{c}] b1, float[{c}, {c}, 3, 3] w2, "
    "float[{c}] b2> {{ n = GroupNormalization <num_groups = 8, epsilon = 1e-5> (x, gamma, beta) s = Swish(n) "
    "h = Conv <pads = [1, 1, 1, 1]> (s, w1, b1) n2 = GroupNormalization <num_groups = 8, epsilon = 1e-5> "
    "(h, gamma, beta) s2 = Swish(n2) o = Conv <pads = [1, 1, 1, 1]> (s2, w2, b2) y = Add(o, x) }}"
)


def resnet(channels: int, size: int) -> Program:
    graph = canonicalise(model(RESNET.format(c=channels, s=size), np.random.default_rng(0)))
    return Program("resnet", {"full": graph}, {"x": Rate.SAMPLE}, weights=frozenset(graph.graph.initializers))


def in_int8(program: Program) -> Program:
    rng = np.random.default_rng(1)
    feeds = {
        str(value.name): rng.standard_normal(value.shape.numpy(), np.float32)
        for value in program.variants["full"].graph.inputs
    }
    context = Context(referee=Interpreter, calibration=[feeds])
    return apply([Quantise(QuantiseConfig(least_depth=1))], program, context)


def manifest(program: Program, target: profile.Profile) -> dict[str, Any]:
    given = program.copy().variants["full"]
    rates = {name: rate.value for name, rate in program.rates.items()}
    imported = Imported(given, program.name, "test", rates, program.weights)
    return build({"graph": imported}, target, cache_folder(), name="graph").manifest


@pytest.mark.parametrize("change", [lambda program: program, in_int8], ids=["float32", "int8"])
def test_bytes_are_those_of_the_compiled_weights(change: Any) -> None:
    program = change(resnet(16, 8))
    found = Predicted(HOST)(program)
    assert found.total("bytes") == manifest(program, HOST)["memory"]["weights_bytes"]
    for one in ("h", "o"):
        assert found.of("bytes", one) >= 16 * 16 * 9


@pytest.mark.parametrize("target", profile.names())
def test_more_work_costs_more(target: str) -> None:
    direct = profile.load(target).model_copy(update={"enlarge_weights": False})
    costs = [Predicted(direct)(resnet(channels, size)) for channels, size in ((32, 16), (64, 16), (64, 32))]
    seconds = [one.total("latency") for one in costs]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert costs[0].total("bytes") < costs[1].total("bytes") == costs[2].total("bytes")
    assert costs[2].by_node["latency"].keys() == {"n", "h", "n2", "o"}
    assert costs[2].of("latency", "s") == 0  # on the way of what is before it


@pytest.mark.parametrize("target", ["x86-64-amx", "x86-64-v3-vnni", "cortex-a76", "cortex-x3"])
def test_dot_products_of_integers_cost_less(target: str) -> None:
    direct = profile.load(target).model_copy(update={"enlarge_weights": False})
    wide, narrow = (Predicted(direct)(one) for one in (resnet(128, 32), in_int8(resnet(128, 32))))
    for product in ("h", "o"):
        assert narrow.of("latency", product) < 0.5 * wide.of("latency", product)
        assert narrow.of("bytes", product) < 0.3 * wide.of("bytes", product)


@pytest.mark.parametrize(
    ("target", "format"),
    [
        ("cortex-a76", "float16"),
        ("cortex-x3", "float16"),
        ("cortex-x3", "bfloat16"),
        ("x86-64-v4-bf16", "bfloat16"),
    ],
)
def test_products_of_numbers_of_sixteen_bits_cost_less(target: str, format: str) -> None:
    direct = profile.load(target).model_copy(update={"enlarge_weights": False})
    wide, narrow = (Predicted(direct, one)(resnet(128, 32)) for one in ("float32", format))
    for product in ("h", "o"):
        assert narrow.of("latency", product) < 0.65 * wide.of("latency", product)
        assert narrow.of("bytes", product) < 0.55 * wide.of("bytes", product)


@pytest.mark.parametrize(("field", "factor"), [("clock_hz", 2.0), ("cores", 2), ("fma_rate", 2.0)])
def test_faster_processors_take_less(field: str, factor: float) -> None:
    slow = profile.load("cortex-a76")
    fast = slow.model_copy(update={field: getattr(slow, field) * factor})
    program = resnet(64, 32)
    before, after = (Predicted(one)(program).total("latency") for one in (slow, fast))
    assert before / factor * 0.999 <= after < 0.9 * before


def test_calls_without_a_node_belong_to_what_they_prepare_and_the_last_to_what_they_hand_over() -> None:
    calls = [CallTime("full", node, "map_0", 1.0) for node in ("copy", "a", "b", "copy", "c", "output y")]
    found = [(owner, call.node) for owner, call in owned(calls, {"a": "a", "b": "a", "c": "c"})]
    assert found == [("a", "copy"), ("a", "a"), ("a", "b"), ("c", "copy"), ("c", "c"), ("c", "output y")]


def test_what_is_measured_is_near_what_is_predicted_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clock, caches and memory of this machine are not the profile's, which is worth a factor of six either way.

    Other processes may slow the measured side tenfold more, and a mistaken unit would be a factor of a thousand.
    """
    program = resnet(64, 32)
    source = Measured(HOST, tmp_path)
    found, predicted = source(program), Predicted(HOST)(program)
    assert found.by_node["latency"].keys() == predicted.by_node["latency"].keys()
    assert found.by_node["bytes"] == predicted.by_node["bytes"]
    assert 1 / 6 < found.total("latency") / predicted.total("latency") < 60
    heaviest = sorted(predicted.by_node["latency"], key=lambda name: predicted.of("latency", name))
    assert set(heaviest[-2:]) == {"h", "o"}
    assert found.of("latency", "h") + found.of("latency", "o") > found.of("latency", "n")

    def compiled_again(*_: Any) -> None:
        raise AssertionError

    monkeypatch.setattr(measured, "Timed", compiled_again)
    assert Measured(HOST, tmp_path)(resnet(64, 32)) == found


def test_programs_are_measured_in_turns_with_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that becomes four times as slow halfway changes nothing but what is measured then."""
    clock = {"slower": 1.0}

    class Drifting:
        def __init__(self, _: Measured, program: Program) -> None:
            self._nodes = {str(node.outputs[0].name): 1e-3 for node in program.variants["full"].graph}

        def once(self) -> dict[str, float]:
            return {name: seconds * clock["slower"] for name, seconds in self._nodes.items()}

    monkeypatch.setattr(measured, "Timed", Drifting)
    source, whole, half = Measured(HOST, tmp_path), resnet(16, 8), in_half(resnet(16, 8))
    before = source(whole).total("latency")
    clock["slower"] = 4.0
    assert source(half).total("latency") == pytest.approx(before * 3 / 7)
    assert source(whole).total("latency") == before
    again = Measured(HOST, tmp_path)
    clock["slower"] = 2.0
    assert again(whole).total("latency") == before and again(half) == source(half)
    first_of_its_own = Measured(HOST, tmp_path)
    assert first_of_its_own(half).total("latency") == pytest.approx(2 * 3e-3)


def in_half(program: Program) -> Program:
    """The first three of its seven nodes."""
    graph = program.variants["full"].graph
    nodes = list(graph)
    kept, gone = nodes[: len(nodes) // 2], nodes[len(nodes) // 2 :]
    graph.outputs[0] = kept[-1].outputs[0]
    graph.remove(gone, safe=True)
    return program


def test_what_does_not_run_here_is_not_measured() -> None:
    elsewhere = next(
        one
        for one in map(profile.load, profile.names())
        if one.name not in {fit.name for fit in profile.fitting()}
    )
    measuring = Recipe(passes=(Assign(),), costs="measured")
    with pytest.raises(UserError, match=f"this machine does not run code for {elsewhere.name}"):
        measuring.cost_model(elsewhere, "float32")
    assert isinstance(measuring.cost_model(HOST, "float32"), Measured)
    assert isinstance(Recipe().cost_model(elsewhere, "float32"), Predicted)


@pytest.mark.parametrize("hardware", ["sda", "dbsc", "systolic-32x32"])
def test_prices_are_those_of_the_estimate(hardware: str) -> None:
    machine, program = load(hardware), small_unet.program()
    found = Priced(machine)(program)
    report = estimate(apply(pipeline(), named(program), Context()), machine, 1)
    full = [one for one in report["operators"] if one["variant"] == "full"]
    assert found.total("latency") == pytest.approx(sum(one["cycles"] for one in full) / report["clock_hz"])
    assert found.total("energy") == pytest.approx(sum(sum(one["energy_mj"].values()) for one in full) / 1e3)
    assert found.of("energy", "h") > 0 and found.total("bytes") > 0


def test_a_budget_of_energy_is_kept_on_hardware_that_has_a_price() -> None:
    machine = load("dbsc")
    context = replace(small_unet.context(), cost_model=Priced(machine))
    program = apply(
        [Assign(AssignConfig(budget="energy=0.95x", least_depth=1, calls=1))], small_unet.program(), context
    )
    effect = program.history[-1].effect["cost"]["energy"]
    assert effect["after"] == Priced(machine)(replace(program, history=[])).total("energy")
    assert effect["after"] <= 0.95 * effect["before"]


class Calibrated(Recipe):
    """With these calls."""

    calls: tuple[Any, ...]

    def context(self, program: Program, model: Any, seed: int, reporter: Any, sampler: Any = None) -> Context:
        return Context(referee=Interpreter, calibration=self.calls)


def test_a_bundle_keeps_to_its_budget() -> None:
    program = resnet(64, 16)
    direct = HOST.model_copy(update={"enlarge_weights": False})
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 64, 16, 16), np.float32)}
    recipe = Calibrated(passes=(Assign(AssignConfig(budget="bytes=0.7x", calls=1)),), calls=(feeds,))
    sizes = []
    for one in (Recipe(), recipe):
        given = Imported(program.copy().variants["full"], "graph", "test", {"x": "sample"}, program.weights)
        made = build({"graph": given}, direct, cache_folder(), name="graph", recipe=one).manifest
        sizes.append(made["memory"]["weights_bytes"])
    assert sizes[1] <= 0.7 * sizes[0]
    (entry,) = [one for one in made["components"]["graph"]["history"] if one["pass"] == "assign"]
    assert entry["effect"]["products"] == {"float32": 1, "w8a8": 1}
    assert entry["effect"]["cost"]["bytes"]["after"] == sizes[1]


def test_names_come_from_what_nodes_compute() -> None:
    program = small_unet.program()
    twin = named(program)
    assert [node.name for node in twin.variants["full"].graph][:3] == ["entered", "time", "timed"]
    assert not any(node.name for node in program.variants["full"].graph)
    assert isinstance(twin.variants["full"], ir.Model)
