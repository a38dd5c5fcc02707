"""One budget for three passes: how it is parted, and a search that is killed and goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from fick.compiler.cli.arguments import duration_of
from fick.compiler.costs.predicted import Predicted
from fick.compiler.joint import plot
from fick.compiler.joint.beside import Beside
from fick.compiler.joint.halving import ALONE, Clock, OutOfTime, Rung, Trial, best, search
from fick.compiler.joint.split import Made, Parting, Split
from fick.compiler.joint.written import tables
from fick.compiler.recipes import read_recipe
from fick.ir.errors import UserError
from fick.passes.base import Context, apply
from fick.passes.budget import read

from ..passes import small_unet
from ..passes.serialised import serialised
from ..passes.test_prune_blocks import SLOW


def context() -> Context:
    """Every timestep twice."""
    given = replace(
        small_unet.context(4), calibration=2 * small_unet.calls(4), reference=small_unet.program()
    )
    return replace(given, cost_model=Predicted(SLOW))


@pytest.fixture(scope="module")
def parting() -> Parting:
    return Parting(small_unet.program(), context(), read("latency=0.6x"), 4)


def test_parts_are_multiplied_and_the_recipe_makes_the_same_again(parting: Parting, tmp_path: Path) -> None:
    made = parting(Split(0.5, 1.0, "schedule-reuse"))
    names = [one.name for one in made.passes]
    assert names[:3] == ["prune-blocks", "split-joins", "assign"]
    assert made.cost["latency"] <= 0.6 * parting.plain["latency"]
    # Pruning was asked for its part, and formats for what was left of the budget as pruning came out.
    shares = [float(one.config.budget.removeprefix("latency=")[:-1]) for one in made.passes[::2][:2]]
    pruned = made.program.history[2].effect["cost"]["latency"]["before"] / parting.plain["latency"]
    assert shares[0] == pytest.approx(math.sqrt(0.6), abs=1e-4)
    assert shares[1] == pytest.approx(0.6 / pruned, abs=1e-4)
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(tables(made.passes))
    again = apply(read_recipe(recipe).passes, small_unet.program(), context())
    assert serialised(again) == serialised(made.program)


def test_what_cannot_be_kept_to_is_told(parting: Parting) -> None:
    with pytest.raises(UserError, match="cannot keep to latency"):
        Parting(small_unet.program(), context(), read("latency=0.01x"), 4)(ALONE["blocks alone"])
    with pytest.raises(
        UserError,
        match=r"the recipe has a budget of energy, and what programs cost .* known in latency, bytes",
    ):
        Parting(small_unet.program(), context(), read("energy=0.5x"), 4)
    with pytest.raises(UserError, match=r"come to bytes .*, and the budget is bytes"):
        Parting(small_unet.program(), context(), read("bytes=0.5x"), 4)(ALONE["reuse alone"])


class Ticks(Clock):
    """Time that passes when a program is made."""

    def __init__(self, limit: float) -> None:
        self.made, self.before = 0, 0.0
        super().__init__(limit, lambda spent_s, limit_s: None)
        self.limit = limit

    def begin(self, spent_s: float) -> None:
        self.before = spent_s

    @property
    def spent_s(self) -> float:
        return self.before + self.made

    def check(self) -> None:
        if self.spent_s >= self.limit:
            raise OutOfTime


class Killed(BaseException):
    pass


def walked(folder: Path, limit: float, asked: list[int], kill_at: int | None = None) -> list[Trial]:
    """A search where pictures are the worse the further a split is from one; ``asked`` gets every judging."""
    clock, program = Ticks(limit), small_unet.program()
    last: list[Split] = []

    def make(split: Split) -> Made:
        clock.made += 1
        last[:] = [split]
        if split.removed == 1:
            raise UserError("nothing would be left")
        return Made((), program, {"latency": 1.0})

    def judge(pictures: int) -> Mapping[str, float]:
        asked.append(pictures)
        if len(asked) == kill_at:
            raise Killed
        (split,) = last
        return {"ssim": 1 - (split.removed - 0.3) ** 2 - (split.rounded - 0.6) ** 2 - 0.01 / pictures}

    rungs = [Rung(count, lambda made, count=count: judge(count)) for count in (4, 12, 36)]
    return search(folder / "trials.db", make, rungs, clock, 0, lambda trials: None)


def test_a_killed_search_goes_the_way_of_one_that_was_not(tmp_path: Path) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    judged: list[int] = []
    whole = walked(tmp_path / "whole", 16, judged)
    first: list[int] = []
    with pytest.raises(Killed):
        # In a trial's second rung: its first one is known by then.
        walked(tmp_path / "killed", 16, first, judged.index(12, 6) + 1)
    again: list[int] = []
    # The trial that was killed is made again.
    assert walked(tmp_path / "killed", 17, again) == whole
    assert [*first[:-1], *again] == judged
    assert walked(tmp_path / "killed", 17, again) == whole, "its time is spent"


def test_few_trials_are_judged_by_many_pictures(tmp_path: Path) -> None:
    judged: list[int] = []
    trials = walked(tmp_path, 30, judged)
    counts = [judged.count(pictures) for pictures in (4, 12, 36)]
    assert counts[0] > 2 * counts[1] >= 2 * counts[2] > 0
    assert [one.split for one in trials][: len(ALONE)] == list(ALONE.values())
    refused = [one for one in trials if one.split.removed == 1]
    assert refused and all(not one.measures and one.reason for one in refused)
    found = best(trials)
    assert found is not None and found.pictures == 36
    assert found.score == max(one.score for one in trials if one.pictures == 36)
    # Better than all parts being equal, with which it began.
    assert found.split not in ALONE.values() and found.score > 1 - 0.05**2 - 0.1**2 - 0.01 / 36


def test_the_plot_is_of_all_trials_and_its_front_is_of_those_that_none_betters(tmp_path: Path) -> None:
    points = [(1.0, 0.5), (0.5, 0.5), (0.7, 0.4), (0.9, 0.8), (0.5, 0.2)]
    assert plot.front(points) == [(0.5, 0.5), (0.9, 0.8)]
    trials = walked(tmp_path, 8, [])
    chosen = best(trials)
    assert chosen is not None
    picture = plot.draw(trials, chosen, {"latency": 4.0}, "latency", "small")
    assert picture[:8] == b"\x89PNG\r\n\x1a\n"


def test_times_are_read() -> None:
    assert [duration_of(text) for text in ("90s", "1.5min", "2 h")] == [90, 90, 7200]
    for text in ("30", "0s", "half an hour", "-3min"):
        with pytest.raises(UserError, match="is not a time such as 90s, 30min or 2h"):
            duration_of(text)


def test_a_search_writes_again_over_what_searches_wrote_and_nothing_else(tmp_path: Path) -> None:
    bundle, folder = tmp_path / "cat.fick", tmp_path / "written"
    beside = Beside(bundle, folder)
    for data in (b"first", b"second"):
        beside.write(beside.recipe, data)
    assert Beside(bundle, folder).recipe.read_bytes() == b"second"
    beside.picture.write_bytes(b"a cat")
    with pytest.raises(UserError, match=r"cat\.png: it is there, and not as --within left it"):
        Beside(bundle, folder)
    beside.picture.unlink()
    beside.recipe.write_bytes(b"second, and distil")
    with pytest.raises(UserError, match=r"cat\.toml: it is there"):
        beside.write(beside.recipe, b"third")
    assert beside.recipe.read_bytes() == b"second, and distil"
    with pytest.raises(UserError, match=r"give the bundle a name that ends in \.fick"):
        Beside(tmp_path / "cat.png", folder)
