"""What an accelerator can do at most: products a second in each mode and width, bytes a second off the chip."""

from __future__ import annotations

from functools import cache

from .cores import core
from .slices import mode_of
from .specs import Spec, Systolic
from .tiled import TiledCore
from .workload import Convolution, Gemm, Operation

ENDLESS = 1 << 20
"""Larger than any array: nothing is left over at its edges."""


class Roofs:
    """Peaks of a spec, with no edges, fill, strides or waiting."""

    def __init__(self, spec: Spec) -> None:
        self._spec, self._machine = spec, core(spec)
        self._macs_per_cycle = cache(self._count)

    def of(self, operation: Operation) -> tuple[str, float] | None:
        """The mode that an operation runs in, such as "matmul 8 x 4 bits", and that mode's products a second.

        None for what does not multiply. Raises UserError for an operand that the core does not multiply.
        """
        if not operation.macs:
            return None
        if isinstance(self._spec, Systolic):
            return "array", self._spec.rows * self._spec.cols * self._spec.clock_hz
        assert isinstance(self._machine, TiledCore)
        widths = self._machine.widths(operation)
        mode = mode_of(operation.bounds)
        first, second = widths
        macs_per_cycle = self._spec.cores * self._macs_per_cycle(mode, widths)
        return f"{mode} {first} x {second} bits", macs_per_cycle * self._spec.clock_hz

    def _count(self, mode: str, widths: tuple[int, int]) -> float:
        assert isinstance(self._machine, TiledCore)
        if mode == "matmul":
            shape = self._machine.product(Gemm(1, ENDLESS, ENDLESS, ENDLESS), widths)
            return shape.rows * shape.columns * shape.depth / (shape.slices * shape.cycles)
        size = (ENDLESS, ENDLESS)
        window = self._machine.window(Convolution(1, ENDLESS, ENDLESS, *size, size, (3, 3), (1, 1)), widths)
        return float(window.inputs * window.outputs * window.taps * window.pixels / window.passes)


def dram_bytes_per_s(spec: Spec) -> float | None:
    """None where the model has memory deliver whatever is asked for."""
    return None if isinstance(spec, Systolic) else spec.memory.dram_bytes_per_s
