"""Formats by an optimiser: budgets kept, errors predicted, work resumed, and simpler policies beaten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from fick.compiler.costs.predicted import Predicted
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.assign import Assign, AssignConfig
from fick.passes.assign.content import content
from fick.passes.assign.pareto import pareto
from fick.passes.assign.study import Study
from fick.passes.base import Context, apply
from fick.passes.budget import Limit, read
from fick.passes.costs import Cost
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.passes.quantise.products import products
from fick.targets import profile

from . import small_unet

SLOW = profile.load("x86-64-v3-vnni").model_copy(update={"fma_rate": 0.002, "load_rate": 0.002})
"""So slow that what products take counts, and not what it takes to start them."""

UNIFORM = 29
"""DequantizeLinears of the program with all 16 products in int8: as many for weights, and 13 for what they read."""


def context(folder: Path | None = None) -> Context:
    return replace(small_unet.context(), cost_model=Predicted(SLOW), work_folder=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sensitivities")


@pytest.fixture(scope="module")
def study(folder: Path) -> Study:
    config = AssignConfig(formats=("w8a8", "w8", "float32"), calls=2, least_depth=1)
    return Study(small_unet.program(), context(folder), config)


def assigned(budget: str, folder: Path, **config: Any) -> Program:
    whole = AssignConfig(budget=budget, least_depth=1, calls=2, **config)
    return apply([Assign(whole)], small_unet.program(), context(folder))


@pytest.mark.parametrize(
    "budget", ["latency=0.95x", "latency=0.8x", "bytes=0.5x", "bytes=40kB,latency=0.85x"]
)
def test_budgets_are_kept_by_the_cost_models_own_numbers(budget: str, folder: Path) -> None:
    program = assigned(budget, folder)
    effect = program.history[-1].effect
    plain = Predicted(SLOW)(small_unet.program())
    bare = replace(program, history=[])
    for limit in read(budget):
        found = effect["cost"][limit.quantity]
        assert found["after"] == Predicted(SLOW)(bare).total(limit.quantity) <= limit.of(plain)
        assert found["before"] == plain.total(limit.quantity)
        # Looked up node by node; what is next to a product changes with it.
        assert found["predicted"] == pytest.approx(found["after"], rel=0.1)
    assert sum(effect["products"].values()) == len(effect["formats"]) == 16
    assert effect["weight_bits"] < 32


def test_tighter_budgets_cost_more_error(study: Study) -> None:
    errors = [
        study.outcome(study.within([Limit("bytes", share, True)])).predicted_error
        for share in (1.0, 0.8, 0.6, 0.4)
    ]
    assert errors == sorted(errors) and errors[0] == 0 < errors[1]


def test_errors_add_up_in_power(study: Study) -> None:
    """Disturbances of a few percent each, nearly independent: their sum is within a third of what is measured."""
    for share in (0.8, 0.6, 0.4):
        found = study.outcome(study.within([Limit("bytes", share, True)]))
        assert found.output_error == pytest.approx(found.predicted_error, rel=1 / 3)
        wanted, got = (
            np.stack([Interpreter(one)(call)["output"] for call in small_unet.calls()[::2]]).astype(float)
            for one in (small_unet.program(), found.program)
        )
        assert found.output_error == pytest.approx(np.linalg.norm(got - wanted) / np.linalg.norm(wanted))


def test_what_cannot_be_reached_says_what_can(folder: Path) -> None:
    with pytest.raises(UserError, match=r"cannot keep to bytes .* the least is bytes .*\(0\.3\d*x\); raise"):
        assigned("bytes=0.1x", folder)
    with pytest.raises(UserError, match=r"budget of energy, .* is known in latency, bytes"):
        assigned("energy=0.5x", folder)
    with pytest.raises(UserError, match="pass assign needs cost model"):
        apply([Assign()], small_unet.program(), small_unet.context())
    with pytest.raises(UserError, match="no product with weights of at least 9999"):
        apply([Assign(AssignConfig(least_depth=9999))], small_unet.program(), context())


@pytest.mark.parametrize("factor", [0.9, 1.05])
def test_budgets_are_those_of_the_whole_where_it_differs_from_its_parts(factor: float, folder: Path) -> None:
    """Programs of one format, which the tables are of, cost what they do, and mixed ones another share of it."""

    def cost_model(program: Program) -> Cost:
        found = Predicted(SLOW)(program)
        count = sum(node.op_type == "DequantizeLinear" for node in program.variants["full"].graph)
        scale = 1.0 if count in (0, UNIFORM) else factor
        return Cost({
            name: {key: scale * one for key, one in amounts.items()} for name, amounts in found.by_node.items()
        })  # fmt: skip

    config = AssignConfig(calls=2, least_depth=1)
    odd = Study(small_unet.program(), replace(context(folder), cost_model=cost_model), config)
    plain, least = odd.plain.total("latency"), odd.least("latency")
    limit = least + 0.1 * (plain - least)
    chosen = odd.within([Limit("latency", limit, False)])
    assert cost_model(odd.build(chosen)).total("latency") <= limit
    assert set(chosen.values()) == {"float32", "w8a8"}


def test_what_was_interrupted_goes_on_where_it_stopped(tmp_path: Path) -> None:
    made: list[Program] = []

    def counting(most: int) -> Callable[[Program, Sequence[str]], Any]:
        def referee(program: Program, names: Sequence[str]) -> Any:
            if len(made) == most:
                raise KeyboardInterrupt
            made.append(program)
            return Interpreter(program, names)

        return referee

    def run(most: int) -> Program:
        made.clear()
        config = AssignConfig(budget="bytes=0.5x", least_depth=1, calls=1, errors="measured")
        return apply(
            [Assign(config)], small_unet.program(), replace(context(tmp_path), referee=counting(most))
        )

    with pytest.raises(KeyboardInterrupt):
        run(7)
    known = len(list(tmp_path.rglob("*.json")))
    # Ranges and the exact outputs come first; each product in int8 is a program of its own.
    assert known == 5
    resumed = run(100)
    assert len(made) == 2 + (16 - known) + 1
    again = run(100)
    assert len(made) == 2 + 1
    assert resumed.history[-1].effect == again.history[-1].effect


def test_twice_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    first, second = (
        ir.serde.serialize_model(assigned("latency=0.85x", where).variants["full"]).SerializeToString(
            deterministic=True
        )
        for where in (folder, tmp_path)
    )
    assert first == second


def test_uniform_formats_are_those_of_the_pass_quantise(study: Study) -> None:
    found = study.outcome(study.uniform("w8a8"))
    wanted = apply([Quantise(QuantiseConfig(least_depth=1))], small_unet.program(), small_unet.context())
    call = small_unet.calls()[1]
    np.testing.assert_array_equal(
        Interpreter(found.program)(call)["output"], Interpreter(wanted)(call)["output"]
    )
    assert found.weight_bits == 8
    assert found.predicted_cost["latency"] == pytest.approx(found.cost.total("latency"))
    assert found.predicted_cost["bytes"] == found.cost.total("bytes")


def test_thresholds_of_isolated_psnr_go_from_all_bits_to_the_fewest(study: Study) -> None:
    assert set(study.above(np.inf).values()) == {"float32"}
    assert set(study.above(-np.inf).values()) == {"w8a8"}
    bits = [study.outcome(study.above(level)).weight_bits for level in (30, 40, 50, 60)]
    assert bits == sorted(bits)
    level = float(np.median(study.isolated_psnr_db[:, 1:]))
    for product, name in study.above(level).items():
        row = study.isolated_psnr_db[[one.name for one in study.products].index(product)]
        assert row[study.formats.index(name)] >= level
        assert (row[study.formats.index(name) + 1 :] < level).all()


def test_the_optimiser_is_nowhere_worse_than_the_simpler_policies(study: Study) -> None:
    points = pareto(study, "bytes", points=4)
    assert {one.policy for one in points} == {"uniform", "thresholds", "optimised"}
    assert [one.setting for one in points if one.policy == "uniform"] == ["float32", "w8", "w8a8"]
    optimised = [one for one in points if one.policy == "optimised"]
    for simple in (one for one in points if one.policy != "optimised"):
        within = [one for one in optimised if one.cost["bytes"] <= simple.cost["bytes"]]
        assert min(one.predicted_error for one in within) <= simple.predicted_error * (1 + 1e-6)
    assert len(optimised) > 3


def test_a_value_that_is_read_both_ways_is_there_twice(study: Study) -> None:
    """Of queries, keys and values of one value only the keys are in int8."""
    plain = study.uniform("float32")
    one, all_three = {**plain, "k1": "w8a8"}, {**plain, **dict.fromkeys(("q1", "k1", "v1"), "w8a8")}
    assert [study.outcome(each).conversions for each in (plain, one, all_three)] == [0, 1, 0]
    for each in (one, all_three):
        found = study.outcome(each)
        assert found.predicted_cost["latency"] == pytest.approx(found.cost.total("latency"), rel=0.02)


def test_products_that_decide_what_a_picture_shows() -> None:
    program = small_unet.program()
    graph = program.variants["full"].graph
    listed = products(graph, program.rates)
    marks = content(graph, program.rates, listed)
    found = {one.name for one, mark in zip(listed, marks, strict=True) if mark}
    assert found == {"q2", "k2", "v2", "o2", "h", "f"}


def test_pictures_count_where_they_are_asked_for(tmp_path: Path) -> None:
    """Pictures that only one product could spoil, which noise alone would have taken first."""
    drawn = 0

    def quality(program: Program) -> dict[str, Any]:
        nonlocal drawn
        drawn += 1
        (node,) = [node for node in program.variants["full"].graph if node.outputs[0].name == "f"]
        read = node.inputs[0].producer()
        return {"ssim": {"value": 0.5 if read is not None and read.op_type == "DequantizeLinear" else 0.99}}

    def formats(pictures: bool) -> dict[str, str]:
        config = AssignConfig(budget="bytes=0.7x", least_depth=1, calls=1, pictures=pictures)
        whole = replace(context(tmp_path), quality=quality)
        return apply([Assign(config)], small_unet.program(), whole).history[-1].effect["formats"]

    assert formats(False)["f"] == "w8a8" and drawn == 0
    assert formats(True)["f"] == "float32"
    assert drawn >= 6
    known, drawn = drawn, 0
    formats(True)
    assert drawn == known - 6
    with pytest.raises(UserError, match="pass assign needs quality"):
        assigned("bytes=0.7x", tmp_path, pictures=True)


@pytest.mark.parametrize(
    ("text", "amount"),
    [("latency=0.5x", 1.0), ("latency=20ms", 0.02), ("bytes=250MB", 250e6), ("energy=1.5uJ", 1.5e-6)],
)
def test_budgets_have_units(text: str, amount: float) -> None:
    (limit,) = read(text)
    cost = Cost({limit.quantity: {"a": 1.5, "b": 0.5}})
    assert limit.of(cost) == pytest.approx(amount)


@pytest.mark.parametrize(
    "text", ["", "latency", "latency=0.5", "speed=2x", "bytes=3ms", "latency=-1x", "latency=1x,"]
)
def test_what_is_no_budget_says_so(text: str) -> None:
    with pytest.raises(ValueError, match="should"):
        AssignConfig(budget=text)
