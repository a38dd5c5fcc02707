"""The front end for diffusers folders and configurations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ...ir.errors import UserError
from .imported import Imported
from .torch_module import import_module, require_torch

UNETS = ("UNet2DConditionModel", "UNet2DModel")


def import_folder(folder: Path, shapes: Mapping[str, Sequence[int]] | None) -> Imported:
    """The UNet of a diffusers pipeline folder, or a folder that is one UNet. Weights are safetensors.

    Raises UserError if there is no UNet in it, or its weights are missing, damaged or pickled.
    """
    metadata: dict[str, Any] = {}
    component = folder
    if (folder / "model_index.json").is_file():
        component = folder / "unet"
        schedule = folder / "scheduler" / "scheduler_config.json"
        if schedule.is_file():
            metadata["scheduler"] = _json(schedule)
            metadata["prediction_type"] = metadata["scheduler"].get("prediction_type", "epsilon")
    if not (component / "config.json").is_file():
        raise UserError(f"{folder} holds no diffusers UNet; {component / 'config.json'} should be there.")
    if not list(component.glob("*.safetensors")):
        raise UserError(
            f"{component} holds no .safetensors weights; save the model with safe_serialization=True."
        )
    cls = _unet_class(_json(component / "config.json"), component / "config.json")
    torch = require_torch()
    try:
        module = cls.from_pretrained(
            str(component),
            use_safetensors=True,
            local_files_only=True,
            torch_dtype=torch.float32,
            low_cpu_mem_usage=False,
        )
    except Exception as error:  # diffusers, safetensors and json raise their own kinds on damaged files.
        reason = str(error).strip().splitlines()[0]
        raise UserError(f"the weights in {component} cannot be read: {reason}.") from error
    return import_module(module, shapes, name=folder.resolve().name, kind="diffusers", metadata=metadata)


def import_config(path: Path, shapes: Mapping[str, Sequence[int]] | None, seed: int) -> Imported:
    """Import a diffusers UNet ``config.json`` with weights that torch draws from ``seed``."""
    config = _json(path)
    cls = _unet_class(config, path)
    torch = require_torch()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            module = cls.from_config(config)
        except Exception as error:  # Whatever diffusers raises on a configuration that does not fit together.
            reason = str(error).strip().splitlines()[0]
            raise UserError(f"{path} does not describe a UNet that diffusers can build: {reason}.") from error
    name = path.resolve().parent.name if path.name == "config.json" else path.stem
    return import_module(module, shapes, name=name, kind="config", random_weights=True)


def _json(path: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is not readable JSON; fetch it again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a diffusers configuration; it should be a JSON object.")
    return content


def _unet_class(config: Mapping[str, Any], path: Path) -> Any:
    wanted = config.get("_class_name")
    if wanted not in UNETS:
        raise UserError(
            f"{path} describes {wanted}, which is not a UNet that fick knows: {', '.join(UNETS)}."
        )
    require_torch()
    try:
        import diffusers
    except ImportError as error:
        raise UserError(
            "this source needs torch and diffusers; install them with `pip install 'fick[torch]'`."
        ) from error
    return getattr(diffusers, wanted)
