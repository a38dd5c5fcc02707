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
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import TypeAdapter
from safetensors import SafetensorError, safe_open

from ..ir import referee
from ..ir.errors import UserError
from ..runtime.loader import LIBRARY, RECIPE, check_bundle
from ..targets.compiled import PackedWeight
from ..targets.packing import Packing
from .bundle import Entry, weights_entry, write_bundle

PACKING: TypeAdapter[Packing] = TypeAdapter(Packing)


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
    checked = check_bundle(bundle)
    manifest = checked.manifest
    recipe = checked.recipe
    sources = _read(Path(weights), manifest["source_weights"])
    kept = _literals(checked.path, manifest)
    derived = _derive(recipe, sources)

    def array(name: str) -> NDArray[Any]:
        for store in (sources, derived, kept):
            if name in store:
                return store[name]
        raise UserError(f"{bundle} does not say where its tensor {name} comes from; compile it anew")

    packed = [
        PackedWeight(
            name,
            entry["source"],
            PACKING.validate_python(entry["packing"]),
            entry["dtype"],
            tuple(entry["shape"]),
            entry["offset_bytes"],
        )
        for name, entry in manifest["weights"].items()
    ]
    entries = [
        weights_entry(packed, manifest["memory"]["weights_bytes"], array, progress),
        Entry.of(LIBRARY, checked.library),
        Entry.of(RECIPE, recipe),
    ]
    rest = {key: value for key, value in manifest.items() if key != "entries"}
    rest["random_weights"] = False
    write_bundle(Path(output), entries, rest)
    return Path(output)


def _read(path: Path, wanted: dict[str, list[int]]) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    try:
        with safe_open(os.fspath(path), framework="numpy") as file:
            names = set(file.keys())
            for name, shape in wanted.items():
                if name not in names:
                    raise UserError(
                        f"{path} lacks tensor {name} of shape {shape}; give all weights of the model"
                    )
                try:
                    tensor = file.get_tensor(name)
                except (AttributeError, TypeError):  # numpy has no such type
                    kind = file.get_slice(name).get_dtype()
                    raise UserError(
                        f"tensor {name} of {path} is {kind}; give float32, float16 or bfloat16 weights"
                    ) from None
                # A checkpoint may keep axes of one element that the compiled graph has dropped.
                if [n for n in tensor.shape if n != 1] != [n for n in shape if n != 1]:
                    raise UserError(
                        f"tensor {name} of {path} has shape {list(tensor.shape)} and the bundle needs {shape}; "
                        "compile the other model instead"
                    )
                found[name] = tensor.astype(np.float32, copy=False).reshape(shape)
                if not np.isfinite(found[name]).all():
                    raise UserError(
                        f"tensor {name} of {path} holds NaN or infinite values; mend the checkpoint"
                    )
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a .safetensors file") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is not a safetensors file or is damaged: {error}") from None
    return found


def _derive(recipe: bytes, sources: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Variant "constant" on the new weights."""
    if not recipe:
        return {}
    model = ir.from_proto(_parsed(recipe))
    return referee.run(model, {str(value.name): sources[str(value.name)] for value in model.graph.inputs})


def _parsed(recipe: bytes) -> Any:
    import onnx

    return onnx.load_from_string(recipe)


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


def _literals(path: Path, manifest: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """Tensors that belong to the architecture, not to the checkpoint: taken from the old bundle as they are."""
    own = {
        name: entry
        for name, entry in manifest["weights"].items()
        if entry["packing"]["kind"] == "dense" and entry["source"] not in manifest["source_weights"]
    }
    literals: dict[str, NDArray[Any]] = {}
    if own:
        _require_sound(path, manifest)
    with zipfile.ZipFile(path) as archive, archive.open("weights.safetensors") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        for name, entry in own.items():
            start, end = header[name]["data_offsets"]
            file.seek(8 + size + start)
            data = np.frombuffer(file.read(end - start), dtype=entry["dtype"])
            literals[entry["source"]] = data.reshape(entry["shape"])
    return literals
