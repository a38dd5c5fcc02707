"""Weight-stationary convolution: filters stay in the array for one output row, pixels pass from a line buffer.

The array holds a kernel row of filters for as many outputs and inputs as it has columns and rows (10 x 20 on SDA);
a PE takes 3 taps of 2 neighbouring pixels a cycle, so that an output row of C pixels takes C / 2 cycles for each of
them, and the whole (M / 10) (N / 20) R (C / 2) 3 for a 3 x 3 kernel where nothing is left over. Off-chip traffic:

    filters       once, in groups of outputs: no more than their buffer holds and, before a normalisation, than the
                  vectors' buffer holds whole pictures of
    input         once for each such group, a line at a time; just once if the line buffer holds all of it
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import groupby

from .fitting import Misfit, Plan, halves, sizes, tiles
from .memory import ARRAY
from .nonlinear import Drain, Task
from .pipeline import Loop, Step, turns
from .specs import Tiled
from .workload import Convolution, Vectors


@dataclass(frozen=True)
class Shape:
    """What an array takes in a cycle of a convolution.

    ``pixels`` neighbours of an output row (a stride may leave a fraction of them) by ``taps`` of a kernel row by
    ``inputs`` by ``outputs`` channels; ``passes`` cycles for as many pairs of slices; ``reads`` bits of each memory.
    """

    inputs: int
    outputs: int
    taps: int
    pixels: Fraction
    passes: int
    reads: Mapping[str, Fraction]

    def row_cycles(self, bounds: Convolution) -> int:
        """Of an output row of one tile of outputs over all inputs."""
        kernel_rows, kernel_columns = bounds.kernel
        return (
            math.ceil(bounds.inputs // bounds.groups / self.inputs)
            * math.ceil(bounds.columns / self.pixels)
            * kernel_rows
            * math.ceil(kernel_columns / self.taps)
            * self.passes
        )


def groupings(task: Task, bounds: Convolution, shape: Shape) -> Iterator[int]:
    """Numbers of outputs that may share a pass over the input; not all of them fit.

    They are whole tiles of the array and, before a normalisation, whole groups of channels.
    """
    step = shape.outputs
    if task.behind:
        assert isinstance(task.behind.bounds, Vectors)
        step = math.lcm(step, task.behind.bounds.length // (bounds.rows * bounds.columns))
    yield from sizes(step, bounds.outputs // bounds.groups)


def plan(
    spec: Tiled, drain: Drain, opening: Sequence[Step], bounds: Convolution, shape: Shape, together: int
) -> Plan:
    """The nest of a convolution on an array of some shape, ``together`` outputs at a time, behind steps that come
    before all others.

    Raises Misfit if a buffer does not hold these outputs' filters, a residual's row or a kernel's lines.
    """
    buffers, streams = spec.buffers, spec.memory.streams
    interface, task = drain.interface, drain.task
    data, filters = task.operation.operands[:2]
    residual_bits = sum(operand.bits for operand in task.residuals)
    inputs, outputs = bounds.inputs // bounds.groups, bounds.outputs // bounds.groups
    tile_outputs = shape.outputs
    kernel_rows, kernel_columns = bounds.kernel
    row_cycles = shape.row_cycles(bounds)

    filter_bits = inputs * kernel_rows * kernel_columns * filters.bits
    height, width = bounds.size
    line_bits = width * inputs * data.bits
    kept_lines = max(0, kernel_rows - bounds.stride[0])
    resident = bounds.batch * height * line_bits <= buffers.lines
    line_slots = 2 if resident else min(2, (buffers.lines // line_bits - kept_lines) // bounds.stride[0])
    if line_slots < 1:
        raise Misfit("lines", buffers.lines, (kept_lines + bounds.stride[0]) * line_bits)
    slots = {
        "filters": halves("convolution_weights", buffers.convolution_weights, together * filter_bits),
        "lines": line_slots,
        "shortcut": halves("shortcut", buffers.shortcut, bounds.columns * together * residual_bits),
        **drain.slots(bounds.rows * bounds.columns * together),
    }
    residual = ("shortcut",) if residual_bits else ()
    phases = list(_lines(bounds))

    def arriving(outputs: int) -> Iterator[Step]:
        """The row whose filters come as it is worked on, their place claimed for the whole group at once.

        Tiles come at an even pace and are worked on at one, so that the array waits for the first or for the last.
        """
        for count, size in tiles(outputs, tile_outputs):
            words = interface.words(streams.convolution_weights, size * filter_bits)
            for fetched, used in ((1, count - 1), (count - 1, 1)):
                port, what = streams.convolution_weights.port, filters.tensor_class
                yield Step(port, fetched * words, what, fills=("filters",))
                yield Step(ARRAY, used * row_cycles, takes=("filters",))

    @cache
    def row(outputs: int, lines: int, first: bool) -> tuple[Step, ...]:
        """An output row; the very first one of a group takes each tile's filters as they come."""
        loading = [interface.read(streams.activations, lines * line_bits, data.tensor_class, "lines")]
        payloads = [(bounds.columns * outputs * one.bits, one.tensor_class) for one in task.residuals]
        shortcut = interface.read_together(streams.shortcut, payloads, "shortcut")
        held, freed = ("lines", *residual), (*(("lines",) if lines else ()), *residual)
        if first:
            started = Step(ARRAY, 0, takes=held, claims=("results",))
            products = started, *arriving(outputs), Step(ARRAY, 0, fills=("results",), frees=freed)
        else:
            cycles = math.ceil(outputs / tile_outputs) * row_cycles
            products = (Step(ARRAY, cycles, "", held, ("results",), ("results",), freed),)
        drained = drain.tile(bounds.columns * outputs)
        return *(loading if lines else ()), *shortcut, *products, *drained

    def picture(outputs: int, fetched: bool, loaded: bool) -> Iterator[Step | Loop]:
        yield from drain.opened()
        for number, (lines, rows) in enumerate(phases):
            lines = lines if loaded else 0
            if number == 0 and fetched:
                yield from row(outputs, lines, first=True)
                rows -= 1
            yield from turns(rows, row(outputs, lines, first=False))
        yield from drain.closed(bounds.rows * bounds.columns * outputs)

    def group(outputs: int, loaded: bool) -> Iterator[Step | Loop]:
        yield Step(streams.convolution_weights.port, 0, claims=("filters",))
        yield from picture(outputs, True, loaded)
        yield from turns(bounds.batch - 1, picture(outputs, False, loaded))
        yield Step(ARRAY, 0, frees=("filters",))

    def whole() -> Iterator[Step | Loop]:
        groups = list(tiles(outputs, together))
        if resident:
            yield from group(together, loaded=True)
            groups[0] = (groups[0][0] - 1, together)
        for count, size in groups:
            yield from turns(count, group(size, not resident))

    return Plan(lambda: [*opening, *turns(bounds.groups, whole())], slots, shape.reads, resident)


def fetched_lines(bounds: Convolution) -> int:
    """Lines of the input that a picture needs."""
    return sum(lines * rows for lines, rows in _lines(bounds))


def _lines(bounds: Convolution) -> Iterator[tuple[int, int]]:
    """(new input lines that an output row waits for, how many rows in turn wait for so many)."""
    height, (stride, _) = bounds.size[0], bounds.stride
    kernel = bounds.kernel[0]
    padding = max(0, (bounds.rows - 1) * stride + kernel - height) // 2
    needed = [min(height, row * stride + kernel - padding) for row in range(bounds.rows)]
    fresh = [after - before for before, after in zip([0, *needed], needed, strict=False)]
    for lines, rows in groupby(fresh):
        yield lines, len(list(rows))
