"""The program: the graphs of a diffusion model and how the denoising loop runs them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import onnx_ir as ir

from .errors import UserError
from .rates import Rate

PROLOGUE = ("constant", "prompt", "step")
"""Variants for what many runs have in common. A step runs one of the others."""

NEXT = ".next"
"""A variant reads state as its input NAME, and leaves it for the next step as its output NAME.next."""


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
    ``history``   what each pass did

    Variants are joined by names: an output of one and an input of another that are called the same are one
    value.

    An *alternative* is a variant that a schedule runs in place of "full", which is one as well. It gives the same
    outputs, and may read what "full" may and the state: as its input NAME what was last left, and its output NAME.next
    is what it leaves. "full" reads no state and leaves all of it, so that a loop may begin with it anywhere, and
    whatever runs after it finds what it reads.

    What is the same at step k of every picture is no state: it follows from the timestep, has rate step, and so is
    computed by variant "step".
    """

    name: str
    variants: dict[str, ir.Model]
    rates: dict[str, Rate]
    weights: frozenset[str] = frozenset()
    schedule: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    state: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    history: list[HistoryEntry] = field(default_factory=list[HistoryEntry])

    def copy(self) -> Program:
        """The same program with graphs of its own, which a pass may change; tensors are shared."""
        return replace(self, variants={name: model.clone() for name, model in self.variants.items()})

    def in_full(self) -> Program:
        """The same with full steps alone."""
        return replace(self, variants={"full": self.variants["full"]}, schedule={}, state={})

    @property
    def alternatives(self) -> list[str]:
        """ "full", then the other variants that a schedule runs, in their order."""
        scheduled = {name for run in self.schedule.values() for name in run} - {"full", *PROLOGUE}
        return ["full", *(name for name in self.variants if name in scheduled)]

    def state_read(self, variant: str) -> list[str]:
        """Names of the state that a variant reads."""
        names = (str(value.name) for value in self.variants[variant].graph.inputs)
        return [name for name in names if name in self.state]

    def state_left(self, variant: str) -> dict[str, ir.Value]:
        """The state that a variant leaves, by its name there."""
        found = ((str(value.name), value) for value in self.variants[variant].graph.outputs)
        left = {name.removesuffix(NEXT): value for name, value in found if name.endswith(NEXT)}
        return {name: value for name, value in left.items() if name in self.state}

    @property
    def whole(self) -> list[str]:
        """ "full", then the other alternatives that leave all of the state, if there is any."""
        others = self.alternatives[1:] if self.state else []
        return ["full", *(name for name in others if {*self.state_left(name)} == {*self.state})]

    def returned(self, variant: str = "full") -> list[ir.Value]:
        """The outputs of a variant that are no state."""
        left = set(self.state_left(variant).values())
        return [value for value in self.variants[variant].graph.outputs if value not in left]

    def links(self) -> list[Link]:
        """Every value that passes from one variant to another in a step, in the order of what reads it."""
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
        """Raises UserError if a value is given twice or read but never given, if two weights share a name, or if
        schedules, alternatives and state are not what is said of them above.
        """
        alternatives = self.alternatives
        self._check_schedules(alternatives)
        givers = {**dict.fromkeys(self.rates, "the caller"), **dict.fromkeys(self.state, "the step before")}
        weights: dict[str, ir.TensorProtocol] = {}
        for name, model in self.variants.items():
            for value in model.graph.outputs:
                giver = givers.setdefault(str(value.name), name)
                # A step runs one of the alternatives, so that these may give the same value.
                if giver != name and not {giver, name} <= set(alternatives):
                    raise UserError(f"value {value.name} is given by {giver} and by {name}; rename one.")
            for label, value in model.graph.initializers.items():
                tensor = value.const_value
                if tensor is not None and weights.setdefault(label, tensor) is not tensor:
                    raise UserError(f"variant {name} has another weight {label} than a variant before it.")
        for name, model in self.variants.items():
            for value in model.graph.inputs:
                giver = givers.get(str(value.name))
                if giver is None or giver in alternatives:
                    raise UserError(f"variant {name} reads {value.name}, which nothing gives.")
                if value.name in self.state and name not in alternatives[1:]:
                    raise UserError(
                        f"variant {name} reads state {value.name}, which nothing has left before it."
                    )
        self._check_state(alternatives)

    def _check_schedules(self, alternatives: list[str]) -> None:
        for steps, run in self.schedule.items():
            if len(run) != steps:
                raise UserError(f"the schedule for {steps} steps names {len(run)} variants.")
            for name in run:
                if name not in alternatives:
                    raise UserError(
                        f"the schedule for {steps} steps runs {name}, which is no variant of a step."
                    )
            if run[:1] != ["full"]:
                raise UserError(
                    f"the schedule for {steps} steps does not begin with full, as a picture has to."
                )
        for name in self.variants:
            if name not in (*PROLOGUE, *alternatives):
                raise UserError(f"variant {name} is run by no schedule; name it in one, or leave it out.")

    def _check_state(self, alternatives: list[str]) -> None:
        left = self.state_left("full")
        for name in self.state:
            if name not in left:
                raise UserError(f"variant full does not leave {name}{NEXT}, which a later step may read.")
        for name in alternatives[1:]:
            ours, theirs = (_said(self.returned(one)) for one in (name, "full"))
            if ours != theirs:
                raise UserError(f"variant {name} gives {ours} in place of {theirs}.")
        for name in alternatives:
            inputs = [(str(value.name), value) for value in self.variants[name].graph.inputs]
            read = [(label, value) for label, value in inputs if label in self.state]
            for label, value in [*read, *self.state_left(name).items()]:
                ours, theirs = _kind(value), f"{left[label].dtype}{list(self.state[label])}"
                if ours != theirs:
                    raise UserError(f"variant {name} has {ours} as state {label} in place of {theirs}.")


def _said(values: Iterable[ir.Value]) -> str:
    return ", ".join(sorted(f"{value.name} {_kind(value)}" for value in values)) or "nothing"


def _kind(value: ir.Value) -> str:
    if value.shape is None or not value.shape.is_static():
        raise UserError(f"value {value.name} has no static shape, as what a step leaves has to.")
    return f"{value.dtype}{list(value.shape.numpy())}"
