"""Blocks out of a program until it costs what it may: those whose loss is least, chosen together."""

from __future__ import annotations

from typing import Any

from ...ir.program import Program
from ..base import Context, Pass
from ..budget import read
from .config import PruneBlocksConfig
from .study import NAME, Study, effect


class PruneBlocks(Pass[PruneBlocksConfig]):
    """Program -> the same with fewer blocks, and what is predicted and measured of it.

    Raises UserError for a budget that no choice of blocks keeps to, saying what the least is.
    """

    name = NAME
    Config = PruneBlocksConfig

    def run(self, program: Program, context: Context) -> tuple[Program, dict[str, Any]]:
        study = Study(program, context, self.config)
        found = study.outcome(study.within(read(self.config.budget)))
        return found.program, effect(study, found)
