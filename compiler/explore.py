"""Hardware and software searched together: the programs that passes make of a model, over a space of designs."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..hwmodel import energy, topology
from ..hwmodel.explore import results
from ..hwmodel.explore.advice import advice
from ..hwmodel.explore.measures import objectives as named
from ..hwmodel.explore.problem import Evaluator, Problem
from ..hwmodel.explore.search import Found, method_of, search
from ..hwmodel.explore.space import Software, Space, read_space
from ..hwmodel.explore.storage import Storage, default_url
from ..hwmodel.explore.version import version
from ..hwmodel.explore.workers import walker
from ..hwmodel.extract import extract
from ..hwmodel.hardware import load
from ..hwmodel.report.designs import page
from ..hwmodel.specs import Bits
from ..hwmodel.workload import Workload
from ..ir.errors import UserError, first_line
from ..ir.files import write_whole
from .estimate import check_told, looped, suffix_of
from .programs import random_weights
from .progress import Silent
from .quality.table import NAME, digest_of_weights, read_table, weights_of
from .recipes import NOTHING, Recipe, read_recipe

PACKAGES = ("optuna", "sqlalchemy", "moocore", "pyarrow")

PUBLISHED = ("sda", "dbsc")
"""Designs of the literature, shown beside those that are found."""


@dataclass(frozen=True)
class Stated:
    """A problem, the model that it is about, and its first software's workload for any widths."""

    problem: Problem
    model: Any
    workload: Callable[[Bits], Workload]


def state(
    model: Any,
    space: str | os.PathLike[str],
    *,
    objectives: str = "latency,dsp,bram",
    steps: int = 50,
    dram: str | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    sampler: Mapping[str, Any] | None = None,
    quality: Path | None = None,
    reporter: Silent | None = None,
) -> Stated:
    """What is to be searched. Every software of the space is made once, by its recipe, which without prompts is
    calibrated in loops of the ``sampler`` (the folder's own by default).

    Raises UserError for whatever the user can mend, above all in the space; the sentence says where.
    """
    if not all(map(find_spec, PACKAGES)):
        raise UserError("fick explore needs more packages; install them with `pip install 'fick[explore]'`.")
    read, wanted = read_space(space), named(objectives)
    if steps < 1:
        raise UserError(f"an image of {steps} steps cannot be estimated; give 1 or more.")
    energy.dram(dram or read.hardware.spec.energy.dram)
    measured = _qualities(model, read, steps, quality, any(one.name == "quality" for one in wanted))
    recipes = {label: _recipe(one, read) for label, one in read.software.items()}
    check_told(model, [*recipes.values()], shapes, sampler)
    made = {
        label: _workload(
            model, one, read, steps=steps, dram=dram, shapes=shapes, sampler=sampler, reporter=reporter
        )
        for label, one in recipes.items()
    }
    widths = read.widths()
    workloads = {(label, bits): workload(bits) for label, workload in made.items() for bits in widths}
    problem = Problem(read, workloads, steps, wanted, measured, dram)
    problem.check()
    return Stated(problem, model, next(iter(made.values())))


def explore(
    stated: Stated,
    output: Path,
    *,
    method: str | None = None,
    count: int = 2000,
    seed: int = 0,
    jobs: int = 1,
    cluster: str | None = None,
    storage: str | None = None,
    reporter: Silent | None = None,
) -> dict[str, Any]:
    """Searches, and writes points.csv, points.parquet, front/*.toml and report.html into ``output``.

    ``method`` is a grid by default, or nsga2 for spaces of more than 50,000 designs; ``count`` is how many designs
    others than a grid may ask for. The same problem, method, count and seed give the same front, whatever ``jobs``
    and ``cluster``. Designs that ``storage`` has, an SQLAlchemy URL, are not timed again.

    Raises UserError if no design keeps to the constraints (which of them is to blame), or if the storage or the
    cluster cannot be reached.
    """
    problem, silent = stated.problem, reporter or Silent()
    chosen = method_of(method, problem)
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write into {output}: {first_line(error)}") from None
    kept = Storage(storage or default_url(output), problem)

    def progress(found: Found, done: int, total: int) -> None:
        silent.rename(f"explore, hypervolume {found.hypervolume:.3f}")
        silent.update(done, total)

    silent.stage("explore")
    with closing(kept), walker(problem, jobs, cluster) as walk:
        found = search(problem, walk, kept, method=chosen, count=count, seed=seed, progress=progress)
    silent.stage("write")
    facts = _facts(stated, found, kept.name, chosen, seed)
    _write(stated, found, facts, output)
    silent.finish()
    return facts


def explain(stated: Stated, number: int) -> dict[str, Any]:
    """What binds a design, and what would better it at the least price: ``hwmodel.explore.advice``."""
    return advice(stated.problem, number)


def _recipe(software: Software, space: Space) -> Recipe:
    recipe = read_recipe(space.folder / software.recipe) if software.recipe else NOTHING
    recipe.check_hardware(space.hardware.spec.kind, space.hardware.spec.name)
    return recipe


def _workload(model: Any, recipe: Recipe, space: Space, **settings: Any) -> Callable[[Bits], Workload]:
    """What the model asks of hardware after a recipe's passes, for the widths of what they leave as it was.

    ``settings`` are those of ``looped``.
    """
    if suffix_of(model) == ".csv":
        if recipe.passes:
            raise UserError(f"{model} is a table of shapes, which nothing can change; give the model itself.")
        return partial(topology.load, model)
    return partial(extract, looped(model, space.hardware, recipe, **settings))


def _qualities(model: Any, space: Space, steps: int, given: Path | None, needed: bool) -> dict[str, float]:
    """Of each software that names a row of the model's table."""
    place = given or Path(str(model)) / NAME
    if given is None and not place.is_file():
        if needed:
            raise UserError(
                f"{model} has no table of measured qualities ({NAME}), so quality can be no objective; measure it "
                "(benchmarks/quality_table.py writes the table), or leave quality out."
            )
        return {}
    table = read_table(place)
    weights = weights_of(Path(str(model))) if Path(str(model)).is_dir() else []
    if weights and table.weights != digest_of_weights(weights):
        if needed:
            raise UserError(
                f"quality table {place} was measured with another checkpoint than the one in {model}; measure again."
            )
        return {}
    return {
        label: table.quality(one.quality, steps, space.quality, f"software.{label}")
        for label, one in space.software.items()
        if one.quality is not None
    }


def _facts(stated: Stated, found: Found, study: str, method: str, seed: int) -> dict[str, Any]:
    problem = stated.problem
    front = [
        {
            "design": number,
            "labels": problem.space.labels(number),
            "measures": dict(found.outcomes[number].measures),
        }
        for number in found.front.costs
    ]
    published: dict[str, dict[str, float]] = {}
    for name in PUBLISHED:
        spec = load(name).spec
        shown = Evaluator(
            replace(problem, workloads={("published", spec.bits): stated.workload(spec.bits)}, quality={})
        )
        try:
            published[name] = shown.measures(spec, "published")
        except UserError:
            # A model that does not fit on it, or operands that it does not multiply: then it has no place here.
            continue
    return {
        "model": next(iter(problem.workloads.values())).name,
        "random_weights": suffix_of(stated.model) != ".csv" and random_weights(stated.model),
        "hardware": problem.space.hardware.spec.name,
        "steps": problem.steps,
        "dram": problem.dram or problem.space.hardware.spec.energy.dram,
        "objectives": [one.column for one in problem.objectives],
        "method": method,
        "seed": seed,
        "version": version(),
        "study": study,
        "size": problem.space.size,
        "counts": found.counts(),
        "hypervolume": found.hypervolume,
        "front": front,
        "published": published,
    }


def _write(stated: Stated, found: Found, facts: Mapping[str, Any], output: Path) -> None:
    problem, some = stated.problem, results.rows(found)
    specs = output / "front"
    specs.mkdir(exist_ok=True)
    for old in specs.glob("*.toml"):
        if results.is_spec_name(old.stem):  # whoever works on a design gives it a name
            old.unlink()
    for number in found.front.costs:
        place = specs / f"{results.spec_name(problem, number)}.toml"
        recipe = problem.space.software[problem.space.software_of(number)].recipe
        words = [
            "fick",
            "estimate",
            str(stated.model),
            "--hardware",
            str(place),
            "--steps",
            str(problem.steps),
        ]
        words += ["--recipe", str(problem.space.folder / recipe)] if recipe else []
        words += ["--dram", problem.dram] if problem.dram else []
        write_whole(place, results.spec_file(problem, found.outcomes[number], shlex.join(words)))
    write_whole(output / "points.csv", results.table(some))
    write_whole(output / "points.parquet", results.parquet(some))
    write_whole(output / "report.html", page(facts, some, problem).encode())
