"""How long a loop nest of tiles takes on stages that work at once and hand each other buffers.

A stage (a memory port, the array, the nonlinear unit) does its steps one after another, in the order of the
program. Between stages stand buffers of a few slots; two make a ping-pong buffer. A producer ``claims`` a free slot
and, with the same step or a later one, ``fills`` it; a consumer ``takes`` what was filled last and, with the same
step or a later one, ``frees`` it. A step starts as soon as its stage is free, its slots are and its data is there.

Every moment is thus a maximum of earlier moments plus a duration: linear in the max-plus semiring, where addition
is max and multiplication is +. The moments that matter (a stage free, a buffer full, a slot free) make a vector x,
the body of a loop is a matrix A, and n turns are x -> A^n x: log2(n) products of small matrices, exact for every
nest, transient and edge tile included (Baccelli et al., Synchronization and Linearity, 1992, chapters 1 and 2). For
n equal tiles through stages of d_1 ... d_k cycles with ping-pong buffers it is the familiar sum(d) + (n - 1) max(d).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from numpy.typing import NDArray

Moments = NDArray[np.float64]
"""Cycles, exact up to 2^53 if all steps take whole ones; -inf is max-plus zero."""

ROUNDING = 1e-3
"""Cycles that sums of fractions may be off by: a nest that ends so little after a clock edge ends at it."""


@dataclass(frozen=True)
class Step:
    """``cycles`` of work of ``stage``, on ``what``.

    At its start it waits for buffers that it ``takes`` and for a slot of those that it ``claims``; at its end it
    ``fills`` and ``frees``.
    """

    stage: str
    cycles: float
    what: str = ""
    takes: tuple[str, ...] = ()
    claims: tuple[str, ...] = ()
    fills: tuple[str, ...] = ()
    frees: tuple[str, ...] = ()


@dataclass(frozen=True)
class Loop:
    """``count`` turns of ``body``. Each turn frees as many slots of every buffer as it claims."""

    count: int
    body: tuple[Step | Loop, ...]

    @cached_property
    def touched(self) -> frozenset[str]:
        """Names of the stages and buffers in it, which should not share any."""
        names: set[str] = set()
        for item in self.body:
            if isinstance(item, Loop):
                names |= item.touched
            else:
                names.update((item.stage,), item.takes, item.claims, item.fills, item.frees)
        return frozenset(names)


Nest = Sequence[Step | Loop]


def work(nest: Nest) -> dict[tuple[str, str], float]:
    """Cycles of work by stage and by what it is on, waiting not counted."""
    done: dict[tuple[str, str], float] = {}
    _count(nest, 1, done)
    return done


def _count(nest: Nest, turns: int, done: dict[tuple[str, str], float]) -> None:
    for item in nest:
        if isinstance(item, Loop):
            _count(item.body, turns * item.count, done)
        else:
            key = item.stage, item.what
            done[key] = done.get(key, 0) + turns * item.cycles


def makespan(nest: Nest, slots: Mapping[str, int], stretches: Mapping[str, float] | None = None) -> int:
    """Cycles from the first step's start to the last one's end, all buffers of so many ``slots`` free at first.

    ``stretches`` says how many times longer the steps of a stage take than is written there. Raises ValueError if a
    turn of a loop leaves a buffer fuller or emptier than it found it.
    """
    stages = dict.fromkeys(stage for stage, _ in work(nest))
    state = _State.start(list(stages), slots, stretches or {})
    state.play(nest)
    latest = max((float(row[0]) for row in state.stages.values()), default=0.0)
    return math.ceil(latest - ROUNDING)


@dataclass
class _State:
    """Each moment as a row: how late it is after each of the moments of a base."""

    stages: dict[str, Moments]
    full: dict[str, Moments]
    free: dict[str, list[Moments]]
    stretches: Mapping[str, float]

    @staticmethod
    def start(stages: Sequence[str], slots: Mapping[str, int], stretches: Mapping[str, float]) -> _State:
        zero = np.zeros(1)
        return _State(
            dict.fromkeys(stages, zero),
            dict.fromkeys(slots, zero),
            {buffer: [zero] * count for buffer, count in slots.items()},
            stretches,
        )

    def play(self, nest: Nest) -> None:
        for item in nest:
            if isinstance(item, Step):
                self._step(item)
            elif item.count == 1:
                self.play(item.body)
            elif item.count > 1:
                self._loop(item)

    def _step(self, step: Step) -> None:
        start = self.stages[step.stage]
        for buffer in step.takes:
            start = np.maximum(start, self.full[buffer])
        for buffer in step.claims:
            start = np.maximum(start, self.free[buffer].pop(0))
        end = start + step.cycles * self.stretches.get(step.stage, 1)
        self.stages[step.stage] = end
        for buffer in step.fills:
            self.full[buffer] = end
        for buffer in step.frees:
            self.free[buffer].append(end)

    def _loop(self, loop: Loop) -> None:
        """Many turns at once. What the body does not touch stays as it is, and out of the matrices."""
        part = self._part(loop.touched)
        before = part._rows()
        turn = part._with(_identity(len(before)))
        turn.play(loop.body)
        if list(map(len, turn.free.values())) != list(map(len, part.free.values())):
            raise ValueError("a turn of a loop must free as many slots of each buffer as it claims")
        rows, power, left = np.array(before), np.array(turn._rows()), loop.count
        while left:
            if left & 1:
                rows = _product(power, rows)
            left >>= 1
            if left:
                power = _product(power, power)
        after = part._with(rows)
        self.stages |= after.stages
        self.full |= after.full
        self.free |= after.free

    def _part(self, names: frozenset[str]) -> _State:
        return _State(
            {name: row for name, row in self.stages.items() if name in names},
            {name: row for name, row in self.full.items() if name in names},
            {name: queue for name, queue in self.free.items() if name in names},
            self.stretches,
        )

    def _rows(self) -> list[Moments]:
        queues = (row for queue in self.free.values() for row in queue)
        return [*self.stages.values(), *self.full.values(), *queues]

    def _with(self, rows: Moments) -> _State:
        """The same moments in the same order with other rows."""
        given = iter(rows)
        return _State(
            {name: next(given) for name in self.stages},
            {name: next(given) for name in self.full},
            {name: [next(given) for _ in queue] for name, queue in self.free.items()},
            self.stretches,
        )


@cache
def _identity(size: int) -> Moments:
    """The max-plus unit matrix."""
    return np.where(np.eye(size, dtype=bool), 0.0, -np.inf)


def _product(left: Moments, right: Moments) -> Moments:
    """The max-plus product: entry [i, j] is the longest way from j to i over any moment between."""
    return np.maximum.reduce(left[:, :, None] + right, axis=1)
