"""From canonical models to all of a bundle but its checkpoint: passes, lowering, linking."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...ir.program import Program
from ...ir.saved import pack
from ...targets.compiled import Compiled
from ...targets.cpu.build import workers_kept
from ...targets.lower import lower
from ...targets.profile import Target
from ..frontends import Imported
from ..programs import fused
from ..progress import Silent
from ..recipes import NOTHING, Recipe
from .file import FORMAT_VERSION
from .golden import golden
from .link import SPARE, interleaved, kernels_source, link, plan_source, weights_offsets
from .manifest import component_facts, memory_facts, target_facts
from .skeleton import GOLDEN, Part, Skeleton


@workers_kept()
def build(
    components: Mapping[str, Imported],
    profile: Target,
    cache_folder: Path,
    *,
    name: str,
    seed: int = 0,
    sampler: Mapping[str, Any] | None = None,
    pipeline_facts: Mapping[str, Any] | None = None,
    files: Mapping[str, bytes] | None = None,
    recipe: Recipe = NOTHING,
    precision: str = "float32",
    model: Any = None,
    spare: Target | None = None,
    self_test: bool = False,
    reporter: Silent | None = None,
) -> Skeleton:
    """Compile imported models, the main one first, into one library. ``recipe`` is for the main one of ``model``,
    ``spare`` a processor that runs them all where there is no such GPU.

    With ``self_test`` the bundle can check its kernels (golden.py). Kernels and the core's objects are kept in
    ``cache_folder`` by content. Raises UserError for what the target cannot run.
    """
    reporter = reporter or Silent()
    reporter.stage("optimise")
    main, *others = components
    sampler = components[main].sampler if sampler is None else dict(sampler)
    half_run = max(one.adds_in_half for one in (profile, spare) if one is not None)
    fuse = partial(fused, seed=seed, precision=precision, half_run=half_run)
    costs = recipe.cost_model(profile, precision)
    programs = {
        main: fuse(
            components[main], recipe=recipe, model=model, sampler=sampler, reporter=reporter, cost_model=costs
        ),
        **{name: fuse(components[name]) for name in others},
    }
    reporter.stage("compile kernels")
    compiled = {
        component: lower(program, profile, cache_folder / "kernels", reporter.update)
        for component, program in programs.items()
    }
    spares = {
        component: lower(program, spare, cache_folder / "kernels", reporter.update)
        for component, program in programs.items()
        if spare is not None
    }
    files = {**(files or {}), **kernels_source(compiled)}
    if self_test:
        reporter.stage("golden values")
        files[GOLDEN] = golden(programs, compiled)
    reporter.stage("link")
    program_id = hashlib.sha256(plan_source(compiled, "", spares).encode()).hexdigest()
    library = link(compiled, program_id, cache_folder / "core", spares)
    packed = interleaved(compiled, spares)
    starts = weights_offsets(packed)
    stored = {
        name: {key: (starts[key], packed[key]) for key in (name, name + SPARE) if key in packed}
        for name in components
    }
    manifest = {
        "format": "fick-bundle",
        "format_version": FORMAT_VERSION,
        "name": name,
        "source": components[main].kind,
        "random_weights": any(imported.random_weights for imported in components.values()),
        "program_id": program_id,
        "target": target_facts(profile, spare),
        "precision": precision,
        "kernels": len({symbol for one in compiled.values() for symbol in one.kernels}),
        "memory": memory_facts(profile, compiled.values()),
        "spare_bytes": sum(one.weights_bytes for one in spares.values()),
        "config": components[main].metadata.get("config", {}),
        "sampler": sampler,
        "pipeline": dict(pipeline_facts or {}),
        "files": sorted(files),
        "components": {
            name: component_facts(components[name], programs[name], profile, one, stored[name])
            for name, one in compiled.items()
        },
    }
    parts = {
        name: Part(
            pack(program), _recipe(program), _literals(program, [one for _, one in stored[name].values()])
        )
        for name, program in programs.items()
    }
    return Skeleton(manifest, library, parts, files)


def tensors(model: ir.Model) -> dict[str, NDArray[Any]]:
    """The numbers of a graph's initializers by name; integers of fewer bits than a byte in bytes."""
    stored = {name: value.const_value for name, value in model.graph.initializers.items()}
    return {name: _whole_bytes(tensor) for name, tensor in stored.items() if tensor is not None}


def _whole_bytes(tensor: ir.TensorProtocol) -> NDArray[Any]:
    narrow = tensor.dtype.is_integer() and tensor.dtype.bitwidth < 8
    return tensor.numpy().astype(np.int8) if narrow else tensor.numpy()


def _recipe(program: Program) -> bytes:
    """Variant "constant" as an ONNX model whose inputs are the source weights."""
    if "constant" not in program.variants:
        return b""
    model = program.variants["constant"].clone()
    for name in [name for name in model.graph.initializers if name in program.weights]:
        value = model.graph.initializers.pop(name)
        value.const_value = None
        model.graph.inputs.append(value)
    return ir.serde.serialize_model(model).SerializeToString(deterministic=True)


def _literals(program: Program, compiled: Sequence[Compiled]) -> dict[str, NDArray[Any]]:
    """What the bundle packs that neither a checkpoint brings nor the recipe derives."""
    stored = {name: array for model in program.variants.values() for name, array in tensors(model).items()}
    used = dict.fromkeys(weight.source for one in compiled for weight in one.weights)
    return {name: stored[name] for name in used if name in stored and name not in program.weights}
