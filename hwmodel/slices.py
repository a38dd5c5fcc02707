"""Times that outlive a spec: each is kept by the part of the spec that it depends on.

From one design to the next some tasks take as long as before: those of the other mode if a mode's array or buffers
change, all of them if it is energy, names or areas. What the time of a task depends on is data here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from .fitting import Misfit
from .memory import Interface, Timing
from .specs import Tiled
from .workload import Bounds, Convolution, Vectors

Mode = Literal["convolution", "matmul", "vectors"]


@dataclass
class Way:
    """One way to cut a task: what it costs at least and, once that was asked for, its time."""

    least: float
    timing: Timing | None = None


class Timings:
    """By slice of a spec, what is known of tasks by all of them but their names.

    ``times``  the time of a task, or why no way to cut it fits
    ``ways``   by slices without the sizes of buffers: ways to cut it, by how they fit
    """

    def __init__(self) -> None:
        self.times: defaultdict[Hashable, dict[Hashable, Timing | Misfit]] = defaultdict(dict)
        self.ways: defaultdict[Hashable, dict[Hashable, Way]] = defaultdict(dict)

    def __len__(self) -> int:
        """How many slices."""
        return len(self.times) + len(self.ways)

    def clear(self) -> None:
        self.times.clear()
        self.ways.clear()


ALWAYS = (
    "kind",
    "nonlinear",
    "buffers.vector_element_bits",
    "memory.streams.activations",
    "memory.streams.output",
)
"""Tables and fields that every task depends on, besides the pace of ports and DRAM."""

SLICES: dict[Mode, tuple[str, ...]] = {
    "convolution": (
        "buffers.convolution_weights",
        "buffers.lines",
        "buffers.shortcut",
        "memory.streams.convolution_weights",
        "memory.streams.shortcut",
    ),
    "matmul": (
        "buffers.matmul_activations",
        "buffers.matmul_weights",
        "buffers.shortcut",
        "memory.streams.matmul_weights",
        "memory.streams.shortcut",
    ),
    "vectors": ("buffers.vectors",),
}
"""Those that tasks of a mode depend on; fields of the array that are named after the other mode are not among them."""

BEHIND = ("buffers.vectors",)
"""Those that a normalisation or softmax behind another operation adds."""


def mode_of(bounds: Bounds) -> Mode:
    """Of the array; a convolution of 1 x 1 is a product. What never sees the array takes vectors."""
    if isinstance(bounds, Vectors):
        return "vectors"
    return "convolution" if isinstance(bounds, Convolution) and not bounds.pointwise else "matmul"


def slice_of(spec: Tiled, interface: Interface, mode: Mode, behind: bool, *, sized: bool = True) -> Hashable:
    """All that the time of a task of a mode depends on, alone or with another operation behind it; without the sizes
    of its buffers if it is not ``sized``.
    """
    own = (*SLICES[mode], *(BEHIND if behind else ()))
    paths = (*ALWAYS, *(path for path in own if sized or not path.startswith("buffers.")))
    array: tuple[Hashable, ...] = ()
    if mode != "vectors":
        (other,) = {"convolution", "matmul"} - {mode}
        array = tuple(
            item for item in vars(attrgetter("array")(spec)).items() if not item[0].startswith(other)
        )
    return mode, interface.pace, array, *attrgetter(*paths)(spec)
