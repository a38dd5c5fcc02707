"""A bundle less its checkpoint: what compiling, compiling again and repacking have in common.

Code, memory plan and packing follow from a model's structure alone. Whoever has them needs only the weights by
their source names to write the bundle, so every bundle is written here, and is byte for byte the same whether
its code was just compiled, kept from an earlier compilation, or taken out of another bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.numpy as safetensors
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from ...ir.arrays import arrays_file
from ...ir.errors import UserError
from ...runtime.errors import FickError
from ...runtime.loader import LIBRARY, check_bundle
from ...targets.compiled import PackedWeight
from ...targets.packing import Dense, Packing
from .file import Entry, weights_entry, write_bundle

GOLDEN = "golden.json"
"""The file of what kernels should give with a checkpoint (golden.py)."""

PACKING: TypeAdapter[Packing] = TypeAdapter(Packing)

Tensors = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Part:
    """A component's share. ``program`` is what it was lowered from, less weights (see ``ir.saved.pack``);
    ``recipe`` derives constants from source weights (an ONNX model, or nothing); ``literals`` are tensors of the
    architecture, not of the checkpoint.
    """

    program: bytes
    recipe: bytes
    literals: dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Skeleton:
    """``manifest`` is the bundle's, less the digests of its entries. ``files`` go into the bundle as they are."""

    manifest: dict[str, Any]
    library: bytes
    parts: dict[str, Part]
    files: dict[str, bytes] = field(default_factory=dict[str, bytes])

    def source_weights(self, component: str) -> dict[str, list[int]]:
        """Names and shapes of the weights that a component is made from."""
        return self.manifest["components"][component]["source_weights"]

    def fixed_weights(self, component: str) -> dict[str, float]:
        """Weights of one element that became part of the code, which new weights have to share."""
        return self.manifest["components"][component]["fixed_weights"]

    def learned_weights(self, component: str) -> list[str]:
        """Names of the checkpoint's tensors that were replaced by what a pass learned from them."""
        return self.manifest["components"][component]["learned_weights"]

    def write(
        self,
        path: Path,
        sources: Mapping[str, Tensors],
        progress: Callable[[int, int], None] | None = None,
        *,
        packed: Tensors | None = None,
    ) -> None:
        """The whole bundle, or none, with the weights in ``sources`` by component and name.

        Components that are not in ``sources`` take their tensors from ``packed``, by their names in the
        bundle, as they are. Raises UserError where the bundle cannot be written.
        """
        stores = {
            name: (sources[name], _derived(part.recipe, sources[name]), part.literals)
            for name, part in self.parts.items()
            if name in sources
        }

        def array(place: str) -> NDArray[Any]:
            component, name = place.split("/", 1)
            for store in stores.get(component, (packed or {},)):
                if name in store:
                    return store[name]
            raise UserError(f"{path}: nothing says where tensor {place} comes from; compile the model anew")

        total = self.manifest["memory"]["weights_bytes"] + self.manifest.get("spare_bytes", 0)
        tensors = [weight for name in self.parts for weight in self._weights(name, packs=name in sources)]
        write_bundle(
            path, [weights_entry(tensors, total, array, progress), *self._small_entries()], self.manifest
        )

    def keep(self, path: Path) -> None:
        """For a later ``kept``: in the bundle's own format, so that its checks hold here too."""
        path.parent.mkdir(parents=True, exist_ok=True)
        literals = [
            Entry.of(literals_entry(name), arrays_file(part.literals)) for name, part in self.parts.items()
        ]
        write_bundle(path, [*self._small_entries(), *literals], self.manifest)

    def _weights(self, component: str, *, packs: bool) -> Iterator[PackedWeight]:
        for name, entry in self.manifest["components"][component]["weights"].items():
            yield PackedWeight(
                name,
                f"{component}/{entry['source'] if packs else name}",
                _packing(name, entry["packing"]) if packs else Dense(),
                entry["dtype"],
                tuple(entry["shape"]),
                entry["offset_bytes"],
            )

    def _small_entries(self) -> list[Entry]:
        small = {LIBRARY: self.library, **dict(sorted(self.files.items()))}
        for name, part in self.parts.items():
            small |= {program_entry(name): part.program, recipe_entry(name): part.recipe}
        return [Entry.of(name, data) for name, data in small.items()]


def _packing(name: str, facts: Mapping[str, Any]) -> Packing:
    """Raises UserError for a layout that another version of fick had."""
    try:
        return PACKING.validate_python(facts)
    except ValidationError:
        raise UserError(
            f"tensor {name} is laid out as {facts.get('kind')!r}, which this version of fick does not know; "
            "compile the model anew"
        ) from None


def program_entry(component: str) -> str:
    return f"{component}/program.zip"


def recipe_entry(component: str) -> str:
    return f"{component}/constants.onnx"


def literals_entry(component: str) -> str:
    return f"{component}/literals.safetensors"


def kept(path: Path) -> Skeleton | None:
    """What ``keep`` wrote there, or None where that is missing or damaged."""
    try:
        components = list(manifest_of(path)["components"])
        skeleton, entries = read(path, [literals_entry(name) for name in components])
    except (FickError, UserError):
        return None
    for name, part in skeleton.parts.items():
        part.literals.update(safetensors.load(entries[literals_entry(name)]))
    return skeleton


FACTS = {
    "inputs": list, "outputs": list, "memory": dict, "variants": dict, "weights": dict, "source_weights": dict,
    "fixed_weights": dict, "learned_weights": list, "history": list, "nodes": int, "schedules": dict, "state": dict,
}  # fmt: skip
"""What a manifest says of every component."""


def manifest_of(path: Path) -> dict[str, Any]:
    """The manifest of a bundle that the compiler wrote. Raises FickError, and UserError if it lacks something."""
    manifest = check_bundle(path).manifest
    components = manifest.get("components")
    sound = isinstance(components, dict) and components and isinstance(manifest.get("files"), list)
    for facts in components.values() if isinstance(components, dict) else ():
        sound = sound and isinstance(facts, dict)
        sound = sound and all(isinstance(facts.get(name), kind) for name, kind in FACTS.items())
    if not sound:
        raise UserError(f"{path} has a manifest that lacks what the compiler writes; compile the model anew")
    return manifest


def read(path: Path, more: Sequence[str] = ()) -> tuple[Skeleton, dict[str, bytes]]:
    """The skeleton of a bundle, without literals, and the entries that it was read from and ``more``.

    Raises FickError for a bundle that is damaged.
    """
    manifest = manifest_of(path)
    components = list(manifest["components"])
    own = [entry(name) for name in components for entry in (program_entry, recipe_entry)]
    entries = check_bundle(path, [LIBRARY, *own, *manifest["files"], *more]).entries
    parts = {name: Part(entries[program_entry(name)], entries[recipe_entry(name)], {}) for name in components}
    bare = {key: value for key, value in manifest.items() if key != "entries"}
    return Skeleton(
        bare, entries[LIBRARY], parts, {name: entries[name] for name in manifest["files"]}
    ), entries


def _derived(recipe: bytes, sources: Tensors) -> dict[str, NDArray[Any]]:
    if not recipe:
        return {}
    # Slow to load, and most models derive nothing.
    import onnx
    import onnx_ir as ir

    from ...ir import referee

    model = ir.from_proto(onnx.load_from_string(recipe))
    return referee.run(model, {str(value.name): sources[str(value.name)] for value in model.graph.inputs})
