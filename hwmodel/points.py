"""What one workload costs on one design after another: totals alone, and nothing timed or added up twice.

Equal chains of operations (``workload.chains``) are counted rather than listed. Times stay from design to design by
the part of the spec that they depend on (``slices.py``), and so do the sums over all chains that depend on the same
parts: what a design shares with an earlier one costs a look-up.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

from ..ir.errors import UserError
from ..ir.rates import Rate
from . import floors
from .cores import Core, chip, core
from .costs import Cost, Prices, total
from .memory import Timing
from .nonlinear import Task
from .slices import Mode, Timings, mode_of, slice_of
from .specs import Spec, Systolic
from .tiled import TiledCore
from .workload import Operation, Workload, chains

Dependencies = tuple[tuple[Mode, bool], ...]

_Run = Callable[[Sequence[Operation]], Iterable[tuple[Task, Timing]]]

MOST_SLICES = 120
"""Slices of a spec whose times are kept, some MB each; sums over them, which are small, stay."""


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

    @property
    def dependencies(self) -> Dependencies:
        """Modes that its operations run in, alone and, where there are several, with another behind."""
        modes: list[Mode] = sorted({mode_of(one.bounds) for one in self.operations})
        return tuple((mode, behind) for mode in modes for behind in (False, True)[: len(self.operations)])


class Points:
    """The totals of an image of ``steps`` calls on design after design."""

    def __init__(self, workload: Workload, steps: int) -> None:
        self._timings = Timings()
        self._sums: dict[Hashable, Totals] = {}
        found: dict[Hashable, _Chain] = {}
        for name, runs in workload.runs(steps).items():
            for operations in chains(workload.variants[name]) if runs else ():
                key = tuple(one.nameless for one in operations)
                chain = found.setdefault(key, _Chain(operations))
                chain.image += runs
                if workload.rates[name] is not Rate.PROMPT:
                    chain.step += runs / steps
        self._chains = list(found.values())
        by_dependencies = sorted(self._chains, key=lambda one: one.dependencies)
        self._groups = [
            (key, list(group)) for key, group in groupby(by_dependencies, key=lambda one: one.dependencies)
        ]

    def totals(self, spec: Spec, dram: str | None = None) -> Totals:
        """Raises UserError as ``estimate.rows`` does."""
        if len(self._timings) > MOST_SLICES:
            self._timings.clear()
        machine, prices = core(spec, self._timings), Prices(spec, dram)
        run = chip(spec, self._timings).run
        try:
            return self._added(spec, machine, prices, run, dram)
        except UserError:
            # Of several operations that do not fit, the first in the program's order is named.
            return _of(prices, run, self._chains)

    def least(self, spec: Spec, dram: str | None = None) -> Totals:
        """No design of this array, clock and memory has totals below these, whatever its buffers (``floors.py``).

        Raises UserError for an operand wider than the core takes.
        """
        machine = core(spec, self._timings)
        if not isinstance(machine, TiledCore):
            return self.totals(spec, dram)
        return self._added(
            spec, machine, Prices(spec, dram), partial(floors.least, machine), dram, sized=False
        )

    def _added(
        self, spec: Spec, machine: Core, prices: Prices, run: _Run, dram: str | None, *, sized: bool = True
    ) -> Totals:
        """The sum over groups of chains, each added up once for all that its times depend on."""
        sums: list[Totals] = []
        for dependencies, group in self._groups:
            told = _told_by(spec, machine, dependencies, sized)
            key: Hashable = sized, spec.clock_hz, spec.energy, dram, dependencies, *told
            if key not in self._sums:
                self._sums[key] = _of(prices, run, group)
            sums.append(self._sums[key])
        return Totals(total((one.step, 1) for one in sums), total((one.image, 1) for one in sums))


def _told_by(spec: Spec, machine: Core, dependencies: Dependencies, sized: bool) -> Iterator[Any]:
    """All of a spec that times of tasks in these modes depend on."""
    if isinstance(spec, Systolic):
        yield spec
        return
    assert isinstance(machine, TiledCore)
    for one in dependencies:
        yield slice_of(spec, machine.interface, *one, sized=sized)


def _of(prices: Prices, run: _Run, group: Iterable[_Chain]) -> Totals:
    costs = [(prices.of(task, timing), chain) for chain in group for task, timing in run(chain.operations)]
    return Totals(
        total((cost, chain.step) for cost, chain in costs),
        total((cost, chain.image) for cost, chain in costs),
    )
