"""Channels out of a program: those that layers keep between themselves, the least important first.

Channels of residual streams are read by every block, and by normalisations of joined skip connections whose groups
straddle two of them: they stay, as do heads where attention is taken apart. What is inside resnets, the feed-forward
layers' own features, and whole heads of attention go.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ...ir.errors import UserError
from ...ir.macs import macs
from ...ir.program import Program
from ..base import Context, Pass
from ..correct.judging import timesteps
from ..learned import require_torch
from ..learned.held_out import split
from ..measuring import output_error
from .channels import find
from .families import chosen, families
from .slices import sliced


class PruneChannelsConfig(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    share: float = Field(
        default=0.25, gt=0, lt=1, description="Of each layer's channels, at most, that go [1]."
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

    Raises UserError without torch, and where no channel can go.
    """

    name = "prune-channels"
    Config = PruneChannelsConfig

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        config = self.config
        calls = context.require("calibration", self.name)
        require_torch(self.name)
        channels = find(program.variants["full"].graph)
        found = families(channels)
        measured, judged = split(calls, config.calls, 0.5)
        from .taylor import Draws, importance

        worth = importance(
            context, program, channels, measured, timesteps(program, measured), config.threshold,
            Draws(config.draws, config.device),
        )  # fmt: skip
        gone = [one for family in found for one in chosen(family, worth, config.share)]
        if not gone:
            raise UserError(
                f"pass {self.name} finds no layer of which {config.share:g} is a channel of every group; take a larger "
                "share."
            )
        changed = sliced(program, channels, gone)
        models = {"before": program.variants["full"], "after": changed.variants["full"]}
        return changed, {
            "layers": len(found),
            "channels": {
                "before": sum(len(cell) for family in found for cell in family),
                "gone": len(gone),
            },
            "predicted_error": float(np.sqrt(worth[gone].sum() / _signal(context, program, measured))),
            "output_error": output_error(context, program, changed, judged),
            "macs": {when: macs(model) for when, model in models.items()},
        }


def _signal(context: Context, program: Program, calls: Any) -> float:
    """Mean square of a call's outputs, summed over their elements."""
    referee: Any = context.require("referee", "prune-channels")
    call = referee(program, [])
    sizes = [
        sum(float(np.square(one, dtype=np.float64).sum()) for one in call(inputs).values())
        for inputs in calls
    ]
    return float(np.mean(sizes)) or 1.0
