"""A bundle less its checkpoint: what compiling, compiling again and repacking have in common.

Code, memory plan and packing follow from a model's structure alone. Whoever has them needs only the weights by
their source names to write the bundle, so every bundle is written here, and is byte for byte the same whether
its code was just compiled, kept from an earlier compilation, or taken out of another bundle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.numpy as safetensors
from numpy.typing import NDArray
from pydantic import TypeAdapter

from ..ir.errors import UserError
from ..runtime.errors import FickError
from ..runtime.loader import LIBRARY, check_bundle
from ..targets.compiled import PackedWeight
from ..targets.packing import Packing
from .bundle import Entry, weights_entry, write_bundle

RECIPE, LITERALS = "constants.onnx", "literals.safetensors"
PACKING: TypeAdapter[Packing] = TypeAdapter(Packing)


@dataclass(frozen=True)
class Skeleton:
    """``manifest`` is the bundle's, less the digests of its entries. ``recipe`` derives constants from source
    weights (an ONNX model, or nothing). ``literals`` are tensors of the architecture, not of the checkpoint.
    """

    manifest: dict[str, Any]
    library: bytes
    recipe: bytes
    literals: dict[str, NDArray[Any]]

    @property
    def source_weights(self) -> dict[str, list[int]]:
        """Names and shapes of the weights that the bundle is made from."""
        return self.manifest["source_weights"]

    def write(
        self,
        path: Path,
        sources: Mapping[str, NDArray[Any]],
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """The whole bundle with the weights in ``sources``, or none. Raises UserError where it cannot be."""
        stores = (sources, self._derived(sources), self.literals)

        def array(name: str) -> NDArray[Any]:
            for store in stores:
                if name in store:
                    return store[name]
            raise UserError(f"{path}: nothing says where tensor {name} comes from; compile the model anew")

        packed = [
            PackedWeight(
                name,
                entry["source"],
                PACKING.validate_python(entry["packing"]),
                entry["dtype"],
                tuple(entry["shape"]),
                entry["offset_bytes"],
            )
            for name, entry in self.manifest["weights"].items()
        ]
        entries = [
            weights_entry(packed, self.manifest["memory"]["weights_bytes"], array, progress),
            *self._small_entries(),
        ]
        write_bundle(path, entries, self.manifest)

    def keep(self, path: Path) -> None:
        """For a later ``kept``: in the bundle's own format, so that its checks hold here too."""
        path.parent.mkdir(parents=True, exist_ok=True)
        literals = Entry.of(LITERALS, safetensors.save(self.literals))
        write_bundle(path, [*self._small_entries(), literals], self.manifest)

    def _small_entries(self) -> list[Entry]:
        return [Entry.of(LIBRARY, self.library), Entry.of(RECIPE, self.recipe)]

    def _derived(self, sources: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if not self.recipe:
            return {}
        # Slow to load, and most models derive nothing.
        import onnx
        import onnx_ir as ir

        from ..ir import referee

        model = ir.from_proto(onnx.load_from_string(self.recipe))
        return referee.run(model, {str(value.name): sources[str(value.name)] for value in model.graph.inputs})


def kept(path: Path) -> Skeleton | None:
    """What ``keep`` wrote there, or None where that is missing or damaged."""
    try:
        checked = check_bundle(path, (LIBRARY, RECIPE, LITERALS))
    except FickError:
        return None
    entries = checked.entries
    manifest = {key: value for key, value in checked.manifest.items() if key != "entries"}
    return Skeleton(manifest, entries[LIBRARY], entries[RECIPE], safetensors.load(entries[LITERALS]))
