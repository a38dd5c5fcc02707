"""Error against cost, for the optimiser and for the simpler ways to spend bits that it has to beat."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ...ir.errors import UserError
from .budget import Limit
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
    """What each policy reaches: uniform formats, isolated PSNR above ``points`` thresholds, and the optimiser with as
    many budgets of ``quantity``, from the least that can be reached to the float program's.

    Sensitivities and tables of costs are measured once for all; each point is a program measured and costed. Points of
    a policy with the same formats are listed once.
    """
    found = list[Point]()
    for policy in (_uniform, _thresholds, _optimised):
        seen = list[Assignment]()
        for setting, assignment in policy(study, quantity, points):
            if assignment not in seen:
                seen.append(assignment)
                found.append(Point.of(policy.__name__.strip("_"), setting, study.outcome(assignment)))
    return found


def _uniform(study: Study, quantity: str, points: int) -> Iterator[tuple[str, Assignment]]:
    for name in study.formats:
        yield name, study.uniform(name)


def _thresholds(study: Study, quantity: str, points: int) -> Iterator[tuple[str, Assignment]]:
    """Evenly among the levels that there are."""
    levels = study.isolated_psnr_db[:, [name != "float32" for name in study.formats]]
    shares: list[float] = np.linspace(0, 1, points).tolist() if levels.size else []
    for share in shares:
        level = float(np.quantile(levels, share))
        yield f"{level:.3g} dB", study.above(level)


def _optimised(study: Study, quantity: str, points: int) -> Iterator[tuple[str, Assignment]]:
    least = study.least(quantity) / study.plain.total(quantity)
    shares: list[float] = np.linspace(min(least, 1.0), 1.0, points).tolist()
    for share in shares:
        try:
            yield f"{share:.3g}x", study.within([Limit(quantity, share, relative=True)])
        except UserError:
            continue  # between the least of all and what is next to it there may be nothing
