"""Operations one after another, a normalisation or softmax behind the one that it reads if that costs less."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

from ..ir.errors import UserError
from .fitting import Misfit
from .memory import Timing
from .nonlinear import Task
from .workload import Convolution, Operation, Vectors, followers


class InOrder(ABC):
    """Whatever begins a task when the one before is done. ``name`` is the accelerator's, for what a user reads."""

    name: str

    @abstractmethod
    def time(self, task: Task) -> Timing:
        """Of the way to do a task that costs least. Raises Misfit if the task cannot be cut to fit."""

    @abstractmethod
    def cost(self, timing: Timing) -> float:
        """Cycles, and those that the DRAM would take for the bytes alone."""

    def run(self, operations: Sequence[Operation]) -> Iterator[tuple[Task, Timing]]:
        """The tasks of a variant in order, one after another, with what each takes.

        Raises UserError for an operand wider than the core takes or a layer that no buffer holds.
        """
        behind, done = followers(operations), set[str]()
        for operation in operations:
            if operation.result.value in done:
                continue
            task = Task(operation, behind.get(operation.result.value))
            try:
                chosen, timing = self._together_or_alone(task)
            except Misfit as misfit:
                raise UserError(f"{operation.name} does not fit on {self.name}: {misfit}.") from None
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
        if self.cost(together) > self.cost(alone) + self.cost(behind):
            return task.alone(), alone
        return task, together


def _side_by_side(task: Task) -> bool:
    """Whether each vector of what runs behind lies in results that are on the chip together."""
    bounds, behind = task.operation.bounds, task.behind
    if behind is None or isinstance(bounds, Vectors):
        return False
    assert isinstance(behind.bounds, Vectors)
    length = behind.bounds.length
    if isinstance(bounds, Convolution) and not bounds.pointwise:
        return bounds.groups == 1 and length % (bounds.rows * bounds.columns) == 0
    return length == bounds.as_gemm().columns
