"""What a product may be computed with: formats of its weights and of its activations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ...ir.formats import INTEGERS

WeightFormat = Literal["float32", "int8", "int4"]
ActivationFormat = Literal["float32", "int8"]


@dataclass(frozen=True)
class Choice:
    weights: WeightFormat
    activations: ActivationFormat


UNCHANGED = Choice("float32", "float32")
FLOAT_BITS = 32


def format_bits(name: WeightFormat) -> int:
    """Bits that an element takes, its scale apart."""
    return FLOAT_BITS if name == "float32" else INTEGERS[name].bits
