"""A schedule as a picture: steps across, blocks down, filled where a block is computed and empty where it is reused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import NDArray

from ..ir.blocks import discover
from ..ir.errors import UserError
from ..ir.program import NEXT, Program
from .figures import png

COLOURS = ListedColormap(["#eeeeee", "#3566a8"])
INCHES_PER_CELL = 0.22
DOTS_PER_INCH = 130


def computed(program: Program, steps: int) -> tuple[list[str], NDArray[np.bool_]]:
    """Names of blocks, in the order of the graph, and whether each is computed at each step: [blocks, steps].

    Raises UserError if the program has no schedule for so many steps.
    """
    if steps not in program.schedule:
        known = ", ".join(map(str, sorted(program.schedule))) or "none"
        raise UserError(f"program {program.name} has no schedule for {steps} steps; it has {known}.")
    blocks = discover(program.variants["full"].graph).of_kind("resnet", "attention", "feed_forward")
    made = {
        name: {
            str(value.name).removesuffix(NEXT)
            for node in program.variants[name].graph
            for value in node.outputs
        }
        for name in program.alternatives
    }
    ends = [str(block.nodes[-1].outputs[0].name).removesuffix(NEXT) for block in blocks]
    rows = [[end in made[name] for name in program.schedule[steps]] for end in ends]
    return [block.name for block in blocks], np.array(rows, bool).reshape(len(blocks), steps)


def draw(program: Program, steps: int) -> bytes:
    """A PNG. Raises UserError as ``computed`` does."""
    names, filled = computed(program, steps)
    size = (3 + INCHES_PER_CELL * steps, 1 + INCHES_PER_CELL * len(names))
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    axes.imshow(filled, cmap=COLOURS, vmin=0, vmax=1, aspect="auto", interpolation="nearest")
    axes.set_yticks(range(len(names)), names, fontsize=6)
    axes.set_xticks(np.arange(-0.5, steps), minor=True)
    axes.set_yticks(np.arange(-0.5, len(names)), minor=True)
    axes.grid(which="minor", color="white", linewidth=0.8)
    axes.tick_params(which="minor", length=0)
    axes.set_xlabel("step")
    axes.set_title(f"{program.name}, {steps} steps: {_said(program.schedule[steps])}", loc="left", fontsize=8)
    return png(figure)


def _said(order: Sequence[str]) -> str:
    return ", ".join(f"{order.count(name)} {name}" for name in dict.fromkeys(order))
