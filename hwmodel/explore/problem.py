"""What is searched: a space of designs, the programs that they run, and what they are compared by.

A problem is plain data that travels to other processes. What a design costs depends on nothing else.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal

from ...ir.errors import UserError
from ..area import resources
from ..points import Points, Totals
from ..specs import Bits, Spec
from ..workload import Workload
from .front import Costs, Front
from .measures import Measure
from .space import Space

ROUNDING = 1 - 1e-9
"""A bound is a sum in another order than what it bounds."""

Status = Literal["evaluated", "misfit", "excluded", "beaten"]


@dataclass(frozen=True)
class Outcome:
    """What became of a design.

    ``evaluated``  ``measures`` are its own
    ``misfit``     a layer does not fit its buffers, or an operand its array: ``reason``
    ``excluded``   it breaks a limit of what nothing has to be timed for, or whose floor does: ``measures`` are floors
    ``beaten``     no buffers could make it better than a design that is known: ``measures`` are floors
    """

    number: int
    status: Status
    measures: Mapping[str, float] = field(default_factory=dict[str, float])
    reason: str = ""


@dataclass(frozen=True)
class Problem:
    """``workloads`` by software and by the widths that a design has for what no pass quantised; ``quality`` by
    software, if it was measured.
    """

    space: Space
    workloads: Mapping[tuple[str, Bits], Workload]
    steps: int
    objectives: tuple[Measure, ...]
    quality: Mapping[str, float] = field(default_factory=dict[str, float])
    dram: str | None = None

    def costs(self, measures: Mapping[str, float]) -> Costs:
        return tuple(one.cost(measures[one.column]) for one in self.objectives)

    def excesses(self, measures: Mapping[str, float]) -> tuple[float, ...]:
        """By what share each limit is broken that something is known of: not above 0 if it is kept."""
        return tuple(one.excess(measures.get(one.measure.column, one.value)) for one in self.space.limits)

    def feasible(self, measures: Mapping[str, float]) -> bool:
        return all(excess <= 0 for excess in self.excesses(measures))

    def check(self) -> None:
        """Raises UserError for an objective or a limit of what designs of this kind have not."""
        known = _resources(self.space.hardware.spec)
        wanted = [*self.objectives, *(limit.measure for limit in self.space.limits)]
        for one in wanted:
            if one.name == "quality" and len(self.quality) < len(self.space.software):
                lacking = next(label for label in self.space.software if label not in self.quality)
                raise UserError(
                    f"software {lacking!r} has no measured quality, so quality can be no objective and no limit; "
                    "measure it and give its row of the table, or leave quality out."
                )
            if one.exact and one.name != "quality" and one.column not in known:
                raise UserError(
                    f"{self.space.hardware.spec.name} has no {one.column}; of a design like it "
                    f"{', '.join(known) or 'no resource'} is known."
                )

    def pack(self) -> bytes:
        """For another process."""
        return zlib.compress(pickle.dumps(self), 1)

    @cached_property
    def facts(self) -> dict[str, Any]:
        """All that a design's measures follow from besides its number and fick itself."""
        return {
            "hardware": self.space.hardware.spec.model_dump(mode="json"),
            "axes": {
                axis.name: {str(label): dict(setting) for label, setting in axis.settings.items()}
                for axis in self.space.axes
            },
            "programs": {f"{name} {bits!r}": digest(one) for (name, bits), one in self.workloads.items()},
            "quality": dict(self.quality),
            "steps": self.steps,
            "dram": self.dram,
        }


def digest(workload: Workload) -> str:
    """Of what a program asks of hardware: sizes, widths, classes and how often."""
    content = (
        {name: [one.nameless for one in operations] for name, operations in workload.variants.items()},
        dict(workload.rates),
        dict(workload.schedule),
    )
    return hashlib.sha256(repr(content).encode()).hexdigest()[:32]


def digest_of_facts(facts: Any) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


class Evaluator:
    """Measures design after design of a problem; what they share is timed once."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._points: dict[tuple[str, Bits], Points] = {}

    def walk(self, numbers: Sequence[int], known: Mapping[int, Outcome], front: Front) -> Iterator[Outcome]:
        """What becomes of each design in turn. None is timed that is ``known`` or that the front, which grows on the
        way, cannot be bettered by.

        Raises UserError for a mistake that all designs share, such as an unknown table of energies.
        """
        grown = Front(front.costs.items())
        for number in numbers:
            outcome = self._outcome(number, known.get(number), grown)
            if outcome.status == "evaluated" and self.problem.feasible(outcome.measures):
                grown.add(number, self.problem.costs(outcome.measures))
            yield outcome

    def _outcome(self, number: int, known: Outcome | None, front: Front) -> Outcome:
        problem = self.problem
        spec, software = problem.space.spec(number), problem.space.software_of(number)
        exact = self._exact(spec, software)
        if not problem.feasible(exact):
            return Outcome(number, "excluded", exact)
        points = self._points_of(software, spec.bits)
        try:
            floors = exact | _measured(points.least(spec, problem.dram), spec, ROUNDING)
        except UserError as error:
            return Outcome(number, "misfit", exact, str(error))
        if not problem.feasible(floors):
            return Outcome(number, "excluded", floors)
        if front.beats(tuple(one.cost(floors.get(one.column, 0.0)) for one in problem.objectives)):
            return Outcome(number, "beaten", floors)
        if known is not None:
            return known
        try:
            return Outcome(number, "evaluated", self.measures(spec, software))
        except UserError as error:
            return Outcome(number, "misfit", floors, str(error))

    def measures(self, spec: Spec, software: str) -> dict[str, float]:
        """All that is known of a design. Raises UserError for one that a layer does not fit on."""
        totals = self._points_of(software, spec.bits).totals(spec, self.problem.dram)
        found = self._exact(spec, software) | _measured(totals, spec, 1.0)
        return found | {"power_w": found["core_energy_mj"] * 1e-3 / found["step_latency_s"]}

    def _exact(self, spec: Spec, software: str) -> dict[str, float]:
        quality = self.problem.quality
        return _resources(spec) | ({"quality": quality[software]} if software in quality else {})

    def _points_of(self, software: str, bits: Bits) -> Points:
        key = software, bits
        if key not in self._points:
            self._points[key] = Points(self.problem.workloads[key], self.problem.steps)
        return self._points[key]


def _resources(spec: Spec) -> dict[str, float]:
    return {name: float(sum(parts.values())) for name, parts in resources(spec).items()}


def _measured(totals: Totals, spec: Spec, share: float) -> dict[str, float]:
    step = totals.step
    found = {
        "step_latency_s": step.cycles / spec.clock_hz,
        "image_latency_s": totals.image.cycles / spec.clock_hz,
        "step_energy_mj": step.energy.total,
        "core_energy_mj": step.energy.core,
        "ema_bytes": float(sum(step.ema_bytes.values())),
    }
    return {name: share * value for name, value in found.items()}
