"""Blocks out of a program, by name: the layouts of smaller networks as recipes."""

from __future__ import annotations

from typing import Any

from ...ir.errors import UserError
from ...ir.macs import macs
from ...ir.program import Program
from ..base import Context, Pass
from ..held_out import split
from ..measuring import output_error
from .candidates import Candidate, candidates, named
from .config import PruneConfig
from .options import removals, ways
from .repair import repaired
from .surgery import FITTED, By, pruned


class Prune(Pass[PruneConfig]):
    """Program -> the same without the blocks named, what it is smaller by and, where there is a calibration, what that
    does to the output.

    Raises UserError for a block that the model has not, where shapes do not meet, and if an input's last path to the
    output would go.
    """

    name = "prune"
    Config = PruneConfig

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        config, graph = self.config, program.variants["full"].graph
        if not config.blocks:
            raise UserError('pass prune names no block; give some, as blocks = ["mid_block"].')
        found = candidates(graph)
        chosen = [named(found, name, self.name) for name in dict.fromkeys(config.blocks)]
        wanted: list[tuple[Candidate, By]] = [(one, self._way(program, one)) for one in chosen]
        fitted = any(by in FITTED for _, by in wanted)
        calls = context.require("calibration", self.name) if fitted or config.repair else context.calibration
        fitting, judged = split(program, calls, config.calls, 0.5) if calls else ([], [])
        gone = removals(context, program, wanted, fitting, config.ridge)
        changed = pruned(program, gone, self.name)
        effect: dict[str, Any] = {"removed": {one.name: by for one, by in wanted}}
        if judged:
            effect["output_error"] = output_error(context, program, changed, judged)
        if config.repair:
            effect["unrepaired_error"] = effect["output_error"]
            better = pruned(
                program, repaired(context, program, gone, fitting, config.ridge, self.name), self.name
            )
            error = output_error(context, program, better, judged)
            if error < effect["output_error"]:
                changed, effect["output_error"] = better, error
        models = {"before": program.variants["full"], "after": changed.variants["full"]}
        effect["macs"] = {when: macs(model) for when, model in models.items()}
        effect["parameters"] = {
            when: parameters(one) for when, one in (("before", program), ("after", changed))
        }
        return changed, effect

    def _way(self, program: Program, one: Candidate) -> By:
        if self.config.by != "simplest":
            return self.config.by
        # Where none fits, the first is refused with the shapes.
        fitting: list[By] = [*ways(program.variants["full"].graph, one), "identity"]
        return fitting[0]


def parameters(program: Program) -> int:
    """How many numbers there are in the checkpoint's tensors that are read."""
    initializers = program.variants["full"].graph.initializers
    stored = (initializers[name].const_value for name in program.weights if name in initializers)
    return sum(one.size for one in stored if one is not None)
