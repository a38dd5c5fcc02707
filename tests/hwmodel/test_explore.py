"""The search of designs against all of them estimated one by one, and against itself interrupted."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fick.hwmodel.area import resources
from fick.hwmodel.estimate import estimate
from fick.hwmodel.explore import results
from fick.hwmodel.explore.advice import advice
from fick.hwmodel.explore.front import Front, hypervolume
from fick.hwmodel.explore.measures import COLUMNS, objectives
from fick.hwmodel.explore.problem import Evaluator, Outcome, Problem
from fick.hwmodel.explore.search import Found, Method
from fick.hwmodel.explore.space import parse_space
from fick.hwmodel.explore.storage import Storage
from fick.hwmodel.explore.workers import processes
from fick.hwmodel.hardware import Hardware, load, parse
from fick.ir.errors import UserError

from .spaces import SPACE, found, problem


def by_hand(one: Problem) -> dict[int, tuple[float, ...]]:
    """Objectives of every design that fits, each estimated from scratch."""
    known: dict[int, tuple[float, ...]] = {}
    for number in range(one.space.size):
        spec = one.space.spec(number)
        try:
            facts = estimate(one.workloads["plain", spec.bits], Hardware(spec, {}), one.steps)
        except UserError:
            continue
        sums = {name: sum(parts.values()) for name, parts in resources(spec).items()}
        known[number] = (facts["step_latency_s"], sums["dsp"], sums["bram36"])
    return known


def undominated(costs: dict[int, tuple[float, ...]]) -> set[tuple[float, ...]]:
    rows = set(costs.values())
    return {
        one
        for one in rows
        if not any(other != one and all(x <= y for x, y in zip(other, one, strict=True)) for other in rows)
    }


def test_the_front_of_a_grid_is_that_of_all_designs(tmp_path: Path) -> None:
    one = problem(tmp_path)
    known, grid = by_hand(one), found(one)
    rounded = {tuple(round(cost, 12) for cost in costs) for costs in grid.front.costs.values()}
    assert rounded == {tuple(round(cost, 12) for cost in costs) for costs in undominated(known)}
    counts = grid.counts()
    # The point of floors: what they rule out is timed by nobody, and is not on the front.
    assert counts["beaten"] > 0 and counts["misfit"] > 0
    assert sum(counts.values()) == one.space.size
    for outcome in grid.outcomes.values():
        if outcome.status == "evaluated":
            assert one.costs(outcome.measures) == pytest.approx(known[outcome.number], rel=1e-9)
        if outcome.status in ("beaten", "evaluated") and outcome.number in known:
            assert outcome.measures["step_latency_s"] <= known[outcome.number][0] * (1 + 1e-9)
        if outcome.status == "misfit":
            assert outcome.number not in known


class Ignorant(Evaluator):
    """Times every design."""

    def walk(self, numbers: object, known: object, front: object) -> Iterator[Outcome]:
        assert isinstance(numbers, tuple)
        yield from super().walk(numbers, {}, Front())


@pytest.mark.parametrize("wanted", ["latency,dsp,bram", "energy,ema,lut", "image_latency,core_energy"])
def test_pruning_changes_no_front(tmp_path: Path, wanted: str) -> None:
    one = problem(tmp_path, wanted=wanted)
    everything = Found(one)
    for number in range(one.space.size):
        everything.take(list(Ignorant(one).walk((number,), {}, Front())))
    assert found(one).front == everything.front


@pytest.mark.parametrize("method", ["grid", "nsga3", "tpe"])
def test_a_search_that_was_cut_short_goes_on_to_the_same_front(tmp_path: Path, method: Method) -> None:
    """Whatever a storage has is not timed again, and no trial is there twice."""
    one, url = problem(tmp_path), f"sqlite:///{tmp_path / 'points.db'}"
    whole = found(one, method=method, count=100)

    class Killed(Exception):
        pass

    def kill(some: Found, done: int, total: int) -> None:
        raise Killed

    with pytest.raises(Killed):
        found(one, method=method, count=100, storage=Storage(url, one), progress=kill)
    before = Storage(url, one).load()
    assert before
    storage = Storage(url, one)
    resumed = found(one, method=method, count=100, storage=storage)
    assert resumed.front == whole.front
    assert resumed.outcomes == whole.outcomes
    study = optuna.load_study(study_name=storage.name, storage=url)
    designs = [trial.user_attrs["design"] for trial in study.trials]
    assert len(set(designs)) == len(designs)
    timed = {one.number for one in whole.outcomes.values() if one.status in ("evaluated", "misfit")}
    assert set(designs) == timed
    best = {trial.user_attrs["design"] for trial in study.best_trials}
    assert set(whole.front.costs) <= best
    for trial in study.trials:
        number = trial.user_attrs["design"]
        assert trial.params == one.space.labels(number)
        if trial.values is not None:
            assert tuple(trial.values) == one.costs(whole.outcomes[number].measures)


def test_processes_find_what_one_finds(tmp_path: Path) -> None:
    one = problem(tmp_path)
    with processes(one, 2) as walk:
        assert (
            found(one, walk, method="nsga2", count=70).outcomes
            == found(one, method="nsga2", count=70).outcomes
        )


def test_seeds_differ(tmp_path: Path) -> None:
    one = problem(tmp_path)
    first, second = (found(one, method="random", count=12, seed=seed).outcomes for seed in (0, 1))
    assert first.keys() != second.keys()


costs = st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=12)


@settings(deadline=None)
@given(costs)
def test_front_and_hypervolume_against_counting(drawn: list[tuple[int, ...]]) -> None:
    front = Front((number, tuple(map(float, one))) for number, one in enumerate(drawn))
    plain = {number: tuple(map(float, one)) for number, one in enumerate(drawn)}
    best = undominated(plain)
    assert set(front.costs.values()) == best
    assert set(front.costs) == {min(n for n, one in plain.items() if one == each) for each in best}
    cells = sum(
        any(all(x <= y for x, y in zip(one, cell, strict=True)) for one in drawn)
        for cell in product(range(6), repeat=3)
    )
    assert hypervolume(front.costs.values(), (6, 6, 6), (0, 0, 0)) == pytest.approx(cells / 6**3)


def test_limits_leave_what_keeps_to_them(tmp_path: Path) -> None:
    known = by_hand(problem(tmp_path))
    most_s = sorted(costs[0] for costs in known.values())[len(known) // 2] * 1.001
    one = problem(tmp_path, f"{SPACE}[constraints]\ndsp = 500\nstep_latency_s = {most_s}\n")
    kept = {number: costs for number, costs in known.items() if costs[1] <= 500 and costs[0] <= most_s}
    assert 0 < len(kept) < len(known)
    assert undominated(kept) != undominated(known)
    expected = {number: pytest.approx(costs, rel=1e-9) for number, costs in kept.items()}
    front = found(one).front.costs
    assert {number: expected[number] for number in front} == front
    assert len(set(front.values())) == len(undominated(kept))


@pytest.mark.parametrize(
    ("constraint", "said"),
    [
        ("device = 'kv260'", "bram36 of at most 144 BRAM36, what a kv260 has is met by none"),
        ("step_latency_s = 1e-6", "step_latency_s of at most 1e-06 s is met by none"),
        ("dsp = 300\nstep_latency_s = 2e-3", "though each is met by some"),
    ],
)
def test_an_infeasible_space_says_which_constraint_kills_it(
    tmp_path: Path, constraint: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        found(problem(tmp_path, f"{SPACE}[constraints]\n{constraint}\n"))


def test_a_model_that_fits_no_design_is_named(tmp_path: Path) -> None:
    space = "[parameters]\nbuffers.matmul_activations = [10, 20]\n"
    with pytest.raises(
        UserError, match=r"none of the 2 designs fits the model: .*matmul_activations holds 10 bits"
    ):
        found(problem(tmp_path, space))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[parameters]\narray.sub_aray_rows = [1]", r"did you mean array\.sub_array_rows\?"),
        ("[parameters]\nclock_hz = []", "clock_hz has no values, so the space is empty"),
        ("[parameters]\nclock_hz = [-1.0]", "clock_hz is -1.0 but should be greater than 0, in Hz"),
        ("[parameters]\nclock_hz = 3", "should be a list of values or a table"),
        ("[parameters]\nclock_hz = { from = 1, to = 2 }", "either step or times"),
        ("[parameters]\nclock_hz = { from = 1, to = 1e9, step = 1 }", "more than 10,000 values"),
        (
            "[parameters]\nclock_hz = [1e8]\n[choices.a]\nb = { clock_hz = 2e8 }",
            "is set by clock_hz and by a",
        ),
        ("[constraints]\ndevise = 'zcu102'", "there are device, step_latency_s"),
        ("[constraints]\nstep_latency = 1", r"did you mean step_latency_s\?"),
        ("[constraints]\ndevice = 'zcu10'", "one of zcu102"),
        ("[constraints]\ndsp = 'few'", "should be a number"),
        ("[software]", "software has no values"),
        ("[software]\na = { recipes = 'a' }", "software.a.recipes"),
        ("parametres = 1", "a space has hardware, parameters"),
        ("a =", "is not TOML"),
    ],
)
def test_a_space_that_is_none_says_what_to_mend(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        parse_space(text, "s.toml", Path())


@pytest.mark.parametrize("text", ["latency,latency", "", "latencies"])
def test_objectives_that_are_none(text: str) -> None:
    with pytest.raises(UserError, match="latency"):
        objectives(text)


def test_what_a_kind_of_design_has_not_is_no_objective(tmp_path: Path) -> None:
    space = "hardware = 'dbsc'\n[parameters]\nclock_hz = [1e8, 2e8]\n"
    with pytest.raises(UserError, match=r"dbsc has no dsp; of a design like it area_mm2 is known"):
        problem(tmp_path, space).check()
    with pytest.raises(UserError, match="no measured quality"):
        problem(tmp_path, space, "latency,quality").check()


@pytest.mark.parametrize(
    "url", ["sqlite:////nowhere/at/all.db", "postgresql://me:secret@127.0.0.1:1/x", "what"]
)
def test_a_storage_that_is_not_there(tmp_path: Path, url: str) -> None:
    with pytest.raises(UserError, match="cannot be reached") as raised:
        Storage(url, problem(tmp_path))
    assert "secret" not in str(raised.value)


def test_specs_of_the_front_cost_what_the_table_says(tmp_path: Path) -> None:
    """Read again as a user's spec, and with the labels of constants that the design did not change."""
    one = problem(tmp_path)
    grid = found(one)
    rows = {row["design"]: row for row in results.rows(grid)}
    shipped = load(one.space.hardware.spec.name)
    for number in grid.front.costs:
        text = results.spec_file(one, grid.outcomes[number], "command").decode()
        hardware = parse(text, "front")
        facts = estimate(one.workloads["plain", hardware.spec.bits], hardware, one.steps)
        assert facts["step_latency_s"] == pytest.approx(rows[number]["step_latency_s"], rel=1e-9)
        assert {sum(parts.values()) for parts in facts["resources"].values()} <= set(rows[number].values())
        changed = one.space.changes(number)
        assert set(hardware.assumed()) == set(shipped.assumed()) - changed.keys()
    assert {"front", "feasible", *one.space.labels(0)} | (COLUMNS.keys() - {"area_mm2", "quality"}) == {
        key for row in rows.values() for key in row if key != "design"
    }


def test_advice_names_the_neighbour_that_gains_most_for_its_price(tmp_path: Path) -> None:
    one = problem(tmp_path)
    # The slower clock, the larger buffer, and all else at its first place.
    slow = [axis.name in ("clock_hz", "buffers.matmul_activations") for axis in one.space.axes]
    facts = advice(one, one.space.number(slow))
    known = by_hand(one)
    mine = known[facts["design"]]
    better = {
        number: (mine[0] - known[number][0]) / mine[0]
        for number in one.space.neighbours(facts["design"])
        if number in known and known[number][0] < mine[0] * (1 - 1e-6)
    }
    assert {near["design"]: pytest.approx(near["gain"]) for near in facts["neighbours"]} == better
    # A faster clock takes nothing more of an FPGA.
    assert facts["neighbours"][0]["changes"] == {"clock_hz": 250e6} and facts["neighbours"][0]["price"] <= 0
    assert sum(facts["bound"].values()) == pytest.approx(1)
    with pytest.raises(UserError, match="numbered 0 to 71"):
        advice(one, 72)


def test_numbers_and_digits(tmp_path: Path) -> None:
    space = problem(tmp_path).space
    seen = {space.digits(number) for number in range(space.size)}
    assert len(seen) == space.size and all(space.number(digits) == n for n, digits in enumerate(sorted(seen)))
    assert np.prod([len(axis.labels) for axis in space.axes]) == space.size
