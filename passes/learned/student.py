"""A quantised program as torch learns it: its weights less a product of two thin matrices, and the scales of all.

What is learned stands before rounding, so that the student computes with the integers that it will have (QALoRA of
EfficientDM, He et al., arXiv 2310.03270, section 3.2): w = round((W + B A rms(W)) / s) s. Gradients pass rounding as if
it were the identity, and reach the scales s as in LSQ (torch_operators.py). Scales are learned as factors e^g, which
keeps them positive; where there is one a timestep, each timestep's is learned by itself (section 3.4).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...ir.constants import numbers_of
from ...ir.program import Program
from ...ir.rates import Rate, analyse
from ..per_step import table_of
from .kept import Integers
from .torch_graph import TorchGraph
from .units import Weight, weights


class Student:
    """Of ``program``, with matrices of ``rank`` columns beside each weight. ``variables`` are what is learned: those of
    weights, and those of scales.
    """

    def __init__(self, program: Program, rank: int, seed: int, device: str) -> None:
        self._graph, self._device = program.variants["full"].graph, device
        rates = analyse(self._graph, program.rates)
        self.weights: list[Weight] = list(weights(self._graph, rates))
        draw = torch.Generator().manual_seed(seed)
        self._fixed: dict[str, Tensor] = {}
        self._thin: dict[str, tuple[Tensor, Tensor]] = {}
        self._factors: dict[str, Tensor] = {}
        for one in self.weights:
            value, scale = one.rounding.inputs[:2]
            assert value is not None and scale is not None
            weight = self._fix(value)
            rows, columns = len(weight), weight[0].numel()
            size = weight.square().mean().sqrt() / min(rank, rows) ** 0.5
            right = torch.randn(min(rank, rows), columns, generator=draw).to(device) * size
            left = torch.zeros(rows, len(right), device=device)
            self._thin[str(value.name)] = left.requires_grad_(), right.requires_grad_()
            self._learn_factor(scale)
        self.tables = list(dict.fromkeys(_activation_scales(self._graph, rates)))
        for table in self.tables:
            self._learn_factor(table)
        rounded = [one.name for one in self.weights]
        self._rounded = TorchGraph(self._graph, rounded, given=set(self._fixed), device=device)

    @property
    def variables(self) -> tuple[list[Tensor], list[Tensor]]:
        return [one for pair in self._thin.values() for one in pair], list(self._factors.values())

    def graph(self, outputs: Sequence[str]) -> TorchGraph:
        """Values of the program as a function of its inputs and of ``values``."""
        given = [*self._rounded.outputs, *(str(table.name) for table in self.tables)]
        return TorchGraph(self._graph, outputs, given=set(given), device=self._device)

    def values(self) -> dict[str, Tensor]:
        """Weights as they are rounded, and scales of activations, as they are learned so far."""
        found = self._before_rounding()
        return self._rounded(found) | {str(one.name): found[str(one.name)] for one in self.tables}

    def _before_rounding(self) -> dict[str, Tensor]:
        """Weights, and all scales."""
        found = dict(self._fixed)
        for name, (left, right) in self._thin.items():
            found[name] = found[name] + (left @ right).reshape(found[name].shape)
        return found | {name: self._fixed[name] * factor.exp() for name, factor in self._factors.items()}

    def integers(self) -> dict[str, Integers]:
        """By the name of what products read."""
        with torch.no_grad():
            values = self._before_rounding()
            names = [str(one.rounding.outputs[0].name) for one in self.weights]
            made = TorchGraph(self._graph, names, given=set(self._fixed), device=self._device)(values)
        found: dict[str, Integers] = {}
        for one, name in zip(self.weights, names, strict=True):
            scale = one.rounding.inputs[1]
            assert scale is not None
            found[one.name] = Integers(_array(made[name]).astype(np.int32), _array(values[str(scale.name)]))
        return found

    def scales(self) -> Mapping[str, NDArray[np.float32]]:
        """Numbers of the tables by name."""
        with torch.no_grad():
            values = self._before_rounding()
        return {str(table.name): _array(values[str(table.name)]) for table in self.tables}

    def _fix(self, value: ir.Value) -> Tensor:
        name = str(value.name)
        if name not in self._fixed:
            self._fixed[name] = torch.tensor(numbers_of(value), device=self._device)
        return self._fixed[name]

    def _learn_factor(self, scale: ir.Value) -> None:
        if str(scale.name) not in self._factors:
            self._factors[str(scale.name)] = torch.zeros_like(self._fix(scale)).requires_grad_()


def _activation_scales(graph: ir.Graph, rates: Mapping[str, Rate]) -> Iterator[ir.Value]:
    """Initializers that the scales of activations are, or are rows of."""
    for node in graph:
        if node.op_type == "QuantizeLinear" and rates[str(node.outputs[0].name)] is not Rate.CONSTANT:
            scale = node.inputs[1]
            assert scale is not None
            table = scale if scale.is_initializer() else table_of(scale)
            if table is not None:
                yield table


def _array(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.cpu().numpy()
