"""The program: the graphs of a diffusion model and how the denoising loop runs them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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

    def facts(self) -> dict[str, Any]:
        """What is the same for the same input: all but the seconds."""
        return {"pass": self.pass_name, "config": self.config, "effect": self.effect}


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

    def copy(self) -> Program:
        """The same program with graphs of its own, which a pass may change; tensors are shared."""
        return replace(self, variants={name: model.clone() for name, model in self.variants.items()})

    def links(self) -> list[Link]:
        """Every value that passes from one variant to another, in the order of what reads it."""
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
        """Raises UserError if a value is given twice or read but never given, if two weights share a name, or
        if the schedule runs a variant that is not there or has another length than it says.
        """
        givers = {**dict.fromkeys(self.rates, "the caller"), **dict.fromkeys(self.tables, "a table")}
        weights: dict[str, ir.TensorProtocol] = {}
        # A step runs one variant of those in the schedule, so that these may give the same value.
        alternatives = {name for run in self.schedule.values() for name in run}
        for name, model in self.variants.items():
            for value in model.graph.outputs:
                giver = givers.setdefault(str(value.name), name)
                if giver != name and not alternatives.issuperset((giver, name)):
                    raise UserError(f"value {value.name} is given by {giver} and by {name}; rename one.")
            for label, value in model.graph.initializers.items():
                tensor = value.const_value
                if tensor is not None and weights.setdefault(label, tensor) is not tensor:
                    raise UserError(f"variant {name} has another weight {label} than a variant before it.")
        for name, model in self.variants.items():
            for value in model.graph.inputs:
                if value.name not in givers and value.name not in self.state:
                    raise UserError(f"variant {name} reads {value.name}, which nothing gives.")
        for steps, run in self.schedule.items():
            if len(run) != steps:
                raise UserError(f"the schedule for {steps} steps names {len(run)} variants.")
            for name in run:
                if name not in self.variants:
                    raise UserError(f"the schedule for {steps} steps runs {name}, which is no variant.")
