"""A bit-slice core: multipliers of a slice by a slice, and two stationary modes (DBSC, Choi et al., ISCAS 2024).

An operand of several slices takes several passes, whose products are shifted and joined: with slices of 6 and 8 bits
a product of 12 x 8 bits takes two cycles, of 6 x 8 bits one. Any widths may be given. The array holds one operand and
streams the other past it, ``held`` x ``streamed`` sums of ``inputs`` x ``taps`` terms in a cycle:

    convolution    filters are held for an output row, pixels stream, the taps of a kernel row lie side by side
    transformer    tokens are held, columns of the weights stream, taps are as many inputs more

How the published core is laid out is not known beyond its 7680 products a cycle; this layout is assumed, and so
are sums that wait in registers beside their adders: no SRAM access is counted for them.
"""

from __future__ import annotations

import math
from fractions import Fraction

from ..ir.errors import UserError
from . import convolution, matmul
from .slices import Timings
from .specs import BitSlice
from .tiled import TiledCore
from .workload import Convolution, Gemm, Operation


class BitSliceCore(TiledCore):
    """Times operations on a bit-slice core."""

    def __init__(self, spec: BitSlice, timings: Timings | None = None) -> None:
        super().__init__(spec, timings)
        self.array = spec.array
        self.fill_cycles, self.sum_bits = spec.array.fill_cycles, spec.array.accumulator_bits

    def widths(self, operation: Operation) -> tuple[int, int]:
        first, second = (operand.bits for operand in operation.operands[:2])
        if first + second > self.sum_bits:
            raise UserError(
                f"{operation.name} multiplies {first} by {second} bits and {self.spec.name} sums in {self.sum_bits}; "
                f"quantise the model to operands of {self.sum_bits} bits together or fewer."
            )
        return first, second

    def slices(self, widths: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
        sizes = self.array.activation_slice_bits, self.array.weight_slice_bits
        first, second = ((size, math.ceil(width / size)) for size, width in zip(sizes, widths, strict=True))
        return first, second

    def product(self, gemm: Gemm, widths: tuple[int, int]) -> matmul.Shape:
        """Tokens stay while all columns of the second operand pass."""
        (first_bits, passes), (second_bits, slices) = self.slices(widths)
        array = self.array
        rows, columns = min(gemm.rows, array.held), min(gemm.columns, array.streamed)
        depth = min(gemm.reduction, array.inputs * array.taps)
        passing = math.ceil(gemm.columns / columns)
        reads = {
            "matmul_activations": Fraction(rows * depth * first_bits, passing),
            "matmul_weights": Fraction(columns * depth * second_bits, passes),
        }
        return matmul.Shape(rows, columns, depth, slices, passes, reads)

    def window(self, bounds: Convolution, widths: tuple[int, int]) -> convolution.Shape:
        """Filters stay for an output row."""
        (first_bits, several), (second_bits, many) = self.slices(widths)
        array, passes = self.array, several * many
        pixels = array.streamed * (Fraction(array.strided_use) if bounds.stride[1] > 1 else 1)
        row = math.ceil(bounds.columns / pixels)
        reads = {
            "lines": Fraction(array.inputs * (array.streamed + array.taps - 1) * first_bits),
            "convolution_weights": Fraction(
                array.inputs * array.held * array.taps * second_bits, row * several
            ),
        }
        return convolution.Shape(array.inputs, array.held, array.taps, Fraction(pixels), passes, reads)
