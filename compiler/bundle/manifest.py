"""What a bundle's manifest says of its target and of each of its components."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ...ir.annotations import residual
from ...ir.macs import macs
from ...ir.program import Program
from ...targets.compiled import Compiled, StateTensor
from ...targets.profile import GpuProfile, Target
from ..costs.gpu import figures, kernel_facts
from ..frontends import Imported


def target_facts(profile: Target, spare: Target | None) -> dict[str, Any]:
    """``spare`` is the processor that runs the model where there is no such GPU."""
    return {
        "name": profile.name,
        "kind": profile.kind,
        "arch": profile.arch,
        "triple": profile.triple,
        "cpu_features": list(profile.requires),
        **({"spare": spare.name} if spare else {}),
        **({"figures": figures(profile)} if isinstance(profile, GpuProfile) else {}),
    }


def component_facts(
    imported: Imported,
    program: Program,
    profile: Target,
    compiled: Compiled,
    stored: Mapping[str, tuple[int, Compiled]],
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
        "memory": memory_facts(profile, [compiled]),
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
        **({"kernels": kernel_facts(program, profile)} if isinstance(profile, GpuProfile) else {}),
    }


def memory_facts(profile: Target, components: Collection[Compiled]) -> dict[str, int]:
    """What a run takes of components that take turns: they share an arena, of which a GPU has one for each."""
    arenas = [one.arena_bytes for one in components]
    parts = {
        "weights_bytes": sum(one.weights_bytes for one in components),
        "arena_bytes": sum(arenas) if isinstance(profile, GpuProfile) else max(arenas),
        "state_bytes": sum(one.state_bytes + one.kept_bytes for one in components),
    }
    return {**parts, "peak_bytes": sum(parts.values())}


def _described(tensor: StateTensor) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape), "rate": tensor.rate}


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
