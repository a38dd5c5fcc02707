"""How work is cut to fit buffers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property

from .pipeline import Nest, work


@dataclass(frozen=True)
class Plan:
    """A loop nest, the slots of the buffers that it uses, and the bits that an array cycle takes from each memory.

    The nest is built when it is asked for: how it fits the buffers is known before. ``form`` is all of them that it
    depends on besides.
    """

    build: Callable[[], Nest]
    slots: Mapping[str, int]
    reads: Mapping[str, Fraction] = field(default_factory=dict[str, Fraction])
    form: Hashable = None

    @cached_property
    def nest(self) -> Nest:
        return self.build()

    @cached_property
    def work(self) -> Mapping[tuple[str, str], int]:
        return work(self.nest)

    @cached_property
    def busy(self) -> Mapping[str, int]:
        """Cycles of work by stage."""
        stages: dict[str, int] = {}
        for (stage, _), cycles in self.work.items():
            stages[stage] = stages.get(stage, 0) + cycles
        return stages


class Misfit(Exception):
    """The least that an operation needs on the chip is more than a buffer holds."""

    def __init__(self, buffer: str, capacity: int, needed: int) -> None:
        super().__init__(
            f"buffers.{buffer} holds {capacity} bits and {needed} are needed: {needed - capacity} too few"
        )


def halves(buffer: str, capacity: int, needed: int) -> int:
    """Slots of a buffer for pieces of ``needed`` bits: 2 if one can be filled while the other is worked on.

    Raises Misfit if it does not hold even one.
    """
    if needed > capacity:
        raise Misfit(buffer, capacity, needed)
    return 2 if 2 * needed <= capacity else 1


def sizes(step: int, total: int, factor: int = 4) -> Iterator[int]:
    """Sizes to try, each ``factor`` times the last, and at last all of it."""
    size = step
    while size < total:
        yield size
        size *= factor
    yield total


def tiles(total: int, size: int) -> Iterator[tuple[int, int]]:
    """``total`` cut into pieces of ``size`` and a rest: (how many, how large), nothing empty."""
    if total >= size:
        yield total // size, size
    if total % size:
        yield 1, total % size
