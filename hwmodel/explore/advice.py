"""What holds a design up, and which neighbour of it betters it at the least price."""

from __future__ import annotations

from typing import Any

from ...ir.errors import UserError
from ..estimate import estimate
from ..hardware import Hardware
from .problem import Evaluator, Problem

RESOURCES = ("dsp", "bram36", "lut", "area_mm2")


def advice(problem: Problem, number: int) -> dict[str, Any]:
    """``bound``: shares of an image's time by what binds; ``bind``: the largest of them. ``neighbours``: designs that
    differ in one axis by one place and better the first objective, those first that gain most for what they take
    besides. ``price`` is the largest share by which a resource, or an objective, grows.

    Raises UserError for a number that is no design, or for one that a layer does not fit on.
    """
    space, objective = problem.space, problem.objectives[0]
    if not 0 <= number < space.size:
        raise UserError(f"design {number} is none of the space's; they are numbered 0 to {space.size - 1:,}.")
    evaluator = Evaluator(problem)
    spec, software = space.spec(number), space.software_of(number)
    own = evaluator.measures(spec, software)
    bound, units = _bound(problem, number)
    better: list[dict[str, Any]] = []
    for other in space.neighbours(number):
        try:
            measures = evaluator.measures(space.spec(other), space.software_of(other))
        except UserError:
            continue
        mine, theirs = objective.cost(own[objective.column]), objective.cost(measures[objective.column])
        gain = (mine - theirs) / (abs(mine) or 1.0)
        # Below a part in a million nothing was bettered.
        if gain > 1e-6 and problem.feasible(measures):
            labels = space.labels(other)
            changed = {axis: label for axis, label in labels.items() if label != space.labels(number)[axis]}
            compared = {
                *(name for name in RESOURCES if name in own),
                *(one.column for one in problem.objectives[1:]),
            }
            growth = {
                name: (_cost(name, problem, measures) - _cost(name, problem, own)) / (abs(own[name]) or 1.0)
                for name in sorted(compared)
            }
            better.append(
                {
                    "design": other,
                    "changes": changed,
                    "gain": gain,
                    "price": max(growth.values(), default=0.0),
                }
                | {"measures": measures, "growth": growth}
            )
    better.sort(key=_worth)
    return {
        "design": number,
        "labels": space.labels(number),
        "measures": own,
        "objective": objective.column,
        "bound": bound,
        "bind": max(bound, key=lambda name: bound[name]),
        "units": units,
        "neighbours": better,
    }


def _worth(one: dict[str, Any]) -> tuple[bool, float, int]:
    """What costs nothing comes first, then what gains most for its price."""
    free = one["price"] <= 0
    return not free, -one["gain"] if free else -one["gain"] / one["price"], one["design"]


def _cost(column: str, problem: Problem, measures: dict[str, float]) -> float:
    known = {one.column: one for one in problem.objectives}
    return known[column].cost(measures[column]) if column in known else measures[column]


def _bound(problem: Problem, number: int) -> tuple[dict[str, float], dict[str, float]]:
    """Shares of an image's time by what binds it, and how much of the time each unit works."""
    space = problem.space
    spec = space.spec(number)
    workload = problem.workloads[space.software_of(number), spec.bits]
    facts = estimate(workload, Hardware(spec, {}), problem.steps, problem.dram)
    spent: dict[str, float] = {}
    busy: dict[str, float] = {}
    for one in facts["operators"]:
        spent[one["bound"]] = spent.get(one["bound"], 0.0) + one["cycles"] * one["runs"]
        for unit, cycles in one["busy_cycles"].items():
            busy[unit] = busy.get(unit, 0.0) + cycles * one["runs"]
    whole = sum(spent.values()) or 1.0
    return {name: cycles / whole for name, cycles in spent.items()}, {
        name: cycles / whole for name, cycles in busy.items()
    }
