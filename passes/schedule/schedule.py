"""What to recompute when: the alternatives of a program and their schedules, chosen within a budget.

Errors of the output are measured once for every way to reuse, step and age (profile.py), with what an error at a step
does to the picture (influence.py). Dynamic programming then gives the best schedule of every few alternatives
(plan.py); the best of those is refined by drawing (search.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...ir.errors import UserError
from ...ir.program import Program
from ..base import Context, Pass
from ..caching.policy import described
from ..caching.reuse import reusing
from ..costs import CostModel
from .candidates import all_of, candidates, costs
from .config import ScheduleReuseConfig
from .influence import influence
from .loss import Loss
from .plan import Problem
from .profile import profile
from .search import Loop, best, cheapest


class ScheduleReuse(Pass[ScheduleReuseConfig]):
    """Program of variant "full" -> the same with alternatives and schedules.

    Raises UserError for a model that has nothing to reuse, and for a budget below what the cheapest schedule costs.
    """

    name = "schedule-reuse"
    Config = ScheduleReuseConfig

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        config = self.config
        cost_model: CostModel = context.require("cost_model", self.name)
        context.require_draw(self.name)
        try:
            cuts = candidates(program)
        except UserError as error:
            raise UserError(f"pass {self.name}: {error}") from None
        everything = all_of(program, cuts)
        priced = costs(everything, cost_model, config.limit.quantity)
        loops = [self._loop(program, everything, cuts, priced, steps, context) for steps in config.steps]
        whole = cost_model(program)
        share = config.limit.of(whole) / priced["full"]
        if config.floor is not None:
            share = cheapest(loops, config.variants - 1, config.floor)
        found = best(loops, config.variants - 1, share, config.evaluations)
        if not found:
            least = min(priced.values()) / priced["full"]
            raise UserError(
                f"pass {self.name} cannot keep to {config.budget}, {share:.3g} of a full step: what reuses most takes "
                f"{least:.3g} of it, and the steps that leave what it reads are full; raise the budget."
            )
        schedule = {loop.calls: loop.named(one.order) for loop, one in zip(loops, found, strict=True)}
        changed = reusing(program, cuts, schedule)
        return changed, {
            "cost": {"quantity": config.limit.quantity, "budget": share * priced["full"], **priced},
            "cuts": {name: list(cuts[name]) for name in changed.alternatives[1:]},
            "loops": {
                str(loop.calls): {
                    "predicted_cost": loop.problem.cost(one.order) / loop.calls,
                    "predicted_loss": loop.problem.loss(one.order),
                    "measured_loss": one.loss,
                    "planned_loss": one.planned,
                    "evaluations": one.evaluations,
                    "influence": loop.problem.influence.tolist(),
                    "order": " ".join(schedule[loop.calls]),
                }
                for loop, one in zip(loops, found, strict=True)
            },
            **described(changed, context),
        }

    def _loop(
        self,
        program: Program,
        everything: Program,
        cuts: Mapping[str, Sequence[str]],
        priced: Mapping[str, float],
        steps: int,
        context: Context,
    ) -> Loop:
        config, names = self.config, list(cuts)
        loss = Loss(context, program, cuts, steps, config.pictures)
        errors = profile(context, everything, names, loss.exact, config.longest)
        # By one that neither does nothing nor nearly all.
        middle = sorted(range(len(names)), key=lambda row: priced[names[row]])[len(names) // 2]
        weights = influence(loss, names[middle], errors[middle, :, 0], config.probes)
        read = [{*everything.state_read(name)} for name in names]
        left = [{*everything.state_left(name)} for name in names]
        # What an alternative reads it does not leave, so that none leaves its own.
        leaves = np.array([[theirs <= ours for theirs in read] for ours in left])
        amounts = np.array([priced["full"], *(priced[name] for name in names)])
        return Loop(Problem(errors, weights, amounts, leaves), names, loss)
