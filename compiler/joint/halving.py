"""A search that gives most of its time to what does well: a trial is judged by few pictures, and those that are among
the best of their kind by three times as many, and so on.

Asynchronous successive halving (Li et al., arXiv 1810.05934), by Optuna, whose tree of Parzen estimators proposes the
splits after the first. A trial's proposal follows from the seed and the trials before it alone, and what is known of a
trial is stored as soon as it is known, so that a search that was killed goes the way that it would have gone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...hwmodel.explore.storage import database
from ...ir.errors import UserError
from ...ir.program import Program
from .split import ALONE, REUSE, Made, Split
from .written import tables

FACTOR = 3
"""Pictures of a rung, over those of the one before it; and one of so many trials goes on."""

STEP = 0.05
"""Of shares that are proposed."""

MOST_REPEATS = 20
"""Proposals that were tried before, one after the other, at which a search has come to its end."""

FIRST = (
    *ALONE.values(),
    Split(0.0, 0.5, "schedule-reuse"),
    Split(0.35, 0.5, "schedule-reuse"),
    Split(0.35, 0.5, "deep-cache"),
)
"""What is tried before anything is known: each pass by itself, the two that take no weight out, and all in equal
parts.
"""


class OutOfTime(Exception):
    """Raised by ``Clock.check``, wherever a trial is."""


class Clock:
    """``limit_s`` for all runs of a search together, of which earlier ones took ``spent_s``."""

    def __init__(self, limit_s: float, tell: Callable[[float, float], None]) -> None:
        self._limit_s, self._tell = limit_s, tell
        self.begin(0.0)

    def begin(self, spent_s: float) -> None:
        self._started, self._before_s = time.monotonic(), spent_s

    @property
    def spent_s(self) -> float:
        return self._before_s + time.monotonic() - self._started

    def check(self) -> None:
        """Raises OutOfTime."""
        spent_s = self.spent_s
        if spent_s > self._limit_s:
            raise OutOfTime
        self._tell(min(spent_s, self._limit_s), self._limit_s)


@dataclass(frozen=True)
class Rung:
    """Pictures by which a program is judged, and how: measures of which more is better, in 0..1, by name."""

    pictures: int
    judge: Callable[[Program], Mapping[str, float]]


@dataclass(frozen=True)
class Trial:
    """A split that was tried. ``measures`` are by pictures; ``reason`` says why there is no program, where there is
    none.
    """

    number: int
    split: Split
    recipe: str
    cost: Mapping[str, float]
    measures: Mapping[int, Mapping[str, float]]
    reason: str

    @property
    def pictures(self) -> int:
        """That it was judged by at last."""
        return max(self.measures, default=0)

    @property
    def score(self) -> float:
        return score(self.measures[self.pictures])


def score(measures: Mapping[str, float]) -> float:
    """The mean of all measures."""
    return sum(measures.values()) / len(measures)


def best(trials: Sequence[Trial]) -> Trial | None:
    """Of those that were judged by most pictures the one of the highest score."""
    judged = [one for one in trials if one.measures]
    return max(judged, key=lambda one: (one.pictures, one.score, -one.number), default=None)


def search(
    storage: Path,
    make: Callable[[Split], Made],
    rungs: Sequence[Rung],
    clock: Clock,
    seed: int,
    progress: Callable[[Sequence[Trial]], None],
) -> list[Trial]:
    """All trials, which lie in ``storage``, when the time is up. Raises UserError if the storage cannot be reached."""
    study = _Study(storage, seed)
    clock.begin(study.spent_s)
    repeats = 0
    while repeats < MOST_REPEATS:
        progress(study.trials())
        try:
            clock.check()
            trial = study.next()
            repeats = repeats + 1 if study.repeated(trial) else 0
            if not repeats:
                _walk(study, trial, make, rungs)
        except OutOfTime:
            break
        finally:
            study.spend(clock.spent_s)
    return study.trials()


def _walk(study: _Study, trial: Any, make: Callable[[Split], Made], rungs: Sequence[Rung]) -> None:
    """From rung to rung, past those where it has been."""
    known = study.measures(trial)
    try:
        made = make(study.split(trial))
    except UserError as error:
        study.refuse(trial, str(error))
        return
    trial.set_user_attr("cost", dict(made.cost))
    trial.set_user_attr("recipe", tables(made.passes))
    for index, rung in enumerate(rungs):
        if rung.pictures not in known:
            found = dict(rung.judge(made.program))
            trial.report(score(found), FACTOR**index)
            known[rung.pictures] = found
            trial.set_user_attr("measures", {str(count): one for count, one in known.items()})
        if rung is not rungs[-1] and trial.should_prune():
            study.drop(trial)
            return
    study.close(trial, score(known[rungs[-1].pictures]))


class _Study:
    """Optuna's: splits as parameters, scores by rungs, all else in attributes."""

    def __init__(self, storage: Path, seed: int) -> None:
        import optuna

        self._optuna, self._seed = optuna, seed
        self._study: Any = optuna.create_study(
            study_name="joint", storage=database(f"sqlite:///{storage}"), direction="maximize", load_if_exists=True,
            pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=FACTOR),
        )  # fmt: skip

    @property
    def spent_s(self) -> float:
        """By earlier runs, less what a trial had taken when one was killed."""
        return self._study.user_attrs.get("spent_s", 0.0)

    def spend(self, total_s: float) -> None:
        self._study.set_user_attr("spent_s", total_s)

    def next(self) -> Any:
        """The trial that was not ended, or else a new one."""
        states = self._optuna.trial.TrialState
        trials = self._all()
        running = [one for one in trials if one.state == states.RUNNING]
        number = running[0].number if running else sum(one.state != states.WAITING for one in trials)
        self._study.sampler = self._optuna.samplers.TPESampler(
            seed=self._seed * 1_000_003 + number, n_startup_trials=2 * len(FIRST)
        )
        if running:
            return self._optuna.trial.Trial(self._study, running[0]._trial_id)
        if number == len(trials) and number < len(FIRST):
            self._study.enqueue_trial(vars(FIRST[number]))
        return self._study.ask()

    def split(self, trial: Any) -> Split:
        # Hundredths, not sums of binary fractions.
        removed, rounded = (
            round(trial.suggest_float(name, 0.0, 1.0, step=STEP), 2) for name in ("removed", "rounded")
        )
        return Split(removed, rounded, trial.suggest_categorical("reuse", list(REUSE)))

    def repeated(self, trial: Any) -> bool:
        """Whether the same was tried before; it is ended then."""
        split = self.split(trial)
        before = [one for one in self.trials() if one.number < trial.number and one.split == split]
        if before:
            self.refuse(trial, f"trial {before[0].number} was the same")
        return bool(before)

    def measures(self, trial: Any) -> dict[int, dict[str, float]]:
        return {int(count): found for count, found in trial.user_attrs.get("measures", {}).items()}

    def refuse(self, trial: Any, reason: str) -> None:
        trial.set_user_attr("reason", reason)
        self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    def drop(self, trial: Any) -> None:
        self._study.tell(trial, state=self._optuna.trial.TrialState.PRUNED)

    def close(self, trial: Any, value: float) -> None:
        self._study.tell(trial, value)

    def trials(self) -> list[Trial]:
        """All that were proposed."""
        return [
            Trial(
                one.number,
                Split(round(one.params["removed"], 2), round(one.params["rounded"], 2), one.params["reuse"]),
                one.user_attrs.get("recipe", ""),
                one.user_attrs.get("cost", {}),
                self.measures(one),
                one.user_attrs.get("reason", ""),
            )
            for one in self._all()
            if len(one.params) == 3
        ]

    def _all(self) -> list[Any]:
        return self._study.get_trials(deepcopy=False)
