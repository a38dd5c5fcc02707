"""What any model costs on an accelerator: its fused program, priced by the hardware model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..hwmodel import topology
from ..hwmodel.estimate import estimate as price
from ..hwmodel.hardware import Hardware, load
from ..ir.errors import UserError
from ..ir.program import Program
from ..runtime.schedule import order
from .costs.priced import Priced
from .programs import random_weights, structure
from .progress import Silent
from .recipes import NOTHING, Recipe, read_recipe


def estimate(
    model: Any,
    hardware: str | os.PathLike[str],
    *,
    steps: int = 50,
    dram: str | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    recipe: str | os.PathLike[str] | None = None,
    sampler: Mapping[str, Any] | None = None,
    reporter: Silent | None = None,
) -> dict[str, Any]:
    """Cycles, joules and bytes of an image of ``steps`` calls of ``model``, each of the variant that its schedule says;
    the keys are `hwmodel.estimate`'s.

    ``model`` is whatever `fick.compile` takes, a bundle for any target (its program is estimated), or a SCALE-Sim
    topology ``.csv``. ``hardware`` is the name of a spec or the path of a ``.toml``, ``dram`` a table in place of
    the spec's, ``shapes`` fixes sizes of inputs by name, and ``recipe`` is a file of optional passes, whose effect is
    listed as ``passes``; without prompts it is calibrated in loops of the ``sampler`` (the folder's own by default).
    Only sizes count: ``random_weights`` says whether the weights came from a configuration alone.

    Raises UserError for whatever the user can mend: no such model or hardware, a spec with a field at fault, an
    operand wider than the core takes, a layer that no buffer holds.
    """
    machine = load(hardware)
    wanted = read_recipe(Path(recipe)) if recipe is not None else NOTHING
    wanted.check_hardware(machine.spec.kind, machine.spec.name)
    check_told(model, [wanted], shapes, sampler)
    if suffix_of(model) == ".csv":
        if wanted.passes:
            raise UserError(f"{model} is a table of shapes and no pass can change it; give the model itself.")
        return price(topology.load(model, machine.spec.bits), machine, steps, dram) | {
            "random_weights": False,
            "passes": [],
        }
    program = looped(
        model, machine, wanted, steps=steps, dram=dram, shapes=shapes, sampler=sampler, reporter=reporter
    )
    optional = {one.name for one in wanted.passes}
    passes = [one.facts() for one in program.history if one.pass_name in optional]
    return price(program, machine, steps, dram) | {"random_weights": random_weights(model), "passes": passes}


def check_told(
    model: Any,
    recipes: Sequence[Recipe],
    shapes: Mapping[str, Sequence[int]] | None,
    sampler: Mapping[str, Any] | None,
) -> None:
    """Raises UserError for what a ``model`` and its ``recipes`` would not heed."""
    if sampler and not any(one.passes for one in recipes):
        raise UserError("--sampler is what a recipe is calibrated in; give a recipe, or leave it out.")
    if shapes and suffix_of(model) in (".csv", ".fick"):
        raise UserError(f"{model} has its shapes already; give shapes with a model that leaves them open.")


def suffix_of(model: Any) -> str:
    return Path(model).suffix.lower() if isinstance(model, str | os.PathLike) else ""


def looped(
    model: Any,
    machine: Hardware,
    recipe: Recipe,
    *,
    steps: int,
    dram: str | None,
    shapes: Mapping[str, Sequence[int]] | None,
    sampler: Mapping[str, Any] | None,
    reporter: Silent | None,
) -> Program:
    """The fused program, whose passes with a budget go by costs on the machine, with the order of ``steps`` calls."""
    costs = Priced(machine, dram)
    program = structure(
        model, shapes=shapes, recipe=recipe, sampler=sampler, reporter=reporter, cost_model=costs
    )
    if program.schedule and steps > 0:
        # None may be for so many steps: then one is followed as the runtime follows it.
        program = replace(program, schedule={steps: order(program.schedule, steps)})
    return program
