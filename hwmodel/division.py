"""One operation on several equal cores: each takes a part, and all are done before any begins the next.

A task is divided along one of its dimensions, whichever costs least. A dimension will do if its parts need nothing
of each other: images and heads, rows or columns of a product, lines or outputs of a convolution, vectors. What runs
behind a product forbids those that would divide a vector.

    operands   what the division does not divide each core fetches for itself; neighbouring lines of a convolution
               share an edge, which both fetch
    DRAM       each core has an equal share of its bandwidth, and ports of its own
    time       that of the largest part; where parts are not equal, the others wait
    energy     actions and bytes of all parts

A reduction is never divided: partial sums would have to cross from core to core.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from .actions import Actions
from .fitting import Misfit
from .in_order import InOrder
from .memory import Interface, Timing
from .nonlinear import Task
from .tiled import TiledCore
from .workload import SCALED, Bounds, Convolution, Fused, Gemm, Operand, Operation, TensorClass, Vectors


@dataclass(frozen=True)
class Dimension:
    """``size`` equal pieces of an operation. ``part`` has the bounds of so many; ``divides`` says of both operands of a
    product whether it divides them. Along ``channels`` it divides biases and the like as well.
    """

    size: int
    part: Callable[[int], Bounds]
    divides: tuple[bool, bool] = (True, False)
    channels: bool = False


class SideBySide(InOrder):
    """``cores`` cores, each like ``one``, whose interface has its share of the DRAM already."""

    def __init__(self, one: TiledCore) -> None:
        self.name, self._one, self._cores = one.spec.name, one, one.spec.cores
        self._whole = Interface(one.spec.memory, one.spec.clock_hz)
        self._known: dict[Hashable, Timing | Misfit] = {}

    def cost(self, timing: Timing) -> float:
        return self._whole.cost(timing)

    def time(self, task: Task) -> Timing:
        if task.nameless not in self._known:
            self._known[task.nameless] = self._time(task)
        timing = self._known[task.nameless]
        if isinstance(timing, Misfit):
            raise timing.with_traceback(None)
        return timing

    def _time(self, task: Task) -> Timing | Misfit:
        found, misfits = list[Timing](), list[Misfit]()
        for dimension in dimensions(task):
            parts = [
                (part_of(task, dimension, size), count) for size, count in shares(dimension.size, self._cores)
            ]
            try:
                found.append(_together((self._one.time(part), count) for part, count in parts))
            except Misfit as misfit:
                misfits.append(misfit)
        return min(found, key=self.cost) if found else misfits[0]


def shares(total: int, cores: int) -> list[tuple[int, int]]:
    """(size, how many) of the parts, the larger first; nothing empty."""
    least, more = divmod(total, cores)
    return [(size, count) for size, count in ((least + 1, more), (least, cores - more)) if size and count]


def _together(parts: Iterable[tuple[Timing, int]]) -> Timing:
    """Of parts, the largest first, each so often."""
    known = list(parts)
    largest = known[0][0]
    ema, sram = Counter[TensorClass](), Counter[str]()
    products = Counter[tuple[int, int]]()
    combines = elements = wires = 0
    for timing, count in known:
        actions = timing.actions
        ema.update({one: size * count for one, size in timing.ema_bytes.items()})
        sram.update({buffer: bits * count for buffer, bits in actions.sram_bits.items()})
        products.update({widths: often * count for widths, often in actions.products.items()})
        combines += actions.combines * count
        elements += actions.elements * count
        wires += actions.wire_bits * count
    actions = Actions(products, largest.actions.sum_bits, combines, elements, sram, wires)
    return Timing(largest.cycles, largest.busy, ema, actions)


def dimensions(task: Task) -> Iterator[Dimension]:
    """Along which a task may be divided."""
    bounds = task.operation.bounds
    behind = task.behind.bounds if task.behind else None
    length = behind.length if isinstance(behind, Vectors) else 1
    if isinstance(bounds, Vectors):
        if task.operation.kind in SCALED:
            yield Dimension(bounds.count, lambda count: replace(bounds, count=count))
        else:
            yield Dimension(bounds.elements, lambda count: Vectors(1, count))
    elif isinstance(bounds, Convolution) and not bounds.pointwise:
        yield from _of_convolution(bounds, length)
    else:
        yield from _of_product(bounds.as_gemm(), length)


def _of_product(gemm: Gemm, length: int) -> Iterator[Dimension]:
    """``length`` is that of the vectors behind, rows of the product, or 1."""
    yield Dimension(gemm.batch, lambda count: replace(gemm, batch=count), (True, True))
    yield Dimension(gemm.rows, lambda count: replace(gemm, rows=count))
    if length == 1:
        yield Dimension(
            gemm.columns, lambda count: replace(gemm, columns=count), (False, True), channels=True
        )


def _of_convolution(bounds: Convolution, length: int) -> Iterator[Dimension]:
    """``length`` is that of the vectors behind, whole images of some outputs each, or 1."""
    yield Dimension(bounds.batch, lambda count: replace(bounds, batch=count))
    if bounds.groups == 1:
        grain = max(1, length // (bounds.rows * bounds.columns))
        yield Dimension(
            bounds.outputs // grain,
            lambda count: replace(bounds, outputs=count * grain), (False, True), channels=True,
        )  # fmt: skip
    if length == 1:
        yield Dimension(bounds.rows, lambda count: _lines(bounds, count))


def _lines(bounds: Convolution, count: int) -> Convolution:
    """Lines of the output, and those of the input that they are made of."""
    needed = (count - 1) * bounds.stride[0] + bounds.kernel[0]
    return replace(bounds, rows=count, size=(min(bounds.size[0], needed), bounds.size[1]))


def part_of(task: Task, dimension: Dimension, count: int) -> Task:
    """So many pieces of a task."""
    share = Fraction(count, dimension.size)
    part = _divided(task.operation, dimension, share, dimension.part(count))
    if task.behind is None:
        return Task(part)
    vectors = task.behind.bounds
    assert isinstance(vectors, Vectors)
    rest = replace(vectors, count=int(vectors.count * share))
    return Task(part, _divided(task.behind, dimension, share, rest))


def _divided(operation: Operation, dimension: Dimension, share: Fraction, bounds: Bounds) -> Operation:
    def part(operand: Operand, divided: bool) -> Operand:
        if not divided:
            return operand
        return replace(operand, value=f"{operand.value}/part", elements=math.ceil(operand.elements * share))

    def large(operand: Operand) -> bool:
        return operand.elements >= operation.result.elements

    def fused(work: Fused) -> Fused:
        operand = work.operand
        return replace(work, operand=operand and part(operand, dimension.channels or large(operand)))

    divides = dimension.divides if operation.macs else map(large, operation.operands)
    return replace(
        operation,
        bounds=bounds,
        operands=tuple(map(part, operation.operands, divides)),
        result=part(operation.result, True),
        fused=tuple(map(fused, operation.fused)),
    )
