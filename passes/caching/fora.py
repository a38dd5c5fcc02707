"""FORA (Selvaraju et al., arXiv 2407.01425): what attention and feed-forward layers add is kept for some steps.

Norms, projections and convolutions run in every step, and so do the residual sums: of a diffusion transformer little
else remains.
"""

from __future__ import annotations

from pydantic import Field

from ...ir.errors import UserError
from ...ir.program import Program
from .cuts import branches
from .policy import Policy, PolicyConfig
from .reuse import Cuts
from .schedules import refreshed, uniform


class ForaConfig(PolicyConfig):
    interval: int = Field(default=3, ge=2, le=1000, description="From one full step to the next [steps].")


class Fora(Policy[ForaConfig]):
    name = "fora"
    Config = ForaConfig

    def cuts(self, program: Program) -> Cuts:
        found = branches(program.variants["full"].graph, "attention", "feed_forward")
        if not found:
            raise UserError(
                "the model has no attention and no feed-forward layer whose output could be kept."
            )
        return {"kept": list(found.values())}

    def order(self, steps: int) -> list[str]:
        return refreshed(steps, uniform(steps, self.config.interval), "kept")
