"""Output-stationary products: a tile of results stays in the array while the reduction streams through it.

A tile is as many rows and columns as the array has, times what a PE packs (40 x 20 on SDA); it takes a cycle for each
step of the reduction and pass, R N M / 800 in all where nothing is left over. The rows of a block are loaded once and
held while the second operand streams by, column tile by column tile. What buffers hold of the second operand decides
how often it is loaded:

    "step"    no more than it takes to feed the array: once for each tile of rows
    "tile"    a column tile: once for each block of as many rows as the first operand's buffer holds
    "all"     once
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .fitting import Plan, halves, sizes, tiles
from .memory import ARRAY, Interface
from .nonlinear import Drain, Task
from .pipeline import Loop, Step
from .specs import HybridSystolic
from .workload import Gemm


@dataclass(frozen=True)
class Tiling:
    """Rows of the first and how much of the second operand stay on the chip at a time."""

    rows: int
    kept: Literal["step", "tile", "all"]


def tilings(spec: HybridSystolic, task: Task, gemm: Gemm) -> Iterator[Tiling]:
    """All that are worth a try; the first needs least of the buffers, and not all of them fit."""
    tile_rows, tile_columns = _tile(spec, gemm)
    first, second = task.operation.operands[:2]
    yield Tiling(tile_rows, "step")
    if tile_columns * gemm.reduction * second.bits <= spec.buffers.matmul_weights:
        for rows in sizes(tile_rows, gemm.rows):
            if rows * gemm.reduction * first.bits <= spec.buffers.matmul_activations:
                yield Tiling(rows, "tile")
        yield Tiling(tile_rows, "all")


def _tile(spec: HybridSystolic, gemm: Gemm) -> tuple[int, int]:
    array = spec.array
    return (
        min(gemm.rows, array.sub_array_rows * array.pe_rows * array.matmul_rows),
        min(gemm.columns, array.sub_array_columns * array.pe_columns * array.matmul_columns),
    )


def plan(
    spec: HybridSystolic,
    interface: Interface,
    task: Task,
    gemm: Gemm,
    widths: tuple[int, int],
    tiling: Tiling,
) -> Plan:
    """The nest of a product whose operands have ``widths`` bits in the array.

    Raises Misfit if a buffer does not hold what the tiling keeps.
    """
    array, buffers, streams = spec.array, spec.buffers, spec.memory.streams
    drain = Drain(spec, interface, task)
    first, second = task.operation.operands[:2]
    residual_bits = sum(operand.bits for operand in task.residuals)
    tile_rows, tile_columns = _tile(spec, gemm)
    # A step of the reduction takes one slice of the second operand, as wide as a weight slot.
    slices = math.ceil(widths[1] / array.weight_slot_bits)
    cycles = math.ceil(widths[0] / (array.activation_slot_bits * array.multiplies_per_pe))
    steps = gemm.reduction * slices

    def panel_bits(columns: int, count: int) -> int:
        return math.ceil(columns * count * second.bits / slices)

    part = 1 if tiling.kept == "step" else steps
    whole = panel_bits(gemm.columns, steps)
    block_bits = tiling.rows * gemm.reduction * first.bits
    slots = {
        "activations": halves("matmul_activations", buffers.matmul_activations, block_bits),
        "weights": halves("matmul_weights", buffers.matmul_weights, panel_bits(tile_columns, part)),
        "shortcut": halves("shortcut", buffers.shortcut, tile_rows * tile_columns * residual_bits),
        **drain.slots(tiling.rows * gemm.columns),
    }
    resident = tiling.kept == "all"
    if resident:
        slots["operand"] = halves("matmul_weights", buffers.matmul_weights, whole)
    residual = ("shortcut",) if residual_bits else ()

    def shortcut(rows: int, columns: int) -> Iterator[Step]:
        payloads = [(rows * columns * one.bits, one.tensor_class) for one in task.residuals]
        yield from interface.read_together(streams.shortcut, payloads, "shortcut")

    def fetch(columns: int, count: int) -> Step:
        return interface.read(
            streams.matmul_weights, panel_bits(columns, count), second.tensor_class, "weights"
        )

    def held(rows: int, columns: int) -> Iterator[Step | Loop]:
        """Tiles of a block's rows against a column tile that stays."""
        for count, high in tiles(rows, tile_rows):
            multiply = Step(
                ARRAY, steps * cycles, takes=("activations", "weights", *residual),
                claims=("results",), fills=("results",), frees=residual,
            )  # fmt: skip
            yield Loop(count, (*shortcut(high, columns), multiply, *drain.tile(high * columns)))

    def streamed(rows: int, columns: int) -> Iterator[Step | Loop]:
        """One tile against a column tile that comes a step at a time."""
        yield from shortcut(rows, columns)
        yield Step(ARRAY, 0, takes=("activations", *residual), claims=("results",))
        multiply = Step(ARRAY, cycles, takes=("weights",), frees=("weights",))
        yield Loop(steps, (fetch(columns, 1), multiply))
        yield Step(ARRAY, 0, fills=("results",), frees=residual)
        yield from drain.tile(rows * columns)

    def column_tile(rows: int, columns: int, fetched: bool) -> Iterator[Step | Loop]:
        if tiling.kept == "step":
            yield from streamed(rows, columns)
        elif fetched:
            yield fetch(columns, steps)
            yield from held(rows, columns)
            yield Step(ARRAY, 0, frees=("weights",))
        else:
            yield from held(rows, columns)

    def block(rows: int, fetched: bool) -> Iterator[Step | Loop]:
        size = rows * gemm.reduction * first.bits
        yield interface.read(streams.activations, size, first.tensor_class, "activations")
        yield from drain.opened()
        for count, columns in tiles(gemm.columns, tile_columns):
            yield Loop(count, tuple(column_tile(rows, columns, fetched)))
        yield Step(ARRAY, 0, frees=("activations",))
        yield from drain.closed(rows * gemm.columns)

    def product() -> Iterator[Step | Loop]:
        blocks = list(tiles(gemm.rows, tiling.rows))
        if resident:
            yield Step(streams.matmul_weights.port, 0, claims=("operand",))
            yield from block(tiling.rows, fetched=True)
            blocks[0] = (blocks[0][0] - 1, tiling.rows)
        for count, high in blocks:
            yield Loop(count, tuple(block(high, not resident)))
        if resident:
            yield Step(ARRAY, 0, frees=("operand",))

    constants = [
        Step(streams.matmul_weights.port, interface.words(streams.matmul_weights, bits), what)
        for what, bits in task.constants().items()
    ]
    fill = Step(ARRAY, array.fill_cycles, "fill")
    return Plan([*constants, fill, Loop(gemm.batch, tuple(product()))], slots)
