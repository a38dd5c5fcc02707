"""What work costs: products, cycles, millijoules and bytes, which add up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from .energy import Joules, Meter
from .memory import ARRAY, Timing
from .nonlinear import Task
from .specs import Spec
from .workload import TensorClass


class Cost(NamedTuple):
    """What some work costs. ``busy_cycles`` are those in which the array multiplies, energies are in mJ; bytes that
    cross the pins are by class of tensor.
    """

    macs: float = 0
    cycles: float = 0
    busy_cycles: float = 0
    compute: float = 0.0
    sram: float = 0.0
    dram: float = 0.0
    weights: float = 0
    activations: float = 0
    self_scores: float = 0
    cross_scores: float = 0

    @property
    def energy(self) -> Joules:
        return Joules(self.compute, self.sram, self.dram)

    @property
    def energy_mj(self) -> dict[str, float]:
        """By where it goes, under the names that a report has."""
        return {"compute": self.compute, "sram": self.sram, "dram": self.dram}

    @property
    def ema_bytes(self) -> dict[str, int]:
        """By class of tensor, under the names that a report has."""
        return {str(one): round(getattr(self, one.name.lower())) for one in TensorClass}

    @property
    def array_busy(self) -> float:
        """Share of the time in which the array multiplies."""
        return self.busy_cycles / self.cycles if self.cycles else 0.0

    def summary(self, clock_hz: float) -> dict[str, Any]:
        return {
            "macs": round(self.macs),
            "cycles": round(self.cycles),
            "latency_s": self.cycles / clock_hz,
            "array_busy": self.array_busy,
            "energy_mj": self.energy_mj,
            "ema_bytes": self.ema_bytes,
        }


def total(costs: Iterable[tuple[Cost, float]]) -> Cost:
    """The sum of costs, each so many times."""
    columns = zip(*([part * times for part in cost] for cost, times in costs), strict=True)
    return Cost(*map(sum, columns))


class Prices:
    """Costs of timed tasks on one accelerator; ``dram`` names another table than the spec's.

    Raises UserError for a table that is not known.
    """

    def __init__(self, spec: Spec, dram: str | None = None) -> None:
        self._meter, self._clock_hz = Meter(spec.energy, dram, spec.cores), spec.clock_hz
        self._known: dict[Timing, Cost] = {}

    def of(self, task: Task, timing: Timing) -> Cost:
        """What one run costs; tasks that share a timing share its cost."""
        if timing not in self._known:
            moved, seconds = timing.ema_bytes, timing.cycles / self._clock_hz
            energy = self._meter.price(timing.actions, sum(moved.values()), seconds)
            crossing = (moved.get(one, 0) for one in TensorClass)
            macs, busy = task.operation.macs, timing.busy.get(ARRAY, 0)
            spent = energy.compute, energy.sram, energy.dram
            self._known[timing] = Cost(macs, timing.cycles, busy, *spent, *crossing)
        return self._known[timing]
