"""What fixed policies share: cuts that follow from the model, and an order that follows from the number of steps."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections import Counter
from typing import Any, TypeVar

from pydantic import Field, PositiveInt

from ...ir.errors import UserError
from ...ir.macs import macs
from ...ir.program import Program
from ..base import Context, Pass, PassConfig
from .reuse import Cuts, reusing


class PolicyConfig(PassConfig):
    steps: tuple[PositiveInt, ...] = Field(
        default=(10, 20, 25, 30, 50), min_length=1,
        description="Loops to make schedules for; others follow the nearest [steps].",
    )  # fmt: skip


PolicyConfigT = TypeVar("PolicyConfigT", bound=PolicyConfig)


class Policy(Pass[PolicyConfigT]):
    """Program of variant "full" -> the same with alternatives, their state and schedules.

    Where there are prompts to calibrate with, what it does to their pictures is measured.
    """

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        try:
            cuts = self.cuts(program)
        except UserError as error:
            raise UserError(f"pass {self.name}: {error}") from None
        changed = reusing(program, cuts, {steps: self.order(steps) for steps in self.config.steps})
        return changed, described(changed, context)

    @abstractmethod
    def cuts(self, program: Program) -> Cuts:
        """What each alternative takes from state. Raises UserError if the model has no such values."""

    @abstractmethod
    def order(self, steps: int) -> list[str]:
        """What a loop of so many steps runs."""


def described(changed: Program, context: Context) -> dict[str, Any]:
    """For the history: the size of the alternatives, how often each runs, and what pictures lose by it."""
    effect: dict[str, Any] = {
        "macs": {name: macs(changed.variants[name]) for name in changed.alternatives},
        "state_bytes": sum(math.prod(shape) * 4 for shape in changed.state.values()),
        "runs": {str(steps): dict(Counter(order)) for steps, order in changed.schedule.items()},
    }
    if context.quality is not None:
        effect["quality"] = dict(context.quality(changed))
    return effect
