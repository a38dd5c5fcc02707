"""A compiled UNet in the place of a diffusers pipeline's own. Needs torch; diffusers has brought it."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np

from .errors import FickError


class Runnable(Protocol):
    """The compiled UNet, as far as it matters here."""

    @property
    def inputs(self) -> Mapping[str, Any]: ...

    def run(self, **inputs: Any) -> dict[str, Any]: ...


class DiffusersUNet:
    """What pipelines ask of ``pipe.unet``: its configuration, its place, and a call."""

    def __init__(self, model: Runnable, config: dict[str, Any]) -> None:
        import torch

        self._torch: Any = torch
        self._model = model
        # A pipeline reads what it needs; what a configuration leaves out is None, as diffusers has it.
        self.config = _Config(**config)
        self.dtype: Any = torch.float32
        self.device: Any = torch.device("cpu")
        # SDXL's pipelines reckon from this how many numbers they are to give beside the prompt.
        width = config.get("projection_class_embeddings_input_dim")
        self.add_embedding = SimpleNamespace(linear_1=SimpleNamespace(in_features=width))

    def __call__(
        self,
        sample: Any,
        timestep: Any,
        encoder_hidden_states: Any = None,
        return_dict: bool = True,
        added_cond_kwargs: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> Any:
        """As ``UNet2DConditionModel.forward``, for any batch: it is cut into batches of the compiled size.

        Raises FickError for what the compiled UNet does not read, or if something that it reads is missing.
        """
        prompt = {"encoder_hidden_states": encoder_hidden_states, **(added_cond_kwargs or {}), **others}
        prompt = {name: value for name, value in prompt.items() if value is not None}
        asked = sorted(prompt.keys() - self._model.inputs.keys())
        if asked:
            raise FickError(
                f"the compiled UNet takes no {asked[0]}; leave it out or use the pipeline's own UNet"
            )
        size = self._model.inputs["sample"].shape[0]
        count = sample.shape[0]
        step = np.unique(np.asarray(timestep, dtype=np.float32))
        if step.size != 1:
            raise FickError(
                "the compiled UNet takes one timestep for the whole batch; call it once for each timestep"
            )
        outputs: list[Any] = []
        for start in range(0, count, size):
            # The last batch repeats its last row; what that gives is not used.
            rows = [min(row, count - 1) for row in range(start, start + size)]
            feeds: dict[str, Any] = {"sample": sample[rows].numpy()}
            feeds |= {name: value[rows].numpy() for name, value in prompt.items()}
            feeds["timestep"] = np.broadcast_to(step, self._model.inputs["timestep"].shape)
            outputs.append(next(iter(self._model.run(**feeds).values())))
        output = self._torch.from_numpy(np.concatenate(outputs)[:count])
        return SimpleNamespace(sample=output) if return_dict else (output,)

    def to(self, *arguments: Any, **named: Any) -> DiffusersUNet:
        """Stays where it is."""
        return self


class _Config(SimpleNamespace):
    def __getattr__(self, name: str) -> None:
        return None
