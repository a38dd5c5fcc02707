"""What work takes at least on a tiled core, whatever its buffers: a roofline that counts edges, without simulating.

An operation takes as long as its busiest unit: the array for its tiles, the nonlinear unit for results that pass it,
each port for every operand once, and the DRAM for all of them together. Nothing waits, nothing is fetched twice,
padding but that of the last word is left out, and what runs behind another operation comes free. Several cores have
equal parts of all of it, whatever the edges. Every plan that ``tiled.py`` can choose, and every division, takes at
least this.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction

from .actions import Actions
from .convolution import fetched_lines
from .memory import ARRAY, WRITE, Timing
from .nonlinear import ACTIVATIONS, Task
from .specs import Stream
from .tiled import TiledCore
from .workload import Convolution, Gemm, Kind, Operation, TensorClass, Vectors


def least(machine: TiledCore, chain: Sequence[Operation]) -> Iterator[tuple[Task, Timing]]:
    """A chain of operations (``workload.chains``), the first of which takes some time and the others none.

    ``machine`` is one of the cores.
    """
    operation, *behind = chain
    spec, interface = machine.spec, machine.interface
    streams, lanes = spec.memory.streams, spec.nonlinear.elements_per_cycle
    task, bounds, result = Task(operation), operation.bounds, operation.result
    words = Counter[str]()

    def cross(stream: Stream, bits: int | Fraction, channel: str = "") -> None:
        words[stream.port + channel] += interface.words(stream, math.ceil(bits))

    passing = bool(behind) or any(fused.kind in ACTIVATIONS for fused in operation.fused)
    array, actions = 0, Actions()
    if isinstance(bounds, Vectors):
        cross(streams.activations, sum(operand.size_bits for operand in operation.operands))
        cross(streams.output, bounds.elements * result.moved_bits, WRITE)
        passing = operation.kind is not Kind.MOVEMENT
    else:
        data, weights = operation.operands[:2]
        widths = machine.widths(operation)
        if isinstance(bounds, Convolution) and not bounds.pointwise:
            array = _convolution_cycles(machine, bounds, widths)
            per_output = bounds.inputs // bounds.groups * math.prod(bounds.kernel)
            line_bits = bounds.size[1] * bounds.inputs * data.bits
            cross(streams.activations, bounds.batch * fetched_lines(bounds) * line_bits)
            cross(streams.convolution_weights, bounds.outputs * per_output * weights.bits)
        else:
            gemm = bounds.as_gemm()
            array = _product_cycles(machine, gemm, widths)
            cross(streams.activations, gemm.batch * gemm.rows * gemm.reduction * data.moved_bits)
            cross(streams.matmul_weights, gemm.batch * gemm.reduction * gemm.columns * weights.bits)
        for residual in task.residuals:
            cross(streams.shortcut, task.results * residual.bits)
        if not behind:
            cross(streams.output, result.elements * result.moved_bits, WRITE)
        (first, several), (second, many) = machine.slices(widths)
        pairs = several * many
        actions = Actions(
            {(first, second): pairs * operation.macs}, machine.sum_bits, (pairs - 1) * operation.macs
        )
    elements = bounds.elements if isinstance(bounds, Vectors) else result.elements
    moved = sum(words.values())
    array = math.ceil(array / spec.cores)
    cycles = max(
        array,
        math.ceil(elements / lanes / spec.cores) if passing else 0,
        math.ceil(max(words.values(), default=0) / spec.cores),
        math.floor(interface.dram_cycles(moved) / spec.cores),
    )
    port_bytes = moved * spec.memory.port_bits // 8
    yield task, Timing(cycles, {ARRAY: array}, {TensorClass.ACTIVATIONS: port_bytes}, actions)


def _product_cycles(machine: TiledCore, gemm: Gemm, widths: tuple[int, int]) -> int:
    shape = machine.product(gemm, widths)
    tiles = math.ceil(gemm.rows / shape.rows) * math.ceil(gemm.columns / shape.columns)
    steps = math.ceil(gemm.reduction / shape.depth) * shape.slices
    return gemm.batch * tiles * steps * shape.cycles + machine.fill_cycles


def _convolution_cycles(machine: TiledCore, bounds: Convolution, widths: tuple[int, int]) -> int:
    window = machine.window(bounds, widths)
    tiles = math.ceil(bounds.outputs // bounds.groups / window.outputs)
    rows = bounds.batch * bounds.groups * bounds.rows
    return rows * tiles * window.row_cycles(bounds) + machine.fill_cycles
