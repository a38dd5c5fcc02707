"""New weights into a bundle without compiling: a fine-tune, or a merged LoRA, of the same shapes."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...ir.errors import UserError
from ...ir.files import check_place
from ..checkpoint import read_checkpoint, require_numbers
from .skeleton import GOLDEN, manifest_of, read

WEIGHTS = "weights.safetensors"


def repack(
    bundle: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    output: str | os.PathLike[str],
    progress: Callable[[int, int], None] | None = None,
    *,
    component: str | None = None,
) -> Path:
    """Write a bundle with the code of ``bundle`` and the weights of a .safetensors file, by their source names.

    They are those of ``component``, by default the main one, the UNet. The result is byte for byte what
    compiling the model with those weights gives. Raises UserError for a missing tensor, another shape, values
    that are not finite, or a bundle with weights that a pass learned.
    """
    check_place(Path(output), Path(weights))
    path = Path(bundle)
    skeleton, _ = read(path)
    components = list(skeleton.parts)
    chosen = component or components[0]
    if chosen not in components:
        raise UserError(f"{path} has no component {chosen}; its components are {', '.join(components)}")
    skeleton.manifest["random_weights"] = False
    skeleton.files.pop(GOLDEN, None)  # it is of the old weights
    skeleton.manifest["files"] = sorted(skeleton.files)
    if learned := skeleton.learned_weights(chosen):
        raise UserError(
            f"{path} holds what was learned for its own checkpoint in place of {len(learned)} of its tensors, "
            f"{learned[0]} among them; compile the model anew with the new one."
        )
    stored = Stored(path, manifest_of(path))
    skeleton.parts[chosen].literals.update(_literals(skeleton.manifest["components"][chosen], stored))
    fresh = read_checkpoint([Path(weights)], skeleton.source_weights(chosen))
    require_numbers(Path(weights), skeleton.fixed_weights(chosen))
    skeleton.write(Path(output), {chosen: fresh}, progress, packed=stored)
    return Path(output)


class Stored(Mapping[str, NDArray[Any]]):
    """The tensors of a bundle by name, as they lie in it, read one at a time.

    Opening a bundle checks all but its weights; here they are checked too, for a new checksum must not make
    damage look right. Raises UserError where they are damaged.
    """

    def __init__(self, path: Path, manifest: Mapping[str, Any]) -> None:
        self._path = path
        self._facts = {
            name: entry
            for facts in manifest["components"].values()
            for name, entry in facts["weights"].items()
        }
        with zipfile.ZipFile(path) as archive:
            try:
                with archive.open(WEIGHTS) as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
            except (KeyError, EOFError, zipfile.BadZipFile):
                digest = ""
            if digest != manifest["entries"].get(WEIGHTS, {}).get("sha256"):
                raise UserError(f"entry {WEIGHTS} of {path} is damaged (its SHA-256 differs); copy it anew")
            with archive.open(WEIGHTS) as file:
                self._start = 8 + int.from_bytes(file.read(8), "little")
                self._header = json.loads(file.read(self._start - 8))

    def __getitem__(self, name: str) -> NDArray[Any]:
        start, end = self._header[name]["data_offsets"]
        with zipfile.ZipFile(self._path) as archive, archive.open(WEIGHTS) as file:
            file.seek(self._start + start)
            data = np.frombuffer(file.read(end - start), dtype=self._facts[name]["dtype"])
        return data.reshape(self._facts[name]["shape"])

    def __iter__(self) -> Iterator[str]:
        return iter(self._facts)

    def __len__(self) -> int:
        return len(self._facts)


def _literals(component: Mapping[str, Any], stored: Stored) -> dict[str, NDArray[Any]]:
    """Tensors that belong to the architecture, not to the checkpoint: taken from the old bundle as they are."""
    return {
        entry["source"]: stored[name]
        for name, entry in component["weights"].items()
        if entry["packing"]["kind"] == "dense" and entry["source"] not in component["source_weights"]
    }
