"""A pipeline simulator that looks at every cycle: slow, and simple enough to believe."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from fick.hwmodel.pipeline import GRACE, Loop, Nest, Step


@dataclass
class Job:
    """A step whose buffers are numbered: which filling it reads, the how-manieth slot it claims and frees.

    Slots go round: a claim waits for the slot that was claimed so many claims before, not for just any.
    """

    step: Step
    reads: dict[str, int]
    claims: dict[str, int]
    frees: dict[str, int]


def unroll(nest: Nest) -> list[Step]:
    steps: list[Step] = []
    for item in nest:
        steps += [item] if isinstance(item, Step) else unroll(item.body) * item.count
    return steps


def simulate(nest: Nest | Loop, slots: Mapping[str, int]) -> int:
    """Cycles until every step is done. Every cycle each idle stage starts its next step if it may."""
    written: Counter[str] = Counter()
    claimed: Counter[str] = Counter()
    returned: Counter[str] = Counter()
    waiting: dict[str, list[Job]] = {}
    for step in unroll([nest] if isinstance(nest, Loop) else nest):
        reads = {buffer: written[buffer] for buffer in step.takes}
        written.update(step.fills)
        claimed.update(step.claims)
        claims = {buffer: claimed[buffer] for buffer in step.claims}
        returned.update(step.frees)
        frees = {buffer: returned[buffer] for buffer in step.frees}
        waiting.setdefault(step.stage, []).append(Job(step, reads, claims, frees))
    filled: Counter[str] = Counter()
    freed: set[tuple[str, int]] = set()
    working: dict[str, tuple[Job, Fraction | int]] = {}
    cycle: Fraction | int = 0
    while True:
        changed = True
        while changed:
            changed = False
            for stage, (job, end) in list(working.items()):
                if end == cycle:
                    filled.update(job.step.fills)
                    freed.update(job.frees.items())
                    del working[stage]
                    changed = True
            for stage, jobs in waiting.items():
                if stage in working or not jobs:
                    continue
                job = jobs[0]
                there = all(filled[buffer] >= number for buffer, number in job.reads.items())
                before = [(buffer, number - slots[buffer]) for buffer, number in job.claims.items()]
                room = all(number <= 0 or (buffer, number) in freed for buffer, number in before)
                if there and room:
                    working[stage] = (jobs.pop(0), cycle + Fraction(job.step.cycles))
                    changed = True
        if not working:
            assert not any(waiting.values()), "deadlock"
            return math.ceil(cycle - Fraction(1, GRACE))
        # A step that memory holds up may end between two cycles.
        cycle = min([cycle + 1, *(end for _, end in working.values())])
