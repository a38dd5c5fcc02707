"""Interleaved rounds: every system runs once in each, so that a machine whose speed drifts is as unfair to all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

SETTLE_S = 0.05
"""Waiting threads of most systems spin for a while after a run: the next system's turn starts when they sleep."""

Run = Callable[[], NDArray[Any]]
Progress = Callable[[int, int], None]


class System(Protocol):
    """Something that calls a model on inputs that it has been given already."""

    def output(self) -> NDArray[Any]:
        """The first output of one call."""
        ...

    def seconds(self) -> float:
        """One call, timed."""
        ...


@dataclass(frozen=True)
class Here:
    """A system in this process."""

    run: Run

    def output(self) -> NDArray[Any]:
        return self.run()

    def seconds(self) -> float:
        started = time.perf_counter()
        self.run()
        return time.perf_counter() - started


@dataclass
class Timing:
    """Seconds of one call: every round, in order.

    ``max_abs_diff`` is between this system's output and the first system's; ``relative_diff`` is the same in
    standard deviations of this system's output, and ``rms_diff`` the root of the differences' mean square in those.
    """

    rounds_s: list[float] = field(default_factory=list[float])
    max_abs_diff: float = 0.0
    relative_diff: float = 0.0
    rms_diff: float = 0.0

    def summary(self) -> dict[str, float]:
        """Seconds; the quartiles say how wide the middle half of the rounds lies."""
        low, high = np.percentile(self.rounds_s, (25, 75)).tolist()
        return {
            "median": statistics.median(self.rounds_s),
            "quartile_1": low,
            "quartile_3": high,
            "min": min(self.rounds_s),
            "max": max(self.rounds_s),
            "rounds": len(self.rounds_s),
        }

    def ratio_to(self, other: Timing) -> float:
        """This over the other: the median of the rounds' own ratios."""
        pairs = zip(self.rounds_s, other.rounds_s, strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)


def measure(runners: Mapping[str, Run], rounds: int, progress: Progress | None = None) -> dict[str, Timing]:
    """``interleave`` of functions in this process."""
    return interleave({name: Here(run) for name, run in runners.items()}, rounds, progress)


def interleave(
    systems: Mapping[str, System], rounds: int, progress: Progress | None = None
) -> dict[str, Timing]:
    """One call of each to warm up, whose outputs are compared with the first's, then the rounds."""
    timings = {name: Timing() for name in systems}
    first = {name: system.output() for name, system in systems.items()}
    reference = next(iter(first.values())).astype(np.float64)
    for name, output in first.items():
        timing, apart, deviation = timings[name], np.abs(output - reference), max(float(output.std()), 1e-30)
        timing.max_abs_diff = float(apart.max())
        timing.relative_diff = timing.max_abs_diff / deviation
        timing.rms_diff = float(np.sqrt(np.square(apart).mean())) / deviation
    for done in range(rounds):
        for name, system in systems.items():
            time.sleep(SETTLE_S)
            timings[name].rounds_s.append(system.seconds())
        if progress:
            progress(done + 1, rounds)
    return timings
