"""The hybrid systolic array: what a cycle of it does in each of its two modes (SDA, FPL 2024).

One mode bit chooses between weight-stationary convolution and output-stationary products. Operands wider than a
packed multiply takes run in several passes.
"""

from __future__ import annotations

import math
from fractions import Fraction

from ..ir.errors import UserError
from . import convolution, matmul
from .slices import Timings
from .specs import HybridSystolic
from .tiled import TiledCore
from .workload import Convolution, Gemm, Operand, Operation


class HybridSA(TiledCore):
    """Times operations on a hybrid systolic array."""

    def __init__(self, spec: HybridSystolic, timings: Timings | None = None) -> None:
        super().__init__(spec, timings)
        self.array = array = spec.array
        self.fill_cycles, self.sum_bits = array.fill_cycles, array.accumulator_bits
        self._inputs = array.sub_array_rows * array.pe_rows
        self._widths = sorted(array.operand_bits)
        self._outputs = array.sub_array_columns * array.pe_columns

    def widths(self, operation: Operation) -> tuple[int, int]:
        first, second = (self._width(operation, operand) for operand in operation.operands[:2])
        return first, second

    def _width(self, operation: Operation, operand: Operand) -> int:
        """Bits of an operand in the array: its own, widened to what the array takes."""
        for bits in self._widths:
            if bits >= operand.bits:
                return bits
        widest = self._widths[-1]
        raise UserError(
            f"{operation.name} has an operand of {operand.bits} bits and {self.spec.name} multiplies at most "
            f"{widest}; quantise the model to {widest} bits or fewer."
        )

    def slices(self, widths: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        slots = self.array.activation_slot_bits * self.array.multiplies_per_pe, self.array.weight_slot_bits
        first, second = ((slot, math.ceil(width / slot)) for slot, width in zip(slots, widths, strict=True))
        return first, second

    def product(self, gemm: Gemm, widths: tuple[int, int]) -> matmul.Shape:
        """Output-stationary: a term of every sum comes in with every cycle, on both sides."""
        (first_bits, passes), (second_bits, slices) = self.slices(widths)
        rows = min(gemm.rows, self._inputs * self.array.matmul_rows)
        columns = min(gemm.columns, self._outputs * self.array.matmul_columns)
        reads = {
            "matmul_activations": Fraction(rows * first_bits),
            "matmul_weights": Fraction(columns * second_bits),
        }
        return matmul.Shape(rows, columns, 1, slices, passes, reads)

    def window(self, bounds: Convolution, widths: tuple[int, int]) -> convolution.Shape:
        """Weight-stationary: filters stay for an output row, sums come and go with every cycle."""
        (first_bits, passes), (second_bits, slices) = self.slices(widths)
        array = self.array
        pixels = array.convolution_pixels * (Fraction(array.strided_use) if bounds.stride[1] > 1 else 1)
        row = math.ceil(bounds.columns / pixels)
        neighbours = array.convolution_pixels + array.convolution_taps - 1
        filters = self._inputs * self._outputs * array.convolution_taps
        reads = {
            "lines": Fraction(self._inputs * neighbours * first_bits),
            "convolution_weights": Fraction(filters * second_bits, row),
            "accumulators": Fraction(2 * self._outputs * array.convolution_pixels * self.sum_bits),
        }
        return convolution.Shape(
            self._inputs, self._outputs, array.convolution_taps, Fraction(pixels), passes * slices, reads
        )
