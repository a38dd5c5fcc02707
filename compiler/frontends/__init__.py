"""From any source to the canonical graph."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...ir.errors import UserError
from .diffusers_folder import Config, DiffusersFolder
from .imported import Imported, Source, Whole
from .onnx_file import OnnxFile
from .pipeline_folder import is_pipeline, is_text_to_image, open_pipeline
from .torch_module import TorchModule

__all__ = [
    "Config",
    "Imported",
    "Source",
    "Whole",
    "import_model",
    "is_pipeline",
    "is_text_to_image",
    "known_configs",
    "open_model",
    "open_source",
]

UNET = "unet"

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def known_configs() -> list[str]:
    """Names of the published configurations that come with fick."""
    return sorted(path.stem for path in CONFIGS.glob("*.json"))


def open_model(model: Any, *, shapes: Mapping[str, Sequence[int]] | None = None, seed: int = 0) -> Whole:
    """Find a model with all of its components, without reading it. The arguments are those of ``open_source``.

    Of a pipeline (see pipeline_folder.py) that is the denoising network, what its prompts go through and the
    autoencoder, of any other source the network alone.
    """
    if is_pipeline(model):
        return open_pipeline(Path(model), shapes)
    source = open_source(model, shapes=shapes, seed=seed)
    return Whole(source.name, {UNET: source})


def open_source(model: Any, *, shapes: Mapping[str, Sequence[int]] | None = None, seed: int = 0) -> Source:
    """Find a denoising network without reading it.

    ``model`` is an ``.onnx`` file, a diffusers folder (a pipeline or one component), a diffusers
    ``config.json`` or the name of a published one (random weights, drawn from ``seed``), or a torch module.
    ``shapes`` fixes input sizes by input name. Raises UserError if it is none of these.
    """
    if not isinstance(model, str | os.PathLike):
        return TorchModule(model, shapes)
    path = Path(model)
    if os.fspath(model) in known_configs():
        path = CONFIGS / f"{os.fspath(model)}.json"
    if not path.exists():
        names = ", ".join(known_configs())
        raise UserError(f"{path} is neither a file, a folder nor a known model; the known ones are {names}.")
    if path.suffix == ".fick":
        raise UserError(f"{path} is a bundle already; give the model that it was compiled from.")
    if path.is_dir():
        return DiffusersFolder(path, shapes)
    return Config(path, shapes, seed) if path.suffix == ".json" else OnnxFile(path, shapes)


def import_model(model: Any, *, shapes: Mapping[str, Sequence[int]] | None = None, seed: int = 0) -> Imported:
    """Bring a model into canonical form. The arguments are those of ``open_source``.

    Raises UserError with one sentence for whatever the user can mend: a missing or damaged file, a model
    that is no diffusion model, shapes that do not fit, weights that are not finite, torch not installed.
    """
    return open_source(model, shapes=shapes, seed=seed).imported()
