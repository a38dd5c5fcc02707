"""What a program costs on its target, in amounts that add up over its nodes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field

from ..ir.program import Program

UNITS = {"latency": "s", "bytes": "B", "energy": "J"}
"""Of the quantities that a cost may have."""


@dataclass(frozen=True)
class Cost:
    """Amounts by quantity and by the name of what a kernel's anchor computes: a product's result, a normalisation's.

    ``latency``  seconds of one call of variant "full"
    ``bytes``    weights in memory, of all variants; those that several nodes read count for the first
    ``energy``   joules of one call of "full", where the source knows them

    ``timed`` is what each node's kernels are in "full", where the latency was measured.
    """

    by_node: Mapping[str, Mapping[str, float]]
    timed: Mapping[str, Hashable] = field(default_factory=dict[str, Hashable], compare=False)

    def total(self, quantity: str) -> float:
        return sum(self.by_node[quantity].values())

    def of(self, quantity: str, node: str) -> float:
        """Of what another kernel computes on its way, nothing."""
        return self.by_node[quantity].get(node, 0.0)

    def less_than(self, other: Cost, quantity: str) -> float:
        """How much less the total is than ``other``'s. Of latencies that were measured, nodes with the same kernels in
        both leave theirs out: that these did not take the same is what a measurement errs by, and small differences
        drown in it.
        """
        if quantity != "latency":
            return other.total(quantity) - self.total(quantity)
        same = {node for node, kernels in self.timed.items() if other.timed.get(node) == kernels}
        ours, theirs = (
            sum(seconds for node, seconds in one.by_node[quantity].items() if node not in same)
            for one in (self, other)
        )
        return theirs - ours


CostModel = Callable[[Program], Cost]
"""Of a program as a pass has it, before the pipeline."""
