"""The hybrid systolic array: which operations share it, in which mode, and what each takes (SDA, FPL 2024).

One mode bit chooses between weight-stationary convolution (``convolution.py``) and output-stationary products
(``matmul.py``). Operands wider than a packed multiply takes run in several passes. The nonlinear unit is a second
pipeline stage behind the array (``nonlinear.py``); tiles ping-pong between loading, computing and storing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from operator import itemgetter

from ..ir.errors import UserError
from . import convolution, matmul
from .fitting import Misfit, Plan
from .memory import Interface, Timing
from .nonlinear import SCALED, Task, chunks, standalone
from .specs import HybridSystolic
from .workload import Convolution, Operand, Operation, Vectors

Choice = matmul.Tiling | int
"""How a task is cut: a product's tiling, outputs of a convolution that share a pass, or elements at a time."""


class HybridSA:
    """Times operations on a hybrid systolic array; those of equal shape once."""

    def __init__(self, spec: HybridSystolic) -> None:
        self.spec = spec
        self.interface = Interface(spec.memory, spec.clock_hz)
        self._known: dict[Task, Timing] = {}

    def run(self, operations: Sequence[Operation]) -> Iterator[tuple[Task, Timing]]:
        """The tasks of a variant in order, one after another, with what each takes.

        A normalisation or softmax runs behind the operation whose result it reads if that costs less.
        Raises UserError for an operand wider than the core takes or a layer that no buffer holds.
        """
        followers = {one.operands[0].value: one for one in reversed(operations) if one.kind in SCALED}
        done: set[str] = set()
        for operation in operations:
            if operation.result.value in done:
                continue
            task = Task(operation, followers.get(operation.result.value))
            try:
                chosen, timing = self._together_or_alone(task)
            except Misfit as misfit:
                raise UserError(f"{operation.name} does not fit on {self.spec.name}: {misfit}.") from None
            if chosen.behind:
                done.add(chosen.behind.result.value)
            yield chosen, timing

    def _together_or_alone(self, task: Task) -> tuple[Task, Timing]:
        alone = self.time(task.alone())
        if task.behind is None or not _side_by_side(task):
            return task.alone(), alone
        behind = self.time(Task(task.behind))
        try:
            together = self.time(task)
        except Misfit:
            return task.alone(), alone
        if self.interface.cost(together) > self.interface.cost(alone) + self.interface.cost(behind):
            return task.alone(), alone
        return task, together

    def time(self, task: Task) -> Timing:
        """The time of a task, cut in the way that costs least.

        The cost is its cycles and those that the DRAM would take for its bytes alone: traffic is worth saving
        even behind computation. A larger buffer allows all that a smaller one does, so it never costs more.
        Raises Misfit if the task cannot be cut to fit.
        """
        shape = task.anonymous()
        if shape not in self._known:
            plans, misfits = list[Plan](), list[Misfit]()
            for choice in self.choices(task):
                try:
                    plans.append(self.plan(task, choice))
                except Misfit as misfit:
                    misfits.append(misfit)
            if not plans:
                raise misfits[0]
            self._known[shape] = self._cheapest(plans)
        return self._known[shape]

    def _cheapest(self, plans: Sequence[Plan]) -> Timing:
        """The time of the plan that costs least. Those that cannot are not run."""
        best, least = None, math.inf
        for bound, plan in sorted(
            ((self.interface.least_cost(one), one) for one in plans), key=itemgetter(0)
        ):
            if bound < least:
                timing = self.interface.time(plan)
                if (cost := self.interface.cost(timing)) < least:
                    best, least = timing, cost
        assert best is not None
        return best

    def choices(self, task: Task) -> Iterator[Choice]:
        """Ways of cutting a task, from those that need least of the buffers."""
        bounds = task.operation.bounds
        if isinstance(bounds, Vectors):
            yield from chunks(self.spec, task)
        elif isinstance(bounds, Convolution) and not _pointwise(bounds):
            yield from convolution.groupings(self.spec, task, bounds)
        else:
            yield from matmul.tilings(self.spec, task, bounds.as_gemm())

    def plan(self, task: Task, choice: Choice) -> Plan:
        """The nest of a task cut in one way. Raises Misfit if a buffer is too small for it."""
        operation, bounds = task.operation, task.operation.bounds
        if isinstance(bounds, Vectors):
            assert isinstance(choice, int)
            return standalone(self.spec, self.interface, task, choice)
        first, second = (self._width(operation, operand) for operand in operation.operands[:2])
        if isinstance(choice, matmul.Tiling):
            return matmul.plan(self.spec, self.interface, task, bounds.as_gemm(), (first, second), choice)
        assert isinstance(bounds, Convolution)
        return convolution.plan(self.spec, self.interface, task, bounds, (first, second), choice)

    def _width(self, operation: Operation, operand: Operand) -> int:
        """Bits of an operand in the array: its own, widened to what the array takes."""
        wide = [bits for bits in self.spec.array.operand_bits if bits >= operand.bits]
        if not wide:
            widest = max(self.spec.array.operand_bits)
            raise UserError(
                f"{operation.name} has an operand of {operand.bits} bits and {self.spec.name} multiplies at most "
                f"{widest}; quantise the model to {widest} bits or fewer."
            )
        return min(wide)


def _side_by_side(task: Task) -> bool:
    """Whether each vector of what runs behind lies in results that are on the chip together."""
    bounds, behind = task.operation.bounds, task.behind
    if behind is None or isinstance(bounds, Vectors):
        return False
    assert isinstance(behind.bounds, Vectors)
    length = behind.bounds.length
    if isinstance(bounds, Convolution) and not _pointwise(bounds):
        return bounds.groups == 1 and length % (bounds.rows * bounds.columns) == 0
    return length == bounds.as_gemm().columns


def _pointwise(bounds: Convolution) -> bool:
    """Whether a convolution is a product of pixels by channels."""
    return bounds.kernel == (1, 1)
