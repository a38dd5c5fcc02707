"""What each alternative of a model takes, in turn with the others, and what the times of "full"'s layers say it should.

An alternative runs some of the layers that "full" runs. If reuse costs nothing by itself, it takes as long as these do
there.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from ...runtime import Model
from ...runtime.model import CallTime
from ...runtime.schedule import FULL
from .rounds import Here, Progress, Timing, interleave


@dataclass
class Alternative:
    """One of a model's, as a ``System``; ``layers`` are the seconds of each of its nodes, round by round."""

    model: Model
    name: str
    feeds: Mapping[str, Any]
    layers: dict[str, list[float]] = field(default_factory=lambda: defaultdict[str, list[float]](list))

    def output(self) -> NDArray[Any]:
        return next(iter(self.model.run(variant=self.name, **self.feeds).values()))

    def seconds(self) -> float:
        seconds = Here(self.output).seconds()
        for node, taken in by_node(self.model.profile(), self.name).items():
            self.layers[node].append(taken)
        return seconds


def by_node(calls: Iterable[CallTime], variant: str) -> dict[str, float]:
    """Seconds of all calls of each of a variant's nodes."""
    found: dict[str, float] = defaultdict(float)
    for call in calls:
        if call.variant == variant:
            found[call.node] += call.seconds
    return dict(found)


def alternatives(
    model: Model, feeds: Mapping[str, Any], rounds: int, progress: Progress | None = None
) -> dict[str, dict[str, Any]]:
    """By name, "full" first: ``step_s`` of a call, ``ratio`` to a full one (the median of the rounds'), and what
    ``predicted_s`` and ``predicted_ratio`` follow from the times that its layers take in "full".
    """
    systems = {name: Alternative(model, name, feeds) for name in model.alternatives}
    timings = interleave(systems, rounds, progress)
    return described({name: one.layers for name, one in systems.items()}, timings)


def described(
    layers: Mapping[str, Mapping[str, Sequence[float]]], timings: Mapping[str, Timing]
) -> dict[str, dict[str, Any]]:
    """As ``alternatives``, of each one's layers and rounds."""
    full = timings[FULL]
    median = statistics.median(full.rounds_s)
    found: dict[str, dict[str, Any]] = {}
    for name, timing in timings.items():
        seconds = predicted(layers[FULL], full.rounds_s, layers[name])
        found[name] = {
            "step_s": timing.summary(),
            "ratio": timing.ratio_to(full),
            "predicted_s": seconds,
            "predicted_ratio": seconds / median,
            "layers": len(layers[name]),
        }
    return found


def predicted(layers: Mapping[str, Sequence[float]], calls: Sequence[float], kept: Collection[str]) -> float:
    """Seconds of an alternative that keeps some of "full"'s layers: those of a call of "full", less the others'."""
    left_out = sum(statistics.median(seconds) for node, seconds in layers.items() if node not in kept)
    return statistics.median(calls) - left_out
