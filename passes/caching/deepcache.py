"""DeepCache (Ma et al., arXiv 2312.00858): between full steps, only a UNet's outermost layers run.

What comes up from the deep layers changes little from step to step. A full step leaves it where the branch of a skip
connection joins it, and the steps after it run that branch alone, with what was left.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ...ir.program import Program
from .cuts import deep
from .policy import Policy, PolicyConfig
from .reuse import Cuts
from .schedules import centred, refreshed, uniform


class DeepCacheConfig(PolicyConfig):
    interval: int = Field(
        default=3, ge=2, le=1000, description="From one full step to the next, in the mean [steps]."
    )
    depth: int = Field(
        default=1,
        ge=1,
        description="From the outermost in, those whose branches every step runs [skip connections].",
    )
    spacing: Literal["uniform", "centred"] = Field(
        default="uniform",
        description="How full steps lie in a loop: evenly, or closer together about its centre [1].",
    )
    centre: float = Field(default=0.3, ge=0, le=1, description="Where they are closest [share of the loop].")
    power: float = Field(default=1.4, ge=1, le=10, description="How much closer; 1 is evenly spaced [1].")


class DeepCache(Policy[DeepCacheConfig]):
    name = "deep-cache"
    Config = DeepCacheConfig

    def cuts(self, program: Program) -> Cuts:
        return {"cached": deep(program.variants["full"].graph, self.config.depth)}

    def order(self, steps: int) -> list[str]:
        config = self.config
        if config.spacing == "uniform":
            return refreshed(steps, uniform(steps, config.interval), "cached")
        return refreshed(steps, centred(steps, config.interval, config.centre, config.power), "cached")
