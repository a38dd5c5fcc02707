"""Cycles of a plain systolic array, as SCALE-Sim counts them (Samajdar et al., ISPASS 2020).

A GEMM [M, K] x [K, N] has three dimensions. A dataflow lays two of them over the array's rows and columns, fold by
fold, and streams the third through time. Every fold takes

    preload + T + (rows + columns - 2)

cycles: T for what streams, the skew of the operands across the array, and, where an operand is held in the array
rather than the results, as many cycles as the array has rows to shift that operand in. Folds at the edge take as
long as full ones, and folds do not overlap. SCALE-Sim reports the number of the last cycle, counted from zero.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from .workload import Gemm

Dataflow = Literal["os", "ws", "is"]


@dataclass(frozen=True)
class Placement:
    """Which dimension of a GEMM lies where; ``held``: an operand stays in the array, not the result."""

    along_rows: str
    along_columns: str
    in_time: str
    held: bool


PLACEMENTS: dict[Dataflow, Placement] = {
    "os": Placement("rows", "columns", "reduction", held=False),
    "ws": Placement("reduction", "columns", "rows", held=True),
    "is": Placement("reduction", "rows", "columns", held=True),
}


@dataclass(frozen=True)
class Folds:
    """``count`` folds of ``cycles`` each; ``utilisation`` is the share of multiplier cycles that do work."""

    count: int
    cycles: int
    utilisation: float

    @property
    def last_cycle(self) -> int:
        """What SCALE-Sim reports as total cycles."""
        return self.count * self.cycles - 1


def folds(gemm: Gemm, rows: int, columns: int, dataflow: Dataflow) -> Folds:
    """How a GEMM runs on an array of ``rows`` x ``columns``; the products of a batch run one after another."""
    placement = PLACEMENTS[dataflow]
    down, across, time = (
        int(getattr(gemm, name))
        for name in (placement.along_rows, placement.along_columns, placement.in_time)
    )
    count = gemm.batch * math.ceil(down / rows) * math.ceil(across / columns)
    cycles = (rows if placement.held else 0) + time + rows + columns - 2
    return Folds(count, cycles, gemm.macs / (count * cycles * rows * columns))
