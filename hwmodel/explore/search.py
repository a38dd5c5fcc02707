"""The search: rounds of designs, each chosen by what the rounds before it found.

    grid      every design, block after block of those that differ in buffers alone
    random    a sample of the grid
    nsga2, nsga3, tpe    what Optuna's samplers ask for, a generation a round

A round's chunks are walked side by side, each from the front that the round began with. So what is timed, and the
front, follow from the problem, the method, the seed and the number of designs, whoever does the work; and a run that
was cut short goes the same way again, past what its storage has.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal, get_args

from ...ir.errors import UserError
from .front import Costs, Front, hypervolume
from .problem import Outcome, Problem
from .storage import Storage
from .workers import Chunk, Walk

Method = Literal["grid", "random", "nsga2", "nsga3", "tpe"]
METHODS: tuple[Method, ...] = get_args(Method)

CHUNK = 256
"""Designs that one worker takes at a time, at most: no more are lost when it is killed."""

ROUND = 8
"""Chunks of a grid's round."""

GENERATION = 64
"""Designs that a sampler is asked for before it is told what they cost."""

LARGEST_GRID = 50_000
"""More designs than that are sampled unless a grid is asked for."""

BROKEN = 1e6
"""By how much a design that does not fit breaks its limits."""


def method_of(name: str | None, problem: Problem) -> Method:
    """By name; without one a grid if the space is not too large. Raises UserError for one that is not known."""
    if name is None:
        return "grid" if problem.space.size <= LARGEST_GRID else "nsga2"
    for one in METHODS:
        if one == name:
            return one
    raise UserError(f"--method {name!r} should be one of {', '.join(METHODS)}.")


@dataclass
class Found:
    """What a search knows: outcomes by number, in the order of rounds, and the front of those that keep to limits."""

    problem: Problem
    outcomes: dict[int, Outcome] = field(default_factory=dict[int, Outcome])
    front: Front = field(default_factory=Front)
    reference: Costs | None = None
    ideal: Costs | None = None

    def take(self, outcomes: Sequence[Outcome]) -> None:
        for one in outcomes:
            self.outcomes[one.number] = one
            if one.status == "evaluated" and self.problem.feasible(one.measures):
                self.front.add(one.number, self.problem.costs(one.measures))

    def frame(self) -> None:
        """Fixes the box that hypervolumes are shares of: a tenth beyond what was found by then, from the best of it."""
        costs = [
            self.problem.costs(one.measures)
            for one in self.evaluated()
            if self.problem.feasible(one.measures)
        ]
        if self.reference is None and costs:
            worst, best = (tuple(map(pick, zip(*costs, strict=True))) for pick in (max, min))
            self.reference = tuple(most + 0.1 * (abs(most) or 1.0) for most in worst)
            self.ideal = tuple(least - 0.5 * (abs(least) or 1.0) for least in best)

    @property
    def hypervolume(self) -> float:
        if self.reference is None or self.ideal is None:
            return 0.0
        return hypervolume(self.front.costs.values(), self.reference, self.ideal)

    def evaluated(self) -> list[Outcome]:
        return [one for one in self.outcomes.values() if one.status == "evaluated"]

    def counts(self) -> dict[str, int]:
        found = {"evaluated": 0, "misfit": 0, "excluded": 0, "beaten": 0}
        for one in self.outcomes.values():
            found[one.status] += 1
        return found


Progress = Callable[[Found, int, int], None]
"""Told what is found, designs done and designs in all."""


def search(
    problem: Problem,
    walk: Walk,
    storage: Storage | None,
    *,
    method: Method,
    count: int,
    seed: int,
    progress: Progress,
) -> Found:
    """``count`` designs at most, or all of a grid.

    Raises UserError if no design keeps to the limits, naming what excludes them.
    """
    known = storage.load() if storage else {}
    found = Found(problem)
    ask = (
        _Grid(problem, count, seed, method)
        if method in ("grid", "random")
        else _Sampler(problem, count, seed, method)
    )
    while chunks := ask.chunks(found):
        _walk_round(found, walk, storage, known, chunks, progress, ask.total)
        found.frame()
        ask.tell(found)
    if not found.front:
        raise UserError(excluded(found))
    return found


def _walk_round(
    found: Found,
    walk: Walk,
    storage: Storage | None,
    known: dict[int, Outcome],
    chunks: Sequence[Sequence[int]],
    progress: Progress,
    total: int,
) -> None:
    front, done = Front(found.front.costs.items()), dict[int, Sequence[Outcome]]()
    place_of = {numbers[0]: place for place, numbers in enumerate(chunks)}
    before = len(found.outcomes)
    given = [
        Chunk(tuple(numbers), {one: known[one] for one in numbers if one in known}, front)
        for numbers in chunks
    ]
    for outcomes in walk(given):
        fresh = [one for one in outcomes if one.number not in known and one.status in ("evaluated", "misfit")]
        timed = [one for one in fresh if one.measures]
        if storage is not None:
            storage.save(timed)
        known |= {one.number: one for one in timed}
        done[place_of[outcomes[0].number]] = outcomes
        progress(found, before + sum(map(len, done.values())), total)
    for place in sorted(done):
        found.take(done[place])


class _Grid:
    """Blocks of designs in the order of their numbers; of a sample, the same."""

    def __init__(self, problem: Problem, count: int, seed: int, method: Method) -> None:
        size, block = problem.space.size, problem.space.block
        numbers: Sequence[int] = range(size)
        if method == "random" and count < size:
            numbers = sorted(random.Random(seed).sample(range(size), count))
        self.total = len(numbers)
        self._chunks = list(_chunks(numbers, block))

    def chunks(self, found: Found) -> list[Sequence[int]]:
        taken, self._chunks = self._chunks[:ROUND], self._chunks[ROUND:]
        return taken

    def tell(self, found: Found) -> None:
        pass


def _chunks(numbers: Sequence[int], block: int) -> Iterator[Sequence[int]]:
    """Numbers in order, those of a block together as far as that goes."""
    waiting: list[int] = []
    for _, some in groupby(numbers, key=lambda number: number // block):
        for number in some:
            waiting.append(number)
            if len(waiting) == CHUNK:
                yield waiting
                waiting = []
        # Blocks that are small share a chunk.
        if len(waiting) > CHUNK // 2:
            yield waiting
            waiting = []
    if waiting:
        yield waiting


class _Sampler:
    """Optuna's choice, in memory: what is known of a design is told again rather than found again."""

    def __init__(self, problem: Problem, count: int, seed: int, method: Method) -> None:
        import optuna
        from optuna.study import StudyDirection

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._problem, self.total = problem, count
        self._left, self._asked = count, dict[int, list[Any]]()
        samplers: Mapping[str, Callable[[], Any]] = {
            "nsga2": lambda: optuna.samplers.NSGAIISampler(population_size=GENERATION, seed=seed),
            "nsga3": lambda: optuna.samplers.NSGAIIISampler(population_size=GENERATION, seed=seed),
            "tpe": lambda: optuna.samplers.TPESampler(
                n_startup_trials=GENERATION, seed=seed, multivariate=True
            ),
        }
        self._study = optuna.create_study(
            directions=[StudyDirection.MINIMIZE] * len(problem.objectives), sampler=samplers[method]()
        )
        self._axes: dict[str, Any] = {
            axis.name: optuna.distributions.IntDistribution(0, len(axis.labels) - 1)
            for axis in problem.space.axes
        }

    def chunks(self, found: Found) -> list[Sequence[int]]:
        """A generation, less the designs that were asked for before."""
        self._asked = {}
        while self._left and not self._asked:
            for _ in range(min(self._left, GENERATION)):
                trial = self._study.ask(self._axes)
                number = self._problem.space.number([trial.params[name] for name in self._axes])
                self._asked.setdefault(number, []).append(trial)
                self._left -= 1
            if all(number in found.outcomes for number in self._asked):
                self.tell(found)
                self._asked = {}
        fresh = sorted(number for number in self._asked if number not in found.outcomes)
        return [fresh[start : start + GENERATION // 4] for start in range(0, len(fresh), GENERATION // 4)]

    def tell(self, found: Found) -> None:
        for number, trials in self._asked.items():
            outcome = found.outcomes[number]
            excesses = self._problem.excesses(outcome.measures)
            fits = outcome.status != "misfit"
            costs = [
                one.cost(outcome.measures.get(one.column, 0.0)) if fits else BROKEN
                for one in self._problem.objectives
            ]
            for trial in trials:
                trial.set_constraint("fits", 0.0 if fits else BROKEN)
                for limit, excess in zip(self._problem.space.limits, excesses, strict=True):
                    trial.set_constraint(limit.measure.column, excess)
                self._study.tell(trial, costs)


def excluded(found: Found) -> str:
    """Why no design is left: the limit that none keeps to, or how many break each."""
    problem, outcomes = found.problem, list(found.outcomes.values())
    misfits = [one for one in outcomes if one.status == "misfit"]
    head = f"none of the {len(outcomes):,} designs keeps to all constraints"
    if len(misfits) == len(outcomes):
        return f"none of the {len(outcomes):,} designs fits the model: {misfits[0].reason}"
    rest = [one for one in outcomes if one.status != "misfit"]
    kept = [0] * len(problem.space.limits)
    for one in rest:
        for place, excess in enumerate(problem.excesses(one.measures)):
            kept[place] += excess <= 0
    for limit, count in zip(problem.space.limits, kept, strict=True):
        if not count:
            costs = [limit.measure.cost(one.measures[limit.measure.column]) for one in rest]
            best = limit.measure.cost(min(costs))
            return f"{head}: {limit} is met by none, and the nearest has {best:,g}; loosen it or widen the space."
    counts = ", ".join(
        f"{limit} by {count:,}" for limit, count in zip(problem.space.limits, kept, strict=True)
    )
    rules = f"; {len(misfits):,} do not fit the model" if misfits else ""
    return f"{head}, though each is met by some ({counts}{rules}); loosen one or widen the space."
