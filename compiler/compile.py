"""From a model to a bundle: import, passes, lowering, linking, writing."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ..ir import referee
from ..ir.errors import UserError
from ..ir.program import Program
from ..ir.rates import Rate
from ..passes.base import Context, apply
from ..targets import profile as profiles
from ..targets.compiled import Compiled, StateTensor
from ..targets.lower import lower
from .bundle import FORMAT_VERSION, Entry, weights_entry, write_bundle
from .frontends import Imported, import_model
from .link import link, plan_source
from .pipeline import pipeline
from .progress import Silent


@dataclass(frozen=True)
class Report:
    """What a compilation did. ``peak_bytes`` is what a run needs: weights, arena and state."""

    bundle: Path
    nodes: int
    kernels: int
    calls: dict[str, int]
    weight_bytes: int
    arena_bytes: int
    state_bytes: int
    random_weights: bool
    seconds: dict[str, float]

    @property
    def peak_bytes(self) -> int:
        return self.weight_bytes + self.arena_bytes + self.state_bytes


def cache_folder() -> Path:
    """Where compiled kernels are kept: FICK_CACHE, or fick/ in the user's cache folder."""
    given = os.environ.get("FICK_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fick"


def compile(
    model: Any,
    target: str = "host",
    output: str | os.PathLike[str] | None = None,
    *,
    shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    sampler: Mapping[str, Any] | None = None,
    memory_limit_bytes: int | None = None,
    reporter: Silent | None = None,
) -> Report:
    """Compile a diffusion UNet into a bundle.

    ``model`` is what ``import_model`` takes: an .onnx file, a diffusers folder, a configuration or its name, a
    torch module. ``target`` names a device profile; ``output`` is the bundle's path (NAME.fick beside the
    working directory by default). ``sampler`` is stored as the bundle's default for ``generate``.

    Raises UserError for whatever the user can mend. Nothing is written unless all of it can be.
    """
    reporter = reporter or Silent()
    profile = profiles.load(target)
    reporter.stage("import")
    imported = import_model(model, shapes=shapes, seed=seed)
    path = Path(output) if output is not None else Path(f"{imported.name}.fick")
    if path.is_dir() or not path.parent.is_dir():
        raise UserError(f"cannot write {path}: give the path of a file in a folder that exists")
    reporter.stage("optimise")
    program = apply(pipeline(), _program(imported), Context(seed=seed))
    reporter.stage("compile kernels")
    compiled = lower(program, profile, cache_folder() / "kernels", reporter.update)
    needed = compiled.weights_bytes + compiled.arena_bytes + compiled.state_bytes
    limit = profile.memory_bytes if memory_limit_bytes is None else memory_limit_bytes
    if needed > limit:
        raise UserError(
            f"{imported.name} needs {needed / 1e6:.0f} MB ({compiled.weights_bytes / 1e6:.0f} MB of it weights) "
            f"and the limit is {limit / 1e6:.0f} MB; raise --memory-limit or compile a smaller model"
        )
    reporter.stage("link")
    program_id = hashlib.sha256(plan_source(compiled, "").encode()).hexdigest()
    library = link(compiled, program_id, cache_folder() / "core")
    reporter.stage("write")
    constants = Constants(program)
    entries = [
        weights_entry(compiled.weights, compiled.weights_bytes, constants.array, reporter.update),
        Entry.of("code/libmodel.so", library),
        Entry.of("constants.onnx", constants.recipe()),
    ]
    write_bundle(path, entries, _manifest(imported, program, compiled, profile, program_id, sampler))
    reporter.finish()
    return Report(
        bundle=path,
        nodes=sum(len(list(one.graph)) for one in program.variants.values()),
        kernels=len(compiled.kernels),
        calls={name: len(calls) for name, calls in compiled.variants.items()},
        weight_bytes=compiled.weights_bytes,
        arena_bytes=compiled.arena_bytes,
        state_bytes=compiled.state_bytes,
        random_weights=imported.random_weights,
        seconds=dict(reporter.seconds),
    )


def _program(imported: Imported) -> Program:
    rates = {name: Rate(rate) for name, rate in imported.inputs.items()}
    return Program(imported.name, {"full": imported.model}, rates, weights=imported.weights)


class Constants:
    """Every tensor known when compiling: weights as they came, and what variant "constant" makes of them."""

    def __init__(self, program: Program) -> None:
        self._derivation = program.variants.get("constant")
        self._weights = program.weights
        self._tensors = {
            name: value.const_value
            for model in program.variants.values()
            for name, value in model.graph.initializers.items()
            if value.const_value is not None
        }
        self._derived: dict[str, NDArray[Any]] | None = None

    def array(self, name: str) -> NDArray[Any]:
        if name in self._tensors:
            return self._tensors[name].numpy()
        if self._derived is None:
            assert self._derivation is not None
            self._derived = referee.run(self._derivation, {})
        return self._derived[name]

    def recipe(self) -> bytes:
        """The derivation as an ONNX model whose inputs are the source weights: what repacking needs."""
        if self._derivation is None:
            return b""
        model = self._derivation.clone()
        for name in [name for name in model.graph.initializers if name in self._weights]:
            value = model.graph.initializers.pop(name)
            value.const_value = None
            model.graph.inputs.append(value)
        return ir.serde.serialize_model(model).SerializeToString(deterministic=True)


def _manifest(
    imported: Imported,
    program: Program,
    compiled: Compiled,
    profile: profiles.Profile,
    program_id: str,
    sampler: Mapping[str, Any] | None,
) -> dict[str, Any]:
    return {
        "format": "fick-bundle",
        "format_version": FORMAT_VERSION,
        "name": imported.name,
        "source": imported.kind,
        "random_weights": imported.random_weights,
        "program_id": program_id,
        "target": {
            "name": profile.name,
            "arch": compiled.arch,
            "triple": compiled.triple,
            "cpu_features": list(compiled.cpu_features),
        },
        "variants": {name: {"calls": len(calls)} for name, calls in compiled.variants.items()},
        "inputs": [_described(tensor) for tensor in compiled.inputs],
        "outputs": [_described(tensor) for tensor in compiled.outputs],
        "memory": {
            "weights_bytes": compiled.weights_bytes,
            "arena_bytes": compiled.arena_bytes,
            "state_bytes": compiled.state_bytes,
            "peak_bytes": compiled.weights_bytes + compiled.arena_bytes + compiled.state_bytes,
        },
        "sampler": dict(sampler) if sampler is not None else _sampler(imported),
        "history": [
            {"pass": entry.pass_name, "config": entry.config, "effect": entry.effect}
            for entry in program.history
        ],
        "weights": {
            weight.name: {
                "source": weight.source,
                "packing": weight.packing.model_dump(mode="json"),
                "dtype": weight.dtype,
                "shape": list(weight.shape),
                "offset_bytes": weight.offset_bytes,
            }
            for weight in compiled.weights
        },
        "source_weights": {name: _source_shape(program, name) for name in _sources(program, compiled)},
    }


def _described(tensor: StateTensor) -> dict[str, Any]:
    return {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape), "rate": tensor.rate}


def _sampler(imported: Imported) -> dict[str, Any]:
    scheduler = imported.metadata.get("scheduler")
    return {"kind": "diffusers", "config": scheduler} if scheduler else {}


def _sources(program: Program, compiled: Compiled) -> list[str]:
    """The source weights that the bundle's tensors come from, directly or by derivation."""
    used = {weight.source for weight in compiled.weights}
    if "constant" in program.variants:
        used.update(program.variants["constant"].graph.initializers)
    return sorted(used & program.weights)


def _source_shape(program: Program, name: str) -> list[int]:
    for model in program.variants.values():
        value = model.graph.initializers.get(name)
        if value is not None and value.const_value is not None:
            return list(np.asarray(value.const_value.shape, dtype=int).tolist())
    raise AssertionError(f"weight {name} is in no variant")
