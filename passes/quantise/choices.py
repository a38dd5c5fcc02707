"""What a product may be computed with: formats of its weights and of its activations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from ...ir.formats import FLOATS, INTEGERS, Format

SmallFloat = Literal["fp8", "e2m5", "e3m4", "e4m3", "e5m2", "fp4", "e2m1", "e1m2"]
WeightFormat = Literal["float32", "int8", "int4", "int2", SmallFloat]
ActivationFormat = Literal["float32", "int8", SmallFloat]

AMONG: Mapping[str, tuple[Format, ...]] = {
    **{name: (one,) for name, one in (INTEGERS | FLOATS).items()},
    **{f"fp{bits}": tuple(one for one in FLOATS.values() if one.bits == bits) for bits in (8, 4)},
}
"""What a name leaves to choose from, for each tensor by what it loses."""


@dataclass(frozen=True)
class Choice:
    weights: WeightFormat
    activations: ActivationFormat

    @property
    def formats(self) -> tuple[str, ...]:
        """Those that kernels have to read. Activations in small floats are float32 numbers that were rounded."""
        read = (
            *AMONG.get(self.weights, ()),
            *(one for one in AMONG.get(self.activations, ()) if one in INTEGERS.values()),
        )
        return tuple(dict.fromkeys(one.name for one in read))


UNCHANGED = Choice("float32", "float32")
FLOAT_BITS = 32


def format_bits(name: WeightFormat | ActivationFormat) -> int:
    """Bits that an element takes, its scale apart."""
    return FLOAT_BITS if name == "float32" else AMONG[name][0].bits
