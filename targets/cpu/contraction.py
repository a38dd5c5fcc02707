"""Matrix products and direct convolutions: a strided operand times packed panels.

out[rows..., column] = epilogue( sum over reduce... of A[rows..., reduce...] * B[reduce..., column] )

A convolution is this with rows (n, y, x) and reduction (ky, kx, channel): only the strides of A differ from a
matrix product's, so both are one template (implicit GEMM, as in GotoBLAS and oneDNN's direct convolution). A
register tile holds ``tile_rows`` x ``width`` sums; the last tile of a row axis starts early and overlaps its
neighbour instead of being cut short, so that there is one loop body.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tvm.script.ir_builder import tirx as T

from ...ir.formats import INTEGERS, format_called
from ..expressions import Expression
from ..packing import raised_by
from . import halves
from .dots import DOTS, add_products, left_factors, rows_of_lanes
from .kernel import Kernel, evaluate, flat, lane_chunks, local, raw, store, unflatten, words
from .register_tiles import Tile, panel_starts
from .unpack import Rows, Vector, items_of


@dataclass(frozen=True)
class SumsKernel(Kernel):
    """What every template of sums of products has to know, of A times B.

    ``rows``, ``reduce``    extents of the row and reduction axes, outermost first
    ``a_rows``, ``a_reduce``  the strides of A along them
    ``columns``             output columns (per part); ``parts`` is 2 when the epilogue joins two halves
    ``out_strides``         strides of out along the row axes and the column
    ``splits``              how many leading reduction axes are looped outside the tiles, to keep a slice of
                            the panel in the second-level cache
    ``blocks``              into how many blocks the rows are cut, each of which all panels pass by
    """

    rows: tuple[int, ...]
    a_rows: tuple[int, ...]
    reduce: tuple[int, ...]
    a_reduce: tuple[int, ...]
    columns: int
    parts: int
    out_strides: tuple[int, ...]
    epilogue: Expression
    splits: int
    blocks: int

    @property
    def _slice_depth(self) -> int:
        return math.prod(self.reduce[self.splits :])


@dataclass(frozen=True)
class Contraction(SumsKernel):
    """Operands: A, B in panels, out, [sums, with ``splits``], [factors, if ``opened``], [scales, with ``group``], then
    what the epilogue loads.

    Sums are float32, or int32 where both A and B are integers that have no ``group``.

    ``tile``                the register tile
    ``pieces``              into how many tasks the rows of a block and a panel are cut
    ``batch``               how many products of the same sizes there are, each with panels of its own, and how far
                            apart their A and their results are
    ``dot``                 the instruction, where a step of the reduction is a word of several numbers; strides of A
                            are then in words, too, and the panels are ``WordPanels``
    ``codes``               the format whose codes B are, if they are not numbers as they lie
    ``group``               how many steps of the reduction share a row of scales, if there are such
    ``opened``              whether a slice of a panel is opened once for all of a task's tiles, into room of its own
    ``workers``             among how many, then, the tasks are shared out
    ``run_axes``            how many of the last reduction axes are a run of products of float16 numbers that are added
                            up as such (halves.py); A and B are of these, and vectors twice as long as those of float32
    """

    tile: Tile
    pieces: int
    batch: tuple[int, int, int] = (1, 0, 0)
    dot: str | None = None
    codes: str | None = None
    group: int = 0
    opened: bool = False
    workers: int = 0
    run_axes: int = 0

    @property
    def run(self) -> int:
        """How many products are added up in float16."""
        return math.prod(self.reduce[-self.run_axes :]) if self.run_axes else 0

    @property
    def sums_dtype(self) -> str:
        integers = self.codes in INTEGERS or (self.codes is None and self.dtypes[1] == "int8")
        return "int32" if self.dtypes[0] == "int8" and integers and not self.group else "float32"

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

    @property
    def opened_factors(self) -> int:
        """Room for each worker's slice of a panel."""
        return self.workers * self._slice_depth * self._factors if self.opened else 0

    @property
    def _shared(self) -> int:
        """Rows whose sums share registers."""
        return 1 if self.dot is None else DOTS[self.dot].rows

    @property
    def _factors(self) -> int:
        """Of a step of the reduction, in numbers or words of 32 bits."""
        return self.tile.width * self._shared

    @property
    def _vectors(self) -> int:
        """Of sums, to a part of a tile's rows."""
        return self._factors // self.parts // self.tile.lanes

    @property
    def _row_items(self) -> int:
        return items_of(self.codes, self._factors)

    @property
    def _head_items(self) -> int:
        """Of what sums begin with, where that is not zero."""
        return 0 if self.dot is None or not DOTS[self.dot].bias else self.tile.width

    @property
    def _panel_items(self) -> int:
        return self._head_items + math.prod(self.reduce) * self._row_items

    @property
    def functions(self) -> str:
        return "" if self.dot is None else DOTS[self.dot].function(self.tile.lanes)

    def body(self, operands: Sequence[Any]) -> None:
        if self.dot is not None:
            operands = [words(operands[0], DOTS[self.dot].word), words(operands[1]), *operands[2:]]
        if self.run_axes:
            operands = [raw(operands[0]), raw(operands[1]), *operands[2:]]
        per_block = math.ceil(self.tiles / self.blocks)
        per_piece = math.ceil(per_block / self.pieces)
        extents = (self.batch[0], self.blocks, self.panels, self.pieces)
        tasks = math.prod(extents)
        share = math.ceil(tasks / self.workers) if self.opened else 1
        with T.parallel(0, math.ceil(tasks / share)) as worker:
            with T.serial(0, T.min(share, tasks - worker * share)) as turn:
                product, block, panel, piece = unflatten(worker * share + turn, extents)
                first = block * per_block + piece * per_piece
                end = T.min(T.min(first + per_piece, (block + 1) * per_block), self.tiles)
                with T.serial(0, math.prod(self.reduce[: self.splits])) as slice_index:
                    rows = self._rows(operands, product * self.panels + panel, slice_index)
                    if self.opened:
                        rows = self._open(rows, operands[3 + bool(self.splits)], worker)
                    with T.serial(0, T.max(end - first, 0)) as step:
                        self._tile(operands, rows, product, panel, first + step, slice_index)

    def _rows(self, operands: Sequence[Any], panel: Any, slice_index: Any) -> Rows:
        """What the steps of a slice multiply, as it lies in a panel."""
        before, width = slice_index * self._slice_depth, self._factors
        start = panel * self._panel_items + self._head_items + before * self._row_items
        scales = None
        if self.group:
            first = panel * math.ceil(math.prod(self.reduce) / self.group) * width
            scales = (operands[3 + bool(self.splits) + self.opened], first, self.group, before)
        dot = self.dot is not None
        return Rows(operands[1], start, width, self.tile.lanes, self.sums_dtype, self.codes, dot, scales)

    def _open(self, rows: Rows, room: Any, worker: Any) -> Rows:
        """The same, opened into the worker's room."""
        start = worker * (self._slice_depth * rows.width)
        with T.serial(0, self._slice_depth) as step:
            for index, factors in rows.opened(step):
                at = start + step * rows.width + index * self.tile.lanes
                T.buffer_store(room, factors, [T.Ramp(at, 1, self.tile.lanes)])
        return replace(rows, items=room, start=start, codes=None, scales=None)

    def _tile(
        self, operands: Sequence[Any], right: Rows, product: Any, panel: Any, index: Any, slice_index: Any
    ) -> None:
        lanes, groups = self.tile.lanes, self.tile.rows // self._shared
        sums = [
            [[local(lanes, self.sums_dtype) for _ in range(self._vectors)] for _ in range(self.parts)]
            for _ in range(groups)
        ]
        slots = list(itertools.product(range(groups), range(self.parts), range(self._vectors)))
        rows, first_row = self._row_coordinates(index)
        slices = math.prod(self.reduce[: self.splits])
        scratch = (panel * self.tiles + index) * (self.tile.rows * self.tile.width)

        def zero() -> None:
            head = (product * self.panels + panel) * self._panel_items
            for group, part, vector in slots:
                with T.vectorized(0, lanes) as lane:
                    at = head + (part * self._vectors + vector) * lanes + lane
                    begun = operands[1][at] if self._head_items else T.cast(0, self.sums_dtype)
                    T.buffer_store(sums[group][part][vector], begun, [lane])

        def resume() -> None:
            for place, (group, part, vector) in enumerate(slots):
                with T.vectorized(0, lanes) as lane:
                    saved = operands[3][scratch + place * lanes + lane]
                    T.buffer_store(sums[group][part][vector], saved, [lane])

        def suspend() -> None:
            for place, (group, part, vector) in enumerate(slots):
                with T.vectorized(0, lanes) as lane:
                    kept = sums[group][part][vector][lane]
                    T.buffer_store(operands[3], kept, [scratch + place * lanes + lane])

        def finish() -> None:
            self._store(operands, sums, product, panel, rows, first_row)

        if slices == 1:
            zero()
            self._accumulate(operands[0], right, sums, product, rows, first_row, slice_index)
            finish()
            return
        either(slice_index == 0, zero, resume)
        self._accumulate(operands[0], right, sums, product, rows, first_row, slice_index)
        either(slice_index == slices - 1, finish, suspend)

    def _row_coordinates(self, index: Any) -> tuple[list[Any], Any]:
        """Coordinates on the outer row axes, and the first row of the tile on the innermost."""
        bands = math.ceil(self.rows[-1] / self.tile.rows)
        outer = unflatten(index // bands, self.rows[:-1])
        return outer, T.min(index % bands * self.tile.rows, self.rows[-1] - self.tile.rows)

    def _accumulate(
        self, a: Any, right: Rows, sums: Any, product: Any, rows: list[Any], first_row: Any, slice_index: Any
    ) -> None:
        base = flat([product, *rows, first_row], (self.batch[1], *self.a_rows))
        # Words of A that are taken from lanes fill a vector.
        most = 8 if self.run_axes else 4 // self._shared
        unroll = next(u for u in (8, 4, 2, 1) if self.reduce[-1] % u == 0 and u <= most)
        inner = (*self.reduce[self.splits :][:-1], self.reduce[-1] // unroll)
        split = unflatten(slice_index, self.reduce[: self.splits])
        base = base + flat(split, self.a_reduce[: self.splits])
        inner_strides = (*self.a_reduce[self.splits :][:-1], self.a_reduce[-1] * unroll)
        summed = "float16" if self.run_axes else self.sums_dtype

        def steps(position: Any, a_at: Any, totals: halves.Totals) -> None:
            starts = [a_at + row * self.a_rows[-1] for row in range(self.tile.rows)]
            by_lane, lanes = self.tile.by_lane, self.tile.lanes
            lefts = left_factors(a, starts, self.a_reduce[-1], unroll, by_lane, self.dot, summed, lanes)
            for u in range(unroll):
                vectors = right.vectors(position * unroll + u)
                for group, (index, buffer, at) in self._paired(vectors, right.codes is not None):
                    total = totals[group][index // self._vectors][index % self._vectors]
                    own = [row[u] for row in lefts[group * self._shared :][: self._shared]]
                    add_products(total, own, buffer, at, self.tile.lanes, self.dot, summed)

        def loops(axis: int, position: Any, a_at: Any, totals: halves.Totals) -> None:
            if axis == len(inner):
                steps(position, a_at, totals)
            elif totals is sums and len(inner) - axis == self.run_axes:
                with halves.run(sums, self.tile.lanes) as short:
                    loops(axis, position, a_at, short)
            else:
                with T.serial(0, inner[axis]) as k:
                    loops(axis + 1, position * inner[axis] + k, a_at + k * inner_strides[axis], totals)

        loops(0, T.int32(0), base, sums)

    def _paired(self, vectors: Iterable[Vector], opening: bool) -> Iterator[tuple[int, Vector]]:
        """Each row (or those that share sums) with each vector: with all of them in turn, or all rows with each vector
        as it is opened.
        """
        groups = range(self.tile.rows // self._shared)
        if opening:
            return ((group, one) for one in vectors for group in groups)
        return iter(itertools.product(groups, vectors))

    def _store(
        self, operands: Sequence[Any], sums: Any, product: Any, panel: Any, rows: list[Any], first_row: Any
    ) -> None:
        part_width = self.tile.width // self.parts
        first_column = T.min(panel * part_width, max(self.columns - part_width, 0))
        kept = min(part_width, self.columns)
        apart = ([rows_of_lanes(part, self._shared, self.tile.lanes) for part in group] for group in sums)
        by_row = [parts for group in apart for parts in zip(*group, strict=True)]
        for row, parts in enumerate(by_row):
            for chunk, (start, width) in enumerate(lane_chunks(part_width, self.tile.lanes)):
                for first, lanes in lane_chunks(max(min(width, kept - start), 0), width):
                    with T.vectorized(0, lanes) as lane:
                        values = [self._whole(part[chunk][first + lane]) for part in parts]
                        at = [*rows, first_row + row, first_column + start + first + lane]
                        result = evaluate(self.epilogue, operands, at, values)
                        store(operands[2], result, flat([product, *at], (self.batch[2], *self.out_strides)))

    def _whole(self, total: Any) -> Any:
        """A sum, of products as they are."""
        if self.dot is None or self.codes is None:
            return total
        return T.shift_right(total, T.int32(raised_by(format_called(self.codes))))


def either(condition: Any, then: Any, otherwise: Any) -> None:
    with T.If(condition):
        with T.Then():
            then()
        with T.Else():
            otherwise()
