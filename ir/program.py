"""The program: the graphs of a diffusion model and how the denoising loop runs them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from .errors import UserError
from .rates import Rate


@dataclass(frozen=True)
class HistoryEntry:
    """What a pass did: its configuration, its measured effect, the seconds it took."""

    pass_name: str
    config: dict[str, Any]
    effect: dict[str, Any]
    seconds: float


@dataclass(frozen=True)
class Link:
    """A value that variant ``source`` computes and variant ``target`` reads."""

    value: str
    source: str
    target: str


@dataclass
class Program:
    """A diffusion model is a loop, not one graph run once.

    ``variants``  graphs by name, "full" always among them: same weights by name, other nodes
    ``rates``     how often each input of the model changes
    ``weights``   names of the tensors that a checkpoint brings
    ``schedule``  which variant runs at which step of a loop of N, where it is not always "full"
    ``state``     values by name that one step leaves for the next, with their shapes
    ``tables``    per-step constants by name: [steps, ...]
    ``history``   what each pass did

    Variants are joined by names: an output of one and an input of another that are called the same are one
    value.
    """

    name: str
    variants: dict[str, ir.Model]
    rates: dict[str, Rate]
    weights: frozenset[str] = frozenset()
    schedule: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    state: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    tables: dict[str, NDArray[np.float32]] = field(default_factory=dict[str, NDArray[np.float32]])
    history: list[HistoryEntry] = field(default_factory=list[HistoryEntry])

    def links(self) -> list[Link]:
        """Every value that passes from one variant to another."""
        made = {
            str(value.name): name for name, model in self.variants.items() for value in model.graph.outputs
        }
        return [
            Link(str(value.name), made[str(value.name)], name)
            for name, model in self.variants.items()
            for value in model.graph.inputs
            if str(value.name) in made
        ]

    def validate(self) -> None:
        """Raises UserError if a variant reads what nothing gives, or two variants give the same value."""
        givers: dict[str, str] = {}
        for name, model in self.variants.items():
            for value in model.graph.outputs:
                label = str(value.name)
                if label in givers:
                    raise UserError(f"value {label} is computed by both {givers[label]} and {name}")
                givers[label] = name
        for name, model in self.variants.items():
            for value in model.graph.inputs:
                label = str(value.name)
                if label not in givers and label not in self.rates and label not in self.state:
                    raise UserError(f"variant {name} reads {label}, which is no input and which nothing computes")
        for label in self.schedule.values():
            for name in label:
                if name not in self.variants:
                    raise UserError(f"the schedule runs variant {name}, which the program does not have")
