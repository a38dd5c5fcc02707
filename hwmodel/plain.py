"""A plain systolic array under a whole workload: GEMMs and convolutions as SCALE-Sim times them (``array.py``).

Operands are always there: each crosses the pins once, and no bandwidth holds anything up. What is no product takes a
vector unit, if the spec has one; else it takes no time, as in SCALE-Sim, and is reported as untimed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from .actions import Actions
from .array import PLACEMENTS, Folds, folds
from .memory import ARRAY, VECTORS, Timing
from .nonlinear import Task
from .specs import Systolic
from .workload import Convolution, Gemm, Operation, TensorClass

TENSORS = {"inputs": ("rows", "reduction"), "weights": ("reduction", "columns"), "sums": ("rows", "columns")}
"""Which dimensions of a GEMM each of its tensors has."""

SUM_BITS = 32
"""Width of a sum; SCALE-Sim has none."""


class PlainArray:
    """Times operations on a plain systolic array."""

    def __init__(self, spec: Systolic) -> None:
        self.spec = spec

    def run(self, operations: Sequence[Operation]) -> Iterator[tuple[Task, Timing]]:
        """Every operation in order, one after another, with what it takes."""
        for operation in operations:
            yield Task(operation), self.time(operation)

    def time(self, operation: Operation) -> Timing:
        bounds, moved = operation.bounds, _moved_once(operation)
        if isinstance(bounds, Convolution | Gemm):
            gemm = bounds.as_gemm()
            made = folds(gemm, self.spec.rows, self.spec.cols, self.spec.dataflow)
            streaming = made.count * int(getattr(gemm, PLACEMENTS[self.spec.dataflow].in_time))
            return Timing(
                made.count * made.cycles, {ARRAY: streaming}, moved, self._actions(operation, gemm, made)
            )
        lanes = self.spec.vector_elements_per_cycle
        cycles = math.ceil(bounds.elements / lanes) if lanes else 0
        actions = Actions(elements=bounds.elements, sram_bits={"vectors": 2 * operation.result.size_bits})
        return Timing(cycles, {VECTORS: cycles}, moved, actions)

    def _actions(self, operation: Operation, gemm: Gemm, made: Folds) -> Actions:
        placement = PLACEMENTS[self.spec.dataflow]
        extents = {
            placement.along_rows: self.spec.rows,
            placement.along_columns: self.spec.cols,
            placement.in_time: int(getattr(gemm, placement.in_time)),
        }
        first, second = (operand.bits for operand in operation.operands[:2])
        # Sums that do not stay in the array are read again to be added to.
        widths = {"inputs": first, "weights": second, "sums": SUM_BITS * (2 if placement.held else 1)}
        sram = {
            name: made.count * math.prod(extents[dimension] for dimension in dimensions) * widths[name]
            for name, dimensions in TENSORS.items()
        }
        return Actions({(first, second): gemm.macs}, SUM_BITS, 0, 0, sram, sum(sram.values()))


def _moved_once(operation: Operation) -> dict[TensorClass, int]:
    """Bytes of every operand and of the result."""
    fused = (one.operand for one in operation.fused if one.operand is not None)
    moved: dict[TensorClass, int] = {}
    for operand in (*operation.operands, *fused, operation.result):
        moved[operand.tensor_class] = moved.get(operand.tensor_class, 0) + math.ceil(operand.size_bits / 8)
    return moved
