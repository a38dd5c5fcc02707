"""What corrections share: which calls of a calibration fit one, and which say whether it helps."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

from ...ir.errors import UserError
from ...ir.program import Program

SHARE = 4
"""One in so many calls judges, or the last where a timestep has fewer."""


def require_first(program: Program, name: str) -> None:
    """Raises UserError where the program has been through the pass before."""
    if any(entry.pass_name == name for entry in program.history):
        raise UserError(
            f"pass {name} stands in the recipe twice; what it corrects is corrected, name it once."
        )


def judges(places: Sequence[Hashable]) -> list[bool]:
    """Whether each of the calls at these places of a loop judges: some of each, so that both kinds see all of it."""
    found = [False] * len(places)
    for place in dict.fromkeys(places):
        calls = [index for index, one in enumerate(places) if one == place]
        for index in calls[SHARE - 1 :: SHARE] or calls[1:][-1:]:
            found[index] = True
    return found
