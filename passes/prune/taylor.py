"""What the output would lose with each channel, to first order.

Diff-Pruning (Fang et al., arXiv 2305.10924): the Taylor importance |w dL/dw| of a group of weights, summed over the
timesteps whose loss is at least a share of the largest. L is there the loss of training, on pictures. What a trained
network leaves of the noise it cannot tell from noise, so here that is drawn: with r of unit variance,
w d<r, output>/dw, summed over all weights that read a channel, is <r, what the channel adds to the output>, and its
mean square over draws is the square of that. No pictures are needed, and importances are squares of output errors.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from ...ir.program import Program
from ..base import Arrays, Context
from ..keeping import Tensors, kept_tensors
from ..learned.torch_graph import TorchGraph
from ..origin import origin
from .channels import Channels


@dataclass(frozen=True)
class Draws:
    """How importances are measured: ``count`` of noise for a call, on a ``device``."""

    count: int
    device: str


def importance(
    context: Context,
    program: Program,
    channels: Channels,
    calls: Sequence[Arrays],
    timesteps: Sequence[float],
    threshold: float,
    draws: Draws,
) -> NDArray[np.float64]:
    """By channel, the mean over the timesteps that count: those at which all channels together come to at least
    ``threshold`` of what they do at most. What was measured of a call is kept in the context's work folder.
    """
    measure = _Measure(program, channels, draws)
    source = ""
    if context.work_folder:
        read = [channels.axes[name][axis] for name, axis in dict.fromkeys(channels.summed)]
        alike = hashlib.sha256(np.concatenate(read).tobytes()).hexdigest()
        source = origin([program], [], [draws.count, context.seed, alike])
    by_step: dict[float, list[NDArray[np.float64]]] = {}
    for index, (call, timestep) in enumerate(zip(calls, timesteps, strict=True)):
        place = None
        if context.work_folder is not None:
            name = origin([], [call], [source, index])[:32]
            place = context.work_folder / "prune-channels" / f"{name}.safetensors"

        def measured(call: Arrays = call, seed: int = context.seed * 1_000_003 + index) -> Tensors:
            return {"importance": measure(call, seed)}

        found = kept_tensors(place, measured)["importance"]
        by_step.setdefault(timestep, []).append(found)
        if context.progress is not None:
            context.progress(index + 1, len(calls))
    means = [np.mean(found, axis=0) for found in by_step.values()]
    totals = [float(one.sum()) for one in means]
    return np.mean(
        [one for one, total in zip(means, totals, strict=True) if total >= threshold * max(totals)], axis=0
    )


class _Measure:
    """Mean squares by channel, of one call."""

    def __init__(self, program: Program, channels: Channels, draws: Draws) -> None:
        graph = program.variants["full"].graph
        names = [str(value.name) for value in graph.outputs]
        weights = {name for name, _ in channels.summed}
        self._region = TorchGraph(graph, names, trainable=weights, device=draws.device)
        self._places = [
            (name, axis, channels.axes[name][axis])
            for name, axis in dict.fromkeys(channels.summed)
            if name in self._region.parameters
        ]
        self._size = 1 + max(int(ids.max()) for axes in channels.axes.values() for ids in axes if len(ids))
        self._draws = draws

    def __call__(self, call: Arrays, seed: int) -> NDArray[np.float64]:
        draw = torch.Generator().manual_seed(seed)
        inputs = {name: torch.tensor(one, device=self._draws.device) for name, one in call.items()}
        given = self._region(inputs)
        squares = np.zeros(self._size)
        for _ in range(self._draws.count):
            product = sum(
                (
                    (one * torch.randn(one.shape, generator=draw).to(one.device)).sum()
                    for one in given.values()
                ),
                torch.zeros((), device=self._draws.device),
            )
            for parameter in self._region.parameters.values():
                parameter.grad = None
            torch.autograd.backward(product, retain_graph=True)
            found = np.zeros(self._size)
            for name, axis, ids in self._places:
                parameter = self._region.parameters[name]
                if parameter.grad is not None:
                    moved = (parameter.detach() * parameter.grad).double()
                    others = [one for one in range(moved.ndim) if one != axis]
                    np.add.at(found, ids, moved.sum(others).cpu().numpy() if others else moved.cpu().numpy())
            squares += np.square(found) / self._draws.count
        return squares
