"""The core that a spec describes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from .bitslice import BitSliceCore
from .memory import Timing
from .nonlinear import Task
from .plain import PlainArray
from .slices import Timings
from .specs import BitSlice, HybridSystolic, Spec
from .systolic import HybridSA
from .workload import Operation


class Core(Protocol):
    """Whatever times operations."""

    def run(self, operations: Sequence[Operation]) -> Iterator[tuple[Task, Timing]]: ...


def core(spec: Spec, timings: Timings | None = None) -> Core:
    """A core that times what is not in ``timings`` yet, and leaves it there."""
    match spec:
        case HybridSystolic():
            return HybridSA(spec, timings)
        case BitSlice():
            return BitSliceCore(spec, timings)
        case _:
            return PlainArray(spec)
