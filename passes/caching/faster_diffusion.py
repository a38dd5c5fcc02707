"""Faster Diffusion (Li et al., arXiv 2312.09608): between key steps, only the half of a UNet that goes up runs.

What the other half computes changes least from step to step: its skips, and what the middle makes of it, are those of
the last key step. Key steps lie closer together where they change more (section 3.2).
"""

from __future__ import annotations

from pydantic import Field, NonNegativeInt

from ...ir.program import Program
from .cuts import encoder
from .policy import Policy, PolicyConfig
from .reuse import Cuts
from .schedules import refreshed, scaled


class FasterDiffusionConfig(PolicyConfig):
    keys: tuple[NonNegativeInt, ...] = Field(
        default=(0, 1, 2, 3, 5, 10, 15, 25, 35), min_length=1,
        description="Steps of a loop of ``length`` that run in full; the first of a loop always does [step].",
    )  # fmt: skip
    length: int = Field(
        default=50, ge=1, description="Of the loop that keys are steps of; other loops are scaled [steps]."
    )


class FasterDiffusion(Policy[FasterDiffusionConfig]):
    name = "faster-diffusion"
    Config = FasterDiffusionConfig

    def cuts(self, program: Program) -> Cuts:
        return {"decoder": encoder(program.variants["full"].graph)}

    def order(self, steps: int) -> list[str]:
        return refreshed(steps, scaled(self.config.keys, self.config.length, steps), "decoder")
