"""Rounding learned by reconstruction: up or down for each weight, so that a region's results are least wrong.

AdaRound (Nagel et al., arXiv 2004.10568): each weight gets a variable v whose rectified sigmoid
h(v) = clip(1.2 sigmoid(v) - 0.1, 0, 1) stands for rounding up (equation 23), and a regulariser 1 - |2 h - 1|^beta
(equation 24), beta annealed from 20 to 2, that drives it to 0 or 1.

Both terms are without scale here: errors are counted in those of rounding to the nearest, and the regulariser is the
mean over weights. So one setting serves every layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..guidance import Guidance
from .torch_graph import TorchGraph
from .torch_values import spread

STRETCH = 1.1, -0.1
BETA = 20.0, 2.0

Values = Mapping[str, Tensor]


@dataclass(frozen=True)
class Sample:
    """A call of a region: what it reads, what it would read in the exact program as far as that is known, and what it
    should give.
    """

    inputs: Values
    exact: Values
    wanted: Values


@dataclass(frozen=True)
class Schedule:
    """``regulariser`` weighs against the error of rounding to the nearest; ``drop`` is the share of the inputs'
    elements that are the exact program's (QDrop, Wei et al., arXiv 2203.05740); ``warm_up`` that of the iterations
    without the regulariser.
    """

    iterations: int
    batch: int
    learning_rate: float
    warm_up: float
    regulariser: float
    drop: float


class Rounding:
    """A weight between its two neighbours on the grid of its integers, ``low`` to ``high``."""

    def __init__(
        self,
        weight: Tensor,
        scale: Tensor,
        zero: Tensor | None,
        axis: int,
        block: int,
        limits: tuple[int, int],
    ) -> None:
        sizes = tuple(weight.shape)
        self._scale = spread(scale, sizes, axis, block)
        self._zero = torch.zeros(()) if zero is None else spread(zero, sizes, axis, block).to(weight.dtype)
        self._zero = self._zero.to(weight.device)
        self._limits = limits
        steps = weight / self._scale
        self._down, self.nearest = steps.floor() + self._zero, self._held(steps.round() + self._zero)
        top, bottom = STRETCH
        share = (steps - steps.floor() - bottom) / (top - bottom)
        self.variable = torch.log(share / (1 - share)).requires_grad_()

    def share(self) -> Tensor:
        """How far each weight goes up: h(v)."""
        top, bottom = STRETCH
        return (torch.sigmoid(self.variable) * (top - bottom) + bottom).clamp(0, 1)

    def soft(self) -> Tensor:
        """The weight as it stands between its neighbours."""
        return self.dequantised(self._held(self._down + self.share()))

    def hard(self) -> Tensor:
        """The integers decided on."""
        with torch.no_grad():
            return self._held(self._down + (self.share() >= 0.5))

    def dequantised(self, integers: Tensor) -> Tensor:
        return (integers - self._zero) * self._scale

    def _held(self, integers: Tensor) -> Tensor:
        return integers.clamp(*self._limits)


def relative_error(
    region: TorchGraph, weights: Values, samples: Sequence[Sample], guidance: Guidance
) -> float:
    """|given - wanted| / |wanted| over all outputs and samples together, of rows and of what is taken of them."""
    wanted = sum(float(guidance.square(one)) for sample in samples for one in sample.wanted.values())
    return math.sqrt(sum(_errors(region, weights, samples, guidance).values()) / wanted) if wanted else 0.0


def _errors(
    region: TorchGraph, weights: Values, samples: Sequence[Sample], guidance: Guidance
) -> dict[str, float]:
    """The square of each output's error, over all samples."""
    found = dict.fromkeys(region.outputs, 0.0)
    with torch.no_grad():
        for sample in samples:
            given = region({**sample.inputs, **weights})
            for name, wanted in sample.wanted.items():
                found[name] += float(guidance.square(given[name] - wanted))
    return found


def learn(
    region: TorchGraph,
    roundings: Mapping[str, Rounding],
    samples: Sequence[Sample],
    schedule: Schedule,
    guidance: Guidance,
    draw: torch.Generator,
    progress: Callable[[int], None],
) -> None:
    """Fit the variables of ``roundings``, which are by the names of the values that the region reads.

    A block's results are no sampler's, but those behind it treat both branches nearly alike, so that their errors reach
    the output joined as the output is.
    """
    nearest = {name: one.dequantised(one.nearest) for name, one in roundings.items()}
    found = _errors(region, nearest, samples, guidance)
    units = {name: error / len(samples) for name, error in found.items()}
    if not any(units.values()):
        return
    variables = [one.variable for one in roundings.values()]
    optimiser = torch.optim.Adam(variables, schedule.learning_rate)
    count = sum(one.numel() for one in variables)
    for iteration in range(schedule.iterations):
        weights = {name: one.soft() for name, one in roundings.items()}
        # Gradients of one call at a time are gathered here, so that one call's memory is enough.
        leaves = {name: one.detach().requires_grad_() for name, one in weights.items()}
        for index in torch.randint(len(samples), (schedule.batch,), generator=draw):
            sample = samples[int(index)]
            given = region({**_mixed(sample, schedule.drop, draw), **leaves})
            error = torch.zeros(())
            for name, wanted in sample.wanted.items():
                if units[name]:
                    error = error + (guidance.square(given[name] - wanted) / units[name]).cpu()
            torch.autograd.backward(error / schedule.batch)
        optimiser.zero_grad()
        torch.autograd.backward(list(weights.values()), [one.grad for one in leaves.values()])
        beta = _beta(iteration / schedule.iterations, schedule.warm_up)
        if beta is not None:
            shares = (one.share() for one in roundings.values())
            undecided = sum(
                ((1 - (2 * one - 1).abs().pow(beta)).sum() for one in shares),
                torch.zeros((), device=variables[0].device),
            )
            torch.autograd.backward(schedule.regulariser * undecided / count)
        optimiser.step()  # pyright: ignore[reportUnknownMemberType]
        progress(iteration + 1)


def _beta(time: float, warm_up: float) -> float | None:
    """The exponent at a time from 0 to 1; None before the regulariser sets in."""
    if time < warm_up:
        return None
    start, end = BETA
    return end + (start - end) * (1 - (time - warm_up) / (1 - warm_up))


def _mixed(sample: Sample, drop: float, draw: torch.Generator) -> dict[str, Tensor]:
    """The inputs with a share of their elements, drawn anew, as the exact program has them."""
    mixed = dict(sample.inputs)
    for name, exact in sample.exact.items():
        if drop and exact.is_floating_point():
            kept = torch.rand(exact.shape, generator=draw) >= drop
            mixed[name] = torch.where(kept.to(exact.device), mixed[name], exact)
    return mixed
