"""When each operator of an estimate runs: every variant that an image needs once, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

UNITS = ("array", "nonlinear", "memory")

Facts = Mapping[str, Any]
"""What `hwmodel.estimate` returns, or a part of it."""


@dataclass(frozen=True)
class Span:
    """An operator from ``start_s`` on for ``seconds``. Operators run one after another."""

    operator: Facts
    start_s: float
    seconds: float

    def busy_s(self, unit: str) -> float:
        """How long a unit works during it; when exactly is not kept, so it is shown from the start on."""
        cycles = self.operator["cycles"]
        return self.seconds * self.operator["busy_cycles"][unit] / cycles if cycles else 0.0


def timeline(facts: Facts) -> Iterator[Span]:
    """The operators of an estimate in the order in which they run."""
    start = 0
    for operator in facts["operators"]:
        yield Span(operator, start / facts["clock_hz"], operator["cycles"] / facts["clock_hz"])
        start += operator["cycles"]
