"""The cores that a spec describes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from .bitslice import BitSliceCore
from .division import SideBySide
from .memory import Timing
from .nonlinear import Task
from .plain import PlainArray
from .slices import Timings
from .specs import BitSlice, HybridSystolic, Spec
from .systolic import HybridSA
from .tiled import TiledCore
from .workload import Operation


class Core(Protocol):
    """Whatever times operations."""

    def run(self, operations: Sequence[Operation]) -> Iterator[tuple[Task, Timing]]: ...


def chip(spec: Spec, timings: Timings | None = None) -> Core:
    """All cores of a spec. They time what is not in ``timings`` yet, and leave it there."""
    one = core(spec, timings)
    return SideBySide(one) if isinstance(one, TiledCore) and spec.cores > 1 else one


def core(spec: Spec, timings: Timings | None = None) -> TiledCore | PlainArray:
    """One core of a spec, with its share of the DRAM."""
    match spec:
        case HybridSystolic():
            return HybridSA(spec, timings)
        case BitSlice():
            return BitSliceCore(spec, timings)
        case _:
            return PlainArray(spec)
