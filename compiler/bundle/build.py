"""From canonical models to all of a bundle but its checkpoint: passes, lowering, linking."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from ...ir.annotations import residual
from ...ir.macs import macs
from ...ir.program import Program
from ...ir.saved import pack
from ...targets.compiled import Compiled, StateTensor
from ...targets.lower import lower
from ...targets.profile import GpuProfile, Target
from ..costs.gpu import figures, kernel_facts
from ..frontends import Imported
from ..programs import fused
from ..progress import Silent
from ..recipes import NOTHING, Recipe
from .file import FORMAT_VERSION
from .golden import golden
from .link import SPARE, interleaved, kernels_source, link, plan_source, weights_offsets
from .skeleton import GOLDEN, Part, Skeleton


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
    first, *others = components
    sampler = _sampler(components[first]) if sampler is None else dict(sampler)
    halves = max(one.adds_in_half for one in (profile, spare) if one is not None)
    programs = {
        first: fused(
            components[first],
            seed,
            recipe=recipe,
            precision=precision,
            half_run=halves,
            model=model,
            sampler=sampler,
            reporter=reporter,
            cost_model=recipe.cost_model(profile, precision),
        )
    }
    programs |= {name: fused(components[name], seed, precision=precision, half_run=halves) for name in others}
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
    whole = interleaved(compiled, spares)
    starts = weights_offsets(whole)
    main = next(iter(components.values()))
    sizes = [_memory(one) for one in compiled.values()]
    manifest = {
        "format": "fick-bundle",
        "format_version": FORMAT_VERSION,
        "name": name,
        "source": main.kind,
        "random_weights": any(imported.random_weights for imported in components.values()),
        "program_id": program_id,
        "target": {
            "name": profile.name,
            "kind": profile.kind,
            "arch": profile.arch,
            "triple": profile.triple,
            "cpu_features": list(profile.requires),
            **({"spare": spare.name} if spare else {}),
            **({"figures": figures(profile)} if isinstance(profile, GpuProfile) else {}),
        },
        "precision": precision,
        "kernels": len({symbol for one in compiled.values() for symbol in one.kernels}),
        "memory": {key: sum(size[key] for size in sizes) for key in sizes[0]},
        "spare_bytes": sum(one.weights_bytes for one in spares.values()),
        "config": main.metadata.get("config", {}),
        "sampler": sampler,
        "pipeline": dict(pipeline_facts or {}),
        "files": sorted(files),
        "components": {
            component: _component(
                components[component],
                programs[component],
                one,
                {key: (starts[key], whole[key]) for key in (component, component + SPARE) if key in whole},
            )
            | (
                {"kernels": kernel_facts(programs[component], profile)}
                if isinstance(profile, GpuProfile)
                else {}
            )
            for component, one in compiled.items()
        },
    }
    parts = {
        component: Part(
            pack(program),
            _recipe(program),
            _literals(program, [whole[key] for key in (component, component + SPARE) if key in whole]),
        )
        for component, program in programs.items()
    }
    return Skeleton(manifest, library, parts, files)


def tensors(model: ir.Model) -> dict[str, NDArray[Any]]:
    """The numbers of a graph's initializers by name."""
    stored = {name: value.const_value for name, value in model.graph.initializers.items()}
    return {name: tensor.numpy() for name, tensor in stored.items() if tensor is not None}


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


def _component(
    imported: Imported, program: Program, compiled: Compiled, stored: Mapping[str, tuple[int, Compiled]]
) -> dict[str, Any]:
    """``stored`` are what has weights of its own, by name, and where those begin."""
    sources = _source_weights(program, [one for _, one in stored.values()])
    left = residual(program.variants["full"].graph.outputs[0])
    return {
        **({"residual": left} if left else {}),
        "nodes": sum(len(list(model.graph)) for model in program.variants.values()),
        "variants": {
            variant: {"calls": len(calls), "macs": macs(program.variants[variant])}
            for variant, calls in compiled.variants.items()
        },
        "schedules": {str(steps): run for steps, run in sorted(program.schedule.items())},
        "state": {
            one.name: {
                "dtype": one.dtype,
                "shape": list(one.shape),
                "bytes": one.size_bytes,
                "left_by": [name for name in program.alternatives if name in one.writers],
            }
            for one in compiled.kept
        },
        "inputs": [_described(tensor) for tensor in compiled.inputs],
        "outputs": [_described(tensor) for tensor in compiled.outputs],
        "memory": _memory(compiled),
        "history": [entry.facts() for entry in program.history],
        "weights": {
            f"{name}/{weight.name}": {
                "source": weight.source,
                "packing": weight.packing.model_dump(mode="json"),
                "dtype": weight.dtype,
                "shape": list(weight.shape),
                "offset_bytes": start + weight.offset_bytes,
            }
            for name, (start, one) in stored.items()
            for weight in one.weights
        },
        "source_weights": sources,
        # These are in the code, and repacking can only see to it that they are the same.
        "fixed_weights": {key: one for key, one in imported.numbers.items() if key not in sources},
        # What a pass fitted to the checkpoint, and put into the graph in its place.
        "learned_weights": sorted(imported.weights - program.weights),
    }


def _memory(compiled: Compiled) -> dict[str, int]:
    parts = {
        "weights_bytes": compiled.weights_bytes,
        "arena_bytes": compiled.arena_bytes,
        "state_bytes": compiled.state_bytes + compiled.kept_bytes,
    }
    return {**parts, "peak_bytes": sum(parts.values())}


def _described(tensor: StateTensor) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape), "rate": tensor.rate}


def _sampler(imported: Imported) -> dict[str, Any]:
    scheduler = imported.metadata.get("scheduler")
    return {"kind": "diffusers", "config": scheduler} if scheduler else {}


def _source_weights(program: Program, compiled: Sequence[Compiled]) -> dict[str, list[int]]:
    """Shapes of the source weights that the bundle's tensors come from, directly or by derivation."""
    used = {weight.source for one in compiled for weight in one.weights}
    if "constant" in program.variants:
        used.update(program.variants["constant"].graph.initializers)
    shapes = {
        name: [int(size) for size in value.const_value.shape]  # type: ignore[arg-type]
        for model in program.variants.values()
        for name, value in model.graph.initializers.items()
        if value.const_value is not None
    }
    return {name: shapes[name] for name in sorted(used & program.weights)}
