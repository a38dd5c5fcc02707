"""Channels out of a program: those that layers keep between themselves, the least important first.

With widths = "free", channels of residual streams are read by every block, and by normalisations of joined skip
connections whose groups straddle two of them: they stay, as do heads where attention is taken apart. What is inside
resnets, the feed-forward layers' own features, and whole heads of attention go. With widths = "stages" residual streams
go along, and every stage of a UNet keeps one width (stages.py).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ...ir.errors import UserError
from ...ir.macs import macs
from ...ir.program import Program
from ..base import Context, Pass, PassConfig
from ..budget import Budget, amounts, described, described_beside, read
from ..calls import timesteps
from ..costs import Cost, CostModel
from ..held_out import split
from ..learned import require_torch
from ..measuring import output_error
from .channels import Channels, find
from .families import chosen, families, least
from .slices import sliced
from .stages import kept, stage_families

Choice = Callable[[float], list[int]]
"""Of a share, the channels that go."""


class PruneChannelsConfig(PassConfig):
    share: float = Field(
        default=0.25, gt=0, lt=1, description="Of each layer's channels, at most, that go [1]."
    )
    budget: Budget | None = Field(
        default=None,
        description="In place of the share, most that the program may cost: latency=0.7x, bytes=250MB, or both.",
    )
    widths: Literal["free", "stages"] = Field(
        default="free",
        description="Of layers: each as its groups allow, or one a stage, so that diffusers' class loads what is left.",
    )
    threshold: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Timesteps count at which channels matter so much of what they do at most [1].",
    )
    calls: int = Field(
        default=32, ge=1, description="Of the calibration's: half to choose, half to measure by [calls]."
    )
    draws: int = Field(
        default=4, ge=1, description="Of noise that the output is held against, a call [draws]."
    )
    device: Literal["cpu", "cuda"] = Field(
        default="cpu", description="Where gradients are computed [cpu or cuda]."
    )


class PruneChannels(Pass[PruneChannelsConfig]):
    """Program -> the same with fewer channels, what it is smaller by, and what that does to the output.

    Raises UserError without torch, where no channel can go, and for a budget that no share keeps to, saying what the
    least is.
    """

    name = "prune-channels"
    Config = PruneChannelsConfig

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        config, graph = self.config, program.variants["full"].graph
        calls = context.require("calibration", self.name)
        require_torch(self.name)
        channels = find(graph, whole_heads=config.widths == "free")
        if not channels.summed:
            raise UserError(
                f"pass {self.name} finds no layer whose channels it could take; put it before what quantises."
            )
        measured, judged = split(program, calls, config.calls, 0.5)
        from .taylor import Draws, importance

        worth = importance(
            context, program, channels, measured, timesteps(program, measured), config.threshold,
            Draws(config.draws, config.device),
        )  # fmt: skip
        choice, shares = (
            _free(channels, worth)
            if config.widths == "free"
            else _by_stage(program, channels, worth, self.name)
        )
        share = config.share
        if config.budget is not None:
            share = self._within(program, context, channels, choice, shares)
        gone = choice(share)
        if not gone and config.budget is None:
            told = f", which {min(shares):.3g} is" if shares else ""
            raise UserError(
                f"pass {self.name} finds no layer of which {share:g} is a channel of every group{told}; take a larger "
                "share."
            )
        changed = sliced(program, channels, gone)
        models = {"before": program.variants["full"], "after": changed.variants["full"]}
        return changed, {
            "share": share,
            "channels": {
                "before": len(
                    {one for name, axis in channels.produced for one in channels.axes[name][axis].tolist()}
                ),
                "gone": len(gone),
            },
            "predicted_error": float(np.sqrt(worth[gone].sum() / _signal(context, program, measured))),
            "output_error": output_error(context, program, changed, judged),
            "macs": {when: macs(model) for when, model in models.items()},
        }

    def _within(
        self, program: Program, context: Context, channels: Channels, choice: Choice, shares: list[float]
    ) -> float:
        """The least share that keeps to the budget; none where the program does as it is."""
        assert self.config.budget is not None
        cost_model: CostModel = context.require("cost_model", self.name)
        plain = cost_model(program)
        wanted = amounts(read(self.config.budget), plain, f"pass {self.name}")

        def cost(share: float) -> Cost:
            return cost_model(sliced(program, channels, choice(share))) if share else plain

        def keeps(share: float) -> bool:
            return all(cost(share).total(name) <= most for name, most in wanted.items())

        steps = [0.0, *shares]
        place = bisect_left(steps, True, key=keeps)
        if place == len(steps):
            cheapest = cost(steps[-1])
            lowest = described_beside({name: cheapest.total(name) for name in wanted}, plain)
            raise UserError(
                f"pass {self.name} cannot keep to {described(wanted)}: the least is {lowest}; "
                "raise the budget, or let blocks go."
            )
        return steps[place]


def _free(channels: Channels, worth: NDArray[np.float64]) -> tuple[Choice, list[float]]:
    """And the shares at which one more channel goes."""
    found = families(channels)
    shares = sorted({count / len(family[0]) for family in found for count in range(1, len(family[0]))})
    return lambda share: [one for family in found for one in chosen(family, worth, share)], shares


def _by_stage(
    program: Program, channels: Channels, worth: NDArray[np.float64], wanted_by: str
) -> tuple[Choice, list[float]]:
    found = stage_families(program.variants["full"].graph, channels, wanted_by)
    shares = sorted({
        1 - left / width for _, width, unit in found for left in range(unit, width, unit)
    })  # fmt: skip

    def choice(share: float) -> list[int]:
        gone: list[int] = []
        for family, width, unit in found:
            size = len(family[0])
            gone += least(family, worth, size - size * kept(width, unit, share) // width)
        return gone

    return choice, shares


def _signal(context: Context, program: Program, calls: Any) -> float:
    """Mean square of a call's outputs, summed over their elements."""
    referee: Any = context.require("referee", "prune-channels")
    call = referee(program, [])
    sizes = [
        sum(float(np.square(one, dtype=np.float64).sum()) for one in call(inputs).values())
        for inputs in calls
    ]
    return float(np.mean(sizes)) or 1.0
