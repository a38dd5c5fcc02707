"""The front end for diffusers folders and configurations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...ir.errors import UserError, first_line
from ..checkpoint import read_checkpoint
from .architectures import ARCHITECTURES, FOLDERS, class_name
from .imported import Imported
from .torch_module import import_module, require_torch


@dataclass(frozen=True)
class DiffusersFolder:
    """The denoising network of a diffusers pipeline folder, or a folder that is one. Weights are safetensors."""

    path: Path
    shapes: Mapping[str, Sequence[int]] | None

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def imported(self) -> Imported:
        """Raises UserError if there is none in it, or its weights are missing, damaged or pickled."""
        if not self._config.is_file():
            raise UserError(f"{self.path} holds no diffusion model; {self._config} should be there.")
        metadata: dict[str, Any] = {"config": read_json(self._config)}
        if self._schedule.is_file():
            metadata["scheduler"] = read_json(self._schedule)
            metadata["prediction_type"] = metadata["scheduler"].get("prediction_type", "epsilon")
        if not self._weights:
            raise UserError(
                f"{self._component} holds no .safetensors weights; save the model with "
                "safe_serialization=True."
            )
        module = self.torch_module()
        return import_module(module, self.shapes, name=self.name, kind="diffusers", metadata=metadata)

    def torch_module(self) -> Any:
        """The network as diffusers loads it, in float32."""
        cls = _model_class(read_json(self._config), self._config)
        torch = require_torch()
        try:
            return cls.from_pretrained(
                str(self._component),
                use_safetensors=True,
                local_files_only=True,
                torch_dtype=torch.float32,
                low_cpu_mem_usage=False,
            )
        except Exception as error:  # diffusers, safetensors and json raise their own kinds on damaged files.
            reason = first_line(error)
            raise UserError(f"the weights in {self._component} cannot be read: {reason}.") from error

    def contents(self) -> tuple[str, list[Path]]:
        files = [self._config, self._schedule, *self._weights]
        return f"diffusers {self.shapes}", [file for file in files if file.is_file()]

    def weights(self, wanted: Mapping[str, Sequence[int]]) -> dict[str, NDArray[Any]]:
        return read_checkpoint(self._weights, wanted)

    @property
    def _component(self) -> Path:
        if not (self.path / "model_index.json").is_file():
            return self.path
        places = [self.path / folder for folder in FOLDERS]
        return next((place for place in places if place.is_dir()), self.path / "unet")

    @property
    def _config(self) -> Path:
        return self._component / "config.json"

    @property
    def _schedule(self) -> Path:
        return self.path / "scheduler" / "scheduler_config.json"

    @property
    def _weights(self) -> list[Path]:
        return sorted(self._component.glob("*.safetensors"))


@dataclass(frozen=True)
class Config:
    """A ``config.json`` of diffusers with weights that torch draws from ``seed``."""

    path: Path
    shapes: Mapping[str, Sequence[int]] | None
    seed: int

    @property
    def name(self) -> str:
        return self.path.resolve().parent.name if self.path.name == "config.json" else self.path.stem

    def imported(self) -> Imported:
        return import_module(
            self.torch_module(), self.shapes, name=self.name, kind="config", random_weights=True
        )

    def contents(self) -> tuple[str, list[Path]]:
        return f"random weights of seed {self.seed} {self.shapes}", [self.path]

    def weights(self, wanted: Mapping[str, Sequence[int]]) -> dict[str, NDArray[Any]]:
        drawn = self.torch_module().state_dict()
        return {name: drawn[name].numpy().reshape(shape) for name, shape in wanted.items()}

    def torch_module(self) -> Any:
        """The network with its weights drawn."""
        config = read_json(self.path)
        cls = _model_class(config, self.path)
        torch = require_torch()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            try:
                return cls.from_config(config)
            except (
                Exception
            ) as error:  # Whatever diffusers raises on a configuration that does not fit together.
                reason = first_line(error)
                raise UserError(
                    f"{self.path} does not describe a model that diffusers can build: {reason}."
                ) from error


def read_json(path: Path) -> dict[str, Any]:
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not readable JSON; fetch it again.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a diffusers configuration; it should be a JSON object.")
    return content


def _model_class(config: Mapping[str, Any], path: Path) -> Any:
    wanted = class_name(config)
    if wanted not in ARCHITECTURES:
        raise UserError(
            f"{path} describes {wanted}, which is not a model that fick knows: {', '.join(ARCHITECTURES)}."
        )
    require_torch()
    try:
        import diffusers
    except ImportError as error:
        raise UserError(
            "this source needs torch and diffusers; install them with `pip install 'fick[torch]'`."
        ) from error
    return getattr(diffusers, wanted)
