"""Calls of a program, run as far as somebody asks, so that few of their values are held at a time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...ir.program import Program
from ...ir.rates import Rate, analyse
from .torch_graph import TorchGraph, needed_for

Values = dict[str, Tensor]


class Walk:
    """Several calls of variant "full" side by side.

    Each node runs once for each call. Values live on the host until all that reads them has run. The graph's
    constants may change on the way: what has not run yet reads the new ones.
    """

    def __init__(self, program: Program, calls: Sequence[Mapping[str, NDArray[Any]]], device: str) -> None:
        self._graph, self._device = program.variants["full"].graph, device
        rates = analyse(self._graph, program.rates)
        self._varying = {name for name, rate in rates.items() if rate is not Rate.CONSTANT}
        self._done: set[ir.Node] = set()
        read = [str(value.name) for value in self._graph.inputs]
        self._calls: list[Values] = [{name: torch.tensor(call[name]) for name in read} for call in calls]

    def take(self, names: Sequence[str], later: Collection[str] = ()) -> list[Values]:
        """The values of each call by name. ``later`` names those that will be asked for once more."""
        missing = [name for name in names if name not in self._calls[0]]
        if missing:
            self._advance(missing, later)
        taken = [{name: call[name] for name in names} for call in self._calls]
        self._forget(later)
        return taken

    def _advance(self, names: Sequence[str], later: Collection[str]) -> None:
        remaining = [node for node in self._graph if node not in self._done]
        needed = needed_for(remaining, names, self._calls[0])
        self._done |= {node for node in needed if str(node.outputs[0].name) in self._varying}
        outputs = [
            str(value.name)
            for node in needed
            for value in node.outputs
            if value.name in self._varying and (value.name in (*names, *later) or self._read_later(value))
        ]
        chunk = TorchGraph(needed, outputs, given=self._calls[0], device=self._device)
        with torch.no_grad():
            for call in self._calls:
                results = chunk({name: call[name].to(self._device) for name in chunk.inputs})
                call.update({name: value.cpu() for name, value in results.items()})

    def _forget(self, later: Collection[str]) -> None:
        kept = {
            str(value.name)
            for value in (*self._graph.inputs, *(one for node in self._done for one in node.outputs))
            if value.name in later or self._read_later(value)
        }
        for call in self._calls:
            for name in [name for name in call if name not in kept]:
                del call[name]

    def _read_later(self, value: ir.Value) -> bool:
        return any(user not in self._done for user, _ in value.uses())
