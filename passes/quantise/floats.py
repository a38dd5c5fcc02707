"""Rounding to small floats as arithmetic that is exact in float32, for ONNX has few of these types.

To numbers of m + 1 significant bits, the 24 of a float32 are rounded by a sum that has no room for the others: of a
and t = 2^(23 - m) a, whose last bit is the last that is to stay. What is below the smallest normal number takes that
number's t, and so its last bit. The sum is rounded to the nearest, and to even: t is an even multiple of that bit
where there is a tie. All else are powers of two, and differences that float32 has exactly, so that fused multiply-adds
change nothing.
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from ...ir.formats import FloatFormat
from ...ir.making import Maker

SIGNIFICANT = 23
"""Bits of a float32 after its first."""


def rounded(maker: Maker, value: ir.Value, format: FloatFormat) -> ir.Value:
    """The numbers of the format that are nearest to those of a float32 value: nine elementwise nodes."""
    assert value.shape is not None
    shape = value.shape.numpy()
    normal = 2.0 ** (1 - format.bias)

    def number(exact: float) -> ir.Value:
        return maker.constant(np.array(exact, np.float32))

    inside = maker.add("Clip", (value, number(format.smallest), number(format.largest)), shape)
    size = maker.add("Abs", (inside,), shape)
    at_least = maker.add("Max", (size, number(normal)), shape)
    raised = maker.add("Mul", (at_least, number(2.0 ** (SIGNIFICANT - format.mantissa_bits))), shape)
    whole = maker.add("Sub", (maker.add("Add", (size, raised), shape), raised), shape)
    # One or less of whatever is rounded to zero.
    grown = maker.add("Mul", (inside, number(2.0**format.mantissa_bits / normal * 2)), shape)
    sign = maker.add("Clip", (grown, number(-1.0), number(1.0)), shape)
    return maker.add("Mul", (whole, sign), shape)
