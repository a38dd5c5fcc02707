"""A region of a program's graph as a differentiable function in torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import onnx_ir as ir
import torch
from torch import Tensor

from .torch_operators import compute
from .torch_values import to_torch


class TorchGraph:
    """What ``outputs`` are, by name, as a function of values by name.

    ``nodes`` stand in the graph's order; those that no output needs are left out. What they read from outside, and
    whatever ``given`` names, comes with each call. Initializers are held on ``device``; those that ``trainable``
    names are ``parameters``, which gradients reach. What only constants decide is computed once, here.

    Raises UserError for an operator that torch is not taught (torch_operators.py), KeyError for an output that no
    node makes.
    """

    def __init__(
        self,
        nodes: Iterable[ir.Node],
        outputs: Sequence[str],
        *,
        given: Collection[str] = (),
        trainable: Collection[str] = (),
        device: str = "cpu",
    ) -> None:
        self.outputs = tuple(outputs)
        self.parameters: dict[str, Tensor] = {}
        self.inputs: list[str] = []
        self._constants: dict[str, Tensor] = {}
        self._steps: list[ir.Node] = []
        needed = needed_for(nodes, outputs, given)
        made = {str(value.name) for node in needed for value in node.outputs} - set(given)
        if missing := [name for name in outputs if name not in made and name not in given]:
            raise KeyError(f"no node makes {', '.join(missing)}")
        for node in needed:
            for value in node.inputs:
                if value is not None and value.name not in made:
                    self._read(value, value.name in given, value.name in trainable, device)
            if all(value is None or value.name in self._constants for value in node.inputs):
                with torch.no_grad():
                    self._run(node, self._constants)
            else:
                self._steps.append(node)
        self.inputs += [name for name in outputs if name in given and name not in self.inputs]
        read = {str(value.name) for node in self._steps for value in node.inputs if value is not None}
        self._constants = {name: one for name, one in self._constants.items() if name in read | set(outputs)}
        self._last = _last_uses(self._steps, self.outputs)

    def __call__(self, values: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``inputs`` by name -> ``outputs`` by name."""
        known = {**self._constants, **self.parameters, **{name: values[name] for name in self.inputs}}
        for node, dead in zip(self._steps, self._last, strict=True):
            self._run(node, known)
            for name in dead:
                known.pop(name, None)  # an operator need not give what nothing reads
        return {name: known[name] for name in self.outputs}

    def _read(self, value: ir.Value, given: bool, trainable: bool, device: str) -> None:
        name = str(value.name)
        if given or value.const_value is None:
            self.inputs += [] if name in self.inputs else [name]
        elif trainable:
            if name not in self.parameters:
                self.parameters[name] = to_torch(value.const_value).to(device).requires_grad_()
        elif name not in self._constants:
            self._constants[name] = to_torch(value.const_value).to(device)

    @staticmethod
    def _run(node: ir.Node, known: dict[str, Tensor]) -> None:
        read = (None if value is None else known[str(value.name)] for value in node.inputs)
        for value, result in zip(node.outputs, compute(node, *read), strict=False):
            if result is not None and value.name and value.name not in known:
                known[value.name] = result


def needed_for(
    nodes: Iterable[ir.Node], outputs: Collection[str], given: Collection[str] = ()
) -> list[ir.Node]:
    """Those of the nodes that the outputs are computed with once the values called ``given`` are known."""
    wanted = set(outputs) - set(given)
    found: list[ir.Node] = []
    for node in reversed(list(nodes)):
        if any(value.name in wanted for value in node.outputs):
            found.append(node)
            wanted |= {str(value.name) for value in node.inputs if value is not None} - set(given)
    return found[::-1]


def _last_uses(steps: Sequence[ir.Node], outputs: Collection[str]) -> list[list[str]]:
    """For each node the values that no later one reads."""
    seen = set(outputs)
    dead: list[list[str]] = []
    for node in reversed(steps):
        names = dict.fromkeys(str(value.name) for value in (*node.inputs, *node.outputs) if value is not None)
        dead.append([name for name in names if name not in seen])
        seen |= set(names)
    return dead[::-1]
