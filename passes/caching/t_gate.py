"""T-GATE (Zhang et al., arXiv 2404.02747): what attention to the prompt adds is kept after the first steps.

It settles early, while what a picture shows is decided. Each branch of guidance keeps its own.
"""

from __future__ import annotations

from pydantic import Field

from ...ir.program import Program
from .cuts import cross_attention
from .policy import Policy, PolicyConfig
from .reuse import Cuts
from .schedules import refreshed


class TGateConfig(PolicyConfig):
    gate: float = Field(
        default=0.4, gt=0, le=1, description="Before the prompt is attended to no more [share of the loop]."
    )


class TGate(Policy[TGateConfig]):
    name = "t-gate"
    Config = TGateConfig

    def cuts(self, program: Program) -> Cuts:
        return {"gated": cross_attention(program.variants["full"].graph, program.rates)}

    def order(self, steps: int) -> list[str]:
        return refreshed(steps, set(range(max(1, round(self.config.gate * steps)))), "gated")
