"""How long a loop nest of tiles takes on stages that work at once and hand each other buffers.

A stage (a memory port, the array, the nonlinear unit) does its steps one after another, in the order of the
program. Between stages stand buffers of a few slots; two make a ping-pong buffer. A producer ``claims`` a free slot
and, with the same step or a later one, ``fills`` it; a consumer ``takes`` what was filled last and, with the same
step or a later one, ``frees`` it. A step starts as soon as its stage is free, its slots are and its data is there.

Every moment is thus a maximum of earlier moments plus a duration: linear in the max-plus semiring, where addition
is max and multiplication is + (Baccelli et al., Synchronization and Linearity, 1992, chapters 1 to 3). A turn of a
loop takes the moments x that matter (a stage free, a buffer full, a slot free) to F(x), and few turns have to be
played to know the rest of them:

    F(x + c) = F(x) + c    Turns that set all moments back by the same c repeat for ever.
    F is convex            If x - d, x and x + n d all grow by d in a turn, then so does all that lies between: stages
                           that drift apart until a buffer is full or empty do so in one leap.

Both hold for a few turns taken as one as well, where buffers of several slots make turns alternate, and both are exact,
as are the moments: whole numbers of a fraction of a cycle. For n equal tiles through stages of
d_1 ... d_k cycles with ping-pong buffers it is the familiar sum(d) + (n - 1) max(d).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import islice
from operator import sub
from typing import NamedTuple

LONGEST_PERIOD = 6
"""Turns that may take turns: more than that are played one by one."""

UNBALANCED = "a turn of a loop must free as many slots of each buffer as it claims"

GRACE = 1000
"""An end that lies less than one part in so many of a cycle behind a clock edge counts as on it."""


class Step(NamedTuple):
    """``cycles`` of work of ``stage``, on ``what``.

    At its start it waits for buffers that it ``takes`` and for a slot of those that it ``claims``; at its end it
    ``fills`` and ``frees``.
    """

    stage: str
    cycles: int
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
    def moved(self) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        """Stages that work in it, buffers that it fills and buffers of which it claims and frees slots."""
        stages, full, free = set[str](), set[str](), set[str]()
        for item in self.body:
            if isinstance(item, Loop):
                for known, inner in zip((stages, full, free), item.moved, strict=True):
                    known |= inner
            else:
                stages.add(item.stage)
                full.update(item.fills)
                free.update(item.claims, item.frees)
        return frozenset(stages), frozenset(full), frozenset(free)


Nest = Sequence[Step | Loop]


def turns(count: int, body: Iterable[Step | Loop]) -> Iterator[Step | Loop]:
    """``body`` so often: a loop only if there is anything to repeat."""
    if count > 1:
        yield Loop(count, tuple(body))
    elif count:
        yield from body


def work(nest: Nest) -> dict[tuple[str, str], int]:
    """Cycles of work by stage and by what it is on, waiting not counted."""
    done: dict[tuple[str, str], int] = defaultdict(int)
    _count(nest, 1, done)
    return dict(done)


def _count(nest: Nest, turns: int, done: dict[tuple[str, str], int]) -> None:
    for item in nest:
        if isinstance(item, Loop):
            if item.count:
                _count(item.body, turns * item.count, done)
        else:
            done[item.stage, item.what] += turns * item.cycles


def makespan(
    nest: Nest,
    slots: Mapping[str, int],
    stretches: Mapping[str, Fraction] | None = None,
    begins: Mapping[str, int] | None = None,
) -> int:
    """Cycles from the start to the last step's end, all buffers of so many ``slots`` free at first.

    ``stretches`` says how many times longer the steps of a stage take than is written there, ``begins`` after how
    many cycles a stage can begin. Raises ValueError if a turn of a loop leaves a buffer fuller or emptier than it
    found it.
    """
    stretches, begins = stretches or {}, begins or {}
    unit = math.lcm(*(one.denominator for one in stretches.values()))
    state = _State(slots, {stage: int(each * unit) for stage, each in stretches.items()}, unit, begins)
    try:
        state.play(nest)
    except IndexError:  # A slot is claimed that nobody frees.
        raise ValueError(UNBALANCED) from None
    latest = max(state.stages.values(), default=0)
    return -((unit - GRACE * latest) // (GRACE * unit))


class _State:
    """When each stage is free, when each buffer was filled last and when each of its free slots was freed."""

    def __init__(
        self, slots: Mapping[str, int], ticks: Mapping[str, int], unit: int, begins: Mapping[str, int]
    ) -> None:
        self._ticks = defaultdict(lambda: unit, ticks)
        self.stages = defaultdict(int, {stage: cycles * unit for stage, cycles in begins.items()})
        self._full = dict.fromkeys(slots, 0)
        self._free = {buffer: deque([0] * count) for buffer, count in slots.items()}

    def play(self, nest: Nest) -> None:
        stages, full, free = self.stages, self._full, self._free
        for item in nest:
            if isinstance(item, Loop):
                if item.count > 1:
                    self._loop(item)
                elif item.count:
                    self.play(item.body)
                continue
            stage, cycles, _, takes, claims, fills, frees = item
            time = stages[stage]
            for buffer in takes:
                if full[buffer] > time:
                    time = full[buffer]
            for buffer in claims:
                if (freed := free[buffer].popleft()) > time:
                    time = freed
            stages[stage] = time = time + cycles * self._ticks[stage]
            for buffer in fills:
                full[buffer] = time
            for buffer in frees:
                free[buffer].append(time)

    def _loop(self, loop: Loop) -> None:
        """Turns until the last ones grow like those before them, then at once all that go on so."""
        # Behind one turn each stage is past what it waited for of all that the loop does not move.
        self.play(loop.body)
        left, before, growths = loop.count - 1, self._moments(loop), list[list[int]]()
        while left:
            self.play(loop.body)
            left -= 1
            if not left:
                return
            after = self._moments(loop)
            if len(after) != len(before):
                raise ValueError(UNBALANCED)
            growth = list(map(sub, after, before))
            if growth.count(growth[0]) == len(growth):
                self._move(loop, after, growth, left)
                return
            growths.append(growth)
            before = after
            for period in range(1, min(len(growths) // 2, left, LONGEST_PERIOD) + 1):
                if growths[-period:] == growths[-2 * period : -period]:
                    left -= period * self._leap(loop, after, growths[-period:], left // period)
                    before = self._moments(loop)
                    break

    def _leap(self, loop: Loop, here: list[int], growths: list[list[int]], most: int) -> int:
        """Takes at once as many periods as go on like the last one, whose turns grew so, and says how many."""
        growth = [sum(turns) for turns in zip(*growths, strict=True)]

        def ends(times: int) -> bool:
            """Whether the last of so many periods is unlike those before."""
            self._move(loop, here, growth, times - 1)
            self.play(loop.body * len(growths))
            return self._moments(loop) != _grown(here, growth, times)

        times = bisect_left(range(1, most), True, key=ends) if ends(most) else most
        self._move(loop, here, growth, times)
        return times

    def _moments(self, loop: Loop) -> list[int]:
        """Of what the loop moves."""
        stages, full, free = loop.moved
        moments = [self.stages[stage] for stage in stages]
        moments += [self._full[buffer] for buffer in full]
        for buffer in free:
            moments += self._free[buffer]
        return moments

    def _move(self, loop: Loop, start: list[int], growth: list[int], times: int) -> None:
        """Sets what the loop moves to so many times ``growth`` after ``start``."""
        stages, full, free = loop.moved
        moments = iter(_grown(start, growth, times))
        self.stages.update(zip(stages, moments, strict=False))
        self._full.update(zip(full, moments, strict=False))
        for buffer in free:
            self._free[buffer] = deque(islice(moments, len(self._free[buffer])))


def _grown(moments: list[int], growth: list[int], times: int) -> list[int]:
    return [moment + times * more for moment, more in zip(moments, growth, strict=True)]
