"""What all that learns by gradients may be told, what it learns from, and where that is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ...ir.program import Program
from ..base import Arrays, Context, Pass, PassConfig
from ..guidance import Guidance
from ..held_out import split
from ..origin import origin
from . import require_torch


class LearningConfig(PassConfig):
    calls: int = Field(default=64, ge=1, description="Calibration's calls that are looked at [calls].")
    held_out: float = Field(
        default=0.25,
        gt=0,
        lt=1,
        description="Share of them that errors are told on and nothing is learned from [1].",
    )
    batch: int = Field(default=2, ge=1, description="Calls that a step looks at [calls].")
    device: Literal["cpu", "cuda"] = Field(default="cpu", description="Where it is learned [cpu or cuda].")


class LongLearningConfig(LearningConfig):
    """Of thousands of steps, which would learn a few calls by heart."""

    calls: int = Field(default=2048, ge=1, description="Calibration's calls that are looked at [calls].")
    held_out: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Share of them that errors are told on and nothing is learned from [1].",
    )


@dataclass(frozen=True)
class Material:
    """``reference`` gives what is wanted; on calls ``unseen`` errors are told and nothing is learned."""

    reference: Program
    learning: list[Arrays]
    unseen: list[Arrays]
    guidance: Guidance


def material(learning: Pass[Any], context: Context) -> Material:
    """For a pass with a LearningConfig. Raises UserError without calibration, reference or torch."""
    config: LearningConfig = learning.config
    calls: Sequence[Arrays] = context.require("calibration", learning.name)
    reference: Program = context.require("reference", learning.name)
    require_torch(learning.name)
    return Material(reference, *split(reference, calls, config.calls, config.held_out), context.guidance)


def place(learning: Pass[Any], program: Program, given: Material, context: Context) -> Path | None:
    """In the work folder, without an ending, of what the pass learns; None where there is no such folder."""
    if context.work_folder is None:
        return None
    settings = [learning.config.model_dump(mode="json"), context.seed, given.guidance.scale]
    told = origin([program, given.reference], [*given.learning, *given.unseen], settings)
    return context.work_folder / learning.name / told[:32]
