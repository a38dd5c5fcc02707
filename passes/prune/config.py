"""What may be said of the passes that prune blocks."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ..base import PassConfig
from ..budget import Budget
from .surgery import By

Criterion = Literal["output", "latents"]


class FittingConfig(PassConfig):
    """How what is read in place of a block is fitted to it."""

    calls: int = Field(
        default=16, ge=1, description="Of the calibration's: half to fit to, half to measure by [calls]."
    )
    ridge: float = Field(
        default=1e-3, ge=0, description="Of linear maps: |W|^2 counts so much of the inputs' mean square [1]."
    )
    repair: bool = Field(
        default=True,
        description="Whether each cut gets a scale and a shift a channel, or its linear map anew, behind those before.",
    )


class PruneConfig(FittingConfig):
    blocks: tuple[str, ...] = Field(
        default=(),
        description='Names of blocks that go, as `fick inspect` shows modules; "depth.2" is all below two halvings.',
    )
    by: By | Literal["simplest"] = Field(
        default="simplest",
        description="What is read for them: identity, shortcut, linear (fitted), the first of these that fits, or for "
        "convolutions in a row, as down_blocks.0.resnets.0.conv1+conv2, convolution or merged: see prune-blocks.",
    )
    repair: bool = Field(
        default=False,
        description="Whether each cut gets a scale and a shift a channel, or its linear map anew, behind those before.",
    )


class PruneBlocksConfig(FittingConfig):
    budget: Budget = Field(
        default="latency=0.7x",
        description="Most that the program may cost: latency=0.7x, bytes=250MB, energy=0.7x, several with commas.",
    )
    by: tuple[By, ...] = Field(
        default=("identity", "shortcut", "linear"),
        min_length=1,
        description="What may be read for a block: its input, its shortcut, a fitted 1 x 1 convolution; for kind "
        "convolutions a fitted one of the widest kernel among them (convolution), or of all widths (merged).",
    )
    kinds: tuple[str, ...] = Field(
        default=(
            "resnet", "transformer", "attention", "feed_forward", "down_stage", "mid", "up_stage", "depth",
        ),
        min_length=1,
        description="Of blocks that may go; convolutions in a row are one more.",
    )  # fmt: skip
    keep: tuple[str, ...] = Field(default=(), description="Names of blocks that stay.")
    criterion: Criterion = Field(
        default="output",
        description="What counts as loss: the output's error, or the shift of final latents (draws pictures: hours).",
    )
    pictures: int = Field(
        default=4, ge=2, description="Drawn for each block by criterion latents [pictures]."
    )
    steps: int = Field(default=10, ge=1, description="Of each of them [steps].")
