"""A program or a compiled transformer in the place of a class-conditional diffusers pipeline's own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from ...runtime.diffusers_unet import Runnable


class DiffusersTransformer:
    """What ``DiTPipeline`` asks of ``pipe.transformer``: its configuration, its type, and a call."""

    def __init__(self, model: Runnable, config: dict[str, Any]) -> None:
        import torch

        self._torch: Any = torch
        self._model = model
        self.config = SimpleNamespace(**config)
        self.dtype: Any = torch.float32
        self.device: Any = torch.device("cpu")

    def __call__(self, hidden_states: Any, timestep: Any, class_labels: Any) -> Any:
        """As ``DiTTransformer2DModel.forward`` of one picture, its class first and then none.

        Programs get the two the other way round, as in all loops here; without guidance there is the class alone, which
        fills the batch.
        """
        rows = np.resize(np.arange(len(hidden_states))[::-1], self._model.inputs["hidden_states"].shape[0])
        step = np.asarray(timestep, dtype=np.float32).reshape(-1)[:1]
        result = self._model.run(
            hidden_states=hidden_states.numpy()[rows],
            timestep=np.broadcast_to(step, self._model.inputs["timestep"].shape),
            class_labels=class_labels.numpy()[rows],
        )
        output = next(iter(result.values()))[: len(hidden_states)][::-1]
        return SimpleNamespace(sample=self._torch.from_numpy(output.copy()))
