"""What a product may be computed with: formats of its weights and of its activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import onnx_ir as ir

WeightFormat = Literal["float32", "int8", "int4"]
ActivationFormat = Literal["float32", "int8"]


@dataclass(frozen=True)
class Integers:
    """Symmetric integers: ``largest`` is what the end of the range becomes."""

    dtype: ir.DataType
    largest: int


INTEGERS: dict[str, Integers] = {
    "int8": Integers(ir.DataType.INT8, 127),
    "int4": Integers(ir.DataType.INT4, 7),
}


@dataclass(frozen=True)
class Choice:
    weights: WeightFormat
    activations: ActivationFormat


UNCHANGED = Choice("float32", "float32")
FLOAT_BITS = 32


def weight_bits(name: WeightFormat) -> int:
    """Bits that an element of a weight takes, its column's scale apart."""
    return FLOAT_BITS if name == "float32" else INTEGERS[name].dtype.bitwidth
