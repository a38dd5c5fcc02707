"""How long a nest takes by matrices: n turns of a loop are the n-th power of one turn's, in log2(n) products.

A moment is a row: how late it is after each of those that a loop begins with. The body of the loop makes a matrix of
them, max-plus products take the place of turns, and nothing is asked of how turns follow each other.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from fick.hwmodel.pipeline import GRACE, Nest, Step

Rows = NDArray[np.float64]
"""Exact up to 2^53 if all steps take whole cycles; -inf is max-plus zero."""


@dataclass
class Moments:
    stages: dict[str, Rows]
    full: dict[str, Rows]
    free: dict[str, list[Rows]]

    def rows(self) -> Rows:
        queues = (row for queue in self.free.values() for row in queue)
        return np.array([*self.stages.values(), *self.full.values(), *queues])

    def having(self, rows: Rows) -> Moments:
        """The same moments in the same order with other rows."""
        given = iter(rows)
        return replace(
            self,
            stages={name: next(given) for name in self.stages},
            full={name: next(given) for name in self.full},
            free={name: [next(given) for _ in queue] for name, queue in self.free.items()},
        )


def product(left: Rows, right: Rows) -> Rows:
    """Entry [i, j] is the longest way from j to i over any moment between."""
    return np.maximum.reduce(left[:, :, None] + right, axis=1)


def played(nest: Nest, at: Moments, stretches: Mapping[str, Fraction]) -> Moments:
    for item in nest:
        if isinstance(item, Step):
            start = at.stages[item.stage]
            for buffer in item.takes:
                start = np.maximum(start, at.full[buffer])
            for buffer in item.claims:
                start = np.maximum(start, at.free[buffer].pop(0))
            end = start + item.cycles * float(stretches.get(item.stage, 1))
            at.stages[item.stage] = end
            for buffer in item.fills:
                at.full[buffer] = end
            for buffer in item.frees:
                at.free[buffer].append(end)
        else:
            rows, left = at.rows(), item.count
            unit = np.where(np.eye(len(rows), dtype=bool), 0.0, -np.inf)
            power = played(item.body, at.having(unit), stretches).rows()
            while left:
                rows = product(power, rows) if left & 1 else rows
                power, left = product(power, power), left >> 1
            at = at.having(rows)
    return at


def stages(nest: Nest) -> list[str]:
    found = ([item.stage] if isinstance(item, Step) else stages(item.body) for item in nest)
    return list(dict.fromkeys(stage for each in found for stage in each))


def makespan(
    nest: Nest,
    slots: Mapping[str, int],
    stretches: Mapping[str, Fraction] | None = None,
    begins: Mapping[str, int] | None = None,
) -> int:
    """As ``pipeline.makespan``."""
    start = {
        stage: np.full(1, float((begins or {}).get(stage, 0))) for stage in (*stages(nest), *(begins or {}))
    }
    zero = np.zeros(1)
    at = Moments(start, dict.fromkeys(slots, zero), {name: [zero] * count for name, count in slots.items()})
    end = played(nest, at, stretches or {})
    return math.ceil(max((float(row[0]) for row in end.stages.values()), default=0.0) - 1 / GRACE)
