"""Schedules by an optimiser: the plan against all schedules there are, and the pass on a UNet written out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydantic import ValidationError

from fick.ir.errors import UserError
from fick.ir.interpreter import Interpreter
from fick.ir.macs import macs
from fick.ir.program import Program
from fick.passes.base import Context, Trajectory, apply
from fick.passes.caching.reuse import reusing
from fick.passes.caching.schedules import refreshed, uniform
from fick.passes.costs import Cost
from fick.passes.hoist import Hoist
from fick.passes.quantise import Quantise, QuantiseConfig
from fick.passes.schedule import ScheduleReuse, ScheduleReuseConfig
from fick.passes.schedule.candidates import all_of, candidates
from fick.passes.schedule.plan import Order, Problem
from fick.passes.schedule.profile import ages, profile
from fick.runtime.schedule import order as ordered

from . import small_unet
from .test_caching_policies import convolution, plain

STEPS = 6


def problem(seed: int, leaves: Sequence[Sequence[int]], steps: int = STEPS, longest: int = 3) -> Problem:
    """Errors that grow with age, of alternatives the cheaper the worse."""
    rng = np.random.default_rng(seed)
    count = len(leaves)
    errors = np.cumsum(rng.uniform(0.5, 1.5, (count, steps, longest)), axis=2)
    errors *= np.linspace(1, 2, count)[:, None, None]
    for step, age in product(range(steps), range(1, longest + 1)):
        if age > step:
            errors[:, step, age - 1] = np.inf
    costs = np.array([1.0, *np.linspace(0.5, 0.1, count)])
    return Problem(errors, rng.uniform(0.5, 2, steps), costs, np.array(leaves, bool))


def everything(given: Problem) -> list[tuple[float, float, Order]]:
    """Cost, loss and order of every schedule there is."""
    orders = product(range(len(given.costs)), repeat=given.steps)
    return [(given.cost(order), given.loss(order), order) for order in orders]


@pytest.mark.parametrize("leaves", [[[0]], [[0, 1], [0, 0]], [[0, 0], [0, 0]], [[0, 1], [1, 0]]])
def test_a_plan_is_the_best_schedule_of_its_cost(leaves: list[list[int]]) -> None:
    for seed in range(2):
        given = problem(seed, leaves)
        known = everything(given)
        for order in given.frontier(0.75 * STEPS):
            least = min(loss for cost, loss, _ in known if cost <= given.cost(order) + 1e-9)
            assert given.loss(order) == pytest.approx(least, rel=1e-9, abs=1e-12)
            assert order[0] == 0
        best = given.best(0.75 * STEPS)
        assert best is not None and given.cost(best) <= 0.75 * STEPS
        # Between two of the frontier there may be better ones within the budget; none costs less and loses less.
        assert not any(
            cost < given.cost(best) - 1e-9 and loss < given.loss(best) - 1e-9 for cost, loss, _ in known
        )


def test_an_older_state_within_what_was_left_counts() -> None:
    """The first runs the second's layers and more, from a state of its own."""
    given = problem(0, [[0, 1], [0, 0]])
    errors, weight = given.errors, given.influence
    # full, first, second: the second's state is new, and holds what the first one's is off by.
    wanted = weight[1] * errors[0, 1, 0] + weight[2] * (errors[1, 2, 0] + errors[0, 2, 1])
    assert given.loss((0, 1, 2, 0, 0, 0)) == pytest.approx(wanted)
    # The second leaves nothing: the first's error is its own.
    wanted = weight[1] * errors[1, 1, 0] + weight[2] * errors[0, 2, 1]
    assert given.loss((0, 2, 1, 0, 0, 0)) == pytest.approx(wanted)
    assert given.loss((0, 1, 1, 1, 1, 0)) == float("inf") and given.loss((1, 0, 0, 0, 0, 0)) == float("inf")


def trajectory(program: Program, run: Interpreter, seed: int, calls: int) -> Trajectory:
    """A loop that a sample is moved along by, from noise, as an Euler sampler would."""
    rng = np.random.default_rng(seed)
    first = small_unet.calls()[0]
    sample = rng.standard_normal(first["sample"].shape).astype(np.float32)
    inputs: list[dict[str, NDArray[np.float32]]] = []
    run.begin()
    for step, variant in enumerate(ordered(program.schedule, calls)):
        time = np.array([1 - step / calls], np.float32)
        inputs.append({**first, "sample": sample.astype(np.float32), "timestep": time})
        sample = sample - run(inputs[-1], variant)["output"] / np.float32(calls)
    return Trajectory(inputs, sample[0])


def draw(program: Program, steps: int, pictures: int) -> list[Trajectory]:
    run = Interpreter(program)
    return [trajectory(program, run, seed, steps) for seed in range(pictures)]


def counted(program: Program) -> Cost:
    """Products for seconds."""
    return Cost({"latency": {"all": float(macs(program.variants["full"]))}, "bytes": {}})


def context(folder: Path | None = None) -> Context:
    return Context(referee=Interpreter, draw=draw, cost_model=counted, work_folder=folder)


def test_errors_are_those_of_each_alternative_after_a_full_step() -> None:
    program, cuts = plain(), candidates(plain())
    assert list(cuts) == ["tail", "deep_1", "decoder", "gated", "kept"]
    whole = all_of(program, cuts)
    drawn = draw(program, STEPS, 2)
    found = profile(context(), whole, list(cuts), drawn, 8)
    assert ages(8) == [1, 2, 3, 4, 6, 8] and found.shape == (5, STEPS, STEPS - 1)
    row, step, age = list(cuts).index("deep_1"), 4, 3
    alone = all_of(program, {"deep_1": cuts["deep_1"]})
    run, noise, signal = Interpreter(alone), 0.0, 0.0
    for picture in drawn:
        run(picture.calls[step - age])
        got = run(picture.calls[step], "deep_1")["output"]
        exact = run(picture.calls[step])["output"].astype(np.float64)
        noise, signal = noise + np.square(got - exact).sum(), signal + np.square(exact).sum()
    # Both are sums of thousands of squares of float32 differences.
    assert found[row, step, age - 1] == pytest.approx(np.sqrt(noise / signal), rel=1e-4)
    assert np.isinf(found[:, 2, 2]).all() and np.isfinite(found[:, 3, 2]).all()


def test_a_schedule_within_a_budget_that_beats_the_uniform_ones(tmp_path: Path) -> None:
    config = ScheduleReuseConfig(
        budget="latency=0.6x", steps=(STEPS,), pictures=2, probes=3, evaluations=12, longest=4
    )
    program = apply([ScheduleReuse(config)], plain(), context(tmp_path))
    effect = program.history[-1].effect
    said = effect["loops"][str(STEPS)]
    order = program.schedule[STEPS]
    sizes = {name: macs(program.variants[name]) for name in program.alternatives}
    whole = macs(plain().variants["full"])
    assert said["predicted_cost"] == pytest.approx(sum(sizes[name] for name in order) / STEPS)
    assert said["predicted_cost"] <= 0.6 * whole
    exact = draw(plain(), STEPS, 2)

    def loss(changed: Program) -> float:
        pairs = zip(draw(changed, STEPS, 2), exact, strict=True)
        return float(
            np.mean([np.linalg.norm(a.latents - b.latents) / np.linalg.norm(b.latents) for a, b in pairs])
        )

    assert said["measured_loss"] == pytest.approx(loss(apply([Hoist()], program, Context())), rel=1e-5)
    assert said["measured_loss"] <= said["planned_loss"]
    # Cached steps between full ones at one interval, within the same budget.
    beaten = 0
    for interval, cuts in product((2, 3), candidates(plain()).items()):
        run = refreshed(STEPS, uniform(STEPS, interval), cuts[0])
        fixed = reusing(plain(), dict([cuts]), {STEPS: run})
        if sum(macs(fixed.variants[name]) for name in run) <= 0.6 * whole * STEPS:
            beaten += 1
            assert said["measured_loss"] <= loss(fixed) * (1 + 1e-5)  # one may be the other
    assert beaten
    again = apply([ScheduleReuse(config)], plain(), context(tmp_path))
    assert again.history[-1].effect == effect


def test_integers_are_scheduled_with_what_they_round() -> None:
    """Profile and losses are those of the quantised program, whose integers run in every alternative."""
    given = replace(context(), calibration=small_unet.calls())
    quantise = Quantise(QuantiseConfig(least_depth=1))
    config = ScheduleReuseConfig(
        budget="latency=0.6x", steps=(4,), pictures=1, probes=2, evaluations=2, longest=2
    )
    program = apply([quantise, ScheduleReuse(config)], plain(), given)
    said = program.history[-1].effect["loops"]["4"]
    quantised = apply([quantise], plain(), given)
    (exact,), (ours,) = draw(quantised, 4, 1), draw(program, 4, 1)
    wanted = np.linalg.norm(ours.latents - exact.latents) / np.linalg.norm(exact.latents)
    # An integer may be rounded the other way where ONNX Runtime fuses otherwise.
    assert said["measured_loss"] == pytest.approx(wanted, rel=0.1)
    assert len(program.alternatives) > 1
    for name in program.alternatives[1:]:
        graph = program.variants[name].graph
        multiplied = sum(node.op_type in ("Conv", "MatMul") for node in graph)
        assert sum(node.op_type == "QuantizeLinear" for node in graph) >= bool(multiplied)


def test_a_floor_of_quality_in_place_of_a_budget() -> None:
    settings = {"steps": (STEPS,), "pictures": 1, "probes": 2, "evaluations": 4, "longest": 3}
    found = {}
    for floor in (1e-9, 0.05, 10.0):
        config = ScheduleReuseConfig.model_validate({**settings, "floor": floor})
        program = apply([ScheduleReuse(config)], plain(), context())
        said = program.history[-1].effect["loops"][str(STEPS)]
        assert said["measured_loss"] <= floor
        found[floor] = said["predicted_cost"]
    assert found[1e-9] > found[0.05] >= found[10.0]


def test_what_cannot_be() -> None:
    config = ScheduleReuseConfig(budget="latency=0.01x", steps=(4,), pictures=1, probes=2, longest=2)
    with pytest.raises(
        UserError, match=r"pass schedule-reuse cannot keep to latency=0\.01x, 0\.01 of a full step"
    ):
        apply([ScheduleReuse(config)], plain(), context())
    with pytest.raises(UserError, match="pass schedule-reuse: the model has no blocks, skips or attention"):
        apply([ScheduleReuse(config)], convolution(), context())
    with pytest.raises(UserError, match="pass schedule-reuse draws pictures: calibrate with prompts"):
        apply([ScheduleReuse(config)], plain(), replace(context(), draw=None))
    for wrong in ("bytes=1MB", "latency=0.5x,energy=0.5x", "soon"):
        with pytest.raises(ValidationError):
            ScheduleReuseConfig(budget=wrong)
