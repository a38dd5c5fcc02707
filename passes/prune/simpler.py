"""Simpler ways to choose blocks, which the knapsack has to beat: one after the other until the budget is kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from .study import Study

Policy = Callable[[Study, Mapping[str, float], int], list[int] | None]
"""Of a study, limits by quantity, and a seed: options by index, or None where no more may go and too much is left."""


def greedy(study: Study, limits: Mapping[str, float], seed: int) -> list[int] | None:
    """By loss for what is saved of the first quantity."""
    saved = study.problem.savings[next(iter(limits))]
    return _until_kept(study, limits, study.problem.losses / np.maximum(saved, 1e-300))


def magnitude(study: Study, limits: Mapping[str, float], seed: int) -> list[int] | None:
    """By the mean square of the weights that go: of layers, Li et al. (arXiv 1608.08710) take filters so."""
    return _until_kept(study, limits, study.magnitudes)


def random(study: Study, limits: Mapping[str, float], seed: int) -> list[int] | None:
    """In an order drawn."""
    return _until_kept(
        study, limits, np.random.default_rng(seed).permutation(len(study.options)).astype(float)
    )


POLICIES: dict[str, Policy] = {"greedy": greedy, "magnitude": magnitude, "random": random}


def _until_kept(
    study: Study, limits: Mapping[str, float], order: Sequence[float] | np.ndarray
) -> list[int] | None:
    problem, chosen = study.problem, list[int]()

    def kept() -> bool:
        return all(problem.cost(name, chosen) <= amount for name, amount in limits.items())

    for one in np.argsort(order, kind="stable").tolist():
        if kept():
            return sorted(chosen)
        saves = any(problem.savings[name][one] > 0 for name in limits)
        if saves and problem.allowed([*chosen, one]):
            chosen.append(one)
    return sorted(chosen) if kept() else None
