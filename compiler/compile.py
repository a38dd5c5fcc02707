"""From a model to a bundle. What was compiled before, from the same files by the same code, is not again."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..ir.errors import UserError
from ..ir.files import check_new_folder, check_place
from ..targets import profile as profiles
from .budgets import recipe_within
from .bundle.skeleton import Skeleton, kept
from .cache import cache_folder, digest
from .frontends import Whole, open_model
from .kept_imports import import_source
from .pipeline import PRECISIONS
from .progress import Silent
from .recipes import NOTHING, Recipe, read_recipe
from .tuning.tuned import read_tuned


@dataclass(frozen=True)
class Report:
    """What a compilation did. ``calls`` are by component and variant; ``peak_bytes`` is what a run needs: weights and
    state of all components, and the arena that they share. ``wide`` are the layers, by component, that stay in float32
    because the precision that was asked for does not hold their numbers.
    """

    bundle: Path
    nodes: int
    kernels: int
    calls: dict[str, dict[str, int]]
    weight_bytes: int
    arena_bytes: int
    state_bytes: int
    peak_bytes: int
    random_weights: bool
    seconds: dict[str, float]
    history: list[dict[str, Any]]
    wide: dict[str, list[str]]


def compile(
    model: Any,
    target: str | profiles.Target = "host",
    output: str | os.PathLike[str] | None = None,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    sampler: Mapping[str, Any] | None = None,
    memory_limit_bytes: int | None = None,
    recipe: str | os.PathLike[str] | Recipe | None = None,
    budget: str | None = None,
    calibrate: str | os.PathLike[str] | None = None,
    distil: bool = False,
    within_s: float | None = None,
    write_back: str | os.PathLike[str] | None = None,
    precision: str = "float32",
    tuned: str | os.PathLike[str] | None = None,
    fallback: str | None = None,
    self_test: bool = False,
    reporter: Silent | None = None,
) -> Report:
    """Compile a diffusion UNet into a bundle.

    ``model`` is what ``open_model`` takes: an .onnx file, a diffusers folder, a configuration or its name, a
    torch module. Of a whole Stable Diffusion pipeline every component is compiled. ``target`` is a device profile
    or its name; ``output`` is the bundle's path (NAME.fick in the working directory by default). ``sampler`` is
    stored as the bundle's default for ``generate``, in whose loops a recipe without prompts is calibrated (the folder's
    own by default); ``recipe`` are optional passes, or a file of them (see recipes.py);
    ``precision`` is that of weights and of values between kernels. ``budget``, in place of a recipe, is what the UNet
    may cost, such as latency=0.5x or bytes=250MB, and ``calibrate`` a file of prompts to lose least on; with ``distil``
    what is lost is learned back (budgets.py), and with ``within_s`` recipes are tried for so many seconds in which
    pruning and reuse between steps share the budget (joint/). ``write_back`` is a new folder of diffusers for what the
    pruning of a recipe leaves of the UNet, which no search is for. ``tuned`` is a file of what `fick tune` measured to
    be fastest. Where ``target`` is a GPU, ``fallback`` names a processor that runs the model on devices without such a
    GPU; the bundle then has the weights twice, laid out for either. With ``self_test`` the bundle says what its kernels
    should give, for `fick-run --self-test`; that is of this checkpoint, and repacking leaves it out.

    Where memory is short, layers do without the larger weights that would make them faster. Raises UserError for
    whatever the user can mend. Nothing is written unless all of it can be.
    """
    reporter = reporter or Silent()
    profile = target if isinstance(target, profiles.Target) else profiles.load(target)
    if tuned is not None:
        profile = read_tuned(Path(tuned)).of(profile)
    if within_s is not None:
        _check_search(budget, distil, write_back)
    recipe = _read(model, recipe, budget, calibrate, distil)
    recipe.check_hardware(profile.kind, profile.name)
    recipe.check_formats(profile)
    spare = None if fallback is None else _spare(fallback, profile)
    for one in (profile, spare):
        _check_precision(precision, one)
    if spare is not None:
        recipe.check_formats(spare)
    reporter.stage("import")
    whole = open_model(model, shapes=shapes, seed=seed)
    path = Path(output) if output is not None else Path(f"{whole.name}.fick")
    check_place(path, Path(model) if isinstance(model, str | os.PathLike) else None)
    if write_back is not None:
        check_new_folder(Path(write_back))
    job = _Job(model, whole, profile, spare, recipe, precision, seed, shapes, sampler, self_test, reporter)
    if budget is not None and within_s is not None:
        job = replace(job, recipe=_searched(job, budget, within_s, path))
    if write_back is not None:
        _write_back(job, Path(write_back))
    limit = profile.memory_bytes if memory_limit_bytes is None else memory_limit_bytes
    skeleton, weights = _compiled(job)
    if skeleton.manifest["memory"]["peak_bytes"] > limit and profile.enlarge_weights:
        small = profile.model_copy(update={"enlarge_weights": False})
        skeleton, weights = _compiled(replace(job, profile=small))
    memory = skeleton.manifest["memory"]
    if memory["peak_bytes"] > limit:
        raise UserError(
            f"{whole.name} needs {memory['peak_bytes'] / 1e6:.0f} MB ({memory['weights_bytes'] / 1e6:.0f} MB of "
            f"it weights) and the limit is {limit / 1e6:.0f} MB; raise --memory-limit or compile a smaller model"
        )
    reporter.stage("write")
    skeleton.write(path, weights, reporter.update)
    reporter.finish()
    components = skeleton.manifest["components"]
    return Report(
        bundle=path,
        nodes=sum(facts["nodes"] for facts in components.values()),
        kernels=skeleton.manifest["kernels"],
        calls={
            name: {variant: one["calls"] for variant, one in facts["variants"].items()}
            for name, facts in components.items()
        },
        weight_bytes=memory["weights_bytes"],
        arena_bytes=memory["arena_bytes"],
        state_bytes=memory["state_bytes"],
        peak_bytes=memory["peak_bytes"],
        random_weights=skeleton.manifest["random_weights"],
        seconds=dict(reporter.seconds),
        history=next(iter(components.values()))["history"],
        wide={
            name: entry["effect"]["wide"]
            for name, facts in components.items()
            for entry in facts["history"]
            if entry["effect"].get("wide")
        },
    )


def _check_precision(precision: str, profile: profiles.Target | None) -> None:
    stored = [one for one in PRECISIONS if profile is None or one in profile.formats]
    if precision not in stored:
        raise UserError(
            f"--precision {precision}: target {profile and profile.name} has no such kernels; it has "
            f"{', '.join(stored)}; for int8 give a --recipe with the pass quantise"
        )


def _spare(name: str, profile: profiles.Target) -> profiles.Profile:
    """A processor in the place of a GPU. Raises UserError where it cannot be that."""
    spare = profiles.processor(name)
    if not isinstance(profile, profiles.GpuProfile) or spare.triple != profile.triple:
        raise UserError(
            f"--fallback {name} cannot stand in for target {profile.name}; it goes with a GPU, and names a processor "
            f"of the same architecture as the GPU's own ({profile.arch})"
        )
    return spare


def _check_search(budget: str | None, distil: bool, write_back: str | os.PathLike[str] | None) -> None:
    """Raises UserError for what does not go with a search."""
    if budget is None:
        raise UserError("--within goes with --budget, for which recipes are searched; leave it out")
    if distil:
        raise UserError(
            "--distil and --within exclude each other; add distil to the recipe that --within writes"
        )
    # What is found prunes with repairs that are fitted, if at all, which no configuration says.
    if write_back is not None:
        raise UserError(
            "--write-back and --within exclude each other; give the recipe that --within writes as --recipe, with "
            "repair = false where it prunes"
        )


def _read(
    model: Any,
    recipe: str | os.PathLike[str] | Recipe | None,
    budget: str | None,
    calibrate: str | os.PathLike[str] | None,
    distil: bool,
) -> Recipe:
    if budget is not None and recipe is not None:
        raise UserError(
            "--budget and --recipe exclude each other; a recipe names its budget with the pass assign"
        )
    if budget is not None:
        return recipe_within(budget, model, Path(calibrate) if calibrate else None, distil)
    if calibrate is not None:
        raise UserError("--calibrate goes with --budget; a recipe names its prompts itself")
    if distil:
        raise UserError("--distil goes with --budget; a recipe has the pass distil")
    if recipe is None or isinstance(recipe, Recipe):
        return recipe or NOTHING
    return read_recipe(Path(recipe))


@dataclass(frozen=True)
class _Job:
    """What is compiled: ``whole``, which was found for ``model``, with ``spare`` for devices without the GPU."""

    model: Any
    whole: Whole
    profile: profiles.Target
    spare: profiles.Profile | None
    recipe: Recipe
    precision: str
    seed: int
    shapes: Mapping[str, Sequence[int]] | None
    sampler: Mapping[str, Any] | None
    self_test: bool
    reporter: Silent

    @property
    def place(self) -> Path | None:
        """Where the cache has it, or would."""
        spare = self.spare and self.spare.model_dump_json()
        sampler = json.dumps(self.sampler, sort_keys=True)
        settings = [
            self.whole.name, self.profile.model_dump_json(), self.shapes, self.seed, sampler, self.whole.facts,
            sorted(self.whole.files.items()), self.recipe.settings(), self.precision, spare, self.self_test,
        ]  # fmt: skip
        name = digest(self.whole.components, settings)
        return cache_folder() / "compilations" / f"{name}.fick" if name else None


def _searched(job: _Job, budget: str, within_s: float, path: Path) -> Recipe:
    """In place of the recipe within the budget, one that was searched for."""
    calibration = job.recipe.calibration
    if calibration is None or calibration.prompts is None:
        raise UserError(
            f"--within judges recipes by pictures, and {job.model} draws none from prompts; give a whole pipeline."
        )
    from .joint.search import recipe_within as searched  # slow to load: optuna and the networks that draw

    return searched(
        budget, within_s, job.whole, Path(job.model), calibration, path,
        cost_model=job.recipe.cost_model(job.profile, job.precision),
        settings=[job.profile.model_dump_json(), job.precision], seed=job.seed, reporter=job.reporter,
    )  # fmt: skip


def _write_back(job: _Job, folder: Path) -> None:
    """What the recipe's pruning leaves, before what else it does."""
    from .programs import unchanged
    from .write_back import leading, write_back  # slow to load: the referee

    passes = leading(job.recipe.passes)
    job.reporter.stage("write back")
    imported = import_source(job.whole.main)
    program, sampler = unchanged(imported), imported.sampler if job.sampler is None else job.sampler
    context = job.recipe.context(program, job.model, job.seed, job.reporter, sampler)
    costs = job.recipe.cost_model(job.profile, job.precision)
    write_back(program, passes, replace(context, cost_model=costs), job.whole.main, folder)


Ingredients = tuple[Skeleton, dict[str, Mapping[str, NDArray[Any]]]]


def _compiled(job: _Job) -> Ingredients:
    place = job.place
    return _kept(job.whole, place) or _built(job, place)


def _kept(whole: Whole, place: Path | None) -> Ingredients | None:
    skeleton = kept(place) if place else None
    if skeleton is None:
        return None
    try:
        weights = {
            name: source.weights(skeleton.source_weights(name)) for name, source in whole.components.items()
        }
    except (KeyError, UserError):  # the checkpoint has other names than the model made of it
        return None
    return skeleton, weights


def _built(job: _Job, place: Path | None) -> Ingredients:
    from .bundle.build import build, tensors  # slow to load: TVM and the rewriter

    imported = {name: import_source(source) for name, source in job.whole.components.items()}
    facts = dict(job.whole.facts)
    if "vae_decoder" in imported:
        from .preview import latent_to_rgb

        facts["latent_to_rgb"] = latent_to_rgb(imported["vae_decoder"]).tolist()
    try:
        skeleton = build(
            imported,
            job.profile,
            cache_folder(),
            name=job.whole.name,
            seed=job.seed,
            sampler=job.sampler,
            pipeline_facts=facts,
            files=job.whole.files,
            recipe=job.recipe,
            precision=job.precision,
            model=job.model,
            spare=job.spare,
            self_test=job.self_test,
            reporter=job.reporter,
        )
    except OSError as error:
        raise UserError(
            f"cannot keep kernels in {cache_folder()}: {error.strerror or error}; free some space, or name another "
            "folder as FICK_CACHE"
        ) from error
    if place:
        # What cannot be kept is compiled again next time, and is no reason to fail now.
        with contextlib.suppress(OSError, UserError):
            skeleton.keep(place)
    return skeleton, {name: tensors(one.model) for name, one in imported.items()}
