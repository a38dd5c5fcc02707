"""What every OpenCL template has in common: a frozen specification that writes itself as a kernel."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

from ..compiled import Launch
from .text import POINTED, Code

WIDEST = 4
"""Lanes of a vector, at most."""

ADDRESSES = 8
"""Registers for where things are."""


@dataclass(frozen=True)
class Kernel(ABC):
    """A specification fully determines its source: equal specifications share a kernel.

    ``dtypes`` are those of the operands, in the order in which they are passed: each as a buffer and the byte of it at
    which it begins, or as an image. Kernels compute in float32: what is stored in fewer bits is widened where it is
    read and rounded where it is written. Integers are summed in float32 too, but where they are multiplied with
    integers.
    """

    dtypes: tuple[str, ...]

    @property
    @abstractmethod
    def launch(self) -> Launch: ...

    @abstractmethod
    def body(self, code: Code) -> None:
        """Write what one work-item does."""

    @property
    @abstractmethod
    def flops(self) -> float:
        """Additions and multiplications of a call, a multiply-add being two."""

    @property
    def rate(self) -> float:
        """Operations in the time of one in float32."""
        return 1.0

    @property
    def textures(self) -> tuple[int, ...]:
        """The operands that are images."""
        return ()

    @property
    def registers(self) -> int:
        """Estimated 32-bit registers of a work-item: a vector read, one computed, and addresses."""
        return 2 * WIDEST + ADDRESSES

    def source(self, symbol: str) -> str:
        code = Code(self.dtypes)
        arguments = list[str]()
        for index, dtype in enumerate(self.dtypes):
            if index in self.textures:
                arguments.append(f"TEXTURE({index})")
                continue
            code.add(f"AT({POINTED[dtype]}, {index});")
            arguments.append(f"ARG({POINTED[dtype]}, {index})")
        self.body(code)
        group = ", ".join(map(str, self.launch.group))
        head = f"GROUP({group})\n__kernel void {symbol}({', '.join(arguments)}) {{"
        return "\n".join([head, *code.lines, "}", ""])


def spread(items: Sequence[int], most: int) -> Launch:
    """At least so many work-items along each axis, in groups of up to ``most``, wide along the first axis."""
    group, room = [1, 1, 1], most
    for axis, wanted in enumerate(items):
        limit = min(room, 16 if axis == 0 and len(items) > 1 and items[1] > 1 else room)
        while group[axis] * 2 <= limit and group[axis] < wanted:
            group[axis] *= 2
        room //= group[axis]
    padded = [*items, *[1] * (3 - len(items))]
    rounded = [math.ceil(count / size) * size for count, size in zip(padded, group, strict=True)]
    return Launch((rounded[0], rounded[1], rounded[2]), (group[0], group[1], group[2]))


def group_size(work: int, most: int) -> int:
    """Work-items that share a piece of work: a power of two, with a few pieces for each."""
    size = 1
    while size * 2 <= most and size * 4 <= work:
        size *= 2
    return size
