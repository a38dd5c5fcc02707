"""What happens to results between the array and the memory, and to operators that never see the array.

Two stages stand behind the array, each of so many elements a cycle. ``streaming`` takes results as they come: it
applies an activation, or gathers the statistics of a normalisation or the exponentials and sums of a softmax.
``vectors`` then scales each vector once its last element has come. Vectors wait for that in a buffer of their own.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from .fitting import Plan, halves, sizes, tiles
from .memory import STREAMING, VECTORS, Interface
from .pipeline import Loop, Step, turns
from .specs import Tiled
from .workload import SCALED, Kind, Operand, Operation, TensorClass, Vectors

ACTIVATIONS = frozenset({"silu", "gelu", "sigmoid", "tanh", "exp", "erf"})
"""Fused work that takes the nonlinear unit."""


@dataclass(frozen=True)
class Task:
    """An operation, and the normalisation or softmax that takes its results before memory does."""

    operation: Operation
    behind: Operation | None = None

    @property
    def results(self) -> int:
        """Results of the array; a gate leaves fewer."""
        bounds = self.operation.bounds
        if isinstance(bounds, Vectors):
            return bounds.elements
        gemm = bounds.as_gemm()
        return gemm.batch * gemm.rows * gemm.columns

    def alone(self) -> Task:
        return Task(self.operation)

    @property
    def nameless(self) -> Hashable:
        """All of it but the names: equal for all that take equally long."""
        return self.operation.nameless, self.behind and self.behind.nameless

    @cached_property
    def residuals(self) -> tuple[Operand, ...]:
        """Operands of fused work as large as the result, which must come with it."""
        result = self.operation.result
        return tuple(operand for operand in self._fused() if operand.elements >= result.elements)

    def constants(self) -> dict[TensorClass, int]:
        """Bits of the small operands of fused work: biases, the timestep's row, scales and shifts."""
        found: dict[TensorClass, int] = {}
        for operand in self._fused():
            if operand.elements < self.operation.result.elements:
                found[operand.tensor_class] = found.get(operand.tensor_class, 0) + operand.size_bits
        return found

    def _fused(self) -> Iterator[Operand]:
        for operation in (self.operation, self.behind):
            for fused in operation.fused if operation else ():
                if fused.operand is not None:
                    yield fused.operand


class Drain:
    """Steps that take results from the array's accumulators (buffer "results") to memory."""

    def __init__(self, spec: Tiled, interface: Interface, task: Task) -> None:
        self._lanes, self._streams = spec.nonlinear.elements_per_cycle, spec.memory.streams
        self._vectors, self._element_bits = spec.buffers.vectors, spec.buffers.vector_element_bits
        self.interface, self.task = interface, task
        kept = Fraction(task.operation.result.elements, task.results)
        # Most tasks keep all, and whole numbers multiply ten times as fast.
        self._kept = kept.numerator if kept.denominator == 1 else kept
        self._active = any(fused.kind in ACTIVATIONS for fused in task.operation.fused)

    def slots(self, block: int) -> dict[str, int]:
        """Slots of the buffers on the way, where vectors come in blocks of so many results."""
        slots = {"results": 2, "kept": 2, "out": 2}
        if self.task.behind:
            slots["block"] = halves(
                "vectors", self._vectors, math.ceil(block * self._kept) * self._element_bits
            )
        return slots

    def tile(self, results: int) -> tuple[Step, ...]:
        """``results`` leave the array."""
        task, elements = self.task, math.ceil(results * self._kept)
        size = math.ceil(elements * task.operation.result.moved_bits)
        what = task.operation.result.tensor_class
        passing = Step(STREAMING, math.ceil(elements / self._lanes), takes=("results",), frees=("results",))
        if task.behind is None:
            if not self._active:
                return (self.interface.write(self._streams.output, size, what, "results"),)
            return (
                _filling(passing, "out"),
                self.interface.write(self._streams.output, size, what, "out"),
            )
        if task.operation.readers > 1:
            return (
                _filling(passing, "kept"),
                self.interface.write(self._streams.shortcut, size, what, "kept"),
            )
        return (passing,)

    def opened(self) -> tuple[Step, ...]:
        """Before the first results of a block of vectors."""
        return (Step(STREAMING, 0, claims=("block",)),) if self.task.behind else ()

    def closed(self, results: int) -> tuple[Step, ...]:
        """After the last of a block's ``results``."""
        behind = self.task.behind
        if behind is None:
            return ()
        elements = math.ceil(results * self._kept)
        scaling = Step(VECTORS, math.ceil(elements / self._lanes), takes=("block",), frees=("block",))
        size, what = math.ceil(elements * behind.result.moved_bits), behind.result.tensor_class
        return (
            Step(STREAMING, 0, fills=("block",)),
            _filling(scaling, "out"),
            self.interface.write(self._streams.output, size, what, "out"),
        )


def _filling(step: Step, buffer: str) -> Step:
    return step._replace(claims=(buffer,), fills=(buffer,))


def chunks(spec: Tiled, task: Task) -> Iterator[int]:
    """Elements that an operator without the array may take at a time; not all of them fit.

    Vectors that share statistics are taken whole, several at a time, or in parts and then read twice.
    """
    lanes, bounds = spec.nonlinear.elements_per_cycle, task.operation.bounds
    assert isinstance(bounds, Vectors)
    if task.operation.kind not in SCALED:
        yield from sizes(lanes, bounds.elements, 16)
        return
    yield from (size for size in sizes(lanes, bounds.length, 16) if size < bounds.length)
    yield from (count * bounds.length for count in sizes(1, bounds.count, 16))


def standalone(spec: Tiled, interface: Interface, task: Task, chunk: int) -> Plan:
    """An operator that the array has no part in, from memory to memory through the buffer for vectors.

    Raises Misfit if that does not hold ``chunk`` elements.
    """
    lanes, streams = spec.nonlinear.elements_per_cycle, spec.memory.streams
    operation, result, bounds = task.operation, task.operation.result, task.operation.bounds
    assert isinstance(bounds, Vectors)
    held = halves("vectors", spec.buffers.vectors, chunk * spec.buffers.vector_element_bits)
    sources = (*operation.operands, *task.residuals)
    read_bits = sum(operand.size_bits for operand in sources)
    source = max(sources, key=lambda operand: operand.size_bits).tensor_class

    def load(count: int) -> Step:
        return interface.read(streams.activations, -(-read_bits * count // bounds.elements), source, "in")

    def work(stage: str, count: int, taken: str, *filled: str) -> Step:
        return Step(stage, math.ceil(count / lanes), "", (taken,), filled, filled, (taken,))

    def store(count: int, taken: str) -> Step:
        return interface.write(
            streams.output, math.ceil(count * result.moved_bits), result.tensor_class, taken
        )

    def through(count: int) -> tuple[Step, ...]:
        match operation.kind:
            case Kind.MOVEMENT:
                return (load(count), store(count, "in"))
            case Kind.ACTIVATION | Kind.ELEMENTWISE:
                return (load(count), work(STREAMING, count, "in", "out"), store(count, "out"))
            case _:
                statistics, scaling = (
                    work(STREAMING, count, "in", "block"),
                    work(VECTORS, count, "block", "out"),
                )
                return (load(count), statistics, scaling, store(count, "out"))

    def nest() -> Iterator[Step | Loop]:
        if operation.kind in SCALED and chunk < bounds.length:
            yield from turns(bounds.count, in_parts())
            return
        for count, size in tiles(bounds.elements, chunk):
            yield from turns(count, through(size))

    def in_parts() -> Iterator[Step | Loop]:
        for count, size in tiles(bounds.length, chunk):
            yield from turns(count, (load(size), work(STREAMING, size, "in")))
        yield Step(STREAMING, 0, fills=("statistics",))
        yield Step(VECTORS, 0, takes=("statistics",))
        for count, size in tiles(bounds.length, chunk):
            yield from turns(count, (load(size), work(VECTORS, size, "in", "out"), store(size, "out")))

    constants = interface.read_once(streams.activations, task.constants())
    return Plan(lambda: [*constants, *nest()], {"in": held, "block": held, "out": 2, "statistics": 1})
