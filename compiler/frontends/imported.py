"""What every front end hands over, and how the inputs of a diffusion UNet are told apart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...ir.errors import UserError
from ...ir.operators import VIEWS

STEP_NAMES = frozenset({"timestep", "timesteps", "t", "sigma", "sigmas", "time"})
"""Inputs of these names are known from the step alone."""

CONVOLUTIONS = frozenset({"Conv", "ConvTranspose"})


@dataclass(frozen=True)
class Imported:
    """A source model in canonical form.

    ``weights`` names the tensors that a checkpoint would bring, not numbers that the architecture spells
    out. ``inputs`` gives each input's rate: "sample", "step" or "prompt". ``metadata`` holds what a diffusers
    folder says: ``config``, ``scheduler`` (its settings) and ``prediction_type``. ``numbers`` are the weights of one
    element: rules may take them for numbers of the architecture and put them into the code.
    """

    model: ir.Model
    name: str
    kind: str
    inputs: dict[str, str]
    weights: frozenset[str]
    random_weights: bool = False
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    numbers: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def sampler(self) -> dict[str, Any]:
        """How its folder says that it is sampled (``runtime.samplers.create``); empty where nothing says so."""
        scheduler = self.metadata.get("scheduler")
        return {"kind": "diffusers", "config": scheduler} if scheduler else {}


class Source(Protocol):
    """One component that has been found but not read."""

    @property
    def name(self) -> str: ...

    def imported(self) -> Imported:
        """In canonical form. Raises UserError for whatever the user can mend."""
        ...

    def contents(self) -> tuple[str, list[Path]] | None:
        """What the imported model follows from, settings and files, or None where that cannot be told."""
        ...

    def weights(self, wanted: Mapping[str, Sequence[int]]) -> Mapping[str, NDArray[Any]]:
        """The tensors of a checkpoint by name and shape, without what makes ``imported`` slow.

        Raises KeyError or UserError if one of them is not there by that name.
        """
        ...


@dataclass(frozen=True)
class Whole:
    """All that a bundle is made of: components by name, the main one first.

    ``files`` go into the bundle as they are; ``facts`` say how the components are joined.
    """

    name: str
    components: dict[str, Source]
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    facts: dict[str, Any] = field(default_factory=dict[str, Any])

    @property
    def main(self) -> Source:
        return next(iter(self.components.values()))


def assemble_part(
    model: ir.Model,
    name: str,
    kind: str,
    *,
    weights: Iterable[str],
    numbers: Mapping[str, float] | None = None,
    **rest: Any,
) -> Imported:
    """A component beside the UNet: it runs once a picture, so that all of its inputs are of one rate.

    Raises UserError if a weight holds NaN or infinity.
    """
    _check_finite(model, name)
    inputs = {str(value.name): "sample" for value in model.graph.inputs}
    return Imported(model, name, kind, inputs, frozenset(weights), numbers=numbers or {})


def assemble(
    model: ir.Model,
    name: str,
    kind: str,
    *,
    weights: Iterable[str],
    random_weights: bool = False,
    metadata: Mapping[str, Any] | None = None,
    numbers: Mapping[str, float] | None = None,
) -> Imported:
    """Check that a canonical model is a UNet with sound weights and describe its inputs.

    Raises UserError if no float input of four axes, or five of a video, has the height and width of the output, if
    nothing convolves, or if a weight holds NaN or infinity.
    """
    sample = _sample(model, name)
    if not any(node.op_type in CONVOLUTIONS for node in model.graph):
        raise UserError(f"{name} is not a diffusion UNet: it has no convolution.")
    if not random_weights:
        _check_finite(model, name)
    roles: dict[str, str] = {}
    for value in model.graph.inputs:
        label = str(value.name)
        if value is sample:
            roles[label] = "sample"
        else:
            roles[label] = "step" if label.lower() in STEP_NAMES else "prompt"
    return Imported(
        model, name, kind, roles, frozenset(weights), random_weights, metadata or {}, numbers or {}
    )


def _sample(model: ir.Model, name: str) -> ir.Value:
    images = [
        value
        for value in model.graph.inputs
        if value.dtype is not None and value.dtype.is_floating_point() and len(_sizes(value)) in (4, 5)
    ]
    outputs = [_sizes(value) for value in model.graph.outputs]
    equal = [value for value in images if _sizes(value) in outputs]
    # A UNet that also predicts a variance, or takes an image beside the noise, keeps height and width.
    alike = [v for v in images if any(_same_picture(_sizes(v), out) for out in outputs)]
    for found in (equal, alike):
        if found:
            return found[0]
    raise UserError(
        f"{name} is not a diffusion UNet: no float input of four or five axes has the shape of an output "
        f"(inputs {_listed(model.graph.inputs)}; outputs {_listed(model.graph.outputs)})."
    )


def _same_picture(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    """Whether two pictures or two videos agree in height and width."""
    return len(one) == len(other) and one[-2:] == other[-2:]


def _sizes(value: ir.Value) -> tuple[int, ...]:
    return tuple(int(size) for size in value.shape or ())  # type: ignore[arg-type]


def _listed(values: Any) -> str:
    return ", ".join(f"{value.name} {list(_sizes(value))}" for value in values)


CHOOSING = frozenset(
    {
        "Add", "Clip", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "MaxPool", "Min",
        "ReduceMax", "ReduceMin", "Where",
    }
)  # fmt: skip
"""Operators for which infinity is a number like any other."""


def _is_mask(value: ir.Value) -> bool:
    """Whether nothing but sums, choices and attention's mask read a constant: there infinity says what is left out."""
    for node, place in value.uses():
        if node.op_type == "Concat" or (node.op_type in VIEWS | {"Cast", "Gather"} and place == 0):
            if not all(map(_is_mask, node.outputs)):
                return False
        elif node.op_type not in CHOOSING and (node.op_type, place) != ("Attention", 3):
            return False
    return True


def _check_finite(model: ir.Model, name: str) -> None:
    for label, value in model.graph.initializers.items():
        tensor = value.const_value
        if tensor is None or not tensor.dtype.is_floating_point():
            continue
        # A sum is finite if every term is; only a suspicious tensor is looked at element by element.
        array = tensor.numpy()
        if not np.isfinite(np.sum(array, dtype=np.float64)) and not np.isfinite(array).all():
            if _is_mask(value) and not np.isnan(array).any():
                continue
            bad = int(array.size - np.count_nonzero(np.isfinite(array)))
            raise UserError(
                f"weight {label} of {name} holds {bad} NaN or infinite values; mend the checkpoint."
            )
