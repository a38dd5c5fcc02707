"""A core that works tile by tile: which operations share it, how each is cut, what it takes and what it does.

An array in one of two modes (products, convolutions) is the first stage, the nonlinear unit behind it the second
(``nonlinear.py``); tiles ping-pong between loading, computing and storing. What a cycle of the array does is the
core's own: ``systolic.py``, ``bitslice.py``.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

from . import convolution, matmul
from .actions import Actions
from .fitting import Misfit, Plan
from .in_order import InOrder
from .memory import ARRAY, STREAMING, VECTORS, Interface, Timing
from .nonlinear import Drain, Task, chunks, standalone
from .pipeline import Step
from .slices import Timings, Way, mode_of, slice_of
from .specs import Stream, Tiled
from .workload import Convolution, Gemm, Operation, Vectors

Choice = matmul.Tiling | int
"""How a task is cut: a product's tiling, outputs of a convolution that share a pass, or elements at a time."""


class TiledCore(InOrder):
    """Times operations on a core; those of equal shape once, and those that ``timings`` has not at all."""

    fill_cycles: int
    sum_bits: int

    def __init__(self, spec: Tiled, timings: Timings | None = None) -> None:
        self.spec, self.name = spec, spec.name
        self.interface = Interface(spec.memory, spec.clock_hz, spec.cores)
        known = timings if timings is not None else Timings()
        self._times = cache(lambda mode, behind: known.times[slice_of(spec, self.interface, mode, behind)])
        self._ways = cache(
            lambda mode, behind: known.ways[slice_of(spec, self.interface, mode, behind, sized=False)]
        )

    @abstractmethod
    def widths(self, operation: Operation) -> tuple[int, int]:
        """Bits of both operands in the array. Raises UserError for an operand wider than it takes."""

    @abstractmethod
    def slices(self, widths: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        """(width of a slice, how many) of each operand."""

    @abstractmethod
    def product(self, gemm: Gemm, widths: tuple[int, int]) -> matmul.Shape:
        """What a cycle does of a product."""

    @abstractmethod
    def window(self, bounds: Convolution, widths: tuple[int, int]) -> convolution.Shape:
        """What a cycle does of a convolution."""

    def cost(self, timing: Timing) -> float:
        return self.interface.cost(timing)

    def time(self, task: Task) -> Timing:
        """The time of a task, cut in the way that costs least.

        The cost is its cycles and those that the DRAM would take for its bytes alone: traffic is worth saving
        even behind computation. A larger buffer allows all that a smaller one does, so it never costs more.
        Raises Misfit if the task cannot be cut to fit.
        """
        known = self._times(mode_of(task.operation.bounds), task.behind is not None)
        key = task.nameless
        if key not in known:
            known[key] = self._time(task)
        timing = known[key]
        if isinstance(timing, Misfit):
            raise timing.with_traceback(None)
        return timing

    def _time(self, task: Task) -> Timing | Misfit:
        choices, planned = self.ways(task)
        known = self._ways(mode_of(task.operation.bounds), task.behind is not None)
        found, misfits = list[tuple[Way, Plan]](), list[Misfit]()
        for choice in choices:
            try:
                plan = planned(choice)
            except Misfit as misfit:
                misfits.append(misfit)
                continue
            key = task.nameless, choice, plan.form, *plan.slots.values()
            if key not in known:
                known[key] = Way(self.interface.least_cost(plan))
            found.append((known[key], plan))
        return self._cheapest(task, found) if found else misfits[0]

    def _cheapest(self, task: Task, ways: Sequence[tuple[Way, Plan]]) -> Timing:
        """The time of the way that costs least. Those that cannot are not run."""
        best, least = None, math.inf
        for way, plan in sorted(ways, key=lambda one: one[0].least):
            if way.least >= least:
                break
            if way.timing is None:
                timing = self.interface.time(plan)
                way.timing = replace(timing, actions=self._actions(task, plan, timing))
            if (cost := self.interface.cost(way.timing)) < least:
                best, least = way.timing, cost
        assert best is not None
        return best

    def ways(self, task: Task) -> tuple[Iterator[Choice], Callable[[Any], Plan]]:
        """Choices how to cut a task, from those that need least of the buffers, and the plan of one.

        That raises Misfit if a buffer is too small for it.
        """
        spec, bounds = self.spec, task.operation.bounds
        if isinstance(bounds, Vectors):
            return chunks(spec, task), partial(standalone, spec, self.interface, task)
        widths, drain, streams = (
            self.widths(task.operation),
            Drain(spec, self.interface, task),
            spec.memory.streams,
        )
        if isinstance(bounds, Convolution) and not bounds.pointwise:
            window, opening = self.window(bounds, widths), self._opening(task, streams.convolution_weights)
            planned = partial(convolution.plan, spec, drain, opening, bounds, window)
            return convolution.groupings(task, bounds, window), planned
        gemm = bounds.as_gemm()
        product, opening = self.product(gemm, widths), self._opening(task, streams.matmul_weights)
        planned = partial(matmul.plan, spec, drain, opening, gemm, product)
        return matmul.tilings(spec, task, gemm, product), planned

    def _opening(self, task: Task, stream: Stream) -> Sequence[Step]:
        """What comes before all tiles: the small operands of fused work, and the array's fill."""
        constants = self.interface.read_once(stream, task.constants())
        return *constants, Step(ARRAY, self.fill_cycles, "fill")

    def _actions(self, task: Task, plan: Plan, timing: Timing) -> Actions:
        """What a task does. Whatever crosses the pins is written to a buffer or read from it once besides."""
        busy = timing.busy
        passed = sum(busy.get(stage, 0) for stage in (STREAMING, VECTORS))
        elements = round(passed * self.spec.nonlinear.elements_per_cycle)
        cycles = round(busy.get(ARRAY, 0)) - self.fill_cycles
        sram = {buffer: math.ceil(bits * cycles) for buffer, bits in plan.reads.items()}
        wires = sum(sram.values())
        sram["vectors"] = elements * self.spec.buffers.vector_element_bits
        sram["ports"] = 8 * sum(timing.ema_bytes.values())
        macs = task.operation.macs
        if not macs:
            return Actions(elements=elements, sram_bits=sram)
        (first, several), (second, many) = self.slices(self.widths(task.operation))
        pairs = several * many
        return Actions(
            {(first, second): pairs * macs}, self.sum_bits, (pairs - 1) * macs, elements, sram, wires
        )
