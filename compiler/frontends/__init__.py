"""From any source to the canonical graph."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...ir.errors import UserError
from .imported import Imported

__all__ = ["Imported", "import_model", "known_configs"]

CONFIGS = Path(__file__).resolve().parents[1] / "configs"


def known_configs() -> list[str]:
    """Names of the published UNet configurations that come with fick."""
    return sorted(path.stem for path in CONFIGS.glob("*.json"))


def import_model(
    source: Any, *, shapes: Mapping[str, Sequence[int]] | None = None, seed: int = 0
) -> Imported:
    """Bring a model into canonical form.

    ``source`` is an ``.onnx`` file, a diffusers folder (a pipeline or one component), a diffusers
    ``config.json`` or the name of a published one (random weights, drawn from ``seed``), or a torch module.
    ``shapes`` fixes input sizes by input name.

    Raises UserError with one sentence for whatever the user can mend: a missing or damaged file, a model
    that is not a UNet, shapes that do not fit, weights that are not finite, torch not installed.
    """
    if not isinstance(source, str | os.PathLike):
        from .torch_module import import_module

        return import_module(source, shapes)
    path = Path(source)
    if os.fspath(source) in known_configs():
        path = CONFIGS / f"{os.fspath(source)}.json"
    if not path.exists():
        names = ", ".join(known_configs())
        raise UserError(f"{path} is neither a file, a folder nor a known model; the known ones are {names}.")
    if path.is_dir():
        from .diffusers_folder import import_folder

        return import_folder(path, shapes)
    if path.suffix == ".json":
        from .diffusers_folder import import_config

        return import_config(path, shapes, seed)
    from .onnx_file import import_onnx

    return import_onnx(path, shapes)
