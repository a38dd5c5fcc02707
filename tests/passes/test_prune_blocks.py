"""Blocks chosen together: the knapsack against every choice, budgets kept, losses that add up, work taken up again."""

from __future__ import annotations

import itertools
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fick.compiler.costs.predicted import Predicted, planned
from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.program import Program
from fick.passes.base import Context, Trajectory, apply
from fick.passes.costs import Cost, CostModel
from fick.passes.prune import PruneBlocks, PruneBlocksConfig
from fick.passes.prune.knapsack import Knapsack
from fick.passes.prune.latents import LatentShift, shift
from fick.passes.prune.simpler import POLICIES
from fick.passes.prune.study import Study
from fick.targets import profile

from . import small_unet
from .serialised import serialised

SLOW = profile.load("x86-64-v3-vnni").model_copy(update={"fma_rate": 0.002, "load_rate": 0.002})
"""So slow that what products take counts, and not what it takes to start them."""

QUANTITIES = ("latency", "bytes")


def context(folder: Path | None = None) -> Context:
    return replace(small_unet.context(6), cost_model=Predicted(SLOW), work_folder=folder)


@pytest.fixture(scope="module")
def study() -> Study:
    return Study(small_unet.program(), context(), PruneBlocksConfig())


def test_what_a_block_saves_is_told_by_what_went_and_not_by_what_stayed() -> None:
    """A program takes up to a tenth more or less than the profile says, as drawn for each: the difference of two totals
    is off by that of the whole, and that of what went by as much of itself.
    """
    exact, drawn = Predicted(SLOW), np.random.default_rng(0)

    def noisy(program: Program) -> Cost:
        found, slower = exact(program), drawn.uniform(0.9, 1.1)
        took = {node: seconds * slower for node, seconds in found.by_node["latency"].items()}
        return Cost({**found.by_node, "latency": took})

    def timed(program: Program) -> Cost:
        calls: dict[str, tuple[object, ...]] = defaultdict(tuple)
        for node, call in planned(program, SLOW, "float32").calls["full"]:
            calls[node] += (call.kernel,)
        return replace(noisy(program), timed=dict(calls))

    def saved(cost_model: CostModel) -> NDArray[Any]:
        given = replace(small_unet.context(6), cost_model=cost_model)
        problem = Study(small_unet.program(), given, PruneBlocksConfig()).problem
        return problem.savings["latency"] / problem.plain["latency"]

    wanted = saved(exact)
    off, much_off = (np.sqrt(np.mean((saved(one) - wanted) ** 2)) for one in (timed, noisy))
    assert off < 0.3 * much_off
    assert off < 0.1 * np.sqrt(np.mean(wanted**2))


@st.composite
def knapsacks(draw: Any) -> Knapsack:
    """Up to seven options; losses of many magnitudes; savings in whole numbers, of which some are none."""
    count = draw(st.integers(1, 7))
    some = st.lists(st.integers(0, count - 1), min_size=1, max_size=3, unique=True)
    exponents = draw(st.lists(st.floats(-6, 0), min_size=count, max_size=count))
    amounts = st.lists(st.integers(-2, 30), min_size=count, max_size=count)
    return Knapsack(
        10.0 ** np.array(exponents),
        {name: np.array(draw(amounts), float) for name in QUANTITIES},
        dict.fromkeys(QUANTITIES, 100.0),
        draw(st.lists(some, max_size=3)),
        draw(st.lists(st.lists(some, min_size=1, max_size=3), max_size=2)),
    )


@settings(deadline=None, max_examples=60)
@given(knapsacks(), st.integers(0, 120), st.integers(40, 120))
def test_the_best_of_all_choices_is_found(problem: Knapsack, tight: int, loose: int) -> None:
    limits = {"latency": float(tight), "bytes": float(loose)}
    everything = [
        chosen
        for size in range(len(problem.losses) + 1)
        for chosen in itertools.combinations(range(len(problem.losses)), size)
        if problem.allowed(chosen)
    ]
    allowed = [
        one for one in everything if all(problem.cost(name, one) <= most for name, most in limits.items())
    ]
    found = problem.solve(limits)
    if not allowed:
        assert found is None
    else:
        assert found is not None and problem.allowed(found)
        assert all(problem.cost(name, found) <= most + 1e-9 for name, most in limits.items())
        best = min(problem.loss(one) for one in allowed)
        assert problem.loss(found) <= best * (1 + 1e-6) + 1e-9 * problem.losses.max()
    for name in QUANTITIES:
        least = min(problem.cost(name, one) for one in everything)
        assert problem.cost(name, problem.cheapest(name)) <= least + 1e-9


@pytest.mark.parametrize("budget", ["latency=0.9x", "latency=0.75x,bytes=0.9x"])
def test_budgets_are_kept_and_what_was_predicted_is_what_was_measured(budget: str) -> None:
    program = apply(
        [PruneBlocks(PruneBlocksConfig(budget=budget, repair=False))], small_unet.program(), context()
    )
    effect = program.history[-1].effect
    bare = Predicted(SLOW)(replace(program, history=[]))
    assert effect["removed"]
    for part in budget.split(","):
        quantity, share = part.removesuffix("x").split("=")
        cost = effect["cost"][quantity]
        assert cost["after"] == bare.total(quantity) <= float(share) * cost["before"]
        assert cost["predicted"] == pytest.approx(cost["after"], rel=0.05)
    calls = [one for index, one in enumerate(small_unet.calls(6)) if index % 2]
    wanted, got = (
        np.stack([Interpreter(one)(call)["output"] for call in calls]).astype(float)
        for one in (small_unet.program(), program)
    )
    error = np.linalg.norm(got - wanted) / np.linalg.norm(wanted)
    assert effect["output_error"] == pytest.approx(error) == pytest.approx(effect["loss"] ** 0.5)


def test_the_last_path_of_an_input_stays(study: Study) -> None:
    with pytest.raises(
        UserError, match=r"cannot keep to latency .* path to the output, the least is latency"
    ):
        apply([PruneBlocks(PruneBlocksConfig(budget="latency=0.1x"))], small_unet.program(), context())
    assert "attention.1" not in {one.candidate.name for one in study.options}
    with pytest.raises(UserError, match=r"budget of energy, .* known in latency, bytes"):
        apply([PruneBlocks(PruneBlocksConfig(budget="energy=0.5x"))], small_unet.program(), context())
    with pytest.raises(UserError, match="no block attn that can go; did you mean"):
        Study(small_unet.program(), context(), PruneBlocksConfig(keep=("attn",)))


def test_what_was_measured_is_not_measured_again(tmp_path: Path) -> None:
    counted: list[int] = []

    def referee(program: Program, names: Any) -> Any:
        counted.append(1)
        return Interpreter(program, names)

    config = PruneBlocksConfig(budget="latency=0.8x")
    results = []
    for _ in range(2):
        counted.clear()
        given = replace(context(tmp_path), referee=referee)
        results.append((apply([PruneBlocks(config)], small_unet.program(), given), len(counted)))
    (one, first), (other, second) = results
    assert second < first
    assert serialised(one) == serialised(other)
    assert one.history[-1].facts() == other.history[-1].facts()


def test_simpler_ways_keep_to_budgets_too_and_lose_no_less(study: Study) -> None:
    for share in (0.9, 0.75, 0.6):
        limit = {"latency": share * study.plain.total("latency")}
        best = study.problem.solve(limit)
        assert best is not None
        for name, policy in POLICIES.items():
            chosen = policy(study, limit, 0)
            assert chosen is not None and study.problem.allowed(chosen), name
            assert study.problem.cost("latency", chosen) <= limit["latency"]
            assert study.problem.loss(chosen) >= study.problem.loss(best) - 1e-12


def test_a_shift_of_latents_is_that_of_their_means_and_deviations() -> None:
    rng = np.random.default_rng(0)
    theirs = rng.standard_normal((5, 4, 8, 8))
    ours = 2 * theirs + 1
    spread = np.sqrt(((theirs - theirs.mean(0)) ** 2).mean(0))
    expected = np.sqrt(((theirs.mean(0) + 1) ** 2).sum()) + np.sqrt((spread**2).sum())
    assert shift(ours, theirs) == pytest.approx(expected)
    assert shift(theirs, theirs) == 0

    def draw(program: Program, steps: int, pictures: int) -> list[Trajectory]:
        call = Interpreter(program)
        return [Trajectory([], call(one)["output"][0]) for one in small_unet.calls(pictures)]

    measure = LatentShift(replace(context(), draw=draw), small_unet.program(), 3, 1, "prune-blocks")
    assert measure(small_unet.program()) == 0


def test_blocks_are_chosen_by_latents_where_that_is_asked_for() -> None:
    def draw(program: Program, steps: int, pictures: int) -> list[Trajectory]:
        call = Interpreter(program)
        return [Trajectory([], call(one)["output"][0]) for one in small_unet.calls(pictures)]

    config = PruneBlocksConfig(budget="latency=0.8x", criterion="latents", by=("identity",), repair=False)
    program = apply([PruneBlocks(config)], small_unet.program(), replace(context(), draw=draw))
    effect = program.history[-1].effect
    measure = LatentShift(replace(context(), draw=draw), small_unet.program(), 4, 10, "prune-blocks")
    assert effect["loss"] == pytest.approx(measure(program)) and effect["loss"] > 0
    with pytest.raises(UserError, match="pass prune-blocks draws pictures"):
        apply([PruneBlocks(config)], small_unet.program(), context())
