"""What a piece of work makes a machine do, as far as it costs energy: counts, and no joules yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Actions:
    """Counts of one piece of work.

    ``products``    multiplications by the widths of both sides; an operand of several slices takes several
    ``sum_bits``    width of the sum that each is added to
    ``combines``    times that products of different slices are shifted and joined
    ``elements``    elements that pass a stage of the nonlinear unit
    ``sram_bits``   bits read and written on the chip, by buffer
    ``wire_bits``   bits carried between buffers and array
    """

    products: Mapping[tuple[int, int], int] = field(default_factory=dict[tuple[int, int], int])
    sum_bits: int = 0
    combines: int = 0
    elements: int = 0
    sram_bits: Mapping[str, int] = field(default_factory=dict[str, int])
    wire_bits: int = 0


NOTHING = Actions()
