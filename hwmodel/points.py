"""What one workload costs on one design after another: totals alone, and nothing timed twice.

Equal chains of operations (``workload.chains``) are counted rather than listed, and times stay from design to design
by the part of the spec that they depend on (``slices.py``).
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from ..ir.rates import Rate
from .cores import core
from .costs import Cost, Prices, total
from .slices import Timings
from .specs import Spec
from .workload import Operation, Workload, chains


@dataclass(frozen=True)
class Totals:
    """Costs of the mean step and of an image, as ``estimate`` has them up to rounding."""

    step: Cost
    image: Cost


@dataclass
class _Chain:
    """Operations, and how often the mean step and an image have their like."""

    operations: tuple[Operation, ...]
    step: float = 0
    image: int = 0


class Points:
    """The totals of an image of ``steps`` calls on design after design."""

    def __init__(self, workload: Workload, steps: int) -> None:
        self._timings = Timings(dict)
        found: dict[Hashable, _Chain] = {}
        for name, runs in workload.runs(steps).items():
            for operations in chains(workload.variants[name]) if runs else ():
                key = tuple(one.nameless for one in operations)
                chain = found.setdefault(key, _Chain(operations))
                chain.image += runs
                if workload.rates[name] is not Rate.PROMPT:
                    chain.step += runs / steps
        self._chains = list(found.values())

    def totals(self, spec: Spec, dram: str | None = None) -> Totals:
        """Raises UserError as ``estimate.rows`` does."""
        machine, prices = core(spec, self._timings), Prices(spec, dram)
        costs = [
            (prices.of(task, timing), chain)
            for chain in self._chains
            for task, timing in machine.run(chain.operations)
        ]
        return Totals(
            total((cost, chain.step) for cost, chain in costs),
            total((cost, chain.image) for cost, chain in costs),
        )
