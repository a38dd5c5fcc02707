"""Output-stationary products: a tile of results stays in the array while the reduction streams through it.

A tile is as many rows and columns as the array has, times what a PE packs (40 x 20 on SDA); it takes a cycle for each
step of the reduction and pass, R N M / 800 in all where nothing is left over. Which operand stays in the array while a
tile is worked on is the core's affair (``Shape.reads``). The rows of a block are loaded once and
held while the second operand streams by, column tile by column tile. What buffers hold of the second operand decides
how often it is loaded:

    "step"    no more than it takes to feed the array: once for each tile of rows
    "tile"    a column tile: once for each block of as many rows as the first operand's buffer holds
    "all"     once
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from .fitting import Plan, halves, sizes, tiles
from .memory import ARRAY
from .nonlinear import Drain, Task
from .pipeline import Loop, Step, turns
from .specs import Tiled
from .workload import Gemm


@dataclass(frozen=True)
class Shape:
    """What an array does in a cycle of a product, cut to the product's own size.

    ``rows``, ``columns``   results that it works on at a time
    ``depth``               terms of their sums that it takes at once: a step of the reduction
    ``slices``              slices of the second operand, each a step of its own
    ``cycles``              cycles of a step: one for each slice of the first operand
    ``reads``               bits that a cycle takes from each memory on the chip
    """

    rows: int
    columns: int
    depth: int
    slices: int
    cycles: int
    reads: Mapping[str, Fraction]


@dataclass(frozen=True)
class Tiling:
    """Rows of the first and how much of the second operand stay on the chip at a time."""

    rows: int
    kept: Literal["step", "tile", "all"]


def tilings(spec: Tiled, task: Task, gemm: Gemm, shape: Shape) -> Iterator[Tiling]:
    """All that are worth a try; the first needs least of the buffers, and not all of them fit."""
    first, second = task.operation.operands[:2]
    yield Tiling(shape.rows, "step")
    if shape.columns * gemm.reduction * second.bits <= spec.buffers.matmul_weights:
        for rows in sizes(shape.rows, gemm.rows):
            if rows * gemm.reduction * first.bits <= spec.buffers.matmul_activations:
                yield Tiling(rows, "tile")
        yield Tiling(shape.rows, "all")


def plan(
    spec: Tiled, drain: Drain, opening: Sequence[Step], gemm: Gemm, shape: Shape, tiling: Tiling
) -> Plan:
    """The nest of a product on an array of some shape, behind steps that come before all others.

    Raises Misfit if a buffer does not hold what the tiling keeps.
    """
    buffers, streams = spec.buffers, spec.memory.streams
    interface, task = drain.interface, drain.task
    first, second = task.operation.operands[:2]
    residual_bits = sum(operand.bits for operand in task.residuals)
    steps = math.ceil(gemm.reduction / shape.depth) * shape.slices

    def panel_bits(columns: int, depth: int) -> int:
        return math.ceil(columns * depth * second.bits / shape.slices)

    depth = shape.depth if tiling.kept == "step" else gemm.reduction * shape.slices
    block_bits = tiling.rows * gemm.reduction * first.bits
    slots = {
        "activations": halves("matmul_activations", buffers.matmul_activations, block_bits),
        "weights": halves("matmul_weights", buffers.matmul_weights, panel_bits(shape.columns, depth)),
        "shortcut": halves("shortcut", buffers.shortcut, shape.rows * shape.columns * residual_bits),
        **drain.slots(tiling.rows * gemm.columns),
    }
    resident = tiling.kept == "all"
    if resident:
        slots["operand"] = halves(
            "matmul_weights", buffers.matmul_weights, gemm.columns * gemm.reduction * second.bits
        )
    residual = ("shortcut",) if residual_bits else ()

    def shortcut(rows: int, columns: int) -> Iterator[Step]:
        payloads = [(rows * columns * one.bits, one.tensor_class) for one in task.residuals]
        yield from interface.read_together(streams.shortcut, payloads, "shortcut")

    def fetch(columns: int) -> Step:
        return interface.read(
            streams.matmul_weights, panel_bits(columns, depth), second.tensor_class, "weights"
        )

    def held(rows: int, columns: int) -> Iterator[Step | Loop]:
        """Tiles of a block's rows against a column tile that stays."""
        for count, high in tiles(rows, shape.rows):
            multiply = Step(
                ARRAY, steps * shape.cycles, takes=("activations", "weights", *residual),
                claims=("results",), fills=("results",), frees=residual,
            )  # fmt: skip
            yield from turns(count, (*shortcut(high, columns), multiply, *drain.tile(high * columns)))

    def streamed(rows: int, columns: int) -> Iterator[Step | Loop]:
        """One tile against a column tile that comes a step at a time."""
        yield from shortcut(rows, columns)
        yield Step(ARRAY, 0, takes=("activations", *residual), claims=("results",))
        multiply = Step(ARRAY, shape.cycles, takes=("weights",), frees=("weights",))
        yield from turns(steps, (fetch(columns), multiply))
        yield Step(ARRAY, 0, fills=("results",), frees=residual)
        yield from drain.tile(rows * columns)

    def column_tile(rows: int, columns: int, fetched: bool) -> Iterator[Step | Loop]:
        if tiling.kept == "step":
            yield from streamed(rows, columns)
        elif fetched:
            yield fetch(columns)
            yield from held(rows, columns)
            yield Step(ARRAY, 0, frees=("weights",))
        else:
            yield from held(rows, columns)

    def block(rows: int, fetched: bool) -> Iterator[Step | Loop]:
        size = math.ceil(rows * gemm.reduction * first.moved_bits)
        yield interface.read(streams.activations, size, first.tensor_class, "activations")
        yield from drain.opened()
        for count, columns in tiles(gemm.columns, shape.columns):
            yield from turns(count, column_tile(rows, columns, fetched))
        yield Step(ARRAY, 0, frees=("activations",))
        yield from drain.closed(rows * gemm.columns)

    def product() -> Iterator[Step | Loop]:
        blocks = list(tiles(gemm.rows, tiling.rows))
        if resident:
            yield Step(streams.matmul_weights.port, 0, claims=("operand",))
            yield from block(tiling.rows, fetched=True)
            blocks[0] = (blocks[0][0] - 1, tiling.rows)
        for count, high in blocks:
            yield from turns(count, block(high, not resident))
        if resident:
            yield Step(ARRAY, 0, frees=("operand",))

    return Plan(lambda: [*opening, *turns(gemm.batch, product())], slots, shape.reads)
