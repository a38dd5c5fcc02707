"""What a program costs on its target, in amounts that add up over its nodes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ..ir.program import Program

UNITS = {"latency": "s", "bytes": "B", "energy": "J"}
"""Of the quantities that a cost may have."""


@dataclass(frozen=True)
class Cost:
    """Amounts by quantity and by the name of what a kernel's anchor computes: a product's result, a normalisation's.

    ``latency``  seconds of one call of variant "full"
    ``bytes``    weights in memory, of all variants; those that several nodes read count for the first
    ``energy``   joules of one call of "full", where the source knows them
    """

    by_node: Mapping[str, Mapping[str, float]]

    def total(self, quantity: str) -> float:
        return sum(self.by_node[quantity].values())

    def of(self, quantity: str, node: str) -> float:
        """Of what another kernel computes on its way, nothing."""
        return self.by_node[quantity].get(node, 0.0)


CostModel = Callable[[Program], Cost]
"""Of a program as a pass has it, before the pipeline."""
