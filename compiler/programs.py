"""The fused program of any model: what is lowered, and what the hardware model reads."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ..ir.errors import UserError
from ..ir.files import write_whole
from ..ir.interpreter import Interpreter
from ..ir.program import Program
from ..ir.rates import Rate
from ..ir.saved import pack, unpack
from ..passes.base import apply
from ..passes.costs import CostModel
from ..runtime.loader import check_bundle
from .bundle.skeleton import manifest_of, program_entry
from .cache import cache_folder, digest
from .calibration import drawn_calls
from .frontends import Config, Imported, open_model, open_source
from .kept_imports import import_source
from .pipeline import pipeline
from .progress import Silent
from .recipes import NOTHING, Recipe

DRAWN_CALLS = 3
"""At the first, the middle and the last timestep."""


def unchanged(imported: Imported) -> Program:
    """The program before any pass, over the imported graph itself. Inputs that nothing reads are left out of it."""
    used = {str(value.name) for value in imported.model.graph.inputs if value.uses()}
    rates = {name: Rate(rate) for name, rate in imported.inputs.items() if name in used}
    for value in [value for value in imported.model.graph.inputs if value.name not in used]:
        imported.model.graph.inputs.remove(value)
    return Program(imported.name, {"full": imported.model}, rates, weights=imported.weights)


def fused(
    imported: Imported,
    seed: int = 0,
    *,
    recipe: Recipe = NOTHING,
    precision: str = "float32",
    half_run: int = 0,
    model: Any = None,
    sampler: Mapping[str, Any] | None = None,
    reporter: Silent | None = None,
    cost_model: CostModel | None = None,
) -> Program:
    """The program after the recipe's passes and all of the pipeline, which ``half_run`` is for. ``model`` is what was
    imported, ``sampler`` how it is sampled (by default as its folder says), ``cost_model`` what passes with a budget go
    by.
    """
    program = unchanged(imported)
    sampler = imported.sampler if sampler is None else sampler
    context = recipe.context(program, model, seed, reporter or Silent(), sampler)
    context = replace(context, cost_model=cost_model)
    if not imported.random_weights:  # of those nothing is to be learned
        drawn = partial(drawn_calls, program, DRAWN_CALLS, seed)
        context = replace(context, referee=Interpreter, drawn=drawn)
    return apply([*recipe.passes, *pipeline(precision, half_run)], program, context)


def structure(
    model: Any,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    recipe: Recipe = NOTHING,
    sampler: Mapping[str, Any] | None = None,
    reporter: Silent | None = None,
    cost_model: CostModel | None = None,
) -> Program:
    """The fused program of a bundle's main component or of any model, less its large weights.

    That of a model is kept for the next time. Raises UserError for whatever the user can mend.
    """
    if str(model).endswith(".fick"):
        if recipe.passes:
            raise UserError(f"{model} is compiled already; give a recipe with the model that it was made of.")
        component = next(iter(manifest_of(Path(model))["components"]))
        return unpack(check_bundle(model, [program_entry(component)]).entries[program_entry(component)])
    # Of a whole pipeline that is what its bundle runs: both branches of guidance as one batch.
    source = open_model(model, shapes=shapes).main
    settings = [recipe.settings(), repr(cost_model), sampler] if recipe.passes else []
    name = digest({"main": source}, [shapes, settings])
    place = cache_folder() / "programs" / f"{name}.zip"
    if name and place.is_file():
        try:
            return unpack(place.read_bytes())
        except UserError:
            pass  # damaged: made again below
    made = fused(
        import_source(source), recipe=recipe, model=model, sampler=sampler, reporter=reporter, cost_model=cost_model,
    )  # fmt: skip
    data = pack(made)
    if name:
        # What cannot be kept is made again next time, and is no reason to fail now.
        with contextlib.suppress(OSError):
            place.parent.mkdir(parents=True, exist_ok=True)
            write_whole(place, data)
    return unpack(data)


def random_weights(model: Any) -> bool:
    """Whether a bundle's or a model's weights were drawn, because it came from a configuration alone."""
    if str(model).endswith(".fick"):
        return manifest_of(Path(model)).get("random_weights") is True
    return isinstance(open_source(model), Config)
