"""Calls to learn from, and others to tell what was learned on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from ..base import Arrays


class LearningConfig(BaseModel):
    """What all that learns by gradients may be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    calls: int = Field(default=32, ge=1, description="Calibration's calls that are looked at [calls].")
    held_out: float = Field(
        default=0.25,
        gt=0,
        lt=1,
        description="Share of them that errors are told on and nothing is learned from [1].",
    )
    batch: int = Field(default=2, ge=1, description="Calls that a step looks at [calls].")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="Where it is learned [cpu or cuda].")


def split(calls: Sequence[Arrays], count: int, held_out: float) -> tuple[list[Arrays], list[Arrays]]:
    """At most ``count`` of the calls, and of these a share ``held_out`` apart, both from all along the trajectories.

    Of a single call both are that one.
    """
    places = np.linspace(0, len(calls) - 1, min(count, len(calls))).round().astype(int)
    chosen = [calls[int(place)] for place in places]
    if len(chosen) == 1:
        return chosen, chosen
    apart = min(max(1, round(len(chosen) * held_out)), len(chosen) - 1)
    out = {int((index + 0.5) * len(chosen) / apart) for index in range(apart)}
    return (
        [one for index, one in enumerate(chosen) if index not in out],
        [one for index, one in enumerate(chosen) if index in out],
    )
