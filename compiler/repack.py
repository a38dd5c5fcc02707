"""New weights into a bundle without compiling: a fine-tune, or a merged LoRA, of the same shapes."""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..ir.errors import UserError
from ..runtime.loader import LIBRARY, check_bundle
from .checkpoint import read_checkpoint
from .skeleton import RECIPE, Skeleton


def repack(
    bundle: str | os.PathLike[str],
    weights: str | os.PathLike[str],
    output: str | os.PathLike[str],
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a bundle with the code of ``bundle`` and the weights of a .safetensors file, by their source names.

    The result is byte for byte what compiling the model with those weights gives. Raises UserError for a
    missing tensor, another shape, or values that are not finite.
    """
    checked = check_bundle(bundle, (LIBRARY, RECIPE))
    manifest = {key: value for key, value in checked.manifest.items() if key != "entries"}
    skeleton = Skeleton(
        {**manifest, "random_weights": False},
        checked.entries[LIBRARY],
        checked.entries[RECIPE],
        _literals(checked.path, checked.manifest),
    )
    skeleton.write(Path(output), read_checkpoint([Path(weights)], skeleton.source_weights), progress)
    return Path(output)


def _literals(path: Path, manifest: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Tensors that belong to the architecture, not to the checkpoint: taken from the old bundle as they are."""
    own = {
        name: entry
        for name, entry in manifest["weights"].items()
        if entry["packing"]["kind"] == "dense" and entry["source"] not in manifest["source_weights"]
    }
    if not own:
        return {}
    _require_sound(path, manifest)
    found: dict[str, NDArray[Any]] = {}
    with zipfile.ZipFile(path) as archive, archive.open("weights.safetensors") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        for name, entry in own.items():
            start, end = header[name]["data_offsets"]
            file.seek(8 + size + start)
            data = np.frombuffer(file.read(end - start), dtype=entry["dtype"])
            found[entry["source"]] = data.reshape(entry["shape"])
    return found


def _require_sound(path: Path, manifest: dict[str, Any]) -> None:
    """Opening a bundle checks all but its weights; a new checksum must not make damage look right."""
    with zipfile.ZipFile(path) as archive:
        try:
            with archive.open("weights.safetensors") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
        except (KeyError, EOFError, zipfile.BadZipFile):
            digest = ""
    if digest != manifest["entries"].get("weights.safetensors", {}).get("sha256"):
        raise UserError(f"entry weights.safetensors of {path} is damaged (its SHA-256 differs); copy it anew")
