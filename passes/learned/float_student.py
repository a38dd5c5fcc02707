"""A program of floats as torch learns it: every weight, in units of its own size."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...ir.program import Program
from ..prune.surgery import is_fitted
from .torch_graph import TorchGraph


class FloatStudent:
    """Of ``program``: the checkpoint's tensors, and what was fitted for those that went, as ``names``."""

    def __init__(self, program: Program, device: str) -> None:
        self._graph, self._device = program.variants["full"].graph, device
        stored = {name: value.const_value for name, value in self._graph.initializers.items()}
        arrays = {
            name: one.numpy()
            for name, one in stored.items()
            if one is not None and (name in program.weights or is_fitted(name))
        }
        self._fixed = {
            name: torch.tensor(one, device=device) for name, one in arrays.items() if one.dtype == np.float32
        }
        self.names = frozenset(self._fixed)
        self._sizes = {name: one.square().mean().sqrt() for name, one in self._fixed.items()}
        self._moves = {name: torch.zeros_like(one).requires_grad_() for name, one in self._fixed.items()}

    @property
    def variables(self) -> list[list[Tensor]]:
        return [list(self._moves.values())]

    def graph(self, outputs: Sequence[str]) -> TorchGraph:
        """Values of the program as a function of its inputs and of ``values``."""
        return TorchGraph(self._graph, outputs, given=self.names, device=self._device)

    def values(self) -> dict[str, Tensor]:
        """Weights as they are learned so far."""
        return {name: one + self._sizes[name] * self._moves[name] for name, one in self._fixed.items()}

    def learned(self) -> dict[str, NDArray[np.float32]]:
        with torch.no_grad():
            return {name: one.cpu().numpy() for name, one in self.values().items()}
