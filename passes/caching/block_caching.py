"""Block caching (Wimbauer et al., arXiv 2312.03209): every block by its own change from step to step.

What a residual block adds is reused until its relative change, summed over the steps since it was computed, exceeds a
threshold (eq. 4 to 6). Here each set of reused blocks is a variant, of which there are few: a step runs the cheapest of
those that recompute all that it should, and so more than that where there is none of just these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, compress
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...ir.blocks import discover
from ...ir.errors import UserError
from ...ir.macs import node_macs
from ...ir.program import Program
from ..base import Context, Pass, Trajectory
from ..measuring import watch
from .cuts import branches
from .policy import PolicyConfig, described
from .reuse import reusing

Reused = frozenset[str]
"""Names of blocks."""


class BlockCachingConfig(PolicyConfig):
    threshold: float = Field(default=0.3, gt=0, description="Summed relative change that ends a reuse [1].")
    blocks: tuple[Literal["resnet", "transformer", "attention", "feed_forward"], ...] = Field(
        default=("resnet", "transformer"), min_length=1, description="What may be reused."
    )
    variants: int = Field(
        default=4, ge=2, description='Graphs that are compiled, "full" among them [variants].'
    )
    pictures: int = Field(
        default=4, ge=1, description="By which changes are measured, of the calibration's [pictures]."
    )
    steps: tuple[int, ...] = Field(
        default=(20, 50), min_length=1,
        description="Loops to measure and make schedules for; others follow the nearest [steps].",
    )  # fmt: skip


class BlockCaching(Pass[BlockCachingConfig]):
    """Program of variant "full" -> the same with alternatives that recompute some blocks each, and schedules.

    Raises UserError if the model has no such blocks.
    """

    name = "block-caching"
    Config = BlockCachingConfig

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        draw = context.require_draw(self.name)
        values = branches(program.variants["full"].graph, *self.config.blocks)
        if not values:
            raise UserError(f"pass {self.name}: the model has no {' or '.join(self.config.blocks)} to reuse.")
        wanted: dict[int, list[Reused]] = {}
        for steps in self.config.steps:
            drawn = draw(program, steps, self.config.pictures)
            reused = greedy(change(context, program, list(values.values()), drawn), self.config.threshold)
            wanted[len(reused)] = [frozenset(compress(values, row)) for row in reused.tolist()]
        sizes = _sizes(program, values)
        kept = chosen([one for run in wanted.values() for one in run], sizes, self.config.variants - 1)
        cuts = {
            f"reuse_{number + 1}": [values[name] for name in values if name in one]
            for number, one in enumerate(kept)
        }
        names = dict(zip(kept, cuts, strict=True))
        schedule = {steps: [_rounded(one, names, sizes) for one in run] for steps, run in wanted.items()}
        changed = reusing(program, cuts, schedule)
        blocks = {names[one]: sorted(one) for one in kept if names[one] in changed.variants}
        return changed, {"blocks": blocks, **described(changed, context)}


def change(
    context: Context, program: Program, values: Sequence[str], drawn: Sequence[Trajectory]
) -> NDArray[np.float64]:
    """|o(s) - o(s-1)|_1 / |o(s)|_1 of each value at each step, in the mean of the pictures: [steps, values].

    At the first step it is infinite.
    """
    steps = len(drawn[0].calls)
    found = np.full((steps, len(values)), np.inf)
    found[1:] = 0
    silent = replace(context, progress=None)
    for picture in drawn:
        before: list[NDArray[Any]] = []
        for step, results in enumerate(watch(silent, program, values, picture.calls)):
            now = [results[name] for name in values]
            for column, (old, new) in enumerate(zip(before, now, strict=False)):
                size = float(np.abs(new).sum(dtype=np.float64))
                found[step, column] += (
                    float(np.abs(new - old).sum(dtype=np.float64)) / (size or 1.0) / len(drawn)
                )
            before = now
    return found


def greedy(changes: NDArray[np.float64], threshold: float) -> NDArray[np.bool_]:
    """Whether each value is reused at each step: as long as its changes since it was computed sum up to no more."""
    reused = np.zeros(changes.shape, bool)
    total = np.zeros(changes.shape[1])
    for step, row in enumerate(changes):
        total += row
        reused[step] = total <= threshold
        total[~reused[step]] = 0
    return reused


def chosen(wanted: Sequence[Reused], sizes: Mapping[str, float], count: int) -> list[Reused]:
    """At most ``count`` sets of which the steps, each by the largest within what it may reuse, spare most."""
    distinct = sorted({one for one in wanted if one}, key=sorted)
    shared = {one & other for one, other in combinations(distinct, 2)} - {frozenset[str](), *distinct}
    pool = [*distinct, *sorted(shared, key=sorted)]
    kept: list[Reused] = []
    spared = [0.0] * len(wanted)
    while len(kept) < count:
        offers = [
            [
                max(now, _size(one, sizes) if one <= may else 0.0)
                for now, may in zip(spared, wanted, strict=True)
            ]
            for one in pool
        ]
        best = max(range(len(pool)), key=lambda place: sum(offers[place]), default=None)
        if best is None or sum(offers[best]) <= sum(spared):
            break
        kept.append(pool[best])
        spared = offers[best]
    return kept


def _rounded(may: Reused, names: Mapping[Reused, str], sizes: Mapping[str, float]) -> str:
    """The variant that reuses most of what a step may."""
    fitting = [one for one in names if one <= may]
    return names[max(fitting, key=lambda one: _size(one, sizes))] if fitting else "full"


def _size(reused: Reused, sizes: Mapping[str, float]) -> float:
    return sum(sizes[name] for name in sorted(reused))


def _sizes(program: Program, values: Mapping[str, str]) -> dict[str, float]:
    """Multiply-accumulates of blocks."""
    blocks = discover(program.variants["full"].graph).blocks
    return {
        block.name: float(sum(node_macs(node) for node in block.nodes))
        for block in blocks
        if block.name in values
    }
