"""Error against cost, for the optimiser and for the simpler ways to spend bits that it has to beat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..budget import Limit
from .study import Assignment, Outcome, Study


@dataclass(frozen=True)
class Point:
    """What a policy reaches at a setting: a share of the float program's cost, a format, or decibels.

    ``cost`` is the amount of every quantity in its unit; see `Outcome` for the rest.
    """

    policy: str
    setting: str
    cost: Mapping[str, float]
    predicted_error: float
    output_error: float
    weight_bits: float
    conversions: int

    @staticmethod
    def of(policy: str, setting: str, outcome: Outcome) -> Point:
        return Point(
            policy,
            setting,
            {name: outcome.cost.total(name) for name in outcome.cost.by_node},
            outcome.predicted_error,
            outcome.output_error,
            outcome.weight_bits,
            outcome.conversions,
        )


def pareto(study: Study, quantity: str, points: int = 9) -> list[Point]:
    """What each policy of ``settings`` reaches. Sensitivities and tables of costs are measured once for all; each
    point is a program measured and costed.
    """
    return [
        Point.of(policy, setting, study.outcome(assignment))
        for policy, setting, assignment in settings(study, quantity, points)
    ]


def settings(study: Study, quantity: str, points: int = 9) -> Iterator[tuple[str, str, Assignment]]:
    """Policies, what each is told, and what comes of it: uniform formats, isolated PSNR above ``points`` thresholds,
    and the optimiser with what each of those costs, of ``quantity``, as its budget. No policy gives the same twice.
    """
    budgets = set[float]()
    for policy in (_uniform, _thresholds):
        seen = list[Assignment]()
        for setting, assignment in policy(study, points):
            if assignment not in seen:
                seen.append(assignment)
                budgets.add(study.cost(assignment).total(quantity))
                yield policy.__name__.strip("_"), setting, assignment
    seen = list[Assignment]()
    for budget in sorted(budgets):
        assignment = study.within([Limit(quantity, budget, relative=False)])
        if assignment not in seen:
            seen.append(assignment)
            yield "optimised", f"{budget / study.plain.total(quantity):.3g}x", assignment


def _uniform(study: Study, points: int) -> Iterator[tuple[str, Assignment]]:
    for name in study.formats:
        yield name, study.uniform(name)


def _thresholds(study: Study, points: int) -> Iterator[tuple[str, Assignment]]:
    """Evenly among the levels that there are."""
    levels = study.isolated_psnr_db[:, [name != "float32" for name in study.formats]]
    shares: list[float] = np.linspace(0, 1, points).tolist() if levels.size else []
    for share in shares:
        level = float(np.quantile(levels, share))
        yield f"{level:.3g} dB", study.above(level)
