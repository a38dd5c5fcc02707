"""Matrix products and direct convolutions: a strided operand times packed panels.

out[rows..., column] = epilogue( sum over reduce... of A[rows..., reduce...] * B[reduce..., column] )

A convolution is this with rows (n, y, x) and reduction (ky, kx, channel): only the strides of A differ from a
matrix product's, so both are one template (implicit GEMM, as in GotoBLAS and oneDNN's direct convolution). A
register tile holds ``tile_rows`` x ``width`` sums; the last tile of a row axis starts early and overlaps its
neighbour instead of being cut short, so that there is one loop body.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tvm.script.ir_builder import tirx as T

from ..expressions import Expression
from ..profile import Profile
from .dots import add_products
from .kernel import Kernel, evaluate, factors, flat, lane_chunks, local, store, unflatten, words


@dataclass(frozen=True)
class Tile:
    """A register tile: ``rows`` x ``width`` sums in vectors of ``lanes``.

    With ``by_lane``, the elements of A of several reduction steps are loaded as a vector.
    """

    rows: int
    width: int
    lanes: int
    by_lane: bool = False


def choose_tile(rows: int, columns: int, parts: int, profile: Profile, held: int = 1) -> Tile:
    """The register tile with the least predicted cycles for ``rows`` x ``columns`` sums.

    ``held`` is how many registers a vector of factors takes.

    Per reduction step a core issues multiply-adds and loads at its rates, and needs some cycles before a sum can be
    added to again; a vector of the panel comes from the second-level cache and costs about half a cycle that is not
    hidden, an element of A about an eighth. Where elements of A are taken from lanes, each row has a register of them.
    """
    lanes, registers = profile.vector_lanes, profile.vector_registers
    best: tuple[float, int, Tile] | None = None
    for vectors in (2, 3, 4, 1, 6, 8):
        if vectors % parts:
            continue
        width = vectors * lanes
        most = min(most_rows(vectors, profile, held=held), rows)
        if most < 1:
            continue
        panels = math.ceil(columns * parts / width)
        for limit in range(1, most + 1):
            bands = math.ceil(rows / limit)
            height = math.ceil(rows / bands)
            loads = height / (lanes if profile.by_lane else 1) + vectors
            busy = max(height * vectors / profile.fma_rate, loads / profile.load_rate, profile.fma_latency)
            step = busy + vectors / 2 + height / 8
            cost = bands * panels * step
            if best is None or cost < best[0]:
                best = (cost, vectors, Tile(height, width, lanes, profile.by_lane))
    if best is None:
        raise ValueError(f"no register tile of {parts} parts fits {registers} registers")
    return best[2]


def most_rows(vectors: int, profile: Profile, rows_a_factor: int = 1, held: int = 1) -> int:
    """Rows of sums, ``vectors`` wide, that registers hold beside one row of the other operand and the factors.

    Of those it is one at a time, or where they are taken from lanes, a register for each ``rows_a_factor`` rows. Where
    each takes more registers than one, ``held``, so does what is made of them on the way.
    """
    free = profile.vector_registers - held * vectors - (held - 1)
    if profile.by_lane:
        return free * rows_a_factor // (vectors * rows_a_factor + held)
    return (free - held) // vectors


def panel_starts(columns: int, width: int) -> tuple[int, ...]:
    """First columns of the panels: the last panel ends with the last column, overlapping its neighbour."""
    return tuple(min(start, max(columns - width, 0)) for start in range(0, columns, width))


@dataclass(frozen=True)
class Contraction(Kernel):
    """Operands: A, B in panels, out, [scratch when ``splits`` > 1], then what the epilogue loads.

    Sums are float32, or int32 where both A and B are int8.

    ``rows``, ``reduce``    extents of the row and reduction axes, outermost first
    ``a_rows``, ``a_reduce``  the strides of A along them
    ``columns``             output columns (per part); ``parts`` is 2 when the epilogue joins two halves
    ``out_strides``         strides of out along the row axes and the column
    ``splits``              how many leading reduction axes are looped outside the tiles, to keep a slice of
                            the panel in the second-level cache
    ``blocks``              into how many blocks the rows are cut, each of which all panels pass by
    ``pieces``              into how many tasks the rows of a block and a panel are cut
    ``batch``               how many products of the same sizes there are, each with panels of its own, and how far
                            apart their A and their results are
    ``dot``                 the instruction, where a step of the reduction is a word of four int8 numbers; strides of
                            A are then in words, too, and the panels are ``Quads``
    """

    rows: tuple[int, ...]
    a_rows: tuple[int, ...]
    reduce: tuple[int, ...]
    a_reduce: tuple[int, ...]
    columns: int
    parts: int
    tile: Tile
    out_strides: tuple[int, ...]
    epilogue: Expression
    splits: int
    blocks: int
    pieces: int
    batch: tuple[int, int, int] = (1, 0, 0)
    dot: str | None = None

    @property
    def sums_dtype(self) -> str:
        return "int32" if self.dtypes[:2] == ("int8", "int8") else "float32"

    @property
    def tiles(self) -> int:
        return math.prod(self.rows[:-1]) * math.ceil(self.rows[-1] / self.tile.rows)

    @property
    def panels(self) -> int:
        return len(panel_starts(self.columns, self.tile.width // self.parts))

    @property
    def scratch_floats(self) -> int:
        """Room for the partial sums between two slices of the reduction."""
        return self.panels * self.tiles * self.tile.rows * self.tile.width if self.splits else 0

    def body(self, operands: Sequence[Any]) -> None:
        if self.dot is not None:
            operands = [words(operands[0]), words(operands[1]), *operands[2:]]
        per_block = math.ceil(self.tiles / self.blocks)
        per_piece = math.ceil(per_block / self.pieces)
        extents = (self.batch[0], self.blocks, self.panels, self.pieces)
        with T.parallel(0, math.prod(extents)) as task:
            product, block, panel, piece = unflatten(task, extents)
            first = block * per_block + piece * per_piece
            end = T.min(T.min(first + per_piece, (block + 1) * per_block), self.tiles)
            with T.serial(0, math.prod(self.reduce[: self.splits])) as slice_index:
                with T.serial(0, T.max(end - first, 0)) as step:
                    self._tile(operands, product, panel, first + step, slice_index)

    def _tile(self, operands: Sequence[Any], product: Any, panel: Any, index: Any, slice_index: Any) -> None:
        part_width = self.tile.width // self.parts
        chunks = lane_chunks(part_width, self.tile.lanes)
        sums = [
            [[local(width, self.sums_dtype) for _, width in chunks] for _ in range(self.parts)]
            for _ in range(self.tile.rows)
        ]
        slots = [
            (row, part, chunk)
            for row in range(self.tile.rows)
            for part in range(self.parts)
            for chunk in range(len(chunks))
        ]
        rows, first_row = self._row_coordinates(index)
        slices = math.prod(self.reduce[: self.splits])
        scratch = (panel * self.tiles + index) * (self.tile.rows * self.tile.width)

        def scratch_at(row: int, part: int, chunk: int, lane: Any) -> Any:
            return scratch + row * self.tile.width + part * part_width + chunks[chunk][0] + lane

        def zero() -> None:
            for row, part, chunk in slots:
                start, width = chunks[chunk]
                with T.vectorized(0, width) as lane:
                    at = self._panel_start(product, panel) + part * part_width + start + lane
                    begun = T.cast(0, self.sums_dtype) if self.dot is None else operands[1][at]
                    T.buffer_store(sums[row][part][chunk], begun, [lane])

        def resume() -> None:
            for row, part, chunk in slots:
                with T.vectorized(0, chunks[chunk][1]) as lane:
                    saved = operands[3][scratch_at(row, part, chunk, lane)]
                    T.buffer_store(sums[row][part][chunk], saved, [lane])

        def suspend() -> None:
            for row, part, chunk in slots:
                with T.vectorized(0, chunks[chunk][1]) as lane:
                    at = scratch_at(row, part, chunk, lane)
                    T.buffer_store(operands[3], sums[row][part][chunk][lane], [at])

        def finish() -> None:
            self._store(operands, sums, product, panel, rows, first_row)

        if slices == 1:
            zero()
            self._accumulate(operands, sums, product, panel, rows, first_row, slice_index)
            finish()
            return
        either(slice_index == 0, zero, resume)
        self._accumulate(operands, sums, product, panel, rows, first_row, slice_index)
        either(slice_index == slices - 1, finish, suspend)

    def _panel_start(self, product: Any, panel: Any) -> Any:
        depth = math.prod(self.reduce)
        return (product * self.panels + panel) * (depth if self.dot is None else depth + 1) * self.tile.width

    def _row_coordinates(self, index: Any) -> tuple[list[Any], Any]:
        """Coordinates on the outer row axes, and the first row of the tile on the innermost."""
        bands = math.ceil(self.rows[-1] / self.tile.rows)
        outer = unflatten(index // bands, self.rows[:-1])
        return outer, T.min(index % bands * self.tile.rows, self.rows[-1] - self.tile.rows)

    def _accumulate(
        self,
        operands: Sequence[Any],
        sums: Any,
        product: Any,
        panel: Any,
        rows: list[Any],
        first_row: Any,
        slice_index: Any,
    ) -> None:
        a, b = operands[0], operands[1]
        part_width = self.tile.width // self.parts
        chunks = lane_chunks(part_width, self.tile.lanes)
        base = flat([product, *rows, first_row], (self.batch[1], *self.a_rows))
        unroll = next(u for u in (4, 2, 1) if self.reduce[-1] % u == 0)
        inner = (*self.reduce[self.splits :][:-1], self.reduce[-1] // unroll)
        slice_depth = math.prod(self.reduce[self.splits :])
        first = self._panel_start(product, panel) + (0 if self.dot is None else self.tile.width)
        split = unflatten(slice_index, self.reduce[: self.splits])
        base = base + flat(split, self.a_reduce[: self.splits])
        inner_strides = (*self.a_reduce[self.splits :][:-1], self.a_reduce[-1] * unroll)

        def steps(position: Any, a_at: Any) -> None:
            starts = [a_at + row * self.a_rows[-1] for row in range(self.tile.rows)]
            lefts = factors(a, starts, self.a_reduce[-1], unroll, self.tile.by_lane, self.sums_dtype)
            for u in range(unroll):
                b_at = first + (slice_index * slice_depth + position * unroll + u) * self.tile.width
                for row in range(self.tile.rows):
                    left = lefts[row][u]
                    for part in range(self.parts):
                        for chunk, (start, width) in enumerate(chunks):
                            at = b_at + part * part_width + start
                            total = sums[row][part][chunk]
                            add_products(total, left, b, at, width, self.dot, self.sums_dtype)

        def loops(axis: int, position: Any, a_at: Any) -> None:
            if axis == len(inner):
                steps(position, a_at)
                return
            with T.serial(0, inner[axis]) as k:
                loops(axis + 1, position * inner[axis] + k, a_at + k * inner_strides[axis])

        loops(0, T.int32(0), base)

    def _store(
        self, operands: Sequence[Any], sums: Any, product: Any, panel: Any, rows: list[Any], first_row: Any
    ) -> None:
        part_width = self.tile.width // self.parts
        first_column = T.min(panel * part_width, max(self.columns - part_width, 0))
        kept = min(part_width, self.columns)
        for row in range(self.tile.rows):
            for chunk, (start, width) in enumerate(lane_chunks(part_width, self.tile.lanes)):
                for first, lanes in lane_chunks(max(min(width, kept - start), 0), width):
                    with T.vectorized(0, lanes) as lane:
                        values = [sums[row][part][chunk][first + lane] for part in range(self.parts)]
                        at = [*rows, first_row + row, first_column + start + first + lane]
                        result = evaluate(self.epilogue, operands, at, values)
                        store(operands[2], result, flat([product, *at], (self.batch[2], *self.out_strides)))


def either(condition: Any, then: Any, otherwise: Any) -> None:
    with T.If(condition):
        with T.Then():
            then()
        with T.Else():
            otherwise()
